"""MySQL and MariaDB, by PyMySQL.

Numbers and times pass as the texts that the server writes, so that no driver rounds them.

- `tinyint(1)` is a bool; another value than 0 and 1 is an error.
- `bigint unsigned` is `decimal(20,0)`; `bit(1)` is a bool, and other bits are a bigint.
- A decimal of more than 38 digits is read as text.
- A zero date, such as `0000-00-00` or `2024-00-10`, is an error; with `types={"column": {"nullable": True}}`
  it is NULL.
- `time` is a time of day; one outside of 0 to 24 hours is an error, and a text by `types`.
- `timestamp` is in UTC; `datetime` has no zone.
- Geometry is WKB; enum, set, uuid, inet and unknown types are text.

Tables of MyISAM and other engines without transactions are read as they are at each statement, with a
warning.
"""

import math
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import sqlalchemy
from dlt.common.schema.typing import TColumnSchema

from shared.sources.database.base import Column, DatabaseError, TableInfo
from shared.sources.database.sqlalchemy import dialect
from shared.sources.database.sqlalchemy.dialect import Query, Timeouts
from shared.sources.database.table import Table

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OPTIONS = ("ssl_mode", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket")
_SSL_MODES = ("disabled", "required", "verify_identity")
_CONNECT_SECONDS = 10

_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "year")
_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
_BINARIES = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
_SPATIAL = (
    *("geometry", "point", "linestring", "polygon", "geometrycollection", "geomcollection"),
    *("multipoint", "multilinestring", "multipolygon"),
)
_TIMES: dict[str, dict[str, Any]] = {
    "date": {"data_type": "date"},
    "datetime": {"data_type": "timestamp", "timezone": False},
    "timestamp": {"data_type": "timestamp", "timezone": True},
    "time": {"data_type": "time"},
}
_TYPES: dict[str, dict[str, Any]] = {
    **{kind: {"data_type": "bigint"} for kind in _INTEGERS},
    **{kind: {"data_type": "binary"} for kind in (*_BINARIES, *_SPATIAL)},
    **{kind: {"data_type": "double"} for kind in ("float", "double")},
    **_TIMES,
    "json": {"data_type": "json"},
}
"""dlt's hints, by type; other types are text."""

_UINT64 = dialect.decimal_hints(20, 0)
_UINT64_BITS = 64

_NUMBERED = ("bit", "enum", "set")
"""Types whose order is that of a number."""

_WITHOUT_TRANSACTIONS = ("MyISAM", "Aria", "MEMORY", "CSV", "ARCHIVE", "MRG_MyISAM")
_KINDS = {"BASE TABLE": "table", "SYSTEM VERSIONED": "table", "VIEW": "view", "SYSTEM VIEW": "view"}
_ADVICE = {
    1044: "Let an owner of the database run: GRANT SELECT ON database.* TO the user.",
    1045: "Check the user and the password in the credentials.",
    1049: "Check the database in the URL.",
    1142: "Let an owner of the table run: GRANT SELECT ON database.table TO the user.",
    1143: "Let an owner of the table grant SELECT on the column, or exclude it in the Table.",
    1205: "Another session has locked the table. End its transaction, or raise the statement timeout.",
    1412: "The table was altered after the snapshot began. Run the load again.",
    1969: "The statement ran into the statement timeout. Raise it, or read fewer rows per load.",
    2002: "Check the host and the port, and that the server runs.",
    2003: "Check the host and the port, and that the server runs.",
    2006: "The server closed the connection. Run the load again.",
    2013: "The server closed the connection, or did not answer within the statement timeout.",
    2026: (
        "TLS failed. Give the server's certificate authority as ?ssl_ca=file in the URL, or turn TLS "
        "off with ?ssl_mode=disabled."
    ),
    3024: "The statement ran into the statement timeout. Raise it, or read fewer rows per load.",
}


class MySql:
    """A database of a MySQL or MariaDB server.

    TLS is verified unless the host is loopback. The URL's query may have `ssl_mode`: `verify_identity`,
    `required` (encrypted, not verified) or `disabled`; `ssl_ca`, `ssl_cert` and `ssl_key`, which are
    files; and `unix_socket`.
    """

    name = "mysql"

    def __init__(self, url: sqlalchemy.URL, timeouts: Timeouts) -> None:
        """Keep the URL and how long a statement may run.

        Raises:
            DatabaseError: the URL has options that it must not have.
        """
        self._database, self._timeouts = url.database or "", timeouts
        host = url.query.get("unix_socket") or f"{url.host or 'localhost'}:{url.port or 3306}"
        self.server = f"mysql {host}/{self._database}"
        unknown = {*url.query} - {*_OPTIONS}
        if unknown:
            raise DatabaseError(
                f"{self.server}: the URL has the option {', '.join(sorted(unknown))}; it may have "
                f"{', '.join(_OPTIONS)}."
            )
        self._url = url.set(drivername="mysql+pymysql", query={})
        self._options = {name: str(value) for name, value in url.query.items()}

    def engine(self) -> sqlalchemy.Engine:
        """Return an engine of PyMySQL.

        Raises:
            DatabaseError: PyMySQL is not installed, or a file for TLS cannot be read.
        """
        if not find_spec("pymysql"):
            raise DatabaseError("Add shared[mysql] to the project, to read MySQL and MariaDB.")
        arguments: dict[str, Any] = {
            "charset": "utf8mb4",
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": math.ceil(self._timeouts.statement) + _CONNECT_SECONDS,
            "write_timeout": math.ceil(self._timeouts.statement) + _CONNECT_SECONDS,
            **self._tls(),
        }
        if "unix_socket" in self._options:
            arguments["unix_socket"] = self._options["unix_socket"]
        return sqlalchemy.create_engine(
            self._url, poolclass=sqlalchemy.NullPool, connect_args=arguments
        )

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Begin a consistent read-only transaction, in UTC and with a limit for each statement."""
        limit = (
            f"max_statement_time = {self._timeouts.statement:f}"
            if getattr(connection.dialect, "is_mariadb", False)
            else f"max_execution_time = {max(round(self._timeouts.statement * 1000), 1)}"
        )
        for setting in (
            "time_zone = '+00:00'",
            "sql_mode = 'NO_BACKSLASH_ESCAPES'",
            f"lock_wait_timeout = {max(math.ceil(self._timeouts.lock), 1)}",
            f"innodb_lock_wait_timeout = {max(math.ceil(self._timeouts.lock), 1)}",
            f"net_write_timeout = {math.ceil(self._timeouts.statement) + _CONNECT_SECONDS}",  # while a batch is written
            limit,
        ):
            connection.exec_driver_sql(f"SET SESSION {setting}")
        connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    @contextmanager
    def reading(self, connection: sqlalchemy.Connection) -> Iterator[None]:
        """Make PyMySQL return the texts of the server, and bytes of binary columns."""
        driver: Any = connection.connection.driver_connection
        decoders, driver.decoders = driver.decoders, {}
        try:
            yield
        finally:
            driver.decoders = decoders

    def abandon(
        self, connection: sqlalchemy.Connection, result: sqlalchemy.CursorResult[Any]
    ) -> None:
        """Close the connection: PyMySQL reads all rows to their end otherwise, or fails if it is lost."""
        unread: Any = getattr(result.cursor, "_result", None)
        if unread is not None:
            unread.unbuffered_active = False
        if not connection.closed:
            connection.invalidate()

    def table_names(self, query: Query, table: Table) -> list[str]:
        """Return the tables and views of the schema that the user sees."""
        schema = self._schema(table)
        rows = query(
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = {schema}"
        )
        return [row[0] for row in rows]

    def describe(self, query: Query, table: Table) -> TableInfo | None:
        """Return a table from the information schema."""
        name = dialect.text(table.name)
        where = (
            f"table_schema = {self._schema(table)} AND table_name = {name} "
            f"AND CAST(table_name AS BINARY) = CAST({name} AS BINARY)"  # in the same case
        )
        found = query(
            f"SELECT table_type, table_rows, engine FROM information_schema.tables WHERE {where}"
        )
        if not found:
            return None
        kind, estimated_rows, engine = found[0]
        if engine in _WITHOUT_TRANSACTIONS:
            dialect.warn(
                f"{self.server}: table {table.full_name} has the engine {engine}, which has no transactions: "
                "rows that change while it is read may be missing or old. ALTER TABLE … ENGINE=InnoDB helps."
            )
        rows = query(
            "SELECT column_name, data_type, column_type, is_nullable = 'YES', numeric_precision, "
            f"numeric_scale FROM information_schema.columns WHERE {where} ORDER BY ordinal_position"
        )
        columns = {row[0]: self._column(table, row) for row in rows}
        indexes: dict[str, tuple[bool, list[str]]] = {}
        for name, repeats, column in query(
            "SELECT index_name, non_unique, IF(sub_part IS NULL, column_name, NULL) "
            f"FROM information_schema.statistics WHERE {where} ORDER BY index_name, seq_in_index"
        ):
            indexes.setdefault(name, (not repeats, []))[1].append(column)
        unique = {name: names for name, (is_unique, names) in indexes.items() if is_unique}
        primary_key = unique.pop("PRIMARY", [])
        required = {row[0] for row in rows if not row[3]}
        keys = dialect.unique_keys(primary_key, unique, required)
        return TableInfo(
            columns=columns,
            primary_key=keys[0] if keys else (),
            indexed=frozenset(names[0] for _, names in indexes.values() if names[0]),
            estimated_rows=-1 if estimated_rows is None else int(estimated_rows),
            kind=_KINDS.get(kind, "table"),
            unique_keys=list(map(frozenset, keys)),
        )

    def row_id(self, info: TableInfo) -> str:
        """Return nothing: rows have no other name than their key."""
        del info
        return ""

    def quote(self, name: str) -> str:
        """Return a name in backticks."""
        return "`" + name.replace("`", "``") + "`"

    def literal(self, value: Any, column: Column) -> str:
        """Return a value as the column's type, so that an index of the column is used."""
        kind = _kind(column)
        self._refuse_unsorted(column)
        if kind in _TIMES:
            text = dialect.time_text(value, column)
            if kind == "time":
                return f"TIME{dialect.text(text)}"
            is_day = len(text) == len("YYYY-MM-DD")
            return f"TIMESTAMP{dialect.text(f'{text} 00:00:00' if is_day else text)}"
        if kind in {"float", "double"}:
            number = dialect.number(value, column)
            return number if "e" in number.lower() else f"{number}E0"
        if kind in {*_INTEGERS, *_NUMBERED, "decimal"}:
            return dialect.number(value, column)
        if kind in _BINARIES:
            return f"X'{dialect.hexadecimal(value, column)}'"
        return dialect.text(value)

    def text_of(self, column: Column) -> str:
        """Return SQL that reads a value as text."""
        kind, name = _kind(column), self.quote(column.name)
        self._refuse_unsorted(column)
        if kind in _TEXTS:
            return name
        if kind in _BINARIES:
            return f"HEX({name})"
        if kind in _NUMBERED:
            return f"CAST({name} + 0 AS CHAR)"
        return f"CAST({name}{' + 0E0' if kind in {'float', 'double'} else ''} AS CHAR)"

    def value_advice(self, column: Column, value: Any) -> str:
        """Return what to do about a zero date, and about another number in a tinyint(1)."""
        if _kind(column) in {"date", "datetime", "timestamp"} and "-00" in str(value):
            return (
                f'Write types={{"{column.name}": {{"nullable": True}}}} in the Table, to load such '
                "dates as NULL."
            )
        if column.hints["data_type"] == "bool":
            return f'Write types={{"{column.name}": {{"data_type": "bigint"}}}} in the Table.'
        return ""

    def advice(self, error: BaseException) -> str:
        """Return what to do about an error of the server, by its number."""
        if "SSL" in str(error) or "certificate" in str(error).lower():
            return _ADVICE[2026]
        return _ADVICE.get(error.args[0], "") if error.args else ""

    def _tls(self) -> dict[str, Any]:
        """Return PyMySQL's arguments for TLS.

        Raises:
            DatabaseError: the mode is not one, or a file cannot be read.
        """
        is_local = (self._url.host or "localhost") in _LOOPBACK or "unix_socket" in self._options
        asked = {"ssl_ca", "ssl_cert", "ssl_key"} & {*self._options}
        default = "disabled" if is_local and not asked else "verify_identity"
        mode = self._options.get("ssl_mode", default).lower()
        if mode not in _SSL_MODES:
            raise DatabaseError(f"{self.server}: ssl_mode must be one of {', '.join(_SSL_MODES)}.")
        if mode == "disabled":
            return {"ssl_disabled": True}
        try:
            context = ssl.create_default_context(cafile=self._options.get("ssl_ca"))
            if "ssl_cert" in self._options:
                context.load_cert_chain(self._options["ssl_cert"], self._options.get("ssl_key"))
        except OSError as error:
            raise DatabaseError(
                f"{self.server}: a file of ssl_ca, ssl_cert or ssl_key: {error}"
            ) from None
        if mode == "required":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return {"ssl": context}

    def _schema(self, table: Table) -> str:
        """Return the schema of a table as SQL.

        Raises:
            DatabaseError: neither the table nor the URL names one.
        """
        if not (table.schema or self._database):
            raise DatabaseError(
                f"{self.server}: table {table.name}: name its database in the URL, or as the schema."
            )
        return dialect.text(table.schema or self._database)

    def _column(self, table: Table, row: tuple[Any, ...]) -> Column:
        name, kind, database_type, nullable, precision, scale = row
        database_type, kind = str(database_type), str(kind).lower()
        found = _hints(kind, database_type, int(precision or 0), int(scale or 0))
        declared = table.types.get(name)
        hints = dialect.merged(name, bool(nullable), found, declared)
        expression = self._expression(self.quote(name), kind, hints)
        if declared and declared.get("nullable") and kind in {"date", "datetime", "timestamp"}:
            zero = f"MONTH({expression}) = 0 OR DAYOFMONTH({expression}) = 0"
            expression = f"CASE WHEN {zero} THEN NULL ELSE {expression} END"
        return Column(name, hints, expression, database_type)

    def _expression(self, name: str, kind: str, hints: TColumnSchema) -> str:
        """Return SQL whose value PyMySQL passes exactly."""
        if kind in {"float", "double"}:
            return f"{name} + 0E0"  # a float is written with six digits
        if kind == "bit":
            return f"{name} + 0"
        if kind in _SPATIAL:
            return f"ST_AsText({name})" if hints["data_type"] == "text" else f"ST_AsBinary({name})"
        return name

    def _refuse_unsorted(self, column: Column) -> None:
        if _kind(column) in {*_SPATIAL, "json"}:
            raise DatabaseError(
                f"column {column.name} ({column.database_type}): it cannot be a cursor or a key."
            )


def _kind(column: Column) -> str:
    """Return the name of a column's type, without its length and words such as unsigned."""
    found = re.match(r"\w+", column.database_type)
    return found[0].lower() if found else ""


def _hints(kind: str, database_type: str, precision: int, scale: int) -> dict[str, Any]:
    """Return dlt's hints of a type of MySQL."""
    if database_type.startswith("tinyint(1)") or (kind == "bit" and precision == 1):
        return {"data_type": "bool"}
    if kind == "bit":
        return _UINT64 if precision == _UINT64_BITS else {"data_type": "bigint"}
    if kind == "bigint" and "unsigned" in database_type:
        return _UINT64
    if kind == "decimal":
        return dialect.decimal_hints(precision, scale)
    return _TYPES.get(kind, {"data_type": "text"})
