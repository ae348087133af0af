"""DuckDB alone: the same rows, from its own generator."""

import json
import sys
import time
from pathlib import Path

import duckdb

many, folder = sys.argv[1:]
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    began = time.perf_counter()
    connection.execute(
        "CREATE TABLE bench.items AS SELECT (DATE '2015-01-01' + day::INTEGER)::VARCHAR AS day, n "
        "FROM range(?) AS days(day), range(100) AS numbers(n)",
        [int(many)],
    )
print(json.dumps({"seconds": time.perf_counter() - began}))
