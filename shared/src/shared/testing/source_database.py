"""A Postgres database as its application sees it, and loads of its tables by a source named `shop`.

The fixtures `source_database` and `shop` create one for a test.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster_dlt import dlt_assets
from psycopg2.extensions import quote_ident

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.database import DatabaseError, Table, database_source
from shared.sources.partitions import PartitionKey
from shared.testing.postgres_server import PostgresServer
from shared.warehouse.errors import find_cause

SHOP = warehouse.pipeline("shop_pipeline", "shop_data")
"""The pipeline of `load`; its dataset is `shop_data`."""


class SourceDatabase:
    """A database of a Postgres server, and a connection to it that commits each statement."""

    def __init__(self, url: str) -> None:
        """Connect to the database of a URL, which may name SQLAlchemy's driver psycopg2."""
        self.url = url.replace("+psycopg2", "")
        self.connection = self.connect()
        self.connection.autocommit = True

    @property
    def name(self) -> str:
        """The name of the database on its server."""
        return self.url.rpartition("/")[2]

    def connect(self) -> Any:
        """Return another connection, which commits only when told to."""
        return psycopg2.connect(self.url)

    def run(
        self, sql: str, connection: Any = None, parameters: Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run statements, and return the rows of the last one.

        Args:
            sql: the statements; with parameters, `%s` stands for each.
            connection: one of `connect`; by default the one that commits each statement.
            parameters: values of the statement.
        """
        with (connection or self.connection).cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def quote(self, name: str) -> str:
        """Return a name as SQL has it."""
        return str(quote_ident(name, self.connection))

    def configure(self, **settings: str) -> None:
        """Change settings of the database, such as `timezone="'UTC'"`, for sessions that follow."""
        for setting, value in settings.items():
            self.run(f"ALTER DATABASE {self.name} SET {setting} = {value}")


@contextmanager
def created_database(server: PostgresServer) -> Iterator[SourceDatabase]:
    """Yield an empty database of a server; at the end its replication slots are dropped."""
    database = SourceDatabase(server.database())
    try:
        yield database
    finally:
        database.run(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )
        database.connection.close()


def load(
    *tables: Table,
    partitions: Sequence[PartitionKey] = (),
    refresh: Sequence[str] = (),
    min_row_ratio: float = 0,
) -> warehouse.LoadResult:
    """Load tables of the source `shop` into the dataset `shop_data`.

    Args:
        tables: what to load.
        partitions: those of the run, for tables of the mode window.
        refresh: the targets whose rows are all loaded again.
        min_row_ratio: the share of its rows that a replaced table must keep.
    """
    options = warehouse.LoadOptions(full_refresh=refresh, min_row_ratio=min_row_ratio)
    source = database_source(tables, name="shop")
    return warehouse.load(warehouse.plan_load(SHOP, source, partitions, options))


def loaded(
    columns: str = "id, name", table: str = "orders", order: str = "1"
) -> list[tuple[Any, ...]]:
    """Return the rows of a table of the dataset `shop_data`.

    Args:
        columns: the expressions to select.
        table: its name.
        order: the expressions to sort by.
    """
    rows = warehouse.query(f"SELECT {columns} FROM shop_data.{table} ORDER BY {order}")
    return [tuple(row.values()) for row in rows]


def shop_assets(*tables: Table) -> dg.AssetsDefinition:
    """Return the assets of tables of the source `shop`, which need the resource `dlt`."""

    @dlt_assets(
        dlt_source=database_source(tables, name="shop"),
        dlt_pipeline=SHOP,
        dagster_dlt_translator=WarehouseTranslator("team:test"),
        name="shop",
    )
    def shop(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[Any]:
        yield from dlt.run(context=context)

    return shop


def refused(*tables: Table) -> str:
    """Load tables, which must fail, and return the error of the database, or else of the load."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any kind; the caller checks its text
        load(*tables)
    return str(find_cause(caught.value, DatabaseError) or caught.value)
