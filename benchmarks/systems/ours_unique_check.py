"""This workspace: the check of unique rows, in a run that loads one of 100 partitions of a table.

With `key`, the check's columns do not have the partition; with `whole`, it reads the whole table.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

rows, folder, *how = sys.argv[1:]
os.environ["WAREHOUSE_PATH"] = str(Path(folder) / "warehouse.duckdb")

import dagster as dg
import dlt as dlt_library
import duckdb
from dagster_dlt import dlt_assets

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.rows_to_check import CHECK_WHOLE_TABLE
from shared.orchestration.translator import WarehouseTranslator, asset_key

DAYS = [str(day) for day in range(100)]
PER_DAY = int(rows) // len(DAYS)


@dlt_library.source(name="bench")
def bench(days: list[str]) -> object:
    @dlt_library.resource(
        name="items",
        columns={"day": {"data_type": "bigint", "partition": True, "nullable": False}},
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def items() -> Iterator[object]:
        for day in map(int, days):
            yield duckdb.sql(
                f"SELECT {day}::BIGINT AS day, n FROM range({day * PER_DAY}, {(day + 1) * PER_DAY}) AS numbers(n)"
            ).to_arrow_table()

    return items


@dlt_assets(
    dlt_source=bench([]),
    dlt_pipeline=warehouse.pipeline("bench", dataset_name="bench"),
    dagster_dlt_translator=WarehouseTranslator("team:bench"),
    partitions_def=dg.StaticPartitionsDefinition(DAYS),
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="items",
)
def items(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context, dlt_source=bench(list(context.partition_keys)))


unique = build_unique_rows_check(
    asset_key("bench", "items"), ["n"] if "key" in how else ["day", "n"]
)
warehouse.load(warehouse.plan_load(warehouse.pipeline("bench", "bench"), bench(DAYS), DAYS))
with dg.DagsterInstance.ephemeral() as instance:
    for tags in ({}, {CHECK_WHOLE_TABLE: str("whole" in how).lower()}):
        result = dg.materialize(
            [items, unique],
            instance=instance,
            partition_key="50",
            tags=tags,
            resources={"dlt": WarehouseDltResource()},
        )
(check,) = result.get_asset_check_evaluations()
assert check.passed
read = check.metadata["checked_rows"].value if "whole" not in how else PER_DAY * len(DAYS)
(took,) = (
    event.step_success_data.duration_ms / 1000
    for event in result.all_events
    if event.is_step_success and event.step_key.endswith("rows_are_unique")
)
print(json.dumps({"seconds": took, "rows": read}))
