"""Pure dlt sources: what to extract and its types. They know neither Dagster nor the warehouse."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

REPLACED_TOGETHER = "x-replaced-together"
"""A table hint: names of further tables that the resource loads by the same partition column. A run
replaces its partitions in these as well, so the resource materialises them even without rows."""


@runtime_checkable
class PushesDown(Protocol):
    """A pipeline whose destination reads local files itself, with DuckDB's SQL."""

    pipelines_dir: str
    """A folder of this run alone, where what the destination is to read can be kept until then."""

    pushes_down: bool
    """Whether it does so in this run."""

    def push_down(self, select: str, version: str, confirm: Callable[[], None]) -> Any:
        """Returns the item to yield for all rows of a table: a query that runs while loading.

        Args:
            select: the query; it raises, with DuckDB's error(), on what must not load. Then nothing
                has been loaded, and the run starts over without pushing down.
            version: the same text only if the query would bring the same rows; where the table has
                them from an earlier load it need not run.
            confirm: called before the rows are committed; raises if they must not be.
        """
