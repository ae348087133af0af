"""Dagster alone: an asset that does nothing, with as many daily partitions, in one single-run backfill."""

import json
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import duckdb

many, folder = sys.argv[1:]
START, END = date(2015, 1, 1), date(2015, 1, 1) + timedelta(days=int(many))


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(START.isoformat(), end_date=END.isoformat()),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def nothing() -> None:
    """Load nothing."""


began = time.perf_counter()
assert dg.materialize(
    [nothing],
    tags={
        "dagster/asset_partition_range_start": START.isoformat(),
        "dagster/asset_partition_range_end": (END - timedelta(days=1)).isoformat(),
    },
).success
seconds = time.perf_counter() - began
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS FROM range(0)")
print(json.dumps({"seconds": seconds}))
