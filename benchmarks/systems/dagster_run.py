"""Dagster alone: a run of an asset that does nothing, in a process with the usual imports."""

import json
import sys
import time
from pathlib import Path

import dagster as dg
import dagster_dlt  # noqa: F401
import dlt  # noqa: F401


@dg.asset
def nothing() -> None:
    """Load nothing."""


began = time.perf_counter()
assert dg.materialize([nothing]).success
seconds, spent = time.perf_counter() - began, time.process_time()

import duckdb

with duckdb.connect(str(Path(sys.argv[2]) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS FROM range(0)")
print(json.dumps({"seconds": seconds, "cpu_seconds": spent}))
