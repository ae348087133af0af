"""Nothing but the imports that any Dagster and dlt run has, and DuckDB's file opened."""

import json
import sys
import time
from pathlib import Path

import dagster  # noqa: F401
import dagster_dlt  # noqa: F401
import dlt  # noqa: F401
import duckdb

with duckdb.connect(str(Path(sys.argv[2]) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS SELECT * FROM range(2)")
print(json.dumps({"seconds": 0, "cpu_seconds": time.process_time()}))
