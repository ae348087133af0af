"""Loads of a Postgres database in the mode changes."""

from typing import Any

from shared import warehouse
from shared.sources.database import Table
from shared.testing import source_database
from shared.testing.source_database import SourceDatabase

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, name text, note text)"
CHANGES = Table("orders", mode="changes", key="id")


def rows_of(shop: SourceDatabase) -> list[tuple[Any, ...]]:
    """Return the rows of the source's table orders."""
    return shop.run("SELECT id, name, note FROM orders ORDER BY 1")


def load(*tables: Table, refresh: bool = False) -> warehouse.LoadResult:
    """Load tables of the source `shop`; by default orders."""
    tables = tables or (CHANGES,)
    targets = [table.target for table in tables] if refresh else ()
    return source_database.load(*tables, refresh=targets)


def loaded(columns: str = "id, name, note", table: str = "orders") -> list[tuple[Any, ...]]:
    """Return rows of the warehouse."""
    return source_database.loaded(columns, table)
