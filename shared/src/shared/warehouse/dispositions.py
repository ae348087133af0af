"""How a load writes the tables that it does not load by partition, decided before the first request.

| a resource | a load |
|---|---|
| states no disposition and has no cursor | replaces its table |
| appends after a cursor | adds the rows after the cursor, once |
| appends without a cursor | is refused, unless the resource has the hint `APPEND_EACH_RUN` |
| merges by key | replaces the rows with these keys |
| mirrors (merge strategy `cdc` or `scd2`) | deletes or closes rows that are gone, so it has no cursor |
"""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dlt.extract import DltResource, DltSource
from dlt.extract.incremental import Incremental

from shared.sources.hints import APPEND_EACH_RUN
from shared.warehouse.dlt_internals import additional_table_hints, states_disposition
from shared.warehouse.errors import LoadPlanError

MIRRORS = ("cdc", "scd2")
"""Merge strategies that delete or close the rows that a load does not bring."""

_APPEND_EACH_RUN = next(iter(APPEND_EACH_RUN))
_ADVICE = (
    'Write write_disposition="replace" to load the whole table each time, "merge" with a primary_key to '
    "update rows, or give it a cursor, dlt.sources.incremental(...). If each run is to add all rows that "
    "it gets, use resource.apply_hints(additional_table_hints=APPEND_EACH_RUN), from shared.sources.hints"
)


def cursor_of(resource: DltResource) -> Incremental[Any] | None:
    """Return a resource's cursor: of its hints, its arguments or the defaults of its function.

    A cursor that only the configuration declares is found once the resource has been extracted.
    """
    step: Any = resource.incremental
    hinted: Incremental[Any] | None = getattr(step, "incremental", step)
    if hinted is not None:
        return hinted
    try:
        given: Mapping[str, Any] = resource.explicit_args or {}
    except TypeError:  # it is bound when it is extracted
        given = {}
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(resource).parameters.items()
        if isinstance(parameter.default, Incremental)
    }
    for name in {**defaults, **given}:
        value, default = given.get(name), defaults.get(name)
        if isinstance(value, Incremental):
            return default.merge(value) if default is not None else value
        if default is not None:
            return default
    return None


def with_ancestors(source: DltSource, resource: DltResource) -> list[DltResource]:
    """Return a resource and those that it gets its items from, which are extracted with it."""
    if not resource.is_transformer:
        return [resource]
    return list(source.with_resources(resource.name).resources.extracted)


def stored_cursors(source: DltSource, resource: DltResource) -> dict[str, Incremental[Any]]:
    """Return the cursors that decide what a resource yields and continue from an earlier load.

    They are its own and those of its ancestors, by resource. One with an end value has no stored state.
    """
    cursors = {each.name: cursor_of(each) for each in with_ancestors(source, resource)}
    return {
        name: cursor
        for name, cursor in cursors.items()
        if cursor is not None and cursor.end_value is None
    }


def disposition_of(resource: DltResource, requested: Any = None) -> tuple[str, str | None]:
    """Return the write disposition that a load uses, and the strategy of a merge.

    Args:
        resource: a resource that is not loaded by partition.
        requested: the write disposition of the load, which overrides the resource's.
    """
    stated = requested or resource.write_disposition
    if callable(stated):
        return "dynamic", None
    if isinstance(stated, str):
        stated = {"disposition": stated}
    return str(stated["disposition"]), stated.get("strategy")


def apply_dispositions(
    source: DltSource, scoped: Collection[str], requested: Any = None
) -> frozenset[str]:
    """Make each resource without a stated disposition and without a cursor replace its table.

    Args:
        source: a copy that a load owns; its selected resources are changed.
        scoped: the resources that are loaded by partition, which are left as they are.
        requested: the write disposition of the load, which overrides the resources'.

    Returns:
        The resources that it changed.

    Raises:
        LoadPlanError: a rerun of a resource would add or lose rows.
    """
    replaced = set()
    for name, resource in source.selected_resources.items():
        if name in scoped or requested or states_disposition(resource):
            continue
        if not stored_cursors(source, resource):
            resource.apply_hints(write_disposition="replace")
            replaced.add(name)
    check_dispositions(source, scoped, requested)
    return frozenset(replaced)


def check_dispositions(source: DltSource, scoped: Collection[str], requested: Any = None) -> None:
    """Check each resource that is not loaded by partition; see `apply_dispositions`.

    It is called again after extraction, which finds cursors that only the configuration declares.
    """
    for name, resource in source.selected_resources.items():
        if name in scoped:
            continue
        cursors = stored_cursors(source, resource)
        disposition, strategy = disposition_of(resource, requested)
        if disposition == "append":
            _check_append(source, resource, cursors)
        elif disposition == "replace" or (disposition == "merge" and strategy in MIRRORS):
            _check_snapshot(resource, strategy or "replace", cursors)


def reject_split_cursors(source: DltSource, selected: Collection[str]) -> None:
    """Reject a selection that advances a cursor for a resource that it leaves out.

    Args:
        source: the source, with all of its declared resources selected.
        selected: the resources to load.

    Raises:
        LoadPlanError: a resource that is not selected depends on the cursor of one that is extracted.
    """
    declared = source.selected_resources
    dependents: dict[str, list[str]] = {}
    for name, resource in declared.items():
        for owner in stored_cursors(source, resource):
            dependents.setdefault(owner, []).append(name)
    for owner, names in dependents.items():
        missing = [name for name in names if name not in selected]
        if missing and len(missing) < len(names):
            raise LoadPlanError(
                f"{', '.join(missing)} {_verb(missing, 'depends', 'depend')} on the cursor of {owner}, "
                f"which this run would advance without loading {_verb(missing, 'it', 'them')}. Select "
                f"{', '.join(names)} together."
            )


def _check_append(
    source: DltSource, resource: DltResource, cursors: Mapping[str, Incremental[Any]]
) -> None:
    """Reject an append that would add rows again."""
    if _APPEND_EACH_RUN in additional_table_hints(resource):
        return
    if not cursors:
        ranged = any(cursor_of(each) for each in with_ancestors(source, resource))
        what = "has a cursor with an end value, which is not stored" if ranged else "has no cursor"
        raise LoadPlanError(
            f"{resource.name} appends and {what}: a rerun would add its rows again. {_ADVICE}, also if it "
            "keeps its own position in dlt.current.resource_state()."
        )
    for owner, cursor in cursors.items():
        for setting in _repeating_settings(cursor):
            raise LoadPlanError(
                f"{resource.name} appends, and the cursor of {owner} on {cursor.cursor_path} has "
                f"{setting}, with which each run adds some rows again. Remove the setting, or write "
                'write_disposition="merge" with a primary_key.'
            )


def _repeating_settings(cursor: Incremental[Any]) -> Iterator[str]:
    """Yield the settings of a cursor with which it yields rows of an earlier load again."""
    if cursor.lag:
        yield f"lag={cursor.lag}"
    if cursor.on_cursor_value_missing == "include":
        yield 'on_cursor_value_missing="include"'
    if cursor.primary_key == () and cursor.range_start == "closed":
        yield 'primary_key=() without range_start="open"'


def _check_snapshot(
    resource: DltResource, how: str, cursors: Mapping[str, Incremental[Any]]
) -> None:
    """Reject a resource that brings only new rows, where rows that it does not bring are removed."""
    if (
        how == "scd2"
        and not resource.has_dynamic_table_name
        and any(
            column.get("merge_key")
            for column in resource.compute_table_schema()["columns"].values()
        )
    ):
        return  # only the rows with the merge keys that it brings are closed
    for owner, cursor in cursors.items():
        raise LoadPlanError(
            f"{resource.name} is loaded with {how}, which removes the rows that a run does not bring, and "
            f"the cursor of {owner} on {cursor.cursor_path} leaves out those of earlier runs. Remove the "
            'cursor, or write write_disposition="append", or "merge" with a primary_key.'
        )


def _verb(names: Collection[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many
