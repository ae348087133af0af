"""This workspace: the definitions of as many tables with daily partitions of ten years, in pipelines of 20.

With `dagster` as many plain Dagster assets, and nothing else.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

many, folder, *how = sys.argv[1:]

import dagster as dg
import dlt as dlt_library
import duckdb
from dagster_dlt import dlt_assets

DAYS = dg.DailyPartitionsDefinition("2015-01-01", end_date="2024-12-29")
PIPELINES, TABLES = max(int(many) // 20, 1), min(int(many), 20)


def plain(pipeline: int) -> list[dg.AssetsDefinition]:
    """Return assets that load nothing."""

    def nothing() -> None: ...

    return [
        dg.asset(name=f"table_{pipeline}_{n}", partitions_def=DAYS)(nothing) for n in range(TABLES)
    ]


def ours(pipeline: int) -> list[dg.AssetsDefinition]:
    """Return the assets of a pipeline."""
    from shared import warehouse
    from shared.orchestration.resource import WarehouseDltResource
    from shared.orchestration.translator import WarehouseTranslator

    @dlt_library.source(name=f"source_{pipeline}")
    def source() -> Iterator[Any]:
        for n in range(TABLES):
            columns: Any = {"day": {"data_type": "date", "partition": True}}
            yield dlt_library.resource([], name=f"table_{pipeline}_{n}", columns=columns)

    @dlt_assets(
        dlt_source=source(),
        dlt_pipeline=warehouse.pipeline(f"pipeline_{pipeline}", dataset_name=f"data_{pipeline}"),
        dagster_dlt_translator=WarehouseTranslator("team:bench"),
        partitions_def=DAYS,
        name=f"assets_{pipeline}",
    )
    def assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context=context)

    return [assets]


began = time.perf_counter()
module = ModuleType("bench_location")
declare = plain if "dagster" in how else ours
for pipeline in range(PIPELINES):
    for n, definition in enumerate(declare(pipeline)):
        setattr(module, f"assets_{pipeline}_{n}", definition)
if "dagster" in how:
    defs = dg.Definitions(assets=dg.load_assets_from_modules([module]))
else:
    from shared.orchestration.definitions import build_definitions

    defs = build_definitions("simple_etl", module)
assert len(defs.resolve_asset_graph().materializable_asset_keys) >= int(many)
seconds = time.perf_counter() - began
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS FROM range(?)", [int(many)])
print(json.dumps({"seconds": seconds}))
