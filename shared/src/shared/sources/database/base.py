"""What each database offers to the source: a snapshot, in which tables are described and read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import pyarrow as pa
from shared.sources.database.table import Table


class DatabaseError(Exception):
    """A database refuses, does not answer, or has not what is declared.

    The message names the server, the table and the column, and the next step; it has no secret.
    """


@dataclass(frozen=True)
class Column:
    """A column of a table, and how it is read.

    Attributes:
        name: its name in the database.
        hints: dlt's column in the warehouse, under the same name; `nullable` included.
        expression: the SQL that reads it, in which its name is quoted.
        database_type: the database's name of its type, for messages, such as `numeric(10,2)`.
        number: what differs for another column of the same name; 0 if the database does not say it.
    """

    name: str
    hints: TColumnSchema
    expression: str
    database_type: str
    number: int = 0


@dataclass(frozen=True)
class TableInfo:
    """A table as the catalog of the database has it.

    Attributes:
        columns: the columns that a load reads, by name, in the order of the table.
        primary_key: the columns of the primary key; of a unique index without NULLs if there is none.
        indexed: columns that are the first of some index.
        estimated_rows: how many rows the database's statistics say it has; -1 if they say nothing.
        kind: `table`, `partitioned table`, `view`, `materialized view` or `foreign table`.
        all_columns: all columns of the table, also those that the declaration leaves out.
        unique_keys: the columns of each unique index that has no NULLs, the primary key included.
    """

    columns: Mapping[str, Column]
    primary_key: Sequence[str]
    indexed: frozenset[str]
    estimated_rows: int
    kind: str = "table"
    all_columns: Mapping[str, Column] = field(default_factory=dict)
    unique_keys: Sequence[frozenset[str]] = ()

    def __post_init__(self) -> None:
        """Count the primary key as a unique key."""
        if self.primary_key and not self.unique_keys:
            object.__setattr__(self, "unique_keys", [frozenset(self.primary_key)])


class Snapshot(Protocol):
    """One read-only transaction of a database: everything that it reads is of one point in time."""

    dialect: str
    """The database: `postgresql`, `mysql`, `sqlite` or `mssql`."""

    server: str
    """The server and database, for messages, without a secret."""

    def describe(self, table: Table) -> TableInfo:
        """Return what the catalog says about a table, and how its columns are read.

        Raises:
            DatabaseError: there is no such table or column, or no right to read it.
        """

    def read(
        self, table: Table, info: TableInfo, where: str = "", order_by: str = ""
    ) -> "Iterator[pa.RecordBatch]":
        """Yield rows in bounded batches: the columns of `info`, in Arrow's types of their hints.

        Args:
            table: the table.
            info: as described in this snapshot.
            where: a condition in the database's SQL.
            order_by: what follows ORDER BY, and what may follow that, such as LIMIT.

        Raises:
            DatabaseError: a value does not fit, or the database refuses or stops answering.
        """

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query that has few."""

    def quote(self, *names: str) -> str:
        """Return a name in quotes, such as that of a column, or of a schema and a table."""

    def literal(self, value: Any, column: Column) -> str:
        """Return SQL of a value of a column, from the text with which `text_of` reads it."""

    def text_of(self, column: Column) -> str:
        """Return the SQL that reads a value of a column as a text with its full precision."""


class Database(Protocol):
    """A database that a source reads."""

    def snapshot(self, table: Table | None = None) -> AbstractContextManager[Snapshot]:
        """Connect, and yield a snapshot. Its transaction ends with the block.

        Args:
            table: the table that is to be read, which nobody can truncate or rewrite meanwhile.

        Raises:
            DatabaseError: it cannot connect.
        """
