"""The GraphQL API of a webserver: launch runs, read their status, reload locations."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from gql.transport.exceptions import TransportConnectionFailed

FINISHED = ("SUCCESS", "FAILURE", "CANCELED")

LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""


# DagsterGraphQLClient launches runs as well, but a selection that Dagster refuses is a KeyError there.
LAUNCH = """mutation($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on InvalidSubsetError { message } ... on UnauthorizedError { message }
    ... on RunConfigValidationInvalid { errors { message } } } }"""


class LaunchError(Exception):
    """Dagster refused to launch a run."""


class UnreachableError(Exception):
    """The webserver does not accept connections, or its storage does not."""


class GraphqlApi:
    """The GraphQL API of the webserver on a port of the loopback interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"
        self.client = DagsterGraphQLClient("127.0.0.1", port, timeout=60)

    def query(self, text: str, **variables: Any) -> Any:
        """Return the data of the response to a query.

        Raises:
            UnreachableError: the webserver does not accept connections, or has no data.
        """
        payload = {"query": text, "variables": variables}
        try:
            response = requests.post(self.url, json=payload, timeout=60).json()
        except requests.ConnectionError as error:
            raise UnreachableError(str(error)) from error
        if response.get("data") is None:
            raise UnreachableError(f"no data: {response}")
        return response["data"]

    def launch(
        self,
        location: str,
        *assets: Sequence[str],
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> str:
        """Launch a run of a location's assets, all of them if none is named, and return its id.

        Raises:
            LaunchError: Dagster refused to launch the run, with the type of the error and its message.
            UnreachableError: the webserver does not accept connections, or has no data.
        """
        selector = {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": asset} for asset in assets] or None,
        }
        metadata = {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]}
        parameters = {
            "selector": selector,
            "runConfigData": run_config or {},
            "executionMetadata": metadata,
        }
        result = self.query(LAUNCH, parameters=parameters)["launchRun"]
        if "run" not in result:
            raise LaunchError(f"{result['__typename']}: {result.get('message', result)}")
        return str(result["run"]["runId"])

    def status(self, run: str) -> str:
        """Return the status of a run.

        Raises:
            UnreachableError: the webserver does not accept connections.
        """
        with _unreachable_if_refused():
            return self.client.get_run_status(run).value

    def reload(self, location: str) -> None:
        """Reload a location; no error is raised if it cannot be loaded.

        Raises:
            UnreachableError: the webserver does not accept connections.
        """
        with _unreachable_if_refused():
            self.client.reload_repository_location(location)

    def load_errors(self) -> dict[str, str | None]:
        """Return the error of each location, None for one that is loaded, "" for one that loads."""
        entries = self.query(LOCATIONS)["workspaceOrError"]["locationEntries"]
        return {entry["name"]: _load_error(entry) for entry in entries}


@contextmanager
def _unreachable_if_refused() -> Iterator[None]:
    try:
        yield
    except DagsterGraphQLClientError as error:
        if isinstance(error.__cause__, TransportConnectionFailed):
            raise UnreachableError(str(error)) from error
        raise


def _load_error(entry: Mapping[str, Any]) -> str | None:
    if entry["loadStatus"] != "LOADED" or not entry["locationOrLoadError"]:
        return ""
    if entry["locationOrLoadError"]["__typename"] == "RepositoryLocation":
        return None
    return str(entry["locationOrLoadError"]["message"])
