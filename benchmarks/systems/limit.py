"""DuckDB alone: the file into a table, with a load id on every row, and nothing else."""

import json
import sys
import time
from pathlib import Path

import duckdb

file, folder = sys.argv[1:]
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    began = time.perf_counter()
    connection.execute("CREATE SCHEMA bench")
    connection.execute(
        "CREATE TABLE bench.items AS SELECT *, '1234567890.123456' AS _dlt_load_id FROM read_csv(?)",
        [file],
    )
print(json.dumps({"seconds": time.perf_counter() - began}))
