"""What all lock managers share: the protocol, and waiting for a lock."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from typing import Protocol, TypeVar

from shared import settings
from shared.warehouse.errors import LockHeldError, LockTimeoutError

Log = Callable[[str], None]
LockScope = Mapping[str, Sequence[str]]
"""What a run replaces: partitions by group (a resource or a pipeline); a group without any is one lock."""
T = TypeVar("T")

_POLL_SECONDS = 0.03  # 24 waiting runs need 4% of two cores for it


def no_log(_: str) -> None:
    """Log nothing."""


class LockManager(Protocol):
    """Serializes the runs of one dataset."""

    def partition_lock(self, scope: LockScope) -> AbstractContextManager[None]:
        """Lock what a run replaces, from its first request to its last row.

        Raises:
            LockTimeoutError: another run owned a partition for more than `WAREHOUSE_WAIT_SECONDS`.
            WarehouseConnectionError: the warehouse is a server that does not respond.
        """

    def dataset_lock(self) -> AbstractContextManager[None]:
        """Lock the dataset for the length of a load.

        Raises:
            LockTimeoutError: other loads took more than `WAREHOUSE_WAIT_SECONDS`.
        """

    def verify_held(self) -> None:
        """Check that the locks are still owned, before rows are replaced.

        Raises:
            LockLostError: they are not.
        """


def acquire_with_timeout(attempt: Callable[[], T], log: Log, since: float | None = None) -> T:
    """Try until a lock is free, and log once who owns it.

    Args:
        attempt: raises `LockHeldError` while another run owns the lock.
        log: receives the wait.
        since: when the wait began, if not now; several waits can share one timeout.

    Raises:
        LockTimeoutError: it was not free within `WAREHOUSE_WAIT_SECONDS`.
    """
    timeout = settings.get_seconds("WAREHOUSE_WAIT_SECONDS")
    deadline = (since or time.monotonic()) + timeout
    logged = False
    while True:
        try:
            return attempt()
        except LockHeldError as held:
            if time.monotonic() > deadline:
                raise LockTimeoutError(
                    f"Timed out after {timeout:g} s waiting for {held}. Stop that process, or raise "
                    "WAREHOUSE_WAIT_SECONDS."
                ) from None
            if not logged:
                log(f"Waiting for {held}")
                logged = True
            time.sleep(_POLL_SECONDS)


def lock_key(name: str, size: int) -> int:
    """Return a number of some bytes for a lock's name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=size).digest())
