"""What the systems that copy a database share: where they write, and how many rows are there then."""

import json
from pathlib import Path
from uuid import uuid4

import duckdb
import psycopg2


class Target:
    """An empty warehouse: a DuckDB file, or a new database on the server of the source."""

    def __init__(self, source: str, folder: str, kind: str) -> None:
        self.source, self.kind = source, kind
        self.file = Path(folder) / "warehouse.duckdb"
        self.name = f"bench_{uuid4().hex}"
        self.url = f"{source.rpartition('/')[0]}/{self.name}"
        if kind == "postgres":
            self._execute(f"CREATE DATABASE {self.name} STRATEGY FILE_COPY")

    def report(self, seconds: float, cpu_seconds: float | None = None) -> None:
        """Print the result of a run, and remove the warehouse."""
        count = "SELECT count(*) FROM bench.orders"
        if self.kind == "postgres":
            connection = psycopg2.connect(self.url)
            with connection.cursor() as cursor:
                cursor.execute(count)
                ((rows,),) = cursor.fetchall()
            connection.close()
            self._execute(f"DROP DATABASE {self.name} WITH (FORCE)")
        else:
            with duckdb.connect(str(self.file), read_only=True) as file:
                ((rows,),) = file.execute(count).fetchall()
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "rows": rows}))

    def _execute(self, sql: str) -> None:
        connection = psycopg2.connect(self.source)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
        connection.close()
