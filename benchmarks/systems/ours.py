"""This workspace: `csv_source` through its own pipeline; with `dagster`, as an asset's run."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

file, folder, *how = sys.argv[1:]
os.environ["WAREHOUSE_PATH"] = str(Path(folder) / "warehouse.duckdb")
os.environ["DROP_FOLDER"] = str(Path(file).parent)

import dagster as dg
import dlt as dlt_library
from dagster_dlt import dlt_assets
from dlt.extract import DltSource

from shared import warehouse
from shared.resources import DLT_SETTINGS, WarehouseDltResource, replaced_rows
from shared.sources.csv import CsvFormat, csv_source
from shared.translator import WarehouseTranslator

ITEMS = CsvFormat(
    columns={
        "id": {"data_type": "bigint", "nullable": False},
        "day": {"data_type": "date"},
        "code": {"data_type": "text"},
        "price": {"data_type": "decimal", "precision": 18, "scale": 2},
        "pieces": {"data_type": "bigint"},
        "note": {"data_type": "text"},
    }
)
name = Path(file).name
declared = warehouse.pipeline("bench", dataset_name="bench")


def source() -> DltSource:
    return csv_source([name], "items", ITEMS)


@dlt_assets(
    dlt_source=source(),
    dlt_pipeline=declared,
    dagster_dlt_translator=WarehouseTranslator("team:bench"),
    name="items",
)
def items(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context, partitions=[name])


def as_asset() -> None:
    assert dg.materialize([items], resources={"dlt": WarehouseDltResource()}).success


def as_pipeline() -> None:
    loaded = source()
    pipeline = declared.open("bench", loaded, replaced_rows(loaded, [name]))
    with pipeline.turn(), dlt_library.config.values(DLT_SETTINGS):
        pipeline.run(loaded)
    warehouse.close(pipeline, failed=False)


for again in ("seconds", "again"):
    began = time.perf_counter()
    as_asset() if "dagster" in how else as_pipeline()
    print(json.dumps({again: time.perf_counter() - began}))
    if "again" not in how:
        break
