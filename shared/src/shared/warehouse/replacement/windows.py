"""Cursors on a time column read the time window of a load's partitions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.extract import DltResource, DltSource
from dlt.extract.incremental import IncrementalResourceWrapper
from dlt.extract.incremental.context import TimeIntervalContext
from dlt.extract.incremental.exceptions import ExternalSchedulerNotAvailable, JoinSchedulerError

from shared.sources.partitions import PartitionKey, time_window
from shared.warehouse.errors import LoadPlanError, find_cause


def bound_cursor(resource: DltResource) -> "dlt.sources.incremental[Any] | None":
    """Return a resource's cursor; one in the signature of its function is known while it is extracted."""
    step = resource.incremental
    return step.incremental if isinstance(step, IncrementalResourceWrapper) else step


@contextmanager
def _unchanged_cursors(source: DltSource) -> Iterator[None]:
    """Give the cursors of a source back their ranges, which dlt changes while it extracts.

    Otherwise the next load of the source would read what both windows have, which can be nothing.
    """
    steps = [resource.incremental for resource in source.resources.extracted]
    ranges = [
        (cursor, cursor and (cursor.initial_value, cursor.end_value))
        for cursor in map(bound_cursor, source.resources.extracted)
    ]
    try:
        yield
    finally:
        for step, (cursor, values) in zip(steps, ranges, strict=True):
            if cursor and values:
                cursor.initial_value, cursor.end_value = values
            elif isinstance(step, IncrementalResourceWrapper):
                step.set_incremental(None)


@contextmanager
def partition_window(source: DltSource, partitions: Sequence[PartitionKey]) -> Iterator[None]:
    """Make the time window of a load's partitions dlt's interval for the length of the block.

    Cursors of the extracted resources take it as their range and keep no state. A source gets it from
    `dlt.current.interval()`. Nothing changes for partitions without time windows.

    Args:
        source: what is extracted.
        partitions: the partitions of the load.

    Raises:
        LoadPlanError: a cursor cannot take the window.
    """
    if not any(key.window for key in partitions):
        yield
        return
    context = TimeIntervalContext(time_window(partitions), allow_external_schedulers=True)
    try:
        with _unchanged_cursors(source), Container().injectable_context(context):
            yield
    except Exception as error:
        if find_cause(error, ExternalSchedulerNotAvailable):
            raise LoadPlanError(
                f"The partitions {', '.join(partitions[:5])} do not adjoin, so a cursor has no single "
                "range; nothing was loaded. Load them one after the other."
            ) from None
        if refused := find_cause(error, JoinSchedulerError):
            raise LoadPlanError(
                f"{refused} Nothing was loaded. State the type of the cursor's values, as in "
                'dlt.sources.incremental[datetime]("at"). A cursor on texts needs the window as '
                "`initial_value` and `end_value`, with `allow_external_schedulers=False`."
            ) from None
        raise
