"""Dagster on a server: runs, events and schedules are stored in Postgres and survive crashes."""

import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from shared.cli.locations import code_locations
from shared.testing.postgres_server import PostgresServer
from support.graphql import FINISHED
from support.processes import python
from support.servers import CodeServer, DagsterDev, query_postgres


def materialize(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    home = Path(environment["DAGSTER_HOME"])
    command = ["asset", "materialize", "-m", "simple_etl.definitions", "--select", "*"]
    return subprocess.run(
        [python(), "-m", "dagster", *command],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_runs_and_events_are_stored_in_postgres_and_survive_its_crash(
    server_environment: dict[str, str], postgres: PostgresServer
) -> None:
    for _ in range(2):
        done = materialize(server_environment)
        assert done.returncode == 0, done.stderr
        postgres.stop("immediate")
        postgres.start()
    assert query_postgres(server_environment, "SELECT status FROM runs") == [("SUCCESS",)] * 2
    ((events,),) = query_postgres(
        server_environment,
        "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'",
    )
    assert events == 2
    home = Path(server_environment["DAGSTER_HOME"])
    assert not list(home.rglob("*.db"))  # nothing is stored in SQLite


def test_the_connection_string_must_name_the_driver(server_environment: dict[str, str]) -> None:
    bare = server_environment["DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")
    done = materialize({**server_environment, "DAGSTER_POSTGRES_URL": bare})
    assert done.returncode == 1
    assert "No module named 'psycopg'" in done.stderr


def test_the_error_names_the_variable_of_a_missing_connection_string(
    server_environment: dict[str, str],
) -> None:
    del server_environment["DAGSTER_POSTGRES_URL"]
    done = materialize(server_environment)
    assert done.returncode == 1
    assert "DAGSTER_POSTGRES_URL" in done.stderr


@pytest.mark.slow
def test_queued_runs_succeed_on_a_server(
    root: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    with DagsterDev(root, server_environment, tmp_path / "dev.log") as server:
        assert server.loaded_locations()
        runs = [server.api.launch("simple_etl") for _ in range(3)]
        server.wait_for(lambda: {server.api.status(run) for run in runs} <= set(FINISHED))
    assert query_postgres(server_environment, "SELECT status FROM runs") == [("SUCCESS",)] * 3


def load_people(server: DagsterDev) -> str:
    """Run the asset of simple_etl and return the final status of the run."""
    return server.final_status(server.launch("simple_etl", ["simple", "load_dict"]))


def version_two(folder: Path) -> Path:
    """Write a version of simple_etl's code with another description, and return the file."""
    file = folder / "version_two.py"
    file.write_text(
        "import dagster as dg\n"
        "@dg.asset(key=['simple', 'load_dict'], description='version_two')\n"
        "def load_dict() -> None: ...\n"
        "defs = dg.Definitions([load_dict])\n"
    )
    return file


NODES = """{ assetNodes { assetKey { path } description
    repository { location { name } } } }"""


@pytest.mark.slow
def test_a_location_that_dies_or_changes_does_not_affect_the_others(
    root: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    workspace = yaml.safe_load((root / "deploy" / "workspace.yaml").read_text())
    entries = [entry["grpc_server"] for entry in workspace["load_from"]]
    deployed = {entry["location_name"] for entry in entries}
    assert deployed <= set(code_locations())
    # The test replaces the shipped ports by free ports.
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
        with DagsterDev(tmp_path, environment, tmp_path / "dev.log") as server:

            def all_loaded() -> bool:
                if server.loaded_locations() == deployed:
                    return True
                for name in deployed:
                    server.api.reload(name)
                return False

            server.wait_for(all_loaded)
            assert load_people(server) == "SUCCESS"

            running["csv_etl"].kill()
            assert load_people(server) == "SUCCESS"
            running["csv_etl"].start()
            server.wait_for(all_loaded)

            running["simple_etl"].kill()
            running["simple_etl"].serve("-f", str(version_two(tmp_path)))
            running["simple_etl"].start()

            def has_new_version() -> bool:
                nodes = server.api.query(NODES)["assetNodes"]
                return any(node["description"] == "version_two" for node in nodes)

            def reload() -> bool:
                server.api.reload("simple_etl")
                return has_new_version()

            server.wait_for(reload)
            # The server of another location was not restarted.
            assert running["api_etl"].process.poll() is None
            assert (
                server.final_status(server.launch("csv_etl", ["csv_data", "import_file"]))
                == "SUCCESS"
            )
            assert load_people(server) == "SUCCESS"
    assert ("SUCCESS",) in query_postgres(server_environment, "SELECT status FROM runs")


def test_the_instance_of_a_server_differs_from_a_laptop_only_where_needed(root: Path) -> None:
    laptop = yaml.safe_load((root / "dagster.yaml").read_text())
    server = yaml.safe_load((root / "deploy" / "dagster.yaml").read_text())
    assert {name for name in server if server[name] != laptop.get(name)} == {
        "storage",
        "run_coordinator",
        "run_monitoring",
        "run_retries",
        "retention",
    }
    # A server may have runs on other hosts, whose processes its daemon cannot see.
    assert laptop.keys() - server.keys() == {"run_launcher"}


def test_the_documentation_names_every_variable_of_the_instance(root: Path) -> None:
    used = re.findall(r"env: (\w+)", (root / "deploy" / "dagster.yaml").read_text())
    page = (root / "docs" / "on-a-server.md").read_text()
    assert used
    assert all(f"`{name}`" in page for name in used)
