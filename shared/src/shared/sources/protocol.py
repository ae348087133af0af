"""What a source and the load that runs it agree on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import dlt
import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema

COMPANION_TABLES_HINT = "x-companion-tables"
"""A table hint: names of more tables that the resource loads by the same partition column. A run
replaces its partitions in these as well, so the resource materializes them even without rows."""

REPLACE_PARTITIONS: Any = {
    "write_disposition": {"disposition": "merge", "strategy": "delete-insert"},
    "schema_contract": {"columns": "freeze", "data_type": "freeze"},
}
"""Arguments of a resource whose columns are fixed and whose partitions or keys a run replaces."""


def empty_companion_table(
    name: str, columns: dict[str, TColumnSchema], schema: pa.Schema
) -> Iterator[Any]:
    """Yield the items that create a companion table of the running resource, without rows.

    A companion table starts with all hints of the resource, so the first item removes its columns.
    """
    for hinted in ({}, columns):
        hints = dlt.mark.make_hints(table_name=name, columns=hinted)
        yield dlt.mark.with_hints(schema.empty_table(), hints, create_table_variant=True)


class RetryLaterError(Exception):
    """The API accepts no more requests for now; the same load works later.

    Attributes:
        retry_after: seconds until then.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@runtime_checkable
class SupportsPushdown(Protocol):
    """A load whose destination can read local files with DuckDB's SQL."""

    pipelines_dir: str
    """A folder of this run; files for the destination can stay there until the load ends."""

    pushdown_enabled: bool
    """Whether the destination reads files in this run."""

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


@runtime_checkable
class SupportsPartialLoads(Protocol):
    """A load that can load some of its partitions now and defer the others."""

    def defer_partitions(self, partitions: Sequence[str], why: RetryLaterError) -> None:
        """Leave the rows of these partitions unchanged and load the other partitions.

        Raises:
            RetryLaterError: this run loads all of its partitions or none, or no partition is left.
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
    """Call `SupportsPartialLoads.defer_partitions` of the current load.

    Raises:
        RetryLaterError: `why`, if the current load cannot defer partitions.
    """
    load = current_load()
    if not isinstance(load, SupportsPartialLoads):
        raise why
    load.defer_partitions(partitions, why)
