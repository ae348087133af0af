"""This workspace: concurrent processes load one file each into the same table.

With `postgres` the warehouse is a server. The processes are forked after the imports.
"""

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import duckdb

from shared import warehouse
from shared.sources.csv import CsvFormat, csv_source

ROWS_EACH = 125_000

writers, folder, *how = int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
os.environ["WAREHOUSE_PATH"] = str(folder / "warehouse.duckdb")
os.environ["DROP_FOLDER"] = str(folder)
started = ExitStack()
if "postgres" in how:
    from shared.testing.postgres_server import PostgresServer

    address = started.enter_context(PostgresServer(folder)).warehouse()
    os.environ["WAREHOUSE_TYPE"] = "postgres"
    os.environ["ETL_ENVIRONMENT"] = "production"
    os.environ["DESTINATION__WAREHOUSE__CREDENTIALS"] = address
for writer in range(writers):
    duckdb.execute(
        f"COPY (SELECT i AS id, 'item number ' || i AS note, i / 100 AS price FROM "
        f"range({ROWS_EACH}) AS numbers(i)) TO '{folder}/{writer}.csv' (HEADER)"
    )
ITEMS = CsvFormat(
    columns={
        "id": {"data_type": "bigint", "nullable": False},
        "note": {"data_type": "text"},
        "price": {"data_type": "double"},
    }
)
declared = warehouse.pipeline("bench", dataset_name="bench")


def load(name: str) -> None:
    source = csv_source([name], "items", ITEMS)
    warehouse.load(warehouse.plan_load(declared, source, [name]))


began = time.perf_counter()
children = []
for writer in range(writers):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            load(f"{writer}.csv")
            code = 0
        finally:
            os._exit(code)
    children.append(pid)
failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
took = time.perf_counter() - began
(row,) = warehouse.query("SELECT count(*) AS n FROM bench.items")
result = {"seconds": took, "rows": row["n"], "rows_a_second": row["n"] / took, "failed": failed}
print(json.dumps(result))
started.close()
if failed:
    sys.exit(f"{failed} of {writers} writers failed")
