"""What differs between the databases that SQLAlchemy connects to."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import sqlalchemy
from dlt.common import logger
from dlt.common.schema.typing import TColumnSchema

from shared.sources.database.base import Column, DatabaseError, TableInfo
from shared.sources.database.table import Table
from shared.sources.protocol import current_load

Query = Callable[[str], list[tuple[Any, ...]]]
"""Runs a query and returns its rows."""

MAX_PRECISION = 38
"""Digits of a decimal that each warehouse stores; one with more is read as text."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TIME = re.compile(r"[-\d:. T+Z]+")
_ZONE = re.compile(r":.*(Z|[-+]\d\d(:?\d\d)?)$")


@dataclass(frozen=True)
class Timeouts:
    """How many seconds a statement may run, and wait for a lock."""

    statement: float
    lock: float


class Dialect(Protocol):
    """A database: how it is connected to, and its SQL."""

    name: str
    """The database, as `Snapshot.dialect`."""

    server: str
    """The server and database, without a secret."""

    def engine(self) -> sqlalchemy.Engine:
        """Return SQLAlchemy's engine; nothing is connected yet.

        Raises:
            DatabaseError: the URL has what this database does not know.
        """

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Limit the time of the session's statements, and begin its read-only transaction."""

    def reading(self, connection: sqlalchemy.Connection) -> AbstractContextManager[None]:
        """Make the driver return values as `values.to_arrow` takes them, while a query starts."""

    def abandon(
        self, connection: sqlalchemy.Connection, result: sqlalchemy.CursorResult[Any]
    ) -> None:
        """End a query of which not all rows are read, without reading them."""

    def describe(self, query: Query, table: Table) -> TableInfo | None:
        """Return a table with all of its columns as `columns`; None if the catalog does not have it."""

    def table_names(self, query: Query, table: Table) -> list[str]:
        """Return the tables and views that the user sees in the table's schema."""

    def row_id(self, info: TableInfo) -> str:
        """Return the SQL of what identifies a row of a table without a key; empty if there is none."""

    def quote(self, name: str) -> str:
        """Return a name in quotes."""

    def literal(self, value: Any, column: Column) -> str:
        """Return SQL of a value, which is compared as the column is."""

    def text_of(self, column: Column) -> str:
        """Return SQL that reads a value as text."""

    def value_advice(self, column: Column, value: Any) -> str:
        """Return what to do about a value that does not fit; empty for what helps in general."""

    def advice(self, error: BaseException) -> str:
        """Return what to do about an error of the driver; empty if nothing is known."""


def merged(
    name: str, nullable: bool, hints: Mapping[str, Any], declared: TColumnSchema | None
) -> TColumnSchema:
    """Return dlt's hints of a column, with what the declaration of the table replaces.

    Args:
        name: the column's name.
        nullable: whether it may be NULL.
        hints: those of its type.
        declared: those of `Table.types`; another data type replaces all of `hints`.
    """
    replaced = declared or {}
    if replaced.get("data_type", hints["data_type"]) != hints["data_type"]:
        hints = {}
    return cast(TColumnSchema, {"name": name, "nullable": nullable, **hints, **replaced})


def decimal_hints(precision: int, scale: int) -> dict[str, Any]:
    """Return the hints of a decimal; of a text if no warehouse stores so many digits."""
    if precision > MAX_PRECISION:
        return {"data_type": "text"}
    return {"data_type": "decimal", "precision": precision, "scale": scale}


def unique_keys(
    primary_key: Sequence[str], unique: Mapping[str, list[Any]], required: set[str]
) -> list[list[str]]:
    """Return the primary key and the unique indexes of columns that are never NULL, the shortest first.

    Args:
        primary_key: its columns; empty if there is none.
        unique: the columns of each other unique index, by its name; None for an expression.
        required: the columns that are never NULL.
    """
    fitting = [names for _, names in sorted(unique.items()) if names and required.issuperset(names)]
    return [*filter(None, [list(primary_key)]), *sorted(fitting, key=len)]


def warn(message: str) -> None:
    """Show a message with the result of the load, or log it where a source is read without one."""
    load = current_load()
    (load.warn if load else logger.warning)(message)


def close_matches(name: str, names: Iterable[str]) -> str:
    """Return a sentence with names that are like a wrong one; empty if none is."""
    by_lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f" Did you mean {', '.join(by_lower[match] for match in found)}?" if found else ""


def number(value: Any, column: Column) -> str:
    """Return a number as SQL.

    Raises:
        DatabaseError: it is not one.
    """
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if not _NUMBER.fullmatch(text):
        raise DatabaseError(
            f"column {column.name} ({column.database_type}): {text!r} is not a number."
        )
    return text


def time_text(value: Any, column: Column) -> str:
    """Return a date, time or timestamp as text; one with a zone is in UTC, without the zone.

    Raises:
        DatabaseError: it is not one.
    """
    if isinstance(value, str) and not _TIME.fullmatch(value):
        raise DatabaseError(
            f"column {column.name} ({column.database_type}): {value!r} is not a time."
        )
    if isinstance(value, str) and _ZONE.search(value):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return naive.isoformat(" ")
    return str(value)


def hexadecimal(value: Any, column: Column) -> str:
    """Return binary data, or its hexadecimal text, as hexadecimal digits.

    Raises:
        DatabaseError: it is not one.
    """
    try:
        return (value if isinstance(value, bytes) else bytes.fromhex(str(value))).hex()
    except ValueError:
        raise DatabaseError(
            f"column {column.name} ({column.database_type}): the value is not hexadecimal."
        ) from None


def text(value: Any) -> str:
    """Return a text as SQL, in which a backslash is only a backslash."""
    return "'" + str(value).replace("'", "''") + "'"
