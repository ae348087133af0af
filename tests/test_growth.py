"""The cost of a run is a constant and a fixed part for each partition or file: counted, not timed.

On a busy machine, a clock does not show the difference between 100 partitions and 300. A count does.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import dlt as dlt_library
import pyarrow as pa
import pytest
import yaml
from dagster_dlt import dlt_assets

from shared import settings, warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.csv import CsvFormat, csv_source
from shared.testing.postgres_server import PostgresServer
from shared.testing.queries import count_queries
from support.costs import assert_growth, duckdb_costs, postgres_costs

SIZES = (1, 10, 100)
FIRST = date(2024, 1, 1)
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-12-31")
ITEMS = CsvFormat(columns={"id": {"data_type": "bigint"}, "note": {"data_type": "text"}})
PIPELINE = warehouse.pipeline("growth", dataset_name="growth")


@dlt_library.source(name="growth")
def days_of(days: list[str]) -> object:
    @dlt_library.resource(
        name="items",
        columns={"day": {"data_type": "date", "partition": True, "nullable": False}},
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def items() -> Iterator[pa.Table]:
        for day in days:
            yield pa.table({"day": [date.fromisoformat(day)] * 3, "n": range(3)})

    return items


@dlt_assets(
    dlt_source=days_of([]),
    dlt_pipeline=PIPELINE,
    dagster_dlt_translator=WarehouseTranslator("team:growth"),
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="items",
)
def items(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context, dlt_source=days_of(list(context.partition_keys)))


def load_days(number: int) -> None:
    days = [(FIRST + timedelta(days=n)).isoformat() for n in range(number)]
    warehouse.load(warehouse.plan_load(PIPELINE, days_of(days), days))


def load_files(number: int) -> None:
    names = [f"{n}.csv" for n in range(number)]
    warehouse.load(warehouse.plan_load(PIPELINE, csv_source(names, "files", ITEMS), names))


def run_of_days(number: int, instance: dg.DagsterInstance) -> str:
    last = FIRST + timedelta(days=number - 1)
    result = dg.materialize(
        [items],
        instance=instance,
        resources={"dlt": WarehouseDltResource()},
        tags={
            "dagster/asset_partition_range_start": FIRST.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        },
    )
    assert result.success
    return result.run_id


@pytest.fixture
def logged_postgres(
    tmp_warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Make the warehouse a Postgres server that logs each statement, and yield its log."""
    del tmp_warehouse  # sets its settings first
    with PostgresServer(tmp_path, log_statement="all", log_connections="on") as server:
        monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")
        monkeypatch.setenv("ETL_ENVIRONMENT", "production")
        monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", server.warehouse())
        yield tmp_path / "postgres.log"


@pytest.fixture
def local_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Yield an instance with the storage of dagster.yaml, in the test's folder."""
    storage = yaml.safe_load((settings.workspace_root() / "dagster.yaml").read_text())["storage"]
    storage["custom"]["config"]["base_dir"] = str(tmp_path / "storage")
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "")  # the storage sets it
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    with dg.instance_for_test({"storage": storage}, temp_dir=str(tmp_path)) as instance:
        yield instance


def test_partitions_of_a_load_add_no_statement_no_connection_and_no_file(
    tmp_warehouse: Path,
) -> None:
    del tmp_warehouse  # only its settings are of use
    load_days(1)  # creates the tables
    counts: dict[int, Counter[str]] = {}
    for size in SIZES:
        with duckdb_costs() as counts[size]:
            load_days(size)
    assert_growth(counts, "statements", constant=68, slope=0)
    assert_growth(counts, "connections", constant=8, slope=0)
    assert_growth(counts, "files", constant=38, slope=0)
    assert_growth(counts, "parsed", constant=2, slope=0)


def test_partitions_of_a_load_add_no_statement_and_no_connection_to_postgres(
    logged_postgres: Path,
) -> None:
    load_days(1)
    counts: dict[int, Counter[str]] = {}
    for size in SIZES:
        with postgres_costs(logged_postgres) as counts[size]:
            load_days(size)
    assert_growth(counts, "statements", constant=58, slope=0)
    assert_growth(counts, "connections", constant=11, slope=0)


def test_a_small_file_adds_two_statements_and_no_file(tmp_warehouse: Path) -> None:
    for n in range(max(SIZES)):
        (tmp_warehouse / "drop" / f"{n}.csv").write_text(f"id,note\n{n},a note\n")
    load_files(1)
    counts: dict[int, Counter[str]] = {}
    for size in SIZES:
        with duckdb_costs() as counts[size]:
            load_files(size)
    assert_growth(counts, "statements", constant=68, slope=2)
    assert_growth(counts, "connections", constant=8, slope=0)
    assert_growth(counts, "files", constant=38, slope=0)


def test_a_partition_adds_two_events_and_no_statement_to_a_run(
    tmp_warehouse: Path, local_instance: dg.DagsterInstance
) -> None:
    del tmp_warehouse
    run_of_days(1, local_instance)
    counts: dict[int, Counter[str]] = {}
    for size in SIZES:
        with count_queries() as statements:
            run_id = run_of_days(size, local_instance)
        events = local_instance.all_logs(run_id)
        counts[size] = Counter(statements=len(statements), events=len(events))
    assert_growth(counts, "events", constant=10, slope=2)
    assert_growth(counts, "statements", constant=63, slope=0)
