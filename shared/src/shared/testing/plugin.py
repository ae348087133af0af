"""Pytest fixtures for any team's tests; pytest finds them by itself once `shared` is installed."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import dagster as dg
import duckdb
import pytest

from shared.testing.neows_server import NeowsServer
from shared.testing.postgres_server import PostgresServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds which warehouses the tests of exact loads run on."""
    parser.addoption(
        "--warehouses",
        default="duckdb,postgres",
        help="Types of warehouse for the tests that hold on each; ducklake has its own environment.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for `any_warehouse` once on each type of the option."""
    if "any_warehouse" in metafunc.fixturenames:
        types = metafunc.config.getoption("warehouses").split(",")
        metafunc.parametrize("any_warehouse", types, indirect=True)


@pytest.fixture
def tmp_warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
def postgres_warehouse(
    tmp_warehouse: Path, warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Makes the warehouse an empty Postgres database, and returns its address."""
    del tmp_warehouse  # its settings come first
    address = warehouse_server.warehouse()
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", address)
    return address


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[str]:
    """The address of an S3 server for the files of all tests, each in a bucket of its own."""
    from moto.server import ThreadedMotoServer  # a package that not every member's tests have

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def duckdb_extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what DuckDB needs for DuckLake, from wheels: nothing is downloaded."""
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
    """Makes the warehouse an empty DuckLake, and returns the address of its files."""
    import boto3  # comes with the S3 server

    del tmp_warehouse  # its settings come first
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
        "ducklake_default_data_inlining_row_limit": 0,  # else the catalog holds small loads itself
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
    for name, value in settings.items():
        monkeypatch.setenv(f"DESTINATION__WAREHOUSE__CREDENTIALS__{name}", value)
    return settings["STORAGE__BUCKET_URL"]


@pytest.fixture
def any_warehouse(request: pytest.FixtureRequest, tmp_warehouse: Path) -> str:
    """Makes the warehouse an empty one of each type in turn, and returns the type."""
    del tmp_warehouse  # a file, unless the type's own fixture says otherwise
    chosen = str(request.param)
    if chosen != "duckdb":
        request.getfixturevalue(f"{chosen}_warehouse")
    return chosen


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on disk, in the test's own folder."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


@pytest.fixture
def neows_server(
    tmp_warehouse: Path,  # noqa: ARG001 - its setting of the address comes first
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[NeowsServer]:
    """A NeoWs server that api_etl asks for the length of the test, without waits between retries."""
    with NeowsServer() as server:
        monkeypatch.setenv("NASA_BASE_URL", server.url)
        monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0")
        yield server
