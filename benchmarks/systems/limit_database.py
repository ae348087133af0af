"""COPY from Postgres into a CSV file, then DuckDB's `read_csv` or COPY from the file, and nothing else."""

import sys
import time
from pathlib import Path

import duckdb
import psycopg2
from database_target import Target

source, folder, kind = sys.argv[1:]
target = Target(source, folder, kind)
file = Path(folder) / "orders.csv"
TABLE = "(id BIGINT NOT NULL, note {text}, amount NUMERIC(10, 2), at_time TIMESTAMPTZ, paid BOOLEAN, _dlt_load_id {text})"
began = time.perf_counter()
with psycopg2.connect(source) as connection, connection.cursor() as cursor, file.open("wb") as out:
    cursor.copy_expert("COPY orders TO STDOUT (FORMAT csv)", out, size=1 << 20)
if kind == "postgres":
    with psycopg2.connect(target.url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA bench")
        cursor.execute(f"CREATE TABLE bench.orders {TABLE.format(text='VARCHAR')}")
        cursor.execute("ALTER TABLE bench.orders ALTER _dlt_load_id SET DEFAULT '1234567890.123'")
        with file.open("rb") as rows:
            cursor.copy_expert(
                "COPY bench.orders (id, note, amount, at_time, paid) FROM STDIN (FORMAT csv)",
                rows,
                size=1 << 20,
            )
else:
    with duckdb.connect(str(target.file)) as warehouse:
        warehouse.execute("CREATE SCHEMA bench")
        warehouse.execute(f"CREATE TABLE bench.orders {TABLE.format(text='VARCHAR')}")
        warehouse.execute(
            f"INSERT INTO bench.orders SELECT *, '1234567890.123' FROM read_csv('{file}', header = false, "
            "columns = {'id': 'BIGINT', 'note': 'VARCHAR', 'amount': 'DECIMAL(10, 2)', "
            "'at_time': 'TIMESTAMPTZ', 'paid': 'BOOLEAN'})"
        )
target.report(time.perf_counter() - began)
