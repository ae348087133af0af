"""Stop a load that would begin a table again because its cursor is stored under another name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import dlt
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.extract import DltSource
from dlt.pipeline.state_sync import load_pipeline_state_from_destination

from shared.warehouse.errors import LoadPlanError
from shared.warehouse.replacement.windows import bound_cursor
from shared.warehouse.tables import table_of


@dataclass(frozen=True)
class Cursor:
    """Where dlt stores a cursor: the names of its pipeline, source and resource, and its path."""

    pipeline: str
    source: str
    resource: str
    path: str

    def __str__(self) -> str:
        """Name all of it."""
        return (
            f"pipeline {self.pipeline}, source {self.source}, resource {self.resource}, cursor "
            f"{self.path}"
        )


@dataclass(frozen=True)
class StoredCursors:
    """What the warehouse had of a pipeline before a load.

    Attributes:
        cursors: the cursors of the pipeline.
        resources: the resource that loaded each table of the source, by table.
    """

    cursors: frozenset[Cursor]
    resources: Mapping[str, str]

    @classmethod
    def of(cls, pipeline: dlt.Pipeline, schema: Schema | None) -> "StoredCursors":
        """Return what a pipeline restored, before extraction changes it."""
        tables = schema.tables if schema else {}
        return cls(
            frozenset(_stored_cursors(pipeline.pipeline_name, pipeline.state)),
            {
                table: str(hints["resource"])
                for table, hints in tables.items()
                if "resource" in hints
            },
        )


def reject_lost_cursors(
    pipeline: dlt.Pipeline, source: DltSource, before: StoredCursors, *, refresh: bool
) -> None:
    """Stop a load whose cursor has no state, although its rows have a cursor under another name.

    It reads the state of other pipelines only for a cursor that had none, so only in the first load of
    a resource.

    Args:
        pipeline: the pipeline, after the extraction.
        source: what was extracted.
        before: what was stored before the extraction.
        refresh: whether dlt drops the tables that the pipeline's own resources loaded.

    Raises:
        LoadPlanError: with both names.
    """
    new = [
        cursor
        for cursor in _declared_cursors(pipeline.pipeline_name, source)
        if cursor not in before.cursors
    ]
    if not new:
        return
    stored = [*before.cursors, *_cursors_of_others(pipeline, source)]
    for cursor, other in product(new, stored):
        is_dropped = refresh and replace(other, path=cursor.path) == cursor
        if not is_dropped and _is_former(cursor, other, source, before):
            raise LoadPlanError(
                f"The cursor of {cursor} is new, but the dataset {pipeline.dataset_name} has a cursor "
                f"of the same rows: {other}. This load would start from the beginning and bring them "
                "again; nothing was loaded. Use the stored names in the code, so that the cursor goes "
                "on, or load into another dataset. Other rows for the same table need a resource with "
                "another name. If only the cursor's field is new, "
                'dlt.run(..., refresh="drop_resources") loads all rows again.'
            )


def reject_new_cursor(source: DltSource, before: StoredCursors) -> None:
    """Stop a load that begins to append after a cursor to a table that was loaded without one.

    Raises:
        LoadPlanError: the cursor says no value to start from, so all rows would come again.
    """
    with_cursor = {cursor.resource for cursor in before.cursors}
    for name, resource in source.selected_resources.items():
        cursor = bound_cursor(resource)
        if cursor is None or cursor.initial_value is not None or cursor.end_value is not None:
            continue
        tables = [table for table, owner in before.resources.items() if owner == name]
        if tables and resource.write_disposition == "append" and name not in with_cursor:
            raise LoadPlanError(
                f"{name} now appends after a cursor on {cursor.cursor_path}, and {tables[0]} has rows of "
                "loads without one, which would come again; nothing was loaded. Give the cursor an "
                "`initial_value` after those rows, or load all rows again with "
                'dlt.run(..., refresh="drop_resources").'
            )


def _declared_cursors(pipeline: str, source: DltSource) -> Iterator[Cursor]:
    """Yield the cursors that continue from their state."""
    for resource in source.selected_resources.values():
        cursor = bound_cursor(resource)
        if cursor is not None and cursor.end_value is None:
            yield Cursor(pipeline, source.name, resource.name, str(cursor.cursor_path))


def _stored_cursors(pipeline: str, state: Mapping[str, Any]) -> Iterator[Cursor]:
    for source, parts in state.get("sources", {}).items():
        for resource, kept in parts.get("resources", {}).items():
            for path in kept.get("incremental", {}):
                yield Cursor(pipeline, source, resource, path)


def _cursors_of_others(pipeline: dlt.Pipeline, source: DltSource) -> Iterator[Cursor]:
    """Yield the cursors in the newest state of each other pipeline of the dataset."""
    with pipeline.destination_client(source.schema.name) as client:
        if not isinstance(client, SqlJobClientBase):
            return
        states = client.sql_client.make_qualified_table_name(client.schema.state_table_name)
        try:
            names = client.sql_client.execute_sql(f"SELECT DISTINCT pipeline_name FROM {states}")
        except DatabaseUndefinedRelation:  # nothing is loaded yet
            return
        for (name,) in names or ():
            if name != pipeline.pipeline_name:
                yield from _stored_cursors(
                    name, load_pipeline_state_from_destination(name, client) or {}
                )


def _is_former(new: Cursor, stored: Cursor, source: DltSource, before: StoredCursors) -> bool:
    """Return whether a stored cursor brought the rows that a new one would bring again."""
    if replace(stored, pipeline=new.pipeline, source=new.source) == new:
        return True
    if (stored.pipeline, stored.source) != (new.pipeline, new.source):
        return False
    resource = source.resources[new.resource]
    if stored.resource == new.resource:  # a cursor on another field
        return resource.write_disposition == "append"
    # The resource was renamed, and loads the table of the old one.
    return stored.resource not in source.resources and (
        before.resources.get(table_of(resource)) == stored.resource
    )
