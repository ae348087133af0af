"""The check of unique rows reads the rows of the load, finds every duplicate, and says what it read."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import duckdb
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.rows_to_check import CHECK_WHOLE_TABLE, WHOLE_TABLE
from shared.orchestration.translator import WarehouseTranslator, asset_key
from shared.warehouse.duplicates import find_duplicates

SLOW_ON_SERVERS = True
DAYS = dg.StaticPartitionsDefinition(["mon", "tue; {x}?'"])
MON, TUE = DAYS.get_partition_keys()
upstream: dict[str, list[dict[str, Any]]] = {}


def rows(*numbers: int | None, **values: Any) -> list[dict[str, Any]]:
    return [{"n": n, **values} for n in numbers]


class Shop:
    """A table `orders`, loaded from `upstream` by some hints, and its check."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        key: Sequence[str],
        *,
        partitions: dg.PartitionsDefinition[Any] | None = None,
        table: str = "orders",
        batches: int = 0,
        cursor: str = "",
        **hints: Any,
    ) -> None:
        @dlt.source(name="shop")
        def shop(days: Sequence[str]) -> DltResource:
            @dlt.resource(**hints)
            def orders() -> Iterator[Any]:
                yield [dict(row) for day in days for row in upstream.get(day, ())]

            if cursor:
                orders.apply_hints(incremental=dlt.sources.incremental(cursor))
            return orders

        @dlt_assets(
            dlt_source=shop([]),
            dlt_pipeline=warehouse.pipeline("shop_pipeline", "shop"),
            dagster_dlt_translator=WarehouseTranslator("team:shop"),
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
            name="orders",
        )
        def load(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[Any]:
            def source(days: Sequence[str]) -> DltSource:
                return shop(list(map(str, days)))

            if batches:
                yield from dlt.run_in_batches(context, source, batches)
            else:
                days = context.partition_keys if partitions else ["all"]
                yield from dlt.run(context=context, dlt_source=source(days))

        named = None if table == "orders" else table
        unique = build_unique_rows_check(asset_key("shop", "orders"), key, table=named)
        everything = dg.AssetSelection.all()
        self.instance, self.name = instance, unique.check_key.name
        self.defs = dg.Definitions(
            [load],
            asset_checks=[unique],
            jobs=[
                dg.define_asset_job("load", everything),
                dg.define_asset_job("check", dg.AssetSelection.checks(unique)),
            ],
            resources={"dlt": WarehouseDltResource()},
        )

    def run(self, first: str = "", last: str = "", job: str = "load", **tags: str) -> Any:
        """Return the check's result: whether it passed, its description and its metadata."""
        key = None if last else first or None
        if last:
            tags["dagster/asset_partition_range_start"] = first
            tags["dagster/asset_partition_range_end"] = last
        result = self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance, partition_key=key, tags=tags, raise_on_error=False
        )
        return result.get_asset_check_evaluations()

    def check(self, *arguments: str, **tags: str) -> tuple[bool, str, dict[str, Any]]:
        (check,) = self.run(*arguments, **tags)
        return (
            check.passed,
            check.description,
            {name: value.value for name, value in check.metadata.items()},
        )


@pytest.fixture(autouse=True)
def empty_upstream() -> None:
    upstream.clear()


@pytest.mark.usefixtures("any_warehouse")
def test_after_a_load_of_a_partition_its_rows_are_read_and_the_whole_table_only_if_needed(
    instance: dg.DagsterInstance,
) -> None:
    columns = {"day": {"partition": True}}
    shop = Shop(instance, ["day", "n"], partitions=DAYS, columns=columns)
    upstream[MON], upstream[TUE] = rows(1, 2, None, day=MON), rows(1, day=TUE)
    passed, text, read = shop.check(MON)
    assert (passed, text, read["checked"]) == (True, "all rows are unique", WHOLE_TABLE)
    assert read["reason"] == "the check has no earlier result"
    # Only the new partition, whose rows have their duplicates in it.
    passed, text, read = shop.check(TUE)
    assert passed
    assert text == "the 1 rows of this load are unique; the others were not read again"
    assert read["checked_rows"] == 1
    assert read["checked"].startswith('"day" IN (')
    upstream[MON] = rows(None, None, day=MON)
    passed, text, read = shop.check(MON)
    assert (passed, text, read["checked_rows"]) == (False, "mon, None: 2 times", 2)
    # A load without duplicates does not hide those of another partition.
    passed, text, read = shop.check(TUE)
    assert (passed, text, read["reason"]) == (
        False,
        "mon, None: 2 times",
        "the check failed before",
    )
    upstream[MON] = rows(3, day=MON)
    assert shop.check(MON)[2]["checked"] == WHOLE_TABLE
    assert shop.check(MON, TUE)[2]["checked_rows"] == 2
    # On request, and in a run that loads nothing.
    assert shop.check(TUE, **{CHECK_WHOLE_TABLE: "true"})[2]["checked"] == WHOLE_TABLE
    passed, _, read = shop.check(job="check")
    assert (passed, read["checked"]) == (True, WHOLE_TABLE)
    assert read["reason"] == "the run has not loaded the table"
    upstream[TUE] = []
    assert shop.check(TUE)[1] == "the load has no rows; no others were read"


@pytest.mark.usefixtures("any_warehouse")
@pytest.mark.parametrize("batches", [0, 1])
def test_a_duplicate_in_another_partition_is_found(
    instance: dg.DagsterInstance, batches: int
) -> None:
    columns = {"day": {"partition": True}, "n": {"data_type": "bigint"}}
    shop = Shop(instance, ["n"], partitions=DAYS, columns=columns, batches=batches)
    upstream[MON], upstream[TUE] = rows(1, 2, None, day=MON), rows(3, day=TUE)
    assert shop.check(MON, TUE)[2]["checked"] == WHOLE_TABLE
    passed, text, read = shop.check(TUE)
    assert passed, text
    assert read["checked_rows"] == 1
    assert read["compared_with"] == "the keys of the whole table"
    assert shop.check(MON, TUE)[2]["checked_rows"] == 4
    upstream[TUE] = rows(2, 4, None, None, day=TUE)
    passed, text, read = shop.check(TUE)
    assert (passed, text, read["checked_rows"]) == (False, "None: 3 times; 2: 2 times", 4)


def test_the_rows_to_read_follow_from_what_a_load_replaces(
    tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    del tmp_warehouse
    upstream["all"] = [{"n": 1, "k": "a", "lines": [{"article": "x"}]}]
    # An appended table: the new rows are looked up in it.
    shop = Shop(instance, ["k"], write_disposition="append", cursor="n")
    shop.check()
    upstream["all"] = [{"n": 2, "k": "b"}]
    passed, text, read = shop.check()
    assert (passed, read["checked_rows"]) == (True, 1), text
    assert read["checked"].startswith('"_dlt_load_id" IN (')
    upstream["all"] = [{"n": 3, "k": "a"}]
    assert shop.check()[:2] == (False, "a: 2 times")


def test_a_merged_table_and_its_nested_table_are_read_where_they_changed(
    tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    del tmp_warehouse
    upstream["all"] = [{"n": n, "k": k, "lines": [{"article": k}]} for n, k in ((1, "a"), (2, "b"))]
    merge: Any = {"write_disposition": "merge", "primary_key": "n"}
    shop = Shop(instance, ["k"], **merge)
    lines = Shop(instance, ["article"], table="orders__lines", **merge)
    shop.check()
    lines.check()
    upstream["all"] = upstream["all"][1:]
    assert shop.check()[2]["checked_rows"] == 1
    passed, text, read = lines.check()
    assert (passed, read["checked_rows"]) == (True, 1), text
    assert read["checked"].startswith('"_dlt_root_id" IN (SELECT "_dlt_id" FROM "shop"."orders"')
    upstream["all"] = [{"n": 2, "k": "a", "lines": [{"article": "a"}]}]
    assert lines.check()[:2] == (False, "a: 2 times")
    assert shop.check()[:2] == (False, "a: 2 times")


@pytest.mark.parametrize(
    ("partition", "hints", "condition"),
    [
        (None, {}, ""),
        (None, {"write_disposition": {"disposition": "merge", "strategy": "scd2"}}, ""),
        ("mon", {}, "\"_partition\" IN ('mon')"),
        ("2024-01-02", {"columns": {"day": {"data_type": "date", "partition": True}}}, '"day" >= '),
        (
            "2024-01-02|a",
            {"columns": {"day": {"partition": True}, "k": {"partition": True}}},
            '"day"',
        ),
    ],
)
def test_each_kind_of_table(
    tmp_warehouse: Path,
    instance: dg.DagsterInstance,
    partition: str | None,
    hints: Any,
    condition: str,
) -> None:
    del tmp_warehouse
    daily = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01")
    several = {"day": daily, "k": dg.StaticPartitionsDefinition(["a", "b"])}
    partitions: Any = {
        None: None,
        "mon": DAYS,
        "2024-01-02": daily,
        "2024-01-02|a": dg.MultiPartitionsDefinition(several),
    }[partition]
    shop = Shop(instance, ["n"], partitions=partitions, **hints)
    upstream[partition or "all"] = rows(1, 2, day="2024-01-02", k="a")
    shop.check(partition or "")
    passed, text, read = shop.check(partition or "")
    assert passed, text
    assert read["checked"].startswith(condition or WHOLE_TABLE)
    assert read["reason"] != "the load may have changed any row" or not condition
    assert read.get("checked_rows", 2) == 2
    same = {"day": "2024-01-02", "k": "a"}
    upstream[partition or "all"] = [*rows(1, **same, price=1), *rows(1, **same, price=2)]
    passed, text, _ = shop.check(partition or "")
    assert (passed, text[:3]) == (False, "1: ")


def test_a_load_that_ended_without_a_result_makes_the_next_check_read_the_whole_table(
    tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    del tmp_warehouse
    columns = {"day": {"partition": True, "data_type": "text"}}
    shop = Shop(instance, ["day", "n"], partitions=DAYS, columns=columns)
    upstream[MON] = rows(1, day=MON)
    shop.check(MON)
    assert "checked_rows" in shop.check(MON)[2]
    upstream[TUE] = rows(1, day=MON)  # of another partition, so the run fails
    assert shop.run(TUE) == []
    _, _, read = shop.check(MON)
    assert read["checked"] == WHOLE_TABLE
    assert read["reason"] == "an earlier run ended without a result of the check"


def scanned(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """Return how many rows a query reads from tables."""
    ((_, plan),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) {sql}").fetchall()
    return int(json.loads(plan)["query"]["total_rows_scanned"])


def test_the_check_of_one_of_twenty_partitions_reads_few_rows(tmp_warehouse: Path) -> None:
    days, per_day = 20, 122_880  # a row group of DuckDB each
    with duckdb.connect(str(tmp_warehouse / "warehouse.duckdb")) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute(
            f"CREATE TABLE shop.orders AS SELECT i AS n, i // {per_day} AS day "
            f"FROM range({days * per_day}) AS numbers(i)"
        )
    for key, most in ((["day", "n"], 1), (["n"], 4)):
        found = find_duplicates("shop", "orders", key, '"day" IN (7)')
        assert (found.rows, found.checked_rows) == ([], per_day)
        with warehouse.read_only_connection() as connection:
            assert 0 < scanned(connection, found.sql) <= most * per_day
    everything = find_duplicates("shop", "orders", ["n"])
    with warehouse.read_only_connection() as connection:
        assert scanned(connection, everything.sql) == days * per_day
