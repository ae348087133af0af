"""What tests of a server's parts share: its locations' own servers, and asking its webserver."""

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psycopg2

from torture.harness import DevServer

LAUNCH = """mutation($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
RELOAD = "mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"


def rows(
    environment: Mapping[str, str], sql: str, of: str = "DAGSTER_POSTGRES_URL"
) -> list[tuple[Any, ...]]:
    address = environment[of].replace("+psycopg2", "")
    connection = psycopg2.connect(address)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


class CodeServer:
    """A location's own server, `dagster api grpc`, while entered as a context."""

    def __init__(self, location: str, environment: dict[str, str], log: Path) -> None:
        self.location, self.environment, self.log = location, environment, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, version: str = "") -> None:
        """Starts it, with code that tells this version in the description of its load_dict."""
        module = ["-m", f"{self.location}.definitions"]
        if version:
            file = self.log.with_name(f"{version}.py")
            file.write_text(
                "import dagster as dg\n"
                f"@dg.asset(key=['simple', 'load_dict'], description='{version}')\n"
                "def load_dict() -> None: ...\n"
                "defs = dg.Definitions([load_dict])\n"
            )
            module = ["-f", str(file)]
        command = [sys.executable, "-m", "dagster", "api", "grpc", *module]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "-p", str(self.port), "--location-name", self.location],
                env=self.environment,
                cwd=self.log.parent,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


def launch(server: DevServer, location: str, key: list[str]) -> str:
    """Launches a location's asset and returns the run's id."""
    parameters = {
        "selector": {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": key}],
        }
    }

    def launched() -> str | None:
        answer = server.graphql(LAUNCH, parameters=parameters)["launchRun"]
        if "run" not in answer:  # the location has just come back, and the webserver not noticed
            server.graphql(RELOAD, name=location)
            return None
        return str(answer["run"]["runId"])

    return str(server.wait_for(launched, seconds=120))


def ended(server: DevServer, run: str) -> str:
    """Returns a run's status, once it is over."""

    def over() -> str | None:
        status: str = server.graphql(STATUS, id=run)["runOrError"]["status"]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    return str(server.wait_for(over))
