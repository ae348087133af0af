"""The imports of `imports.py`, and a location of this workspace; DuckDB's file is the same."""

import sys
from pathlib import Path

import dagster  # noqa: F401
import dagster_dlt  # noqa: F401
import dlt  # noqa: F401
import duckdb

import csv_etl.definitions  # noqa: F401

with duckdb.connect(str(Path(sys.argv[2]) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS SELECT * FROM range(2)")
print('{"seconds": 0}')
