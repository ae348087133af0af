"""A warehouse on a server: its settings, its locks, and what a missing part says."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from dlt.dataset.utils import get_destination_client_initial_config

from shared import warehouse
from shared.redaction import redact
from shared.sources.partitions import PartitionKey
from shared.sources.simple import simple_source
from shared.warehouse.destinations.configuration import SUPPORTED_TYPES, resolve_configuration
from shared.warehouse.destinations.factory import create_destination
from shared.warehouse.locks.postgres import PostgresLockManager
from support.processes import python

OWN_LOCKS = """
import sys
from shared.warehouse.locks.postgres import PostgresLockManager
locks = PostgresLockManager("numbers", print, sys.argv[1], "the other run")
with locks.partition_lock({"daily": ["mon"]}), locks.dataset_lock():
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def lock_owner(address: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that owns Monday's partition lock and the dataset lock; kill it at the end."""
    with subprocess.Popen(
        [python(), "-c", OWN_LOCKS, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def locks_of(address: str, logged: list[str] | None = None) -> PostgresLockManager:
    return PostgresLockManager(
        "numbers", (logged if logged is not None else []).append, address, "this run"
    )


def test_a_run_waits_for_another_of_its_partition_and_logs_its_owner(
    postgres_warehouse: str,
) -> None:
    logged: list[str] = []
    with lock_owner(postgres_warehouse) as other:
        release = threading.Timer(1, other.kill)  # as if its machine were gone
        release.start()
        with locks_of(postgres_warehouse, logged).partition_lock({"daily": ["mon"]}):
            assert other.wait(5) == -signal.SIGKILL
    assert logged == [
        "Waiting for the partition lock of numbers (owner: the other run on 127.0.0.1)"
    ]


def test_runs_of_other_partitions_and_other_tables_do_not_wait(postgres_warehouse: str) -> None:
    logged: list[str] = []
    with lock_owner(postgres_warehouse):
        with locks_of(postgres_warehouse, logged).partition_lock(
            {"daily": ["tue", "wed"], "hourly": ["mon"]}
        ):
            pass
        with locks_of(postgres_warehouse, logged).partition_lock({"pipeline numbers": []}):
            pass
    assert logged == []


@pytest.mark.parametrize("values", [[], ["mon"], [str(number) for number in range(5_000)]])
def test_waiting_times_out_however_much_a_run_replaces(
    postgres_warehouse: str, values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0.2")
    with (
        lock_owner(postgres_warehouse),
        pytest.raises(warehouse.LockTimeoutError, match="the other run on 127"),
        locks_of(postgres_warehouse).partition_lock({"daily": values}),
    ):
        pytest.fail("another run owns the lock")


def test_loads_of_a_dataset_are_serialized_and_those_of_others_do_not_wait(
    postgres_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0.2")
    with lock_owner(postgres_warehouse):
        with PostgresLockManager("words", print, postgres_warehouse, "this run").dataset_lock():
            pass
        with (
            pytest.raises(
                warehouse.LockTimeoutError,
                match=r"the lock of dataset numbers \(owner: the other run",
            ),
            locks_of(postgres_warehouse).dataset_lock(),
        ):
            pytest.fail("another run owns the lock")


def test_a_run_whose_connection_ended_has_lost_its_lock_and_loads_nothing(
    postgres_warehouse: str,
) -> None:
    locks = locks_of(postgres_warehouse)
    with locks.partition_lock({"daily": ["mon"]}):
        with psycopg2.connect(postgres_warehouse) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'this run'"
            )
        with (
            pytest.raises(warehouse.WarehouseConnectionError, match="lost its lock"),
            locks.dataset_lock(),
        ):
            pytest.fail("it has no lock")


def load_run() -> warehouse.LoadRun:
    """Return a load of the simple source that has not begun."""
    spec = warehouse.pipeline("a_pipeline", "a_dataset")
    return warehouse.LoadRun(warehouse.plan_load(spec, simple_source()))


def run_alone(run_environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Load the simple source in a separate process, as a run does."""
    code = """
from shared import warehouse
from shared.sources.simple import simple_source
declared = warehouse.pipeline("simple_pipeline", dataset_name="simple")
warehouse.load(warehouse.plan_load(declared, simple_source()))
"""
    return subprocess.run(
        [python(), "-c", code],
        env={**os.environ, **run_environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_misspelled_type_fails_with_the_variable_and_a_suggestion(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgress")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    with pytest.raises(warehouse.WarehouseConfigError) as caught:
        load_run()
    assert "WAREHOUSE_TYPE is 'postgress'" in str(caught.value)
    assert "Did you mean postgres?" in str(caught.value)
    assert not list(tmp_warehouse.glob("warehouse*"))


NEEDED = {
    "postgres": "DESTINATION__WAREHOUSE__CREDENTIALS",
    "filesystem": "DESTINATION__WAREHOUSE__BUCKET_URL",
}


@pytest.mark.parametrize("kind", NEEDED)
def test_a_missing_credential_is_named_before_any_request(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", kind)
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    with pytest.raises(warehouse.WarehouseConfigError) as caught:
        load_run()
    assert f"WAREHOUSE_TYPE is {kind}, and {NEEDED[kind]} is not set" in str(caught.value)
    assert not list(tmp_warehouse.glob("warehouse*"))


def test_a_missing_part_of_credentials_is_named(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tmp_warehouse
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", "postgresql://me@127.0.0.1/x")
    with pytest.raises(warehouse.WarehouseConfigError, match="CREDENTIALS__PASSWORD is not set"):
        load_run()


def test_a_server_that_does_not_answer_fails_without_the_password_in_the_message(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tmp_warehouse
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    address = "postgresql://me:s3cret-of-mine@127.0.0.1:9/x"
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", address)
    opened = load_run()
    with pytest.raises(warehouse.WarehouseConnectionError) as caught, opened.partition_lock():
        pytest.fail("nothing listens there")
    assert "port 9" in str(caught.value)
    assert "DESTINATION__WAREHOUSE__CREDENTIALS" in str(caught.value)
    assert "s3cret-of-mine" not in str(caught.value)
    with pytest.raises(warehouse.WarehouseConnectionError, match="port 9"):
        warehouse.query("FROM a_dataset.a_table")
    assert redact("password s3cret-of-mine") == "password ***"


def test_a_forgotten_type_does_not_create_a_file_instead_of_a_server(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", "postgresql://me:secret@127.0.0.1/x")
    with pytest.raises(warehouse.WarehouseConfigError, match="WAREHOUSE_TYPE is duckdb"):
        load_run()
    assert not list(tmp_warehouse.glob("warehouse*"))


@pytest.mark.parametrize("kind", ["tmp_warehouse", "postgres_warehouse"])
@pytest.mark.parametrize("setting", ["REPLACE_STRATEGY", "PREFERRED_LOADER_FILE_FORMAT"])
def test_a_setting_that_the_warehouse_decides_is_to_be_unset(
    request: pytest.FixtureRequest, kind: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(kind)
    monkeypatch.setenv(f"DESTINATION__WAREHOUSE__{setting}", "truncate-and-insert")
    with pytest.raises(warehouse.WarehouseConfigError, match=f"{setting} is set") as caught:
        load_run()
    assert "Unset it" in str(caught.value)
    assert "WAREHOUSE_TYPE" not in str(caught.value)


def test_the_environment_decides_the_warehouse_and_not_the_stored_state(
    postgres_warehouse: str, tmp_warehouse: Path
) -> None:
    file = {"WAREHOUSE_TYPE": "duckdb", "DESTINATION__WAREHOUSE__CREDENTIALS": ""}
    # The state that dlt stored names a file; the environment names a server, and the other way round.
    for settings in (file, {}, file):
        done = run_alone(settings)
        assert done.returncode == 0, done.stderr
    with psycopg2.connect(postgres_warehouse) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM simple._dlt_loads")
        assert cursor.fetchone() == (1,)
    assert (tmp_warehouse / "warehouse.duckdb").exists()


def test_a_replaced_table_is_never_empty_for_a_reader(postgres_warehouse: str) -> None:
    """A snapshot that is older than a load still sees the old rows."""
    assert run_alone({}).returncode == 0
    reader = psycopg2.connect(postgres_warehouse)
    try:
        reader.set_session(isolation_level="REPEATABLE READ")
        with reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM simple._dlt_loads")
            assert run_alone({}).returncode == 0
            cursor.execute("SELECT count(*) FROM simple.load_dict")
            assert cursor.fetchone() == (2,)
    finally:
        reader.close()


CREDENTIALS: dict[str, dict[str, str]] = {
    "motherduck": {"CREDENTIALS": "md:lake?motherduck_token=token"},
    "snowflake": {"CREDENTIALS": "snowflake://me:secret@account/database?warehouse=small&role=r"},
    "bigquery": {
        "CREDENTIALS__PROJECT_ID": "p",
        "CREDENTIALS__PRIVATE_KEY": "k",
        "CREDENTIALS__CLIENT_EMAIL": "me@example.com",
    },
    "clickhouse": {"CREDENTIALS": "clickhouse://me:secret@127.0.0.1:9000/lake"},
    "databricks": {
        "CREDENTIALS__SERVER_HOSTNAME": "host",
        "CREDENTIALS__HTTP_PATH": "/sql",
        "CREDENTIALS__ACCESS_TOKEN": "token",
        "CREDENTIALS__CATALOG": "lake",
    },
}


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_cloud_destinations_have_the_capabilities_that_exact_loads_need(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """They are created and their capabilities are checked, without a connection."""
    assert tmp_warehouse
    monkeypatch.setenv("WAREHOUSE_TYPE", kind)
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    for name, value in CREDENTIALS[kind].items():
        monkeypatch.setenv(f"DESTINATION__WAREHOUSE__{name}", value)
    destination: Any = create_destination()
    assert destination.destination_name == "warehouse"
    assert destination.destination_type == f"dlt.destinations.{kind}"
    configuration = destination.configuration(
        get_destination_client_initial_config(destination, "a_dataset")
    )
    # Each machine has its own staging dataset: only the runs of one machine are serialized.
    assert configuration.staging_dataset_name_layout.startswith("%s_staging_")
    capabilities = destination.capabilities()
    assert "delete-insert" in capabilities.supported_merge_strategies
    assert "insert-from-staging" in capabilities.supported_replace_strategies
    assert "parquet" in capabilities.supported_loader_file_formats
    partitions = tuple(map(PartitionKey, ("mon", "a;b'")))
    rows = warehouse.PartitionScope("r", ("r",), {"": "day"}, partitions)
    condition = rows.to_sql(capabilities.sqlglot_dialect, capabilities.escape_identifier)
    assert ";" not in condition


def test_a_destination_whose_packages_are_missing_names_the_command_to_add_them(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tmp_warehouse
    monkeypatch.setenv("WAREHOUSE_TYPE", "clickhouse")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv(
        "DESTINATION__WAREHOUSE__CREDENTIALS", CREDENTIALS["clickhouse"]["CREDENTIALS"]
    )
    with pytest.raises(warehouse.WarehouseConfigError, match=r"uv add .*'dlt\[clickhouse\]'"):
        resolve_configuration(create_destination(), "a_dataset")


def test_every_type_is_a_destination_of_dlt() -> None:
    import dlt

    assert all(hasattr(dlt.destinations, kind) for kind in SUPPORTED_TYPES)


def test_a_password_in_a_connection_string_is_redacted_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = "postgresql://me:p%40ssword-1@127.0.0.1/x"
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", address)
    assert urlsplit(address).password == "p%40ssword-1"
    for text in (address, "p%40ssword-1", "p@ssword-1"):
        assert redact(f"<{text}>") == "<***>"
