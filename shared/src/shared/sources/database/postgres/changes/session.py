"""A connection without a transaction, on which slots are created, read and advanced."""

from collections.abc import Iterator
from typing import Any

from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from shared.lazy_modules import pyarrow as pa
from shared.sources.database.base import DatabaseError
from shared.sources.database.postgres.errors import database_error

_ADVICE = {
    "42501": "Grant the user of the source the right to replicate: ALTER ROLE name REPLICATION.",
    "53100": "The disk of the server is full.",
    "53400": "All replication slots of the server are in use: raise max_replication_slots, one for each "
    "table with the mode changes, or drop slots that nobody reads; see pg_replication_slots.",
    "55006": "Another process reads the slot. If it is a load that was killed, its connection ends soon, "
    "and the next run goes on.",
}
"""The next step for errors of slots, by SQLSTATE."""

_IN_USE = "is active for PID"
"""Of an error that the driver raises while rows arrive; it has no SQLSTATE."""

NO_RIGHT = "42501"
"""The SQLSTATE of a statement that the user has no right to run."""

TIMED_OUT = ("57014", "55P03")
"""The SQLSTATE of a statement that took too long."""


class ReplicationError(DatabaseError):
    """The server refuses to create, read or advance a slot.

    Attributes:
        sqlstate: Postgres' code of the error.
    """

    sqlstate = ""


class PostgresSession:
    """A connection to Postgres in which each statement is a transaction."""

    def __init__(self, connection: Any, server: str) -> None:
        """Remember the connection, which commits on its own, and the server for messages."""
        self._connection, self.server = connection, server

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing.

        Raises:
            ReplicationError: the server refuses it.
        """
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql)
            except dbapi.Error as error:
                raise self._explained(error) from None

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query that has few.

        Raises:
            ReplicationError: the server refuses it.
        """
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql)
                return list(cursor.fetchall())
            except dbapi.Error as error:
                raise self._explained(error) from None

    def stream(self, sql: str) -> "Iterator[pa.RecordBatch]":
        """Yield the rows of a query in batches.

        Raises:
            ReplicationError: the server refuses it, or stops answering.
        """
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql)
                yield from cursor.fetch_record_batch()
            except (dbapi.Error, pa.ArrowException, OSError) as error:
                raise self._explained(error) from None

    def _explained(self, error: Exception) -> ReplicationError:
        state = str(getattr(error, "sqlstate", None) or "")
        if _IN_USE in str(error):
            state = "55006"
        text = database_error(error, self.server, statement=_ADVICE.get(state, ""))
        explained = ReplicationError(str(text))
        explained.sqlstate = state
        return explained
