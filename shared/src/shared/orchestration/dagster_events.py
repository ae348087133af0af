"""Events of many partitions at once, with private names of Dagster.

They are listed in `shared/tests/test_dagster_internals.py`, as those of `dagster_internals` are. It must
not import dlt: the webserver and the daemon load it.
"""

import os
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEventBatchMetadata, generate_event_batch_id

MAX_EVENTS_IN_BATCH = 1000
"""The number of events of partitions that a storage gets at once."""


def store_events_in_batches() -> None:
    """Make this process hand the events of partitions over in batches; a storage may store them at once.

    Dagster reads the size from the environment for each event. Without it, each event is stored alone.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(MAX_EVENTS_IN_BATCH))


def log_materializations(
    context: dg.AssetExecutionContext, materializations: Sequence[dg.AssetMaterialization]
) -> None:
    """Log materializations as one batch.

    The public `log_event` stores each alone, in two transactions.
    """
    operation: Any = context.op_execution_context
    step, batch = context.get_step_execution_context(), generate_event_batch_id()  # type: ignore[no-untyped-call]
    for materialization in materializations:
        end = DagsterEventBatchMetadata(batch, is_end=materialization is materializations[-1])
        operation._events.append(  # noqa: SLF001 - as `log_event` does
            dg.DagsterEvent.asset_materialization(step, materialization, end)
        )
