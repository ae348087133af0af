"""DuckDB alone: the file into a table, with a load id on every row, and nothing else."""

import json
import sys
import time
from pathlib import Path

import duckdb

file, folder = sys.argv[1:]
COLUMNS = (
    "{id: 'BIGINT', day: 'DATE', code: 'VARCHAR', price: 'DECIMAL(18, 2)', pieces: 'BIGINT', "
    "note: 'VARCHAR'}"
)
READERS = {
    ".csv": "read_csv(?)",
    ".jsonl": f"read_json(?, columns = {COLUMNS}, format = 'newline_delimited')",
    ".parquet": "read_parquet(?)",
}
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    began = time.perf_counter()
    connection.execute("CREATE SCHEMA bench")
    connection.execute(
        "CREATE TABLE bench.items AS SELECT *, '1234567890.123456' AS _dlt_load_id "
        f"FROM {READERS[Path(file).suffix]}",
        [file],
    )
print(json.dumps({"seconds": time.perf_counter() - began}))
