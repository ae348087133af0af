"""The imports of `imports.py`, and the definitions of a location; DuckDB's file is the same.

The location is one of this workspace; with `plain` the smallest one of dagster-dlt alone.
"""

import json
import sys
import time
from pathlib import Path

import dagster
import dagster_dlt
import dlt
import duckdb

if "plain" in sys.argv:

    @dlt.source
    def bench() -> object:
        return dlt.resource([], name="items")

    @dagster_dlt.dlt_assets(
        dlt_source=bench(), dlt_pipeline=dlt.pipeline("bench", destination="duckdb")
    )
    def items() -> None:
        """Load nothing."""

    dagster.Definitions(assets=[items])
else:
    import csv_etl.definitions  # noqa: F401

with duckdb.connect(str(Path(sys.argv[2]) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS SELECT * FROM range(2)")
print(json.dumps({"seconds": 0, "cpu_seconds": time.process_time()}))
