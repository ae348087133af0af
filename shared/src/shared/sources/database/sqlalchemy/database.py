"""A database that SQLAlchemy connects to, as a source reads it.

SQLAlchemy chooses the driver, streams rows and wraps errors. The catalog is read by SQL of each database:
SQLAlchemy's reflection, and with it dlt's `sql_database`, leaves out or changes types that it does not
know, and makes one type of several that are not equal.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import sqlalchemy
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shared.redaction import redact
from shared.sources.database.base import Column, DatabaseError, TableInfo
from shared.sources.database.masks import MASKED_MESSAGE
from shared.sources.database.sqlalchemy.dialect import Dialect, Timeouts, close_matches
from shared.sources.database.sqlalchemy.values import first_misfit, to_arrow
from shared.sources.database.table import Table
from shared.sources.hints import arrow_schema

_BATCH_ROWS, _FIRST_ROWS, _BATCH_BYTES = 50_000, 10, 32 << 20
_MAX_SHOWN = 60  # characters of a value in a message


class SqlAlchemyDatabase:
    """A database of SQLite, MySQL, MariaDB or SQL Server."""

    def __init__(
        self,
        url: str | sqlalchemy.URL,
        statement_timeout_seconds: float = 3600,
        lock_timeout_seconds: float = 60,
    ) -> None:
        """Choose how to connect. Nothing is connected yet.

        Args:
            url: such as `sqlite:///shop.db`, `mysql://user:password@host/shop` or `mssql://…`.
            statement_timeout_seconds: how long a statement may run, where the server can limit it.
            lock_timeout_seconds: how long a statement waits for a lock.

        Raises:
            DatabaseError: the URL is not one of a known database, or its driver is not installed.
        """
        self._dialect = dialect_of(url, Timeouts(statement_timeout_seconds, lock_timeout_seconds))
        self._engine = self._dialect.engine()

    @contextmanager
    def snapshot(
        self,
        table: Table | None = None,  # noqa: ARG002 - a table that is rewritten is an error there
    ) -> Iterator["SqlAlchemySnapshot"]:
        """Connect, and yield a snapshot. Its transaction ends with the block.

        Raises:
            DatabaseError: it cannot connect.
        """
        with _errors(self._dialect, "cannot connect"):
            connection = self._engine.connect().execution_options(no_parameters=True)
        with connection:
            with _errors(self._dialect, "cannot begin a read-only transaction"):
                self._dialect.begin(connection)
            yield SqlAlchemySnapshot(connection, self._dialect)


class SqlAlchemySnapshot:
    """One read-only transaction; see `Snapshot`.

    While rows are read, it takes no other query. Rows that are not read to their end may end it.
    """

    def __init__(self, connection: sqlalchemy.Connection, dialect: Dialect) -> None:
        self._connection, self._dialect = connection, dialect
        self.dialect, self.server = dialect.name, dialect.server

    def describe(self, table: Table) -> TableInfo:
        """Return what the catalog says about a table; see `Snapshot`.

        Raises:
            DatabaseError: there is no such table or column, or no right to read it.
        """
        place = f"{self.server}: table {table.full_name}"
        info = self._dialect.describe(self.query, table)
        if info is None:
            names = self._dialect.table_names(self.query, table)
            raise DatabaseError(
                f"{place}: there is no such table or view, or the user may not read it."
                f"{close_matches(table.name, names)}"
            )
        named = [*table.columns, *table.exclude, *table.key_columns, *table.masks, *table.types]
        for name in [*named, *filter(None, [table.cursor])]:
            if name not in info.columns:
                raise DatabaseError(
                    f"{place}: there is no column {name}.{close_matches(name, info.columns)}"
                )
        selected = {
            name: column
            for name, column in info.columns.items()
            if name not in table.exclude and (not table.columns or name in table.columns)
        }
        if not selected:
            raise DatabaseError(f"{place}: no column is left to read.")
        return replace(info, columns=selected, all_columns=info.columns)

    def read(
        self, table: Table, info: TableInfo, where: str = "", order_by: str = ""
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows in bounded batches; see `Snapshot`.

        Raises:
            DatabaseError: a value does not fit, or the database refuses or stops answering.
        """
        schema = arrow_schema({name: column.hints for name, column in info.columns.items()})
        row_id = "" if self._key(table, info) else self._dialect.row_id(info)
        selected = [column.expression for column in info.columns.values()]
        sql = (
            f"SELECT {', '.join([*selected, *filter(None, [row_id])])} FROM {self._name(table)}"
            f"{where and f' WHERE {where}'}{order_by and f' ORDER BY {order_by}'}"
        )
        streaming = {"stream_results": True, "max_row_buffer": _FIRST_ROWS}
        with _errors(self._dialect, f"table {table.full_name}", has_masks=bool(table.masks)):
            with self._dialect.reading(self._connection):
                result = self._connection.exec_driver_sql(sql, execution_options=streaming)
            try:
                size = _FIRST_ROWS
                while rows := result.fetchmany(size):
                    batch = self._batch(table, info, rows, schema)
                    row_bytes = max(batch.nbytes // len(rows), 1)
                    size = max(min(_BATCH_ROWS, size * 10, _BATCH_BYTES // row_bytes), 1)
                    yield batch
            except BaseException:
                self._dialect.abandon(self._connection, result)
                raise
            finally:
                result.close()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query that has few.

        Raises:
            DatabaseError: the database refuses it.
        """
        with _errors(self._dialect, "a query fails"):
            return [tuple(row) for row in self._connection.exec_driver_sql(sql)]

    def quote(self, *names: str) -> str:
        """Return names in quotes, with dots between them."""
        return ".".join(map(self._dialect.quote, names))

    def literal(self, value: Any, column: Column) -> str:
        """Return SQL of a value of a column; see `Snapshot`.

        Raises:
            DatabaseError: the value is not one of the column's type.
        """
        with _errors(self._dialect):
            return self._dialect.literal(value, column)

    def text_of(self, column: Column) -> str:
        """Return the SQL that reads a value of a column as text.

        Raises:
            DatabaseError: values of the column have no order.
        """
        with _errors(self._dialect):
            return self._dialect.text_of(column)

    def _name(self, table: Table) -> str:
        return self.quote(*filter(None, [table.schema, table.name]))

    def _key(self, table: Table, info: TableInfo) -> list[str]:
        """Return the columns by which a message names a row; none has a mask."""
        key = table.key_columns or info.primary_key
        readable = all(name in info.columns and name not in table.masks for name in key)
        return list(key) if readable else []

    def _batch(
        self, table: Table, info: TableInfo, rows: Sequence[Any], schema: pa.Schema
    ) -> pa.RecordBatch:
        arrays = []
        for column, field, values in zip(
            info.columns.values(), schema, zip(*rows, strict=True), strict=False
        ):
            data_type = str(column.hints["data_type"])
            try:
                array = to_arrow(values, data_type, field.type)
            except ValueError as error:
                position = first_misfit(values, data_type, field.type) or 0
                raise self._misfit(table, info, column, rows[position], error) from None
            if array.null_count and not field.nullable:
                position = values.index(None)
                raise self._misfit(table, info, column, rows[position], None)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _misfit(
        self, table: Table, info: TableInfo, column: Column, row: Any, error: ValueError | None
    ) -> DatabaseError:
        """Return the error about a value that does not fit its column."""
        names = list(info.columns)
        key = self._key(table, info)
        pairs = [(name, row[names.index(name)]) for name in key if name not in table.masks]
        if len(row) > len(names):
            pairs = [("rowid", row[-1])]
        where = (
            ", ".join(f"{name}={_shown(value)}" for name, value in pairs) or "a row without a key"
        )
        value = row[names.index(column.name)]
        text = "a masked value" if column.name in table.masks else f"the value {_shown(value)}"
        hints = column.hints
        wanted = str(hints["data_type"]) + (
            f"({hints['precision']},{hints.get('scale', 0)})" if "precision" in hints else ""
        )
        if error is None:
            problem, override = (
                f"NULL in a column that is not nullable, {wanted}",
                '"nullable": True',
            )
        else:
            kind = "binary" if isinstance(value, bytes) else "text"
            problem = f"{text} does not fit the type {wanted}"
            override = f'"data_type": "{kind}"'
        advice = self._dialect.value_advice(column, value)
        step = (
            advice
            or f'Write types={{"{column.name}": {{{override}}}}} in the Table, or exclude it.'
        )
        return DatabaseError(
            f"{self.server}: table {table.full_name}, column {column.name} "
            f"({column.database_type or 'no declared type'}), {where}: {problem}. {step}"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


@contextmanager
def _errors(dialect: Dialect, what: str = "", *, has_masks: bool = False) -> Iterator[None]:
    """Raise errors of the driver as ones that name the server, without a secret or a masked value."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = (error.orig if isinstance(error, DBAPIError) else None) or error
        advice = dialect.advice(cause)
        text = MASKED_MESSAGE if has_masks else f"{cause}."
        message = f"{dialect.server}: {what}: {type(cause).__name__}: {text} {advice}"
        raise DatabaseError(redact(message).strip()) from None
    except DatabaseError as error:
        prefix = "" if str(error).startswith(dialect.server) else f"{dialect.server}: "
        raise DatabaseError(f"{prefix}{error}") from None


def dialect_of(url: str | sqlalchemy.URL, timeouts: Timeouts) -> Dialect:
    """Return the dialect of a URL.

    Raises:
        DatabaseError: it is not one of a known database.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except SQLAlchemyError:
        raise DatabaseError(
            "The URL of the database is not one; write it as mysql://user:password@host/database."
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        from shared.sources.database.sqlalchemy.sqlite import Sqlite

        return Sqlite(parsed, timeouts)
    if backend in {"mysql", "mariadb"}:
        from shared.sources.database.sqlalchemy.mysql import MySql

        return MySql(parsed, timeouts)
    if backend == "mssql":
        from shared.sources.database.sqlalchemy.mssql import SqlServer

        return SqlServer(parsed, timeouts)
    raise DatabaseError(
        f"The database {backend!r} is not one of sqlite, mysql, mariadb and mssql; "
        "postgresql has its own source."
    )
