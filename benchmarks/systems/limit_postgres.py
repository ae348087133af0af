"""Postgres alone: COPY of the file into a table, with a load id on every row, and nothing else."""

import json
import sys
import time
from pathlib import Path

import psycopg2

from shared.testing.postgres_server import PostgresServer

file, folder = sys.argv[1:]
with PostgresServer(Path(folder)) as server:
    connection = psycopg2.connect(server.warehouse())
    with connection, connection.cursor() as cursor, Path(file).open("rb") as rows:
        began = time.perf_counter()
        cursor.execute("CREATE SCHEMA bench")
        cursor.execute(
            "CREATE TABLE bench.items (id BIGINT NOT NULL, day DATE, code VARCHAR, "
            "price NUMERIC(18, 2), pieces BIGINT, note VARCHAR, "
            "_dlt_load_id VARCHAR DEFAULT '1234567890.123456')"
        )
        cursor.copy_expert(
            "COPY bench.items (id, day, code, price, pieces, note) FROM STDIN (FORMAT csv, HEADER)",
            rows,
            size=1 << 20,
        )
        counted = cursor.rowcount
    took = time.perf_counter() - began
    connection.close()
print(json.dumps({"seconds": took, "rows": counted}))
