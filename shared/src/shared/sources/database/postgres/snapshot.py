"""A read-only transaction of Postgres, from which tables are copied into Arrow."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]
from dlt.common.configuration.specs import ConnectionStringCredentials

from shared.lazy_modules import pyarrow as pa
from shared.sources.database.base import Column, DatabaseError, TableInfo
from shared.sources.database.postgres.arrow import typed
from shared.sources.database.postgres.catalog import describe
from shared.sources.database.postgres.changes.session import PostgresSession
from shared.sources.database.postgres.errors import database_error
from shared.sources.database.table import Table
from shared.sources.hints import arrow_schema
from shared.sources.quoting import literal, quote

_BATCH_BYTES = 2 << 20

_SETTINGS_SQL = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL IntervalStyle = 'iso_8601'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL client_encoding = 'UTF8'",
    "SET LOCAL standard_conforming_strings = on",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL statement_timeout = '{statement_ms}ms'",
    "SET LOCAL lock_timeout = '{lock_ms}ms'",
)

_NOT_LOCKABLE = ("3F000", "42501", "42809", "42P01")
"""SQLSTATEs of a lock: no schema, no right to the whole table, a materialized view, no table."""

_REWRITTEN_SQL = """
    WITH RECURSIVE parts AS (
        SELECT to_regclass({name})::oid AS oid
        UNION ALL SELECT i.inhrelid FROM pg_inherits AS i JOIN parts ON i.inhparent = parts.oid
    )
    SELECT count(*) FROM parts JOIN pg_class AS c USING (oid)
    WHERE c.relfilenode <> pg_relation_filenode(c.oid)
"""
"""How many parts of a table have another file now than the snapshot says."""


class PostgresDatabase:
    """A database of a Postgres server. A load opens one connection at a time, and two in the mode changes."""

    def __init__(
        self, url: str, statement_timeout_seconds: float = 3600, lock_timeout_seconds: float = 60
    ) -> None:
        """Remember where it is. Nothing connects yet.

        Args:
            url: `postgresql://user:password@host/database`, with parameters of libpq.
            statement_timeout_seconds: how long one query may take.
            lock_timeout_seconds: how long a query waits for a lock.
        """
        self._url = url
        credentials = ConnectionStringCredentials(url)
        self.name = str(credentials.database)
        self.server = server_of(credentials)
        self._timeouts = {
            "statement_ms": int(statement_timeout_seconds * 1000),
            "lock_ms": int(lock_timeout_seconds * 1000),
        }

    @contextmanager
    def snapshot(self, table: Table | None = None) -> Iterator["PostgresSnapshot"]:
        """Connect, and yield a snapshot: a transaction that only reads, at REPEATABLE READ.

        Args:
            table: a table that nobody can truncate or rewrite while the snapshot is open. A snapshot shows
                a table as empty that was rewritten after it and before its first query.

        Raises:
            DatabaseError: the server does not answer or refuses the user.
        """
        connection = self._connect()
        try:
            snapshot = self._begin(connection)
            # Before the first query, which takes the snapshot.
            if table is not None and not snapshot.may_lock(table):
                connection.rollback()
                snapshot = self._begin(connection)
            _require_readable_types(snapshot)
            yield snapshot
        finally:
            with suppress(dbapi.Error):  # the server may be gone
                connection.rollback()
            connection.close()

    @contextmanager
    def session(self) -> Iterator[PostgresSession]:
        """Connect, and yield a session, in which each statement is a transaction.

        Raises:
            DatabaseError: the server does not answer or refuses the user.
        """
        connection = self._connect(autocommit=True)
        try:
            session = PostgresSession(connection, self.server)
            for statement in _SETTINGS_SQL[1:]:
                session.execute(statement.replace("LOCAL ", "").format(**self._timeouts))
            yield session
        finally:
            connection.close()

    def _begin(self, connection: Any) -> "PostgresSnapshot":
        snapshot = PostgresSnapshot(connection, self.server)
        for statement in _SETTINGS_SQL:
            snapshot.execute(statement.format(**self._timeouts))
        return snapshot

    def _connect(self, *, autocommit: bool = False) -> Any:
        try:
            return dbapi.connect(self._url, autocommit=autocommit)
        except dbapi.Error as error:
            raise database_error(error, self.server) from None


def server_of(credentials: ConnectionStringCredentials) -> str:
    """Return the server and the database of a URL, for messages."""
    return f"{credentials.host or 'localhost'}:{credentials.port or 5432}/{credentials.database}"


class PostgresSnapshot:
    """A snapshot of a Postgres database; see `Snapshot`."""

    dialect = "postgresql"

    def __init__(self, connection: Any, server: str) -> None:
        self._connection, self.server = connection, server

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing."""
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql)
            except dbapi.Error as error:
                raise database_error(error, self.server, statement=sql) from None

    def may_lock(self, table: Table) -> bool:
        """Keep others from rewriting a table; return whether the user and the kind of table allow it.

        Raises:
            DatabaseError: somebody else has locked it.
        """
        name = self.quote(*filter(None, [table.schema, table.name]))
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(f"LOCK TABLE {name} IN ACCESS SHARE MODE")
            except dbapi.Error as error:
                if getattr(error, "sqlstate", None) in _NOT_LOCKABLE:
                    return False
                raise database_error(error, self.server, table.full_name) from None
        return True

    def describe(self, table: Table) -> TableInfo:
        """Return what the catalog says about a table; see `Snapshot.describe`."""
        return describe(self, table)

    def query(self, sql: str, table: str = "") -> list[tuple[Any, ...]]:
        """Return all rows of a query that has few."""
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql)
                return list(cursor.fetchall())
            except (dbapi.Error, pa.ArrowException) as error:
                raise database_error(error, self.server, table) from None

    def read(
        self, table: Table, info: TableInfo, where: str = "", order_by: str = ""
    ) -> "Iterator[pa.RecordBatch]":
        """Yield rows in batches of about 2 MB; see `Snapshot.read`."""
        relation = self.quote(*filter(None, [table.schema, table.name]))
        yield from self.read_from(relation, table, info, where, order_by)
        # Without a lock, a table can be rewritten after the snapshot, which then sees it as empty.
        if self.query(_REWRITTEN_SQL.format(name=literal(relation))) != [(0,)]:
            raise DatabaseError(
                f"{table.full_name} of {self.server} was truncated or rewritten while it was read. Nothing "
                "was loaded. Run again."
            )

    def read_from(
        self, relation: str, table: Table, info: TableInfo, where: str = "", order_by: str = ""
    ) -> "Iterator[pa.RecordBatch]":
        """Yield rows of a relation as `read` yields those of a table.

        Args:
            relation: its SQL: what follows FROM. It has the columns of the table.
            table: the table, for messages.
            info: the columns to read.
            where: a condition.
            order_by: what follows ORDER BY.

        Raises:
            DatabaseError: a value does not fit, or the database refuses or stops answering.
        """
        columns = info.columns.values()
        selected = ", ".join(
            f"{column.expression} AS {self.quote(column.name)}" for column in columns
        )
        sql = f"SELECT {selected} FROM {relation}"
        sql += f" WHERE {where}" * bool(where) + f" ORDER BY {order_by}" * bool(order_by)
        place = f"{table.full_name} of {self.server}"
        schema = arrow_schema({column.name: column.hints for column in columns})
        with self._connection.cursor() as cursor:
            try:
                cursor.adbc_statement.set_options(
                    **{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}
                )
                cursor.execute(sql)
                for batch in cursor.fetch_record_batch():
                    yield typed(batch, schema, place, info.columns)
            except (dbapi.Error, pa.ArrowException, OSError) as error:
                raise database_error(
                    error, self.server, table.full_name, has_masks=bool(table.masks)
                ) from None

    def quote(self, *names: str) -> str:
        """Return a name in double quotes."""
        return ".".join(map(quote, names))

    def literal(self, value: Any, column: Column) -> str:
        """Return SQL of a value of a column, from its text."""
        return f"{literal(str(value))}::{column.database_type}"

    def text_of(self, column: Column) -> str:
        """Return the SQL of a value as text; times are in UTC, with microseconds."""
        return f"{self.quote(column.name)}::text"


def _require_readable_types(snapshot: PostgresSnapshot) -> None:
    """Check that the driver knows the types of the server, which it reads when it connects.

    Raises:
        DatabaseError: a setting has hidden them, and all values would be bytes.
    """
    ((number,),) = snapshot.query("SELECT 1::bigint")
    if number != 1:
        raise DatabaseError(
            f"{snapshot.server} has quote_all_identifiers = on for the user of the source, with which the "
            "driver finds no types. Set it off: ALTER ROLE ... SET quote_all_identifiers = off."
        )
