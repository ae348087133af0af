"""DuckDB alone: the repeated keys of one of 100 partitions of a table with as many rows."""

import json
import sys
import time
from pathlib import Path

import duckdb

rows, folder = int(sys.argv[1]), sys.argv[2]
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    connection.execute(
        f"CREATE TABLE items AS SELECT n // {rows // 100} AS day, n FROM range({rows}) AS numbers(n)"
    )
with duckdb.connect(str(Path(folder) / "warehouse.duckdb"), read_only=True) as connection:
    began = time.perf_counter()
    repeated = connection.execute(
        "SELECT day, n, count(*) FROM items WHERE day = 50 GROUP BY ALL HAVING count(*) > 1"
    ).fetchall()
    took = time.perf_counter() - began
assert not repeated
print(json.dumps({"seconds": took, "rows": rows // 100}))
