"""What a source and the load that runs it agree on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from shared.sources.partitions import PartitionKey

COMPANION_TABLES_HINT = "x-companion-tables"
"""A table hint: names of more tables that the resource loads by the same partition column. A run
replaces its partitions in these as well, so the resource materializes them even without rows."""

SOURCE_FIELD_HINT = "x-source-field"
"""A column hint: the field of the source from which the column comes. For a file or a table, its column;
for JSON, a path such as `$.estimated_diameter.meters.estimated_diameter_max`."""


class RetryLaterError(Exception):
    """The API accepts no more requests for now; the same load works later.

    Attributes:
        retry_after: seconds until then.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CurrentLoad(Protocol):
    """What a source may use of the load that runs it: pushdown, deferred partitions, further loads."""

    pipelines_dir: str
    """A folder of this run; files for the destination can stay there until the load ends."""

    pushdown_enabled: bool
    """Whether the destination can read local files with DuckDB's SQL in this run."""

    @property
    def partitions(self) -> Sequence[PartitionKey]:
        """The partitions whose rows the load replaces; none if it is not by partition."""

    def pushdown_query(
        self, select: str, fingerprint: str, before_commit: Callable[[], None]
    ) -> Any:
        """Return the item to yield for all rows of a table: a query that runs while loading.

        Args:
            select: the query. It raises, with DuckDB's error(), on a row that must not load. Then
                nothing is loaded, and the run starts again without pushdown.
            fingerprint: equal only if the query returns the same rows; the load skips the query if
                the table has these rows from an earlier load.
            before_commit: called before the rows are committed; raises if they must not be.
        """

    def defer_partitions(self, partitions: Sequence[str], why: RetryLaterError) -> None:
        """Leave the rows of these partitions unchanged and load the other partitions.

        Raises:
            RetryLaterError: this run loads all of its partitions or none, or no partition is left.
        """

    def is_full_refresh(self, resource: str) -> bool:
        """Return whether a resource is to bring all of its rows, and the load replaces its table.

        Its `dlt.current.resource_state()` is empty then.
        """

    def load_again(self, resource: str) -> None:
        """Load a resource once more after this load, because it has more rows; others are not loaded.

        A large table is so loaded in parts that commit on their own: a killed run loses one of them.
        """

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call an action once the load is complete, such as to confirm to a server what was read.

        A killed run does not call it, so the next one must be able to do it as well.
        """

    def warn(self, message: str) -> None:
        """Show a message with the load's result: something that works, and could be better."""


_CURRENT_LOAD: ContextVar[CurrentLoad | None] = ContextVar("current_load", default=None)


@contextmanager
def loading(load: CurrentLoad) -> Iterator[None]:
    """Make a load the one that `current_load` returns, for the length of the block."""
    token = _CURRENT_LOAD.set(load)
    try:
        yield
    finally:
        _CURRENT_LOAD.reset(token)


def current_load() -> CurrentLoad | None:
    """Return the load that extracts in this thread; None where a source is read without one."""
    return _CURRENT_LOAD.get()


def defer_partitions(partitions: Sequence[str], why: RetryLaterError) -> None:
    """Call `CurrentLoad.defer_partitions` of the current load; raise `why` if there is none."""
    load = current_load()
    if load is None:
        raise why
    load.defer_partitions(partitions, why)
