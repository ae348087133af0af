"""Pytest fixtures for any team's tests; pytest finds them by itself once `shared` is installed."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from shared.testing.neows_server import NeowsServer
from shared.testing.postgres_server import PostgresServer


@pytest.fixture
def warehouse_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points every setting of the workspace into the test's own folder, and returns that folder.

    The warehouse is warehouse.duckdb in it, the drop folder an empty drop/.
    """
    (tmp_path / "drop").mkdir()
    monkeypatch.setenv("WAREHOUSE_TYPE", "duckdb")
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "warehouse.duckdb"))
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path / "drop"))
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "60")
    monkeypatch.setenv("NASA_BASE_URL", "http://127.0.0.1:9")  # nothing listens: no test asks NASA
    monkeypatch.setenv("NASA_API_KEY", "DEMO_KEY")  # whatever a .env file says
    return tmp_path


@pytest.fixture(scope="session")
def warehouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres server for the warehouses of all tests, each in a database of its own."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def on_postgres(
    warehouse_folder: Path, warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Makes the warehouse an empty Postgres database, and returns its address."""
    del warehouse_folder  # its settings come first
    # dlt asks for a password, whether or not the server does.
    address = warehouse_server.database().replace("+psycopg2", "").replace("@", ":postgres@")
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", address)
    return address


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on disk, in the test's own folder."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


@pytest.fixture
def neows_server(
    warehouse_folder: Path,  # noqa: ARG001 - its setting of the address comes first
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[NeowsServer]:
    """A NeoWs server that api_etl asks for the length of the test, without waits between retries."""
    with NeowsServer() as server:
        monkeypatch.setenv("NASA_BASE_URL", server.url)
        monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0")
        yield server
