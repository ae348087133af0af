"""Dagster on a server: its runs, events and schedules stand in Postgres, and survive what dies."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg2
import pytest
import yaml

from shared.cli import code_locations
from shared.testing.postgres_server import PostgresServer
from torture.harness import DevServer

LAUNCH = """mutation($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server of the test's own, which it may stop."""
    with PostgresServer(tmp_path) as server:
        yield server


@pytest.fixture
def server_environment(
    root: Path, postgres: PostgresServer, process_environment: dict[str, str]
) -> dict[str, str]:
    """The environment of a server: the shipped instance file, and a database for it."""
    home = Path(process_environment["DAGSTER_HOME"])
    (home / "dagster.yaml").write_text((root / "deploy" / "dagster.yaml").read_text())
    return {**process_environment, "DAGSTER_POSTGRES_URL": postgres.database()}


def rows(environment: dict[str, str], sql: str) -> list[tuple[Any, ...]]:
    address = environment["DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")
    connection = psycopg2.connect(address)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


def materialise(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    home = Path(environment["DAGSTER_HOME"])
    command = ["asset", "materialize", "-m", "simple_etl.definitions", "--select", "*"]
    return subprocess.run(
        [sys.executable, "-m", "dagster", *command],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_runs_and_events_stand_in_postgres_and_outlive_its_crash(
    server_environment: dict[str, str], postgres: PostgresServer
) -> None:
    for _ in range(2):
        done = materialise(server_environment)
        assert done.returncode == 0, done.stderr
        postgres.stop("immediate")
        postgres.start()
    assert rows(server_environment, "SELECT status FROM runs") == [("SUCCESS",)] * 2
    ((events,),) = rows(
        server_environment,
        "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'",
    )
    assert events == 2
    home = Path(server_environment["DAGSTER_HOME"])
    assert not list(home.rglob("*.db"))  # nothing of it stands in SQLite


def test_an_address_must_name_the_driver(server_environment: dict[str, str]) -> None:
    bare = server_environment["DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")
    done = materialise({**server_environment, "DAGSTER_POSTGRES_URL": bare})
    assert done.returncode == 1
    assert "No module named 'psycopg'" in done.stderr


def test_a_missing_address_is_named(server_environment: dict[str, str]) -> None:
    del server_environment["DAGSTER_POSTGRES_URL"]
    done = materialise(server_environment)
    assert done.returncode == 1
    assert "DAGSTER_POSTGRES_URL" in done.stderr


def test_queued_runs_end_right_on_a_server(
    root: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    dagster = [sys.executable, "-m", "dagster"]
    with DevServer(dagster, root, server_environment, tmp_path / "dev.log") as server:
        assert server.loaded_locations()
        parameters = {
            "selector": {
                "repositoryLocationName": "simple_etl",
                "repositoryName": "__repository__",
                "pipelineName": "__ASSET_JOB",
            }
        }
        launched = [
            server.graphql(LAUNCH, parameters=parameters)["launchRun"]["run"]["runId"]
            for _ in range(3)
        ]

        def over() -> bool:
            statuses = [server.graphql(STATUS, id=run)["runOrError"]["status"] for run in launched]
            return set(statuses) <= {"SUCCESS", "FAILURE", "CANCELED"}

        server.wait_for(over)
    assert rows(server_environment, "SELECT status FROM runs") == [("SUCCESS",)] * 3


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


NODES = """{ assetNodes { assetKey { path } description
    repository { location { name } } } }"""
RELOAD = "mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"


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


def test_a_location_that_dies_or_changes_touches_no_other(
    root: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    workspace = yaml.safe_load((root / "deploy" / "workspace.yaml").read_text())
    entries = [entry["grpc_server"] for entry in workspace["load_from"]]
    assert {entry["location_name"] for entry in entries} == set(code_locations())
    # Their own addresses are the shipped ones; here the ports are free ones.
    environment = {**server_environment, "DROP_FOLDER": str(root / "data" / "drop")}
    with ExitStack() as servers:
        running = {
            entry["location_name"]: servers.enter_context(
                CodeServer(entry["location_name"], environment, tmp_path / "servers.log")
            )
            for entry in entries
        }
        for entry in entries:
            entry["port"] = running[entry["location_name"]].port
        (tmp_path / "workspace.yaml").write_text(yaml.safe_dump(workspace))
        dagster = [sys.executable, "-m", "dagster"]
        with DevServer(dagster, tmp_path, environment, tmp_path / "dev.log") as server:

            def all_loaded() -> bool:
                if server.loaded_locations() == set(code_locations()):
                    return True
                for name in code_locations():
                    server.graphql(RELOAD, name=name)
                return False

            server.wait_for(all_loaded)
            assert ended(server, launch(server, "simple_etl", ["simple", "load_dict"])) == "SUCCESS"

            running["csv_etl"].kill()
            assert ended(server, launch(server, "simple_etl", ["simple", "load_dict"])) == "SUCCESS"
            running["csv_etl"].start()
            server.wait_for(all_loaded)

            running["simple_etl"].kill()
            running["simple_etl"].start(version="version_two")

            def renewed() -> bool:
                nodes = server.graphql(NODES)["assetNodes"]
                return any(node["description"] == "version_two" for node in nodes)

            def reloaded() -> bool:
                server.graphql(RELOAD, name="simple_etl")
                return renewed()

            server.wait_for(reloaded)
            # The others' servers are still those that were started before.
            assert running["api_etl"].process.poll() is None
            assert (
                ended(server, launch(server, "csv_etl", ["csv_data", "import_file"])) == "SUCCESS"
            )
            assert ended(server, launch(server, "simple_etl", ["simple", "load_dict"])) == "SUCCESS"
    assert ("SUCCESS",) in rows(server_environment, "SELECT status FROM runs")


def test_a_server_differs_from_a_laptop_in_what_a_server_needs(root: Path) -> None:
    laptop = yaml.safe_load((root / "dagster.yaml").read_text())
    server = yaml.safe_load((root / "deploy" / "dagster.yaml").read_text())
    assert {name for name in server if server[name] != laptop.get(name)} == {
        "storage",
        "run_monitoring",
        "run_retries",
        "retention",
    }
    assert laptop.keys() <= server.keys()


def test_the_page_names_every_variable_of_the_instance(root: Path) -> None:
    used = re.findall(r"env: (\w+)", (root / "deploy" / "dagster.yaml").read_text())
    page = (root / "docs" / "on-a-server.md").read_text()
    assert used
    assert all(f"`{name}`" in page for name in used)
