"""The mode changes: the warehouse has the table as it was at one moment, from Postgres' log."""

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from shared import warehouse
from shared.sources.database import DatabaseError, Table, database_source
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
        return psycopg2.connect(self.url)

    def run(self, sql: str, connection: Any = None) -> list[tuple[Any, ...]]:
        with (connection or self.connection).cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        return self.run("SELECT id, name, note FROM orders ORDER BY 1")


@pytest.fixture
def shop(
    warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Any
) -> Iterator[Source]:
    """Yield an empty database that the source `shop` reads. Its slots are dropped at the end."""
    url = warehouse_server.database().replace("+psycopg2", "")
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
    source = Source(url)
    yield source
    source.run(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
        "WHERE database = current_database()"
    )
    source.connection.close()


def load(*tables: Table, refresh: bool = False) -> warehouse.LoadResult:
    tables = tables or (CHANGES,)
    options = warehouse.LoadOptions(full_refresh=[table.target for table in tables] if refresh else ())
    source = database_source(tables, name="shop")
    return warehouse.load(warehouse.plan_load(SPEC, source, options=options))


def loaded(columns: str = "id, name, note", table: str = "orders") -> list[tuple[Any, ...]]:
    rows = warehouse.query(f"SELECT {columns} FROM shop_data.{table} ORDER BY 1")
    return [tuple(row.values()) for row in rows]


def test_inserts_updates_and_deletes_are_loaded(any_warehouse: str, shop: Source) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load()
    assert loaded() == shop.rows() == [(1, "a", None), (2, "b", None)]
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    shop.run("UPDATE orders SET name = 'x' WHERE id = 1; DELETE FROM orders WHERE id = 2")
    result = load()
    assert result.rows_loaded["orders"] == 3
    assert loaded() == shop.rows() == [(1, "x", None), (3, "c", None)]
    assert load().rows_loaded.get("orders", 0) == 0
