"""Pytest fixtures for the tests of any team. Pytest loads them if `shared` is installed."""

import json
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import duckdb
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from shared.testing.mariadb_server import MariaDbServer, missing_program
from shared.testing.other_databases import MariaDbDatabase, SqliteDatabase
from shared.testing.postgres_server import PostgresServer
from shared.testing.source_database import SourceDatabase, created_database


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the warehouse types of the tests of exact loads."""
    parser.addoption(
        "--warehouses",
        default="duckdb,postgres",
        help="Warehouse types for tests that run on each type; ducklake has its own environment.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses `any_warehouse` once on each type of the option.

    In a module with `SLOW_ON_SERVERS = True`, runs on other types than DuckDB are slow tests.
    """
    if "any_warehouse" in metafunc.fixturenames:
        slow = [pytest.mark.slow] if getattr(metafunc.module, "SLOW_ON_SERVERS", False) else []
        types = metafunc.config.getoption("warehouses").split(",")
        runs = [pytest.param(kind, marks=slow if kind != "duckdb" else []) for kind in types]
        metafunc.parametrize("any_warehouse", runs, indirect=True)


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Let Dagster read the scripts of its migrations once, not for each instance of a test.

    It creates an instance for each `materialize`; with this that takes a fifth of the time.
    """
    read: dict[str | None, ScriptDirectory] = {}
    original = ScriptDirectory.from_config

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in read:
            read[location] = original(config)
        return read[location]

    with pytest.MonkeyPatch.context() as patch:
        method: Any = staticmethod(from_config)
        patch.setattr(ScriptDirectory, "from_config", method)
        yield


@pytest.fixture
def tmp_warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point every setting of the workspace into the test's folder, and return that folder.

    It has the warehouse, warehouse.duckdb, and an empty drop folder, drop/.
    """
    (tmp_path / "drop").mkdir()
    monkeypatch.setenv("WAREHOUSE_TYPE", "duckdb")
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "warehouse.duckdb"))
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path / "drop"))
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "60")
    monkeypatch.setenv(
        "NASA_BASE_URL", "http://127.0.0.1:9"
    )  # nothing listens: tests send no requests to NASA
    monkeypatch.setenv("NASA_API_KEY", "DEMO_KEY")  # overrides a .env file
    return tmp_path


@pytest.fixture(scope="session")
def warehouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Start a Postgres server for all tests. Each warehouse is a separate database."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """Start a MariaDB server for all tests; skip them if its programs are not installed."""
    if missing := missing_program():
        pytest.skip(f"{missing} is not installed; it is in Debian's package mariadb-server")
    with MariaDbServer(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def postgres_warehouse(
    tmp_warehouse: Path, warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Make the warehouse an empty Postgres database, and return its URL."""
    del tmp_warehouse  # sets its settings first
    url = warehouse_server.warehouse()
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", url)
    return url


@pytest.fixture
def source_database(warehouse_server: PostgresServer) -> Iterator[SourceDatabase]:
    """Yield an empty Postgres database for a source to read."""
    with created_database(warehouse_server) as database:
        yield database


@pytest.fixture
def shop(
    source_database: SourceDatabase, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> SourceDatabase:
    """Make `source_database` what the source `shop` reads, and return it.

    The functions of `shared.testing.source_database` load its tables into the test's warehouse.
    """
    del tmp_warehouse  # sets the warehouse, which another fixture may override
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", source_database.url)
    return source_database


@pytest.fixture
def mariadb_shop(
    mariadb_server: MariaDbServer, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MariaDbDatabase]:
    """Like `shop`, of MariaDB."""
    del tmp_warehouse
    with closing(MariaDbDatabase(mariadb_server)) as database:
        monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", database.url)
        yield database


@pytest.fixture
def sqlite_shop(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteDatabase]:
    """Like `shop`, of SQLite."""
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", f"sqlite:///{tmp_warehouse / 'shop.db'}")
    with closing(SqliteDatabase(tmp_warehouse / "shop.db")) as database:
        yield database


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[str]:
    """Start an S3 server for all tests, and yield its URL. Each test uses a separate bucket."""
    from moto.server import ThreadedMotoServer  # not installed for the tests of every member

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def duckdb_extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with DuckDB's extensions for DuckLake, from wheels: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("extensions")
    with duckdb.connect(config={"extension_directory": str(folder)}) as connection:
        for name in ("ducklake", "httpfs", "postgres_scanner"):
            spec = find_spec(f"duckdb_extension_{name}")
            assert spec
            assert spec.origin
            (file,) = Path(spec.origin).parent.rglob("*.duckdb_extension")
            connection.execute(f"INSTALL '{file}'")
    return folder


@pytest.fixture
def ducklake_warehouse(
    tmp_warehouse: Path,
    warehouse_server: PostgresServer,
    bucket_server: str,
    duckdb_extensions: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Make the warehouse an empty DuckLake, and return the URL of its files."""
    import boto3  # installed with the S3 server

    del tmp_warehouse  # sets its settings first
    bucket, access = f"test-{uuid4().hex}", ("key", "secret-of-the-test")
    boto3.client(
        "s3",
        endpoint_url=bucket_server,
        aws_access_key_id=access[0],
        aws_secret_access_key=access[1],
        region_name="us-east-1",
    ).create_bucket(Bucket=bucket)
    duckdb_settings = {
        "extension_directory": str(duckdb_extensions),
        "autoinstall_known_extensions": False,
        "ducklake_default_data_inlining_row_limit": 0,  # otherwise the catalog stores small loads
    }
    settings = {
        "CATALOG": warehouse_server.warehouse(),
        "GLOBAL_CONFIG": json.dumps(duckdb_settings),
        "STORAGE__BUCKET_URL": f"s3://{bucket}/lake",
        "STORAGE__CREDENTIALS__AWS_ACCESS_KEY_ID": access[0],
        "STORAGE__CREDENTIALS__AWS_SECRET_ACCESS_KEY": access[1],
        "STORAGE__CREDENTIALS__ENDPOINT_URL": bucket_server,
        "STORAGE__CREDENTIALS__REGION_NAME": "us-east-1",
    }
    monkeypatch.setenv("WAREHOUSE_TYPE", "ducklake")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    for name, value in settings.items():
        monkeypatch.setenv(f"DESTINATION__WAREHOUSE__CREDENTIALS__{name}", value)
    return settings["STORAGE__BUCKET_URL"]


@pytest.fixture
def any_warehouse(request: pytest.FixtureRequest, tmp_warehouse: Path) -> str:
    """Make the warehouse an empty one of the requested type, and return the type."""
    del tmp_warehouse  # a DuckDB file; the fixtures of the other types override it
    warehouse_type = str(request.param)
    if warehouse_type != "duckdb":
        request.getfixturevalue(f"{warehouse_type}_warehouse")
    return warehouse_type


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Yield a Dagster instance in memory, which the runs of a test share."""
    with dg.DagsterInstance.ephemeral() as created:
        yield created


@pytest.fixture
def stored_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Yield a Dagster instance on disk, in the test's folder; it takes longer than `instance`."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as created:
        yield created
