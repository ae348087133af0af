"""The locations load into any warehouse; only the environment decides which."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import duckdb
import pytest
from moto.server import ThreadedMotoServer

from api_etl.recorded.server import NeowsServer
from shared import settings, warehouse

LOCATIONS = ("simple_etl", "csv_etl", "api_etl")
DAY = "2025-03-10"
FILE = "2018-01-22.csv"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket on an S3 server, with dlt's variables set for it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "ENDPOINT_URL": f"http://{host}:{port}",
        "REGION_NAME": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"DESTINATION__WAREHOUSE__CREDENTIALS__{name}", value)
    store = boto3.client(
        "s3",
        endpoint_url=settings["ENDPOINT_URL"],
        aws_access_key_id="key",
        aws_secret_access_key="secret-of-the-test",
        region_name="us-east-1",
    )
    store.create_bucket(Bucket="lake")
    yield "s3://lake/all"
    server.stop()


@pytest.fixture(
    params=["duckdb", "postgres", "files", pytest.param("bucket", marks=pytest.mark.slow)]
)
def anywhere(
    request: pytest.FixtureRequest, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Set up each warehouse, one test run for each, and return its type."""
    if request.param == "postgres":
        request.getfixturevalue("postgres_warehouse")
    if request.param in ("files", "bucket"):
        monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
        monkeypatch.setenv("ETL_ENVIRONMENT", "production")
        url = (
            request.getfixturevalue("bucket")
            if request.param == "bucket"
            else (tmp_warehouse / "lake").as_uri()
        )
        monkeypatch.setenv("DESTINATION__WAREHOUSE__BUCKET_URL", url)
    return warehouse.warehouse_type()


def run(
    location: str,
    keys: list[str],
    instance: dg.DagsterInstance,
    partition: str | None = None,
    config: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    defs: dg.Definitions = __import__(f"{location}.definitions", fromlist=["defs"]).defs
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        asset_selection=[dg.AssetKey(key.split("/")) for key in keys],
        instance=instance,
        partition_key=partition,
        run_config=config or {},
        raise_on_error=False,
    )


def rows(sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in warehouse.query(sql)]


def test_every_kind_of_asset_loads_exactly_and_reloads(
    anywhere: str, root: Path, neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    drop = Path(settings.drop_folder())
    bundled = (root / "data" / "drop" / FILE).read_text()
    (drop / FILE).write_text(bundled)
    expected = len(neows_server.days[DAY])
    files = ["csv_data/import_daily_file", "csv_data/share_prices_daily"]
    days = ["nasa_neo/near_earth_objects", "nasa_neo/daily_summary"]
    for _ in range(2):
        assert run("simple_etl", ["simple/load_dict"], instance).success
        assert run("csv_etl", files, instance, "2018-01-22").success
        assert run("api_etl", days, instance, DAY).success
        assert rows("SELECT id, name FROM simple.load_dict ORDER BY id") == [
            (1, "Alice"),
            (2, "Bob"),
        ]
        assert rows("SELECT count(*) FROM csv_data.share_prices_daily") == [
            (len(bundled.splitlines()) - 1,)
        ]
        assert rows("SELECT count(*) FROM nasa_neo.near_earth_objects") == [(expected,)]
        ((day, objects),) = rows(
            "SELECT close_approach_date::VARCHAR, objects FROM nasa_neo.daily_summary"
        )
        assert (day, objects) == (DAY, expected)
    # A changed file and a day that is now empty replace all old rows.
    (drop / FILE).write_text("\n".join(bundled.splitlines()[:3]) + "\n")
    neows_server.days[DAY] = []
    assert run("csv_etl", files, instance, "2018-01-22").success
    assert run("api_etl", days, instance, DAY).success
    assert rows("SELECT count(*) FROM csv_data.share_prices_daily") == [(2,)]
    assert rows("SELECT count(*) FROM nasa_neo.near_earth_objects") == [(0,)]
    assert rows("SELECT objects FROM nasa_neo.daily_summary") == [(0,)]
    assert anywhere in ("duckdb", "postgres", "filesystem")


def test_checks_read_any_warehouse(
    anywhere: str,
    neows_server: NeowsServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NASA_API_KEY", "key-of-a-team")  # with it, yesterday is due
    header = "date,share_price,amount,spend,shift,spread"
    records = "".join(f"2018/01/{day:02},1.5,1,1,1,1\n" for day in range(1, 9))
    drop = Path(settings.drop_folder())
    (drop / "a.csv").write_text(f"{header}\n{records}2018/01/21,-1,1,1,1,1\n")
    instance.add_dynamic_partitions("dropped_files", ["a.csv"])
    files = ["csv_data/import_dropped_file", "csv_data/share_prices_by_file"]
    loaded = run("csv_etl", files, instance, "a.csv")
    (few,) = (
        check
        for check in loaded.get_asset_check_evaluations()
        if check.check_name == "rejected_rows"
    )
    assert not few.passed
    assert few.description == "a.csv: 1 of 9 rows rejected (11.1%)"

    neows_server.days[DAY][0]["news"] = {"a": 1}
    loaded = run("api_etl", ["nasa_neo/near_earth_objects"], instance, DAY)
    found = {check.check_name: check for check in loaded.get_asset_check_evaluations()}
    assert {name for name, check in found.items() if not check.passed} == {
        "yesterday_is_loaded",
        "no_unmapped_fields",
    }
    assert found["no_unmapped_fields"].description == f"news, since {DAY}"
    sentry = run("api_etl", ["nasa_neo/sentry_objects"], instance, DAY)
    assert sentry.success, anywhere


def test_a_row_s_parameter_is_a_value_and_never_sql(
    anywhere: str, neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    assert neows_server
    assert run("simple_etl", ["simple/load_dict"], instance).success
    text = "x' OR '1'='1 \\ ? %s $1 {}"
    sql = "SELECT ? AS text, count(*) AS n FROM simple.load_dict WHERE name = ? OR name IN (SELECT unnest(?))"
    assert warehouse.query(sql, [text, text, ["Bob"]]) == [{"text": text, "n": 1}], anywhere
    assert warehouse.query(sql, [text, text, []]) == [{"text": text, "n": 0}]


def test_a_statement_that_is_not_a_query_changes_nothing_and_raises(
    anywhere: str, instance: dg.DagsterInstance
) -> None:
    assert run("simple_etl", ["simple/load_dict"], instance).success
    for sql in ("DROP TABLE simple.load_dict", "SELEC", "", "SELECT * FROM no.where"):
        with pytest.raises((warehouse.QueryError, duckdb.Error)):
            warehouse.query(sql)
    assert rows("SELECT count(*) FROM simple.load_dict") == [(2,)], anywhere
