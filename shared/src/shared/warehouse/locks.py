"""Who may write when: a load holds its dataset, and a run what it replaces.

On the DuckDB file all loads take turns, for DuckDB has one writing process and dlt reconnects at every
step. In a server the loads of one dataset do, for they share its staging tables; other datasets load
beside them. Extracting and normalizing stay outside and run in parallel.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, TypeVar

import duckdb
from filelock import FileLock, Timeout

from shared import settings
from shared.redaction import redact

Log = Callable[[str], None]
LockScope = Mapping[str, Sequence[str]]
"""What a run replaces: by group (a resource, or a pipeline) its partitions, or none for all of it."""
T = TypeVar("T")

_POLL_SECONDS = 0.1
_MAX_PARTITION_LOCKS = 32  # partitions; Postgres has some 6,400 locks for all of its users


class LockTimeoutError(Exception):
    """The warehouse stayed in use by another process for longer than the stated limit."""


class WarehouseConnectionError(Exception):
    """The server does not answer, refuses the user, or was gone while a run held its turn."""


def duckdb_path() -> Path:
    """Returns the warehouse's DuckDB file (`WAREHOUSE_PATH`); it need not exist yet.

    Beside it stand the working folders of runs, whatever the warehouse is.
    """
    return settings.get_path("WAREHOUSE_PATH")


def no_log(_: str) -> None:
    """Logs nothing."""


class LockHeldError(Exception):
    """Says what is held, and by whom."""


def acquire_with_timeout(attempt: Callable[[], T], log: Log, since: float | None = None) -> T:
    """Tries until nobody holds what is wanted any more, and tells once that it waits.

    Args:
        attempt: raises `LockHeldError` while it is held.
        log: told about the wait.
        since: when the wait began, if not now; several waits can share one limit.

    Raises:
        LockTimeoutError: it was held for more than `WAREHOUSE_WAIT_SECONDS`.
    """
    limit = settings.get_seconds("WAREHOUSE_WAIT_SECONDS")
    deadline = (since or time.monotonic()) + limit
    told = False
    while True:
        try:
            return attempt()
        except LockHeldError as held:
            if time.monotonic() > deadline:
                raise LockTimeoutError(
                    f"Waited more than {limit:g} s for {held}. Let that end, or raise "
                    "WAREHOUSE_WAIT_SECONDS."
                ) from None
            if not told:
                log(f"Waiting for {held}")
                told = True
            time.sleep(_POLL_SECONDS)


def connect(file: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Opens the DuckDB file.

    Raises:
        LockHeldError: another program holds it.
    """
    try:
        return duckdb.connect(str(file), read_only=read_only)
    except duckdb.IOException as error:
        # DuckDB raises the same class for a missing folder or a damaged file: only a held lock goes
        # away by waiting, and its message names the holder's process.
        if "Could not set lock" not in str(error):
            raise
        raise LockHeldError(f"the warehouse, held by another program: {error}") from None


@contextmanager
def _locked(file: Path, what: str, log: Log) -> Iterator[None]:
    """Holds a lock file, which the kernel frees even when the process is killed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(file), file.with_suffix(".holder")

    def acquire() -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            who = holder.read_text() if holder.exists() else "an unknown process"
            raise LockHeldError(f"{what}, held by {who}") from None

    acquire_with_timeout(acquire, log)
    try:
        holder.write_text(f"pid {os.getpid()}")
        yield
    finally:
        lock.release()


@contextmanager
def exclusive_connection(log: Log = no_log) -> Iterator[duckdb.DuckDBPyConnection]:
    """Holds the DuckDB file for one writer, and yields an open connection to it.

    Two things together make the section whole: a side lock file orders our own runs; the connection,
    open for the section's length, keeps programs that know nothing of the lock file out between dlt's
    steps.

    Raises:
        LockTimeoutError: another process held it for more than `WAREHOUSE_WAIT_SECONDS`.
    """
    file = duckdb_path()
    with (
        _locked(file.with_suffix(".lock"), "the warehouse", log),
        acquire_with_timeout(lambda: connect(file, read_only=False), log) as connection,
    ):
        yield connection


class LockManager(Protocol):
    """What orders the runs of one dataset."""

    def partition_lock(self, units: LockScope) -> AbstractContextManager[None]:
        """Holds what a run replaces, from its first request to its last row.

        Raises:
            LockTimeoutError: another run of a partition took more than `WAREHOUSE_WAIT_SECONDS`.
        """

    def dataset_lock(self) -> AbstractContextManager[None]:
        """Holds the dataset for the length of a load.

        Raises:
            LockTimeoutError: others held it for more than `WAREHOUSE_WAIT_SECONDS`.
        """

    def verify_held(self) -> None:
        """Makes sure that the turn still holds, before rows are replaced.

        Raises:
            WarehouseConnectionError: it does not.
        """


class FileLockManager:
    """Orders the runs of this machine, by files beside the warehouse's."""

    def __init__(self, dataset: str, log: Log) -> None:
        self.dataset, self.log = dataset, log

    @contextmanager
    def partition_lock(self, units: LockScope) -> Iterator[None]:
        """Holds what a run replaces; see `LockManager`."""
        what = _another_run(self.dataset)
        since = time.monotonic()
        with duckdb_path().with_suffix(".turns").open("a") as file:

            def acquire(place: int) -> None:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                except BlockingIOError:
                    raise LockHeldError(what) from None

            # A byte of one file for each unit, in order, so that no two runs wait for each other.
            # The kernel frees them when the process ends, however it ends.
            names = [
                f"{group} {each}" for group, values in units.items() for each in values or [""]
            ]
            for place in sorted({_place(f"{self.dataset} {name}", 7) for name in names}):
                acquire_with_timeout(partial(acquire, place), self.log, since)
            yield

    @contextmanager
    def dataset_lock(self) -> Iterator[None]:
        """Holds the dataset for the length of a load; see `LockManager`."""
        file = duckdb_path().with_suffix(f".{self.dataset}.lock")
        with _locked(file, self.dataset, self.log):
            yield

    def verify_held(self) -> None:
        """Has nothing to look at: the kernel keeps a lock as long as the process lives."""


class DuckDbLockManager(FileLockManager):
    """Orders all writers of the DuckDB file."""

    @contextmanager
    def dataset_lock(self) -> Iterator[None]:
        """Holds the whole file; see `exclusive`."""
        with exclusive_connection(self.log):
            yield


class PostgresLockManager:
    """Orders the runs of all machines, by advisory locks in a Postgres database.

    They belong to a connection, and the server frees them when that ends, however it ends. So the
    connection must be to the server itself, or through a pooler that keeps one for each session.
    """

    def __init__(self, dataset: str, log: Log, address: str, owner: str) -> None:
        """Takes the database's address, and what others are told of who holds what."""
        self.dataset, self.log, self.address, self.owner = dataset, log, address, owner
        self._session: Any = None

    @contextmanager
    def partition_lock(self, units: LockScope) -> Iterator[None]:
        """Holds what a run replaces; see `LockManager`."""
        since = time.monotonic()
        with self._connected():
            # In order, so that no two runs wait for each other. Runs of some partitions share their
            # group; one of very many, or of a whole table, has it alone.
            for group in sorted(units):
                some = 0 < len(units[group]) <= _MAX_PARTITION_LOCKS
                self._acquire(group, since, _another_run(self.dataset), shared=some)
            for group in sorted(units):
                if len(units[group]) <= _MAX_PARTITION_LOCKS:
                    for value in sorted(units[group]):
                        name = f"{group} {value}"
                        self._acquire(name, since, _another_run(self.dataset), shared=False)
            yield

    @contextmanager
    def dataset_lock(self) -> Iterator[None]:
        """Holds the dataset for the length of a load; see `LockManager`.

        Raises:
            WarehouseConnectionError: the run lost its turn meanwhile, as its connection did not last.
        """
        with self._connected():
            name, since = "load", time.monotonic()
            self._acquire(name, since, f"{self.dataset}, which another run loads", shared=False)
            yield
            try:
                self._execute("SELECT pg_advisory_unlock(%s)", self._place(name))
            except WarehouseConnectionError:
                raise WarehouseConnectionError(
                    f"What was loaded into {self.dataset} is there, but the connection that held the "
                    "turn ended meanwhile, so another run may have loaded beside it. Run it again."
                ) from None

    def verify_held(self) -> None:
        """Asks the server; see `LockManager`."""
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
                self.address,
                application_name=self.owner,
                # Firewalls forget connections that say nothing, and a turn can take hours.
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=6,
            )
        except psycopg2.Error as error:
            told = redact(str(error).strip().rstrip("?."))
            raise WarehouseConnectionError(
                f"{told}; nothing was asked or loaded. Look at DESTINATION__WAREHOUSE__CREDENTIALS."
            ) from None
        self._session.autocommit = True
        self._execute(  # a turn can last for hours, in which it says nothing
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN "
            "('statement_timeout', 'idle_session_timeout')"
        )
        try:
            yield
        finally:
            self._session.close()
            self._session = None

    def _acquire(self, name: str, since: float, what: str, *, shared: bool) -> None:
        import psycopg2.errors

        lock = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
        patience = "1ms"  # so that a wait is told at once

        def acquire() -> None:
            nonlocal patience
            self._execute(f"SET lock_timeout = '{patience}'")
            # Postgres has a queue, in which those who ask anew go back to the end; a signal is heard
            # only in between.
            patience = "2s"
            try:
                self._execute(f"SELECT {lock}(%s)", self._place(name))
            except psycopg2.errors.LockNotAvailable:
                raise LockHeldError(f"{what}: {self._holder(name)}") from None

        acquire_with_timeout(acquire, self.log, since)

    def _place(self, name: str) -> int:
        return _place(f"{self.dataset} {name}", 8) - (1 << 63)

    def _holder(self, name: str) -> str:
        place = self._place(name) & ((1 << 64) - 1)
        found = self._execute(
            "SELECT application_name, coalesce(host(client_addr), 'this host') "
            "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
            "AND datname = current_database() "
            "AND classid::BIGINT = %s AND objid::BIGINT = %s AND pid <> pg_backend_pid()",
            place >> 32,
            place & 0xFFFFFFFF,
        )
        return ", ".join(f"{who} on {host}" for who, host in found) or "a run that has just ended"

    def _execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        import psycopg2

        try:
            with self._session.cursor() as cursor:
                cursor.execute(sql, parameters)
                return list(cursor.fetchall()) if cursor.description else []
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if isinstance(error, psycopg2.errors.LockNotAvailable):
                raise
            raise WarehouseConnectionError(
                f"The run lost its turn, for its connection to the warehouse ended: "
                f"{str(error).strip()}. Run it again."
            ) from None


class DuckLakeLockManager(PostgresLockManager):
    """Orders the runs of a DuckLake in the database of its catalog, which the first of them makes."""

    def __init__(
        self,
        dataset: str,
        log: Log,
        address: str,
        owner: str,
        *,
        schema: str,
        make: Callable[[], None],
    ) -> None:
        """Takes the catalog's schema, and what makes it where it is not there."""
        super().__init__(dataset, log, address, owner)
        self._schema, self._make = schema, make

    @contextmanager
    def partition_lock(self, units: LockScope) -> Iterator[None]:
        """Holds what a run replaces; see `LockManager`."""
        with self._connected():
            # Of two that make it at the same moment DuckLake fails one.
            if not self._execute(
                "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'ducklake_metadata'",
                self._schema,
            ):
                with PostgresLockManager(
                    "the lake", self.log, self.address, self.owner
                ).dataset_lock():
                    self._make()
            with super().partition_lock(units):
                yield


def _another_run(dataset: str) -> str:
    return f"another run of the same partition of {dataset}"


def _place(unit: str, size: int) -> int:
    return int.from_bytes(blake2b(unit.encode(), digest_size=size).digest())
