"""Advisory locks in a Postgres database, for the runs of all machines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.redaction import redact
from shared.warehouse.errors import LockHeldError, LockLostError, WarehouseConnectionError
from shared.warehouse.locks.base import LockScope, Log, acquire_with_timeout, lock_key

_MAX_PARTITION_LOCKS = 32  # by default Postgres has about 6,400 locks for all of its users


class PostgresLockManager:
    """Serializes the runs of all machines; see `LockManager`.

    The locks belong to a connection, and the server frees them when it ends. So the connection must be
    to the server itself, or through a pooler that keeps one for each session.
    Others see a run by the name in `owner`.
    """

    def __init__(self, dataset: str, log: Log, dsn: str, owner: str) -> None:
        self.dataset, self.log, self.dsn, self.owner = dataset, log, dsn, owner
        self._session: Any = None

    @contextmanager
    def partition_lock(self, scope: LockScope) -> Iterator[None]:
        """Lock each partition, and its group in shared mode; with many partitions, lock only the group."""
        since, lock = time.monotonic(), f"the partition lock of {self.dataset}"
        with self._connected():
            # Sorted, so that no two runs wait for each other.
            few = {
                group: keys
                for group, keys in scope.items()
                if 0 < len(keys) <= _MAX_PARTITION_LOCKS
            }
            for group in sorted(scope):
                self._acquire(group, since, lock, shared=group in few)
            for group in sorted(few):
                for key in sorted(few[group]):
                    self._acquire(f"{group} {key}", since, lock)
            yield

    @contextmanager
    def dataset_lock(self) -> Iterator[None]:
        """Lock the dataset.

        Raises:
            LockLostError: the connection ended before the load did.
        """
        with self._connected():
            self._acquire("load", time.monotonic(), f"the lock of dataset {self.dataset}")
            yield
            try:
                self._execute("SELECT pg_advisory_unlock(%s)", self._key("load"))
            except LockLostError:
                raise LockLostError(
                    f"The rows are loaded into {self.dataset}, but the connection that owned the lock "
                    "ended before the load did, so another run may have loaded concurrently. Run it "
                    "again."
                ) from None

    def verify_held(self) -> None:
        """Send a query over the connection that owns the locks."""
        if self._session is not None:
            self._execute("SELECT 1")

    @contextmanager
    def _connected(self) -> Iterator[None]:
        import psycopg2

        if self._session is not None:
            yield
            return
        try:
            self._session = psycopg2.connect(
                self.dsn,
                application_name=self.owner,
                # Firewalls drop idle connections, and a load can take hours.
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=6,
            )
        except psycopg2.Error as error:
            message = redact(str(error).strip().rstrip("?."))
            raise WarehouseConnectionError(
                f"{message}; no request was sent and nothing was loaded. Check "
                "DESTINATION__WAREHOUSE__CREDENTIALS."
            ) from None
        self._session.autocommit = True
        self._execute(  # the session is idle while it owns locks
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN "
            "('statement_timeout', 'idle_session_timeout')"
        )
        try:
            yield
        finally:
            self._session.close()
            self._session = None

    def _acquire(self, name: str, since: float, lock: str, *, shared: bool = False) -> None:
        import psycopg2.errors

        function = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
        timeout = "1ms"  # first, to log a wait at once

        def acquire() -> None:
            nonlocal timeout
            self._execute(f"SET lock_timeout = '{timeout}'")
            # A retry goes to the end of the queue of Postgres, and signals wait for the query's end.
            timeout = "2s"
            try:
                self._execute(f"SELECT {function}(%s)", self._key(name))
            except psycopg2.errors.LockNotAvailable:
                raise LockHeldError(lock, self._owner_of(name)) from None

        acquire_with_timeout(acquire, self.log, since)

    def _key(self, name: str) -> int:
        return lock_key(f"{self.dataset} {name}", 8) - (1 << 63)

    def _owner_of(self, name: str) -> str:
        key = self._key(name) & ((1 << 64) - 1)
        owners = self._execute(
            "SELECT application_name, coalesce(host(client_addr), 'this host') "
            "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
            "AND datname = current_database() "
            "AND classid::BIGINT = %s AND objid::BIGINT = %s AND pid <> pg_backend_pid()",
            *divmod(key, 1 << 32),
        )
        return ", ".join(f"{run} on {host}" for run, host in owners) or "a run that has just ended"

    def _execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        import psycopg2

        try:
            with self._session.cursor() as cursor:
                cursor.execute(sql, parameters)
                return list(cursor.fetchall()) if cursor.description else []
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if isinstance(error, psycopg2.errors.LockNotAvailable):
                raise
            raise LockLostError(
                "The run lost its lock, because its connection to the warehouse ended: "
                f"{redact(str(error).strip())}. Run it again."
            ) from None


class DuckLakeLockManager(PostgresLockManager):
    """Serializes the runs of a DuckLake in the database of its catalog, and creates the catalog."""

    def __init__(self, *arguments: Any, schema: str, create_lake: Callable[[], None]) -> None:
        super().__init__(*arguments)
        self._schema, self._create_lake = schema, create_lake

    @contextmanager
    def partition_lock(self, scope: LockScope) -> Iterator[None]:
        """Create the catalog if it is missing, then lock as `PostgresLockManager` does."""
        with self._connected():
            # If two runs create it concurrently, DuckLake fails one of them.
            if not self._execute(
                "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'ducklake_metadata'",
                self._schema,
            ):
                lake = PostgresLockManager("the lake", self.log, self.dsn, self.owner)
                with lake.dataset_lock():
                    self._create_lake()
            with super().partition_lock(scope):
                yield
