"""A full refresh: resources that continue from a position load all rows again and replace their tables.

It takes two loads. The first one stores a mark in the state of the resources. Each load of a marked
resource forgets its state, reads all rows and replaces the table; its own state has no mark. So a run that
is killed between the rows and the state leaves the mark, and the next run replaces the table again.
"""

from collections.abc import Collection

import dlt
from dlt.extract import DltSource

from shared.warehouse.replacement.dispositions import MIRRORS, disposition_of

_MARK = "full_refresh"


def refreshable(source: DltSource, requested: Collection[str], scoped: Collection[str]) -> set[str]:
    """Return those of the requested resources that a full refresh changes.

    Others load all of their rows anyway, or are loaded by partition.
    """
    return {
        name
        for name, resource in source.selected_resources.items()
        if name in requested and name not in scoped
        if (disposition := disposition_of(resource))[0] in ("append", "merge")
        if disposition[1] not in MIRRORS
    }


def mark(pipeline: dlt.Pipeline, source: DltSource, resources: Collection[str]) -> None:
    """Extract a state with the mark of some resources, and nothing else."""
    with pipeline.managed_state(extract_state=True) as state:
        states = state.setdefault("sources", {}).setdefault(source.name, {})
        for name in resources:
            states.setdefault("resources", {})[name] = {_MARK: True}


def take_marked(pipeline: dlt.Pipeline, source: DltSource, scoped: Collection[str]) -> set[str]:
    """Make the marked resources of a source replace their tables, and forget their state.

    Args:
        pipeline: the pipeline, with its restored state.
        source: a copy that a load owns.
        scoped: the resources that are loaded by partition.
    """
    stored = pipeline.state.get("sources", {}).get(source.name, {}).get("resources", {})
    marked = {
        name
        for name in source.selected_resources
        if name not in scoped and stored.get(name, {}).get(_MARK)
    }
    if marked:
        with pipeline.managed_state() as state:
            for name in marked:
                state["sources"][source.name]["resources"].pop(name)
        for name in marked:
            source.resources[name].apply_hints(write_disposition="replace")
    return marked
