"""What a source may request of the load that runs it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

COMPANION_TABLES_HINT = "x-companion-tables"
"""A table hint: names of further tables that the resource loads by the same partition column. A run
replaces its partitions in these as well, so the resource materializes them even without rows."""


class RetryLaterError(Exception):
    """Upstream takes no more requests for now; the same load works later.

    Attributes:
        retry_after: seconds until then.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@runtime_checkable
class SupportsPushdown(Protocol):
    """A pipeline whose destination reads local files itself, with DuckDB's SQL."""

    pipelines_dir: str
    """A folder of this run alone, where what the destination is to read can be kept until then."""

    pushdown_enabled: bool
    """Whether it does so in this run."""

    def pushdown_query(
        self, select: str, fingerprint: str, before_commit: Callable[[], None]
    ) -> Any:
        """Returns the item to yield for all rows of a table: a query that runs while loading.

        Args:
            select: the query; it raises, with DuckDB's error(), on what must not load. Then nothing
                has been loaded, and the run starts over without pushing down.
            fingerprint: the same text only if the query would bring the same rows; where the table has
                them from an earlier load it need not run.
            before_commit: called before the rows are committed; raises if they must not be.
        """


@runtime_checkable
class SupportsPartialLoads(Protocol):
    """A pipeline whose run can land some of its partitions now and the others later."""

    def defer_partitions(self, partitions: Sequence[str], why: RetryLaterError) -> None:
        """Leaves partitions as they are in this load, which lands the others.

        Raises:
            RetryLaterError: this run lands all of its partitions or none, or none would be left to land.
        """


_CURRENT_LOAD: ContextVar[object | None] = ContextVar("current_load", default=None)


@contextmanager
def loading(load: object) -> Iterator[None]:
    """Make a load the one that `current_load` returns, for the length of the block."""
    token = _CURRENT_LOAD.set(load)
    try:
        yield
    finally:
        _CURRENT_LOAD.reset(token)


def current_load() -> object | None:
    """Return the load that extracts in this thread; None where a source is read without one."""
    return _CURRENT_LOAD.get()


def defer_partitions(partitions: Sequence[str], why: RetryLaterError) -> None:
    """Leaves partitions for later, as `SupportsPartialLoads.defer_partitions` does; raises `why` where nothing can."""
    load = current_load()
    if not isinstance(load, SupportsPartialLoads):
        raise why
    load.defer_partitions(partitions, why)


current_pipeline = current_load
