"""SQLite files, opened read-only.

A column of SQLite stores values of any type, unless its table is STRICT. A value that is not of the
declared type is an error, because each warehouse has one type per column. A column without a declared
type, or with one that SQLite does not know, is read as text; its numbers then have all their digits.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy

from shared.sources.database.base import Column, DatabaseError, TableInfo
from shared.sources.database.sqlalchemy import dialect
from shared.sources.database.sqlalchemy.dialect import Query, Timeouts
from shared.sources.database.table import Table

_MAX_COLUMNS = 2000  # of a table, and of a query
_DECLARED = re.compile(r"([^(]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\).*)?", re.DOTALL)
_TYPES: dict[str, dict[str, Any]] = {
    "BOOL": {"data_type": "bool"},
    "BOOLEAN": {"data_type": "bool"},
    "DATE": {"data_type": "date"},
    "DATETIME": {"data_type": "timestamp", "timezone": False},
    "TIMESTAMP": {"data_type": "timestamp", "timezone": False},
    "TIMESTAMP WITHOUT TIME ZONE": {"data_type": "timestamp", "timezone": False},
    "TIMESTAMPTZ": {"data_type": "timestamp", "timezone": True},
    "TIMESTAMP WITH TIME ZONE": {"data_type": "timestamp", "timezone": True},
    "TIME": {"data_type": "time"},
    "JSON": {"data_type": "json"},
}
_AFFINITIES = (
    ("INT", "bigint"),
    ("CHAR", "text"),
    ("CLOB", "text"),
    ("TEXT", "text"),
    ("BLOB", "binary"),
    ("REAL", "double"),
    ("FLOA", "double"),
    ("DOUB", "double"),
)
"""SQLite's rules: the first part of a declared type that is in the name, and dlt's type."""

_NUMERIC = ("bigint", "double", "decimal", "bool")


@dataclass(frozen=True)
class TimeColumn(Column):
    """A cursor whose values are texts of timestamps.

    Attributes:
        separator: the character between date and time.
    """

    separator: str = " "


class Sqlite:
    """A file of SQLite. Its transaction sees one point in time, also while another program writes.

    A file that is not in WAL mode cannot be written while a snapshot is open.
    """

    name = "sqlite"

    def __init__(self, url: sqlalchemy.URL, timeouts: Timeouts) -> None:
        """Keep the file and how long to wait for a lock.

        Raises:
            DatabaseError: the URL has no file, or has options.
        """
        if not url.database or url.database == ":memory:" or url.query:
            raise DatabaseError(
                "The URL of an SQLite database is sqlite:///file.db, or sqlite:////folder/file.db, "
                "without options."
            )
        self._path, self._timeouts = Path(url.database), timeouts
        self.server = f"sqlite {self._path}"

    def engine(self) -> sqlalchemy.Engine:
        """Return an engine that opens the file read-only."""
        return sqlalchemy.create_engine(
            "sqlite://", creator=self._connect, poolclass=sqlalchemy.NullPool
        )

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Begin a transaction, and read, because only that makes SQLite take its snapshot."""
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema")

    @contextmanager
    def reading(self, connection: sqlalchemy.Connection) -> Iterator[None]:
        """Do nothing: the driver returns values as they are stored."""
        del connection
        yield

    def abandon(
        self, connection: sqlalchemy.Connection, result: sqlalchemy.CursorResult[Any]
    ) -> None:
        """Do nothing: the driver ends the query."""
        del connection, result

    def table_names(self, query: Query, table: Table) -> list[str]:
        """Return the tables and views of the file."""
        del table
        return [row[0] for row in query("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")]

    def describe(self, query: Query, table: Table) -> TableInfo | None:
        """Return a table of the file."""
        name = dialect.text(table.name)
        found = query(
            "SELECT l.type, l.wr FROM pragma_table_list AS l WHERE l.schema = 'main' "
            f"AND l.name = {name} COLLATE BINARY"
        )
        if not found or table.schema not in {None, "main"}:
            return None
        kind, without_rowid = found[0]
        rows = query(f'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo({name})')
        key_parts = sorted((pk, column) for column, _, _, pk, _ in rows if pk)
        required = {column for column, _, notnull, pk, _ in rows if notnull or pk}
        columns = {
            column: self._column(table, column, declared, column not in required)
            for column, declared, _, _, hidden in rows
            if hidden != 1  # arguments of virtual tables
        }
        if table.cursor in columns and columns[table.cursor].hints["data_type"] == "timestamp":
            columns[table.cursor] = self._time_cursor(query, table, columns[table.cursor])
        indexes = self._indexes(query, name)
        unique = {index: names for index, (is_unique, names) in indexes.items() if is_unique}
        primary_key = [column for _, column in key_parts]
        keys = dialect.unique_keys(primary_key, unique, required)
        info = TableInfo(
            columns=columns,
            primary_key=keys[0] if keys else (),
            indexed=frozenset(names[0] for _, names in indexes.values()) | {*primary_key[:1]},
            estimated_rows=0 if kind == "table" and not without_rowid else -1,
            kind="view" if kind == "view" else "table",
            unique_keys=list(map(frozenset, keys)),
        )
        if row_id := self.row_id(info):
            ((last,),) = query(f"SELECT max({row_id}) FROM {self.quote(table.name)}")
            info = replace(info, estimated_rows=last or 0)
        return info

    def row_id(self, info: TableInfo) -> str:
        """Return a name of the rowid that is not a column's."""
        known = {name.lower() for name in [*info.columns, *info.all_columns]}
        free = [name for name in ("rowid", "oid", "_rowid_") if name not in known]
        has_rowid = info.kind == "table" and info.estimated_rows >= 0
        return free[0] if free and has_rowid and len(info.columns) < _MAX_COLUMNS else ""

    def quote(self, name: str) -> str:
        """Return a name in double quotes."""
        return '"' + name.replace('"', '""') + '"'

    def literal(self, value: Any, column: Column) -> str:
        """Return a value as it is stored: a number, a text or a blob.

        A timestamp is written as short as it can be, which precedes the other ways to write the same one.

        Raises:
            DatabaseError: the column stores values of another type, whose order is another one.
        """
        self._refuse_other_order(column)
        data_type = column.hints["data_type"]
        if data_type in _NUMERIC:
            return dialect.number(value, column)
        if data_type == "binary":
            return f"X'{dialect.hexadecimal(value, column)}'"
        if data_type in {"timestamp", "date", "time"}:
            text = dialect.time_text(value, column)
            if data_type == "timestamp":
                text = text.replace("T", " ").removesuffix(" 00:00:00")
                text = text.rstrip("0").rstrip(".") if "." in text else text
                text = re.sub(r"( \d\d:\d\d):00$", r"\1", text)
            return dialect.text(text.replace(" ", getattr(column, "separator", " ")))
        if "\0" in str(value):
            return f"CAST(X'{str(value).encode().hex()}' AS TEXT)"
        return dialect.text(value)

    def text_of(self, column: Column) -> str:
        """Return SQL that reads a value as text; a real number with all its digits."""
        self._refuse_other_order(column)
        name = self.quote(column.name)
        if column.hints["data_type"] == "binary":
            return f"hex({name})"
        if column.hints["data_type"] in _NUMERIC:
            return (
                f"CASE typeof({name}) WHEN 'real' THEN printf('%!.17g', {name}) "
                f"ELSE CAST({name} AS TEXT) END"
            )
        return name

    def value_advice(self, column: Column, value: Any) -> str:
        """Return what to do about a number in a column of times, and about a time with a zone."""
        kind, declare = (
            column.hints["data_type"],
            f'Write types={{"{column.name}": {{%s}}}} in the Table',
        )
        if kind in {"timestamp", "date", "time"} and isinstance(value, int | float):
            wanted = "bigint" if isinstance(value, int) else "double"
            step = declare % f'"data_type": "{wanted}"'
            return f"It is a number. {step}, and convert it in the warehouse."
        if kind == "timestamp" and not column.hints.get("timezone", True) and ":" in str(value):
            return f"""{declare % '"timezone": True'} if it has a zone, or "data_type": "text"."""
        return ""

    def advice(self, error: BaseException) -> str:
        """Return what to do about an error of SQLite."""
        text = str(error)
        if "locked" in text or "busy" in text:
            return (
                f"Another program has locked the file for more than {self._timeouts.lock:g} s. End its "
                "transaction, or set the file to WAL mode: PRAGMA journal_mode=WAL."
            )
        if "not a database" in text:
            return "The file is not one of SQLite, or it is encrypted."
        if "unable to open" in text:
            return "Check that the file exists and that the user may read it."
        return ""

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=self._timeouts.lock,
            isolation_level=None,  # otherwise the driver decides when a transaction begins
            check_same_thread=False,
        )
        # Text that is not UTF-8 becomes one that no Arrow array takes, which names its column and row.
        connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        return connection

    def _column(self, table: Table, name: str, declared: str, nullable: bool) -> Column:
        hints = dialect.merged(name, nullable, _hints(declared), table.types.get(name))
        return Column(name, hints, self.quote(name), declared)

    def _time_cursor(self, query: Query, table: Table, column: Column) -> Column:
        """Return a cursor with the character between its dates and times.

        Raises:
            DatabaseError: SQLite compares times as texts, and the order of these is not that of time.
        """
        name = self.quote(column.name)
        ways = query(
            f"SELECT DISTINCT substr({name}, 11, 1), ltrim(substr({name}, 20), '.0123456789') "
            f"FROM {self.quote(table.name)} WHERE {name} IS NOT NULL"
        )
        separators = {separator for separator, _ in ways if separator}
        zones = {zone for separator, zone in ways if separator}
        if len(separators) > 1 or len(zones) > 1 or not zones <= {"", "Z", "+00:00"}:
            shown = ", ".join(sorted(f"YYYY-MM-DD{way}HH:MM:SS{zone}" for way, zone in ways))
            raise DatabaseError(
                f"table {table.full_name}, column {column.name} ({column.database_type}): it cannot be a "
                f"cursor, because its times are written in ways whose order is not that of time: {shown}."
            )
        separator = next(iter(separators), " ")
        return TimeColumn(
            column.name,
            column.hints,
            column.expression,
            column.database_type,
            separator=separator,
        )

    def _indexes(self, query: Query, name: str) -> dict[str, tuple[bool, list[str]]]:
        """Return by index whether it is unique, and its columns; none if it is partial or has expressions."""
        rows = query(
            'SELECT i.name, i."unique", c.name FROM '
            f"pragma_index_list({name}) AS i, pragma_index_xinfo(i.name) AS c "
            "WHERE c.key = 1 AND i.partial = 0 ORDER BY i.name, c.seqno"
        )
        indexes: dict[str, tuple[bool, list[Any]]] = {}
        for index, unique, column in rows:
            indexes.setdefault(index, (bool(unique), []))[1].append(column)
        return {index: found for index, found in indexes.items() if None not in found[1]}

    def _refuse_other_order(self, column: Column) -> None:
        """Raise for a column whose values are stored as another type than they are read."""
        stored, read = _affinity(column.database_type), column.hints["data_type"]
        if (stored == "text" and read in _NUMERIC) or (stored == "" and read == "text"):
            raise DatabaseError(
                f"column {column.name} ({column.database_type or 'no declared type'}): it cannot be a "
                f"cursor or a key, because SQLite does not sort it as {read}."
            )


def _affinity(declared: str) -> str:
    """Return dlt's type of the values that SQLite prefers to store; empty if it has no preference."""
    upper = declared.upper()
    return next(
        (found for part, found in _AFFINITIES if part in upper), "" if not upper else "decimal"
    )


def _hints(declared: str) -> dict[str, Any]:
    """Return dlt's hints of a declared type."""
    parts = _DECLARED.fullmatch(declared.upper())
    base, precision, scale = parts.groups() if parts else (declared.upper(), None, None)
    base = " ".join(base.split())
    if base in _TYPES:
        return _TYPES[base]
    if base in {"DECIMAL", "NUMERIC"}:
        return dialect.decimal_hints(int(precision or 38), int(scale or (0 if precision else 9)))
    affinity = _affinity(declared)
    return {"data_type": affinity if affinity not in {"", "decimal"} else "text"}
