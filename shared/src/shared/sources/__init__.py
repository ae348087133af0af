"""Pure dlt sources: what to extract and its types. They know neither Dagster nor the warehouse."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext

REPLACED_TOGETHER = "x-replaced-together"
"""A table hint: names of further tables that the resource loads by the same partition column. A run
replaces its partitions in these as well, so the resource materialises them even without rows."""


class TryLaterError(Exception):
    """Upstream takes no more requests for now; the same load works later.

    Attributes:
        seconds: how much later.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


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


@runtime_checkable
class LoadsInParts(Protocol):
    """A pipeline whose run can land some of its partitions now and the others later."""

    def leave(self, partitions: Sequence[str], why: TryLaterError) -> None:
        """Leaves partitions as they are in this load, which lands the others.

        Raises:
            TryLaterError: this run lands all of its partitions or none, or none would be left to land.
        """


def active_pipeline() -> object:
    """Returns the pipeline that is extracting; None where a source is read without one."""
    context = Container()[PipelineContext]
    return context.pipeline() if context.is_active() else None


def leave(partitions: Sequence[str], why: TryLaterError) -> None:
    """Leaves partitions for later, as `LoadsInParts.leave` does; raises `why` where nothing can."""
    pipeline = active_pipeline()
    if not isinstance(pipeline, LoadsInParts):
        raise why
    pipeline.leave(partitions, why)
