"""SQL Server and Azure SQL, by Microsoft's driver mssql-python, which verifies TLS by default.

On Linux the driver needs the system's libltdl and Kerberos libraries. No test has a server: what is
tested is the SQL.

- A snapshot is a transaction with SNAPSHOT isolation. A database that does not allow it is read with
  READ COMMITTED, where each statement has its own point in time; a warning has the statement that allows it.
- Times pass as texts with all their digits; one with digits after the microseconds is an error.
- `money` is decimal(19,4); `datetimeoffset` is in UTC; `uniqueidentifier`, `xml`, `sql_variant`,
  `hierarchyid` and unknown types are text; `geometry` and `geography` are WKB; `rowversion` is binary.
- There is no LIMIT: what follows ORDER BY may be `OFFSET 0 ROWS FETCH NEXT 10 ROWS ONLY`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import sqlalchemy

from shared.sources.database.base import Column, DatabaseError, TableInfo
from shared.sources.database.sqlalchemy import dialect
from shared.sources.database.sqlalchemy.dialect import Query, Timeouts
from shared.sources.database.table import Table

_CONNECT_SECONDS = 15

_NUMBERS: dict[str, dict[str, Any]] = {
    "bit": {"data_type": "bool"},
    "tinyint": {"data_type": "bigint"},
    "smallint": {"data_type": "bigint"},
    "int": {"data_type": "bigint"},
    "bigint": {"data_type": "bigint"},
    "money": dialect.decimal_hints(19, 4),
    "smallmoney": dialect.decimal_hints(10, 4),
    "float": {"data_type": "double"},
    "real": {"data_type": "double"},
}
_TIMES: dict[str, dict[str, Any]] = {
    "date": {"data_type": "date"},
    "time": {"data_type": "time"},
    "smalldatetime": {"data_type": "timestamp", "timezone": False},
    "datetime": {"data_type": "timestamp", "timezone": False},
    "datetime2": {"data_type": "timestamp", "timezone": False},
    "datetimeoffset": {"data_type": "timestamp", "timezone": True},
}
_BINARIES = ("binary", "varbinary", "image", "timestamp", "rowversion")
_SPATIAL = ("geometry", "geography")
_TEXTS = ("char", "varchar", "nchar", "nvarchar", "text", "ntext")
_UNSORTED = (*_SPATIAL, "text", "ntext", "image", "xml", "sql_variant")

_ADVICE = {
    "login failed": "Check the user and the password in the credentials.",
    "cannot open database": "Check the database in the URL.",
    "permission was denied": "Let an owner of the table run: GRANT SELECT ON table TO the user.",
    "lock request time out": "Another session has locked the table. End its transaction.",
    "certificate": "Give the driver a certificate that the system trusts, or, for a server that you "
    "trust, write ?TrustServerCertificate=yes in the URL.",
    "snapshot isolation transaction aborted": "The table was altered. Run the load again.",
    "timeout": "The statement ran into the statement timeout. Raise it.",
    "failed to load the driver": "Install the packages libltdl7 and libgssapi-krb5-2 of the system.",
    "unable to establish": "Check the host and the port, and that the server runs.",
}


class SqlServer:
    """A database of SQL Server. The URL's query has options of the driver, such as `Encrypt`."""

    name = "mssql"

    def __init__(self, url: sqlalchemy.URL, timeouts: Timeouts) -> None:
        """Keep the URL and how long a statement may run."""
        self._url, self._timeouts = url.set(drivername="mssql+mssqlpython"), timeouts
        self.server = f"mssql {url.host or 'localhost'}:{url.port or 1433}/{url.database or ''}"

    def engine(self) -> sqlalchemy.Engine:
        """Return an engine of mssql-python.

        Raises:
            DatabaseError: the driver is not installed.
        """
        if not find_spec("mssql_python"):
            raise DatabaseError("Add shared[mssql] to the project, to read SQL Server.")
        return sqlalchemy.create_engine(
            self._url,
            poolclass=sqlalchemy.NullPool,
            connect_args={"timeout": math.ceil(self._timeouts.statement)},
        )

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Begin a transaction of one point in time, if the database allows it."""
        state = connection.exec_driver_sql(
            "SELECT snapshot_isolation_state FROM sys.databases WHERE name = DB_NAME()"
        ).scalar()
        connection.rollback()  # an isolation level is set before a transaction begins
        connection.exec_driver_sql(isolation_sql(bool(state == 1)))
        connection.exec_driver_sql(f"SET LOCK_TIMEOUT {round(self._timeouts.lock * 1000)}")
        if state != 1:
            dialect.warn(
                f"{self.server}: the database does not allow SNAPSHOT isolation, so that each statement "
                "of a load reads its own point in time. Let an owner run: "
                "ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON."
            )

    @contextmanager
    def reading(self, connection: sqlalchemy.Connection) -> Iterator[None]:
        """Do nothing: the expressions of columns say how values pass."""
        del connection
        yield

    def abandon(
        self, connection: sqlalchemy.Connection, result: sqlalchemy.CursorResult[Any]
    ) -> None:
        """Do nothing: the driver ends the query."""
        del connection, result

    def table_names(self, query: Query, table: Table) -> list[str]:
        """Return the tables and views of the schema that the user sees."""
        return [
            row[0]
            for row in query(
                "SELECT name FROM sys.objects WHERE type IN ('U', 'V') "
                f"AND schema_id = SCHEMA_ID({self._schema(table)})"
            )
        ]

    def describe(self, query: Query, table: Table) -> TableInfo | None:
        """Return a table from the catalog views."""
        found = query(
            "SELECT object_id, type, (SELECT SUM(p.rows) FROM sys.partitions AS p "
            "WHERE p.object_id = o.object_id AND p.index_id IN (0, 1)) FROM sys.objects AS o "
            f"WHERE type IN ('U', 'V') AND schema_id = SCHEMA_ID({self._schema(table)}) "
            f"AND name = {dialect.text(table.name)} COLLATE Latin1_General_BIN2"
        )
        if not found:
            return None
        object_id, kind, estimated_rows = found[0]
        rows = query(
            "SELECT name, TYPE_NAME(IIF(system_type_id = 240, user_type_id, system_type_id)), is_nullable, "
            "max_length, precision, scale FROM sys.columns "  # 240 is any type of .NET
            f"WHERE object_id = {int(object_id)} ORDER BY column_id"
        )
        columns = {row[0]: self._column(table, row) for row in rows}
        primary_key: list[str] = []
        indexes: dict[str, tuple[bool, list[str]]] = {}
        for index, unique, primary, column in query(
            "SELECT i.name, i.is_unique, i.is_primary_key, c.name FROM sys.indexes AS i "
            "JOIN sys.index_columns AS k ON k.object_id = i.object_id AND k.index_id = i.index_id "
            "JOIN sys.columns AS c ON c.object_id = k.object_id AND c.column_id = k.column_id "
            f"WHERE i.object_id = {int(object_id)} AND k.is_included_column = 0 AND i.has_filter = 0 "
            "AND k.key_ordinal > 0 AND i.is_disabled = 0 ORDER BY i.name, k.key_ordinal"
        ):
            indexes.setdefault(index, (bool(unique and not primary), []))[1].append(column)
            primary_key += [column] * bool(primary)
        unique_names = {name: names for name, (unique, names) in indexes.items() if unique}
        keys = dialect.unique_keys(
            primary_key, unique_names, {row[0] for row in rows if not row[2]}
        )
        return TableInfo(
            columns=columns,
            primary_key=keys[0] if keys else (),
            indexed=frozenset(names[0] for _, names in indexes.values()),
            estimated_rows=-1 if estimated_rows is None else int(estimated_rows),
            kind="view" if str(kind).strip() == "V" else "table",
            unique_keys=list(map(frozenset, keys)),
        )

    def row_id(self, info: TableInfo) -> str:
        """Return nothing: rows have no other name than their key."""
        del info
        return ""

    def quote(self, name: str) -> str:
        """Return a name in brackets."""
        return "[" + name.replace("]", "]]") + "]"

    def literal(self, value: Any, column: Column) -> str:
        """Return a value as the column's type, so that an index of the column is used."""
        kind = self._sorted_kind(column)
        if kind in _TIMES:
            text = dialect.time_text(value, column).replace(" ", "T")
            full = f"{text}Z" if kind == "datetimeoffset" and "T" in text else text
            return f"CAST('{full}' AS {column.database_type})"
        if kind in _BINARIES:
            return f"0x{dialect.hexadecimal(value, column)}"
        if kind in {"float", "real"}:
            return f"CAST({dialect.number(value, column)} AS {kind})"
        if kind in _NUMBERS or kind in {"decimal", "numeric"}:
            return dialect.number(value, column)
        if kind == "uniqueidentifier":
            return f"CAST({dialect.text(value)} AS uniqueidentifier)"
        return f"{'N' if kind.startswith('n') else ''}{dialect.text(value)}"

    def text_of(self, column: Column) -> str:
        """Return SQL that reads a value as text."""
        kind, name = self._sorted_kind(column), self.quote(column.name)
        if kind in _TIMES:
            return _time_text(kind, name)
        if kind in _BINARIES:
            return f"CONVERT(varchar(max), CAST({name} AS varbinary(max)), 2)"
        if kind in {"float", "real"}:
            return f"CONVERT(varchar(40), {name}, 3)"  # all digits
        if kind in {"money", "smallmoney"}:
            return f"CONVERT(varchar(40), {name}, 2)"
        return name if kind in _TEXTS else f"CONVERT(varchar(60), {name})"

    def value_advice(self, column: Column, value: Any) -> str:
        """Return nothing: the general advice helps."""
        del column, value
        return ""

    def advice(self, error: BaseException) -> str:
        """Return what to do about an error of the server, by its text."""
        text = str(error).lower()
        return next((step for part, step in _ADVICE.items() if part in text), "")

    def _schema(self, table: Table) -> str:
        return f"N{dialect.text(table.schema)}" if table.schema else "SCHEMA_NAME()"

    def _sorted_kind(self, column: Column) -> str:
        kind = column.database_type.partition("(")[0]
        if kind in _UNSORTED:
            raise DatabaseError(
                f"column {column.name} ({column.database_type}): it cannot be a cursor or a key."
            )
        return kind

    def _column(self, table: Table, row: tuple[Any, ...]) -> Column:
        name, kind, nullable, length, precision, scale = row
        found = _hints(kind, precision, scale)
        hints = dialect.merged(name, bool(nullable), found, table.types.get(name))
        return Column(
            name,
            hints,
            _expression(kind, self.quote(name)),
            _database_type(kind, length, precision, scale),
        )


def isolation_sql(allows_snapshot: bool) -> str:
    """Return the statement that sets the isolation level of a session."""
    level = "SNAPSHOT" if allows_snapshot else "READ COMMITTED"
    return f"SET TRANSACTION ISOLATION LEVEL {level}"


def _hints(kind: str, precision: int, scale: int) -> dict[str, Any]:
    """Return dlt's hints of a type of SQL Server."""
    if kind in {"decimal", "numeric"}:
        return dialect.decimal_hints(precision, scale)
    if kind in _BINARIES or kind in _SPATIAL:
        return {"data_type": "binary"}
    return _NUMBERS.get(kind) or _TIMES.get(kind) or {"data_type": "text"}


def _expression(kind: str, name: str) -> str:
    """Return SQL whose value the driver passes exactly."""
    if kind in _TIMES:
        return _time_text(kind, name)
    if kind in _SPATIAL:
        return f"{name}.STAsBinary()"
    if kind in {"money", "smallmoney"}:
        return f"CAST({name} AS decimal(19,4))"
    if kind in {*_NUMBERS, *_BINARIES, *_TEXTS, "decimal", "numeric"}:
        return name
    return f"CAST({name} AS nvarchar(max))"


def _time_text(kind: str, name: str) -> str:
    # Style 127 of a datetimeoffset is UTC with a Z; style 121 is ODBC's form with all digits.
    return f"CONVERT(varchar(40), {name}, {127 if kind == 'datetimeoffset' else 121})"


def _database_type(kind: str, length: int, precision: int, scale: int) -> str:
    if kind in {"decimal", "numeric"}:
        return f"{kind}({precision},{scale})"
    if kind in {"time", "datetime2", "datetimeoffset"}:
        return f"{kind}({scale})"
    if kind in {"char", "varchar", "nchar", "nvarchar", "binary", "varbinary"}:
        size = "max" if length < 0 else str(length // 2 if kind.startswith("n") else length)
        return f"{kind}({size})"
    return kind
