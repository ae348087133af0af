"""dlt's state: what a pipeline remembers between loads, such as the last value of a cursor.

A load restores it, changes it while it extracts, and stores it with its rows. Loads of other partitions
run concurrently, and dlt keeps only the newest state. So a load that finds another state than the one that
it restored extracts again.
"""

from collections.abc import Collection, Mapping
from typing import Any

import dlt
from dlt.common.destination.client import WithStateSync
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema.typing import PIPELINE_STATE_TABLE_NAME
from dlt.common.versioned_state import decompress_state
from dlt.extract import DltSource

from shared.warehouse.errors import LoadPlanError, StateChangedError

SourceStates = Mapping[str, Any]
"""What the resources of a pipeline remember, by source."""


def source_states(pipeline: dlt.Pipeline) -> SourceStates:
    """Return a copy of what the sources of a pipeline remember."""
    return _sources(pipeline.state)


def reject_lost_updates(
    client: Any, pipeline: dlt.Pipeline, restored: SourceStates, tables: Collection[str]
) -> None:
    """Stop a load whose state would replace one that another load has stored since this one began.

    Args:
        client: the client of the dataset, which is locked.
        pipeline: the pipeline, extracted.
        restored: the state that this load began with.
        tables: the tables of the load package. Without dlt's table of states it stores none.

    Raises:
        StateChangedError: the load is to extract again, from the state that is stored now.
    """
    if PIPELINE_STATE_TABLE_NAME not in tables:
        return
    assert isinstance(client, WithStateSync)
    try:
        stored = client.get_stored_state(pipeline.pipeline_name)
    except DestinationUndefinedEntity:
        return  # the first load of the dataset
    if stored is None:
        return
    theirs = _sources(decompress_state(stored.state))
    if theirs == source_states(pipeline):
        return
    # dlt restores the state of the load with the greatest id, which is the time of its extraction.
    newest = max(pipeline.list_normalized_load_packages(), key=float)
    is_newer = float(newest) > float(stored.as_doc().get("_dlt_load_id") or 0)
    if theirs != restored or not is_newer:
        raise StateChangedError(pipeline.pipeline_name)


def reject_positions(
    source: DltSource, resources: Collection[str], restored: SourceStates, pipeline: dlt.Pipeline
) -> None:
    """Stop a load that would replace a table by the rows since a position that the resource remembers.

    Args:
        source: the source, extracted.
        resources: those that state no write disposition, whose tables are replaced.
        restored: the state that the load began with.
        pipeline: the pipeline after extraction.

    Raises:
        LoadPlanError: one of the resources has changed its state, or the source has.
    """
    before, after = (
        states.get(source.schema.name, {}) for states in (restored, source_states(pipeline))
    )
    of_source = any(
        before.get(key) != after.get(key) for key in (before | after).keys() - {"resources"}
    )
    for name in sorted(resources):
        of_resource = before.get("resources", {}).get(name) != after.get("resources", {}).get(name)
        if of_resource or of_source:
            state = "resource_state" if of_resource else "source_state"
            raise LoadPlanError(
                f"{name} states no write disposition, so a load replaces its table, and it changes "
                f"dlt.current.{state}(): if it yields only what is new since then, the other rows "
                'would be lost; nothing was loaded. Write write_disposition="replace" if it yields all '
                'rows, or "append" and apply_hints(additional_table_hints=APPEND_EACH_RUN), from '
                "shared.sources.hints, if it yields new ones."
            )


def _sources(state: Mapping[str, Any]) -> SourceStates:
    sources: SourceStates = state.get("sources", {})
    return sources
