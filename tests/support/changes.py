"""A Postgres database that changes, and loads of it in the mode changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from shared import warehouse
from shared.sources.database import Table, database_source
from shared.testing.postgres_server import PostgresServer

SPEC = warehouse.pipeline("shop_pipeline", "shop_data")
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, name text, note text)"
CHANGES = Table("orders", mode="changes", key="id")


class Source:
    """A database of a server, as its application sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = self.connect()
        self.connection.autocommit = True

    def connect(self) -> Any:
        """Return another connection, with a transaction."""
        return psycopg2.connect(self.url)

    def run(self, sql: str, connection: Any = None) -> list[tuple[Any, ...]]:
        """Run statements, and return the rows of the last one."""
        with (connection or self.connection).cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows of the table orders."""
        return self.run("SELECT id, name, note FROM orders ORDER BY 1")


@contextmanager
def changing_source(server: PostgresServer) -> Iterator[Source]:
    """Yield an empty database; its slots are dropped at the end."""
    source = Source(server.database().replace("+psycopg2", ""))
    try:
        yield source
    finally:
        source.run(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )
        source.connection.close()


def load(*tables: Table, refresh: bool = False) -> warehouse.LoadResult:
    """Load tables of the source `shop`; by default orders."""
    tables = tables or (CHANGES,)
    options = warehouse.LoadOptions(
        full_refresh=[table.target for table in tables] if refresh else ()
    )
    source = database_source(tables, name="shop")
    return warehouse.load(warehouse.plan_load(SPEC, source, options=options))


def loaded(columns: str = "id, name, note", table: str = "orders") -> list[tuple[Any, ...]]:
    """Return rows of the warehouse."""
    rows = warehouse.query(f"SELECT {columns} FROM shop_data.{table} ORDER BY 1")
    return [tuple(row.values()) for row in rows]
