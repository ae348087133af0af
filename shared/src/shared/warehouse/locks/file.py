"""The DuckDB file, and locks in files next to it for the runs of one machine."""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from shared import environments, settings
from shared.lazy_modules import duckdb
from shared.warehouse.errors import LockHeldError, WarehouseConfigError
from shared.warehouse.locks.base import LockScope, Log, acquire_with_timeout, lock_key, no_log

ENVIRONMENT_TABLE = "_etl_environment"
"""The table with the name of an environment: in its DuckDB file, or in each of its datasets. What has no
such table is not dropped with an environment."""


def duckdb_path() -> Path:
    """Return the warehouse's DuckDB file, which need not exist yet.

    It is `WAREHOUSE_PATH`; other environments than `local` and production have a file next to it. The
    working directories of runs are next to it, with every type of warehouse.
    """
    return duckdb_path_of(environments.current())


def duckdb_path_of(environment: environments.Environment) -> Path:
    """Return the DuckDB file of an environment: `warehouse_pr_123.duckdb` for `pr-123`."""
    return environment.file_of(settings.get_path("WAREHOUSE_PATH"))


def connect(file: Path, *, read_only: bool) -> "duckdb.DuckDBPyConnection":
    """Open the DuckDB file. A writer creates it if it does not exist.

    Raises:
        LockHeldError: another program has it open.
        WarehouseConfigError: `WAREHOUSE_STORAGE_VERSION` is not a version of DuckDB.
    """
    try:
        if not read_only and not file.exists():
            _create(file)
        return duckdb.connect(str(file), read_only=read_only)
    except duckdb.IOException as error:
        # DuckDB raises the same class for a missing directory or a damaged file, which no wait fixes.
        # Its message names the process.
        if "Could not set lock" not in str(error):
            raise
        raise LockHeldError("the warehouse lock", f"another program: {error}") from None


def _create(file: Path) -> None:
    """Create the DuckDB file in the format of an older version, which it keeps.

    DuckDB's own default, its newest format, can be opened by no older version, and other programs often
    have one. A later connection cannot change the format, and needs no setting.
    """
    name = "WAREHOUSE_STORAGE_VERSION"
    config: dict[str, Any] = {"storage_compatibility_version": settings.get(name)}
    try:
        with duckdb.connect(str(file), config=config) as connection:
            environment = environments.current()
            if environment.has_own_file:
                connection.execute(
                    f"CREATE TABLE {ENVIRONMENT_TABLE} AS SELECT ? AS environment",
                    [environment.name],
                )
    except duckdb.InvalidInputException:
        raise WarehouseConfigError(
            f"{name} is {settings.get(name)!r}; it must be a version of DuckDB, such as v1.4.0, or latest."
        ) from None


@contextmanager
def exclusive_connection(
    log: Log = no_log, file: Path | None = None
) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Lock a DuckDB file for one writer, and yield an open connection to it.

    A lock file serializes the project's runs. The open connection keeps other programs, which do not
    know the lock file, out between the steps of dlt.

    Args:
        log: receives waits.
        file: by default the file of the environment.

    Raises:
        LockTimeoutError: the file was not free within `WAREHOUSE_WAIT_SECONDS`.
    """
    file = file or duckdb_path()
    with (
        _locked(file.with_suffix(".lock"), "the warehouse lock", log),
        acquire_with_timeout(lambda: connect(file, read_only=False), log) as connection,
    ):
        yield connection


@contextmanager
def exclusive_file(
    log: Log = no_log, file: Path | None = None, *, read_only: bool = False
) -> Iterator[None]:
    """Lock a DuckDB file for another process, such as dbt.

    Like `exclusive_connection`, but without a connection, because DuckDB has one writing process. The file
    exists and can be opened when the body begins; a program that does not know the lock file can open it
    between the connections of the other process.

    Args:
        log: receives waits.
        file: by default the file of the environment.
        read_only: whether the other process only reads it.

    Raises:
        LockTimeoutError: the file was not free within `WAREHOUSE_WAIT_SECONDS`.
    """
    path = file or duckdb_path()
    with _locked(path.with_suffix(".lock"), "the warehouse lock", log):
        acquire_with_timeout(lambda: connect(path, read_only=read_only), log).close()
        yield


@contextmanager
def _locked(file: Path, lock_name: str, log: Log) -> Iterator[None]:
    """Own a lock file. The kernel frees it when the process ends, even if it is killed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(file), file.with_suffix(".owner")

    def acquire() -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            process = owner.read_text() if owner.exists() else "an unknown process"
            raise LockHeldError(lock_name, process) from None

    acquire_with_timeout(acquire, log)
    try:
        owner.write_text(f"pid {os.getpid()}")
        yield
    finally:
        lock.release()


_byte_lock_files: dict[Path, tuple[IO[str], set[int]]] = {}
"""The files in which threads of this process own bytes, and the bytes."""

_byte_lock_guard = threading.Lock()


@contextmanager
def _byte_locks(path: Path, lock_name: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that locks a byte of a file, and free all of them at the end.

    The kernel's locks exclude processes only, and it frees all locks of a process when the process closes
    any of its descriptors of the file. So a process opens the file once, and excludes its own threads.
    """
    owned: set[int] = set()

    def acquire(offset: int) -> None:
        with _byte_lock_guard:
            if path not in _byte_lock_files:
                _byte_lock_files[path] = (path.open("a"), set())
            file, taken = _byte_lock_files[path]
            if offset in taken or not _lock_byte(file, offset):
                raise LockHeldError(lock_name, "another run of the same partition")
            taken.add(offset)
            owned.add(offset)

    try:
        yield acquire
    finally:
        with _byte_lock_guard:
            if path in _byte_lock_files:
                file, taken = _byte_lock_files[path]
                for offset in owned:
                    fcntl.lockf(file, fcntl.LOCK_UN, 1, offset)
                taken -= owned
                if not taken:
                    _byte_lock_files.pop(path)[0].close()


def _lock_byte(file: IO[str], offset: int) -> bool:
    """Lock a byte of a file, if no other process owns it, and return whether it did."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except BlockingIOError:
        return False
    return True


class FileLockManager:
    """Serializes the runs of this machine; see `LockManager`."""

    def __init__(self, dataset: str, log: Log) -> None:
        self.dataset, self.log = dataset, log

    @contextmanager
    def partition_lock(self, scope: LockScope) -> Iterator[None]:
        """Lock a byte of one file for each partition."""
        since, lock = time.monotonic(), f"the partition lock of {self.dataset}"
        names = [f"{group} {key}" for group, keys in scope.items() for key in keys or [""]]
        with _byte_locks(duckdb_path().with_suffix(".partition-locks"), lock) as acquire:
            # Sorted, so that no two runs wait for each other.
            for offset in sorted({lock_key(f"{self.dataset} {name}", 7) for name in names}):
                acquire_with_timeout(partial(acquire, offset), self.log, since)
            yield

    @contextmanager
    def dataset_lock(self) -> Iterator[None]:
        """Lock a file of the dataset."""
        file = duckdb_path().with_suffix(f".{self.dataset}.lock")
        with _locked(file, f"the lock of dataset {self.dataset}", self.log):
            yield

    def verify_held(self) -> None:
        """Do nothing: the kernel keeps a lock as long as the process lives."""


class DuckDbLockManager(FileLockManager):
    """Serializes all writers of the DuckDB file."""

    @contextmanager
    def dataset_lock(self) -> Iterator[None]:
        """Lock the whole DuckDB file."""
        with exclusive_connection(self.log):
            yield
