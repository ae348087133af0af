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

from dlt.common.schema import Schema
from dlt.common.schema.utils import get_root_table
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


def cursors_of(source: DltSource) -> dict[str, dict[str, Incremental[Any]]]:
    """Return the cursors that decide what each selected resource yields, by the resources that have them.

    They are its own and those of the resources that it gets its items from.
    """
    own = {each.name: cursor_of(each) for each in source.resources.extracted}
    parents: dict[str, set[str]] = {}
    for parent, child in source.resources.selected_dag:
        parents.setdefault(child, set()).add(parent)

    def owners(name: str) -> Iterator[str]:
        yield name
        for parent in sorted(parents.get(name, set()) - {name}):
            yield from owners(parent)

    return {
        name: {owner: cursor for owner in owners(name) if (cursor := own.get(owner)) is not None}
        for name in source.selected_resources
    }


def stored_cursors(source: DltSource) -> dict[str, dict[str, Incremental[Any]]]:
    """Return those of `cursors_of` that continue from an earlier load: they have no end value."""
    return {
        name: {owner: each for owner, each in cursors.items() if each.end_value is None}
        for name, cursors in cursors_of(source).items()
    }


def disposition_of(resource: DltResource, requested: Any = None) -> tuple[str, str | None]:
    """Return the write disposition that a load uses, and the strategy of a merge.

    Args:
        resource: a resource that is not loaded by partition.
        requested: the write disposition of the load, which overrides the resource's.
    """
    stated: Any = requested or resource.write_disposition
    if callable(stated):
        return "dynamic", None
    if isinstance(stated, str):
        return str(stated), None
    return str(stated["disposition"]), stated.get("strategy")


def planned_disposition(resource: DltResource) -> str:
    """Return the write disposition with which a resource is loaded, as far as its hints decide it."""
    columns = resource.columns if isinstance(resource.columns, dict) else {}
    if any(hints.get("partition") for hints in columns.values()):
        return "merge"  # the rows of the run's partitions are replaced
    source = DltSource(Schema("planned"), "planned", [resource])
    if not states_disposition(resource) and not stored_cursors(source).get(resource.name):
        return "replace"
    return disposition_of(resource)[0]


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
    cursors, every, replaced = stored_cursors(source), cursors_of(source), set()
    for name, resource in source.selected_resources.items():
        if name in scoped or requested or states_disposition(resource):
            continue
        if not cursors[name]:
            if every[name]:
                raise LoadPlanError(
                    f"{name} states no write disposition, so a load replaces its table, and its cursor "
                    "has an end value: the rows of other ranges would be deleted. Write "
                    'write_disposition="merge" with a primary_key, load it by partitions with time '
                    'windows, or write "replace" if the table has this range only.'
                )
            resource.apply_hints(write_disposition="replace")
            replaced.add(name)
    check_dispositions(source, scoped, requested)
    _require_one_disposition_for_each_table(source, requested)
    return frozenset(replaced)


def _require_one_disposition_for_each_table(source: DltSource, requested: Any) -> None:
    """Reject resources with one table and several dispositions: one would delete the other's rows."""
    found: dict[str, tuple[str, tuple[str, str | None]]] = {}
    for name, resource in source.selected_resources.items():
        if resource.has_dynamic_table_name:
            continue
        disposition = disposition_of(resource, requested)
        other, known = found.setdefault(str(resource.table_name), (name, disposition))
        if known != disposition:
            raise LoadPlanError(
                f"{other} and {name} load the table {resource.table_name}, with the write dispositions "
                f"{known[0]} and {disposition[0]}: a run would delete or repeat rows. State the same one, "
                "or give them different tables."
            )


def check_dispositions(source: DltSource, scoped: Collection[str], requested: Any = None) -> None:
    """Check each resource that is not loaded by partition; see `apply_dispositions`.

    It is called again after extraction, which finds cursors that only the configuration declares.
    """
    cursors = cursors_of(source)
    for name, resource in source.selected_resources.items():
        if name in scoped:
            continue
        disposition, strategy = disposition_of(resource, requested)
        if disposition == "append":
            _check_append(resource, cursors[name])
        elif disposition == "replace" or (disposition == "merge" and strategy in MIRRORS):
            _check_snapshot(resource, strategy or "replace", cursors[name])


def reject_appending_tables(
    source: DltSource,
    schema: Schema,
    tables: Collection[str],
    scoped: Collection[str],
    requested: Any = None,
) -> None:
    """Reject tables that a resource fills with another write disposition than its own.

    Args:
        source: the source, extracted.
        schema: its schema, with the tables that `dlt.mark.with_hints` has added.
        tables: the tables of the load.
        scoped: the resources that are loaded by partition.
        requested: the write disposition of the load, which overrides the resources'.

    Raises:
        LoadPlanError: a rerun would add the rows of a table again.
    """
    for name in tables:
        if name not in schema.tables:
            continue  # dlt's own state
        table, root = schema.tables[name], get_root_table(schema.tables, name)
        resource = source.selected_resources.get(str(root.get("resource")))
        if resource is None:
            continue
        disposition = table.get("write_disposition", root.get("write_disposition"))
        if resource.name in scoped:
            repeats = disposition != "merge"
        else:
            repeats = disposition == "append" != disposition_of(resource, requested)[0]
        if repeats:
            raise LoadPlanError(
                f"{resource.name} fills {name} with the write disposition {disposition}: a rerun would add "
                "or delete rows of other loads; nothing was loaded. Leave the disposition out of "
                "`dlt.mark.with_hints` or `nested_hints`, so that the table is loaded as its resource is."
            )


def reject_split_cursors(source: DltSource, selected: Collection[str]) -> None:
    """Reject a selection that advances a cursor for a resource that it leaves out.

    Args:
        source: the source, with all of its declared resources selected.
        selected: the resources to load.

    Raises:
        LoadPlanError: a resource that is not selected depends on the cursor of one that is extracted.
    """
    dependents: dict[str, list[str]] = {}
    for name, cursors in stored_cursors(source).items():
        for owner in cursors:
            dependents.setdefault(owner, []).append(name)
    for owner, names in dependents.items():
        missing = [name for name in names if name not in selected]
        if missing and len(missing) < len(names):
            raise LoadPlanError(
                f"{', '.join(missing)} {_verb(missing, 'depends', 'depend')} on the cursor of {owner}, "
                f"which this run would advance without loading {_verb(missing, 'it', 'them')}. Select "
                f"{', '.join(names)} together."
            )


def _check_append(resource: DltResource, cursors: Mapping[str, Incremental[Any]]) -> None:
    """Reject an append that would add rows again."""
    if _APPEND_EACH_RUN in additional_table_hints(resource):
        return
    stored = {owner: cursor for owner, cursor in cursors.items() if cursor.end_value is None}
    if not stored:
        what = "has a cursor with an end value, which is not stored" if cursors else "has no cursor"
        raise LoadPlanError(
            f"{resource.name} appends and {what}: a rerun would add its rows again. {_ADVICE}, also if it "
            "keeps its own position in dlt.current.resource_state()."
        )
    for owner, cursor in stored.items():
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
        if cursor.end_value is not None and how not in MIRRORS:
            continue  # the table has the range that the cursor states
        raise LoadPlanError(
            f"{resource.name} is loaded with {how}, which removes the rows that a run does not bring, and "
            f"the cursor of {owner} on {cursor.cursor_path} leaves out those of other runs. Remove the "
            'cursor, or write write_disposition="append", or "merge" with a primary_key.'
        )


def _verb(names: Collection[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many
