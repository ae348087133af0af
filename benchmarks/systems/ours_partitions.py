"""This workspace: as many daily partitions of 100 rows, in one single-run backfill of its Dagster instance."""

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

many, folder = sys.argv[1:]
os.environ["WAREHOUSE_PATH"] = str(Path(folder) / "warehouse.duckdb")
os.environ["DAGSTER_HOME"] = folder
instance_file = (Path(__file__).parents[2] / "dagster.yaml").read_text()
(Path(folder) / "dagster.yaml").write_text(
    instance_file.replace(".dagster/", f"{folder}/.dagster/")
)

import dagster as dg
import dlt as dlt_library
import pyarrow as pa
from dagster_dlt import dlt_assets

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator

DAYS = [(date(2015, 1, 1) + timedelta(days=n)).isoformat() for n in range(int(many))]


@dlt_library.source(name="bench")
def bench(days: list[str]) -> object:
    @dlt_library.resource(
        name="items",
        columns={"day": {"data_type": "text", "partition": True, "nullable": False}},
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def items() -> Iterator[pa.Table]:
        for day in days:
            yield pa.table({"day": [day] * 100, "n": range(100)})

    return items


@dlt_assets(
    dlt_source=bench([]),
    dlt_pipeline=warehouse.pipeline("bench", dataset_name="bench"),
    dagster_dlt_translator=WarehouseTranslator("team:bench"),
    partitions_def=dg.DailyPartitionsDefinition(
        "2015-01-01", end_date=(date(2015, 1, 1) + timedelta(days=int(many))).isoformat()
    ),
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="items",
)
def items(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context, dlt_source=bench(list(context.partition_keys)))


began = time.perf_counter()
assert dg.materialize(
    [items],
    instance=dg.DagsterInstance.get(),
    resources={"dlt": WarehouseDltResource()},
    tags={
        "dagster/asset_partition_range_start": DAYS[0],
        "dagster/asset_partition_range_end": DAYS[-1],
    },
).success
print(json.dumps({"seconds": time.perf_counter() - began}))
