"""How each resource of a partitioned load replaces its partitions, decided before the first request."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.extract import DltResource, DltSource

from shared.lazy_modules import pyarrow as pa
from shared.sources.hints import REPLACE_PARTITIONS
from shared.sources.partitions import PartitionKey
from shared.sources.protocol import COMPANION_TABLES_HINT
from shared.warehouse.errors import LoadPlanError
from shared.warehouse.replacement.dispositions import cursor_of
from shared.warehouse.replacement.windows import bound_cursor
from shared.warehouse.scope import PARTITION_COLUMN, PartitionScope
from shared.warehouse.tables import known_schema, table_of, warehouse_naming

_DISPOSITION = REPLACE_PARTITIONS["write_disposition"]
_REPLACEABLE = {
    ("append", None),
    ("replace", None),
    ("merge", None),
    ("merge", _DISPOSITION["strategy"]),
}
"""Write dispositions, with their merge strategies, that become a replacement of partitions."""


def partition_scopes(
    source: DltSource, partitions: Sequence[PartitionKey]
) -> Mapping[str, PartitionScope]:
    """Return the rows that a load replaces, by resource, and change the resources accordingly.

    In a load of partitions, a resource is loaded by the columns that it marks with dlt's hint
    `partition`, or by its cursor, or by the column `_partition`, which is added to its rows. A resource
    that merges by a key and marks no column is left out: a rerun updates the same rows.

    Raises:
        LoadPlanError: a resource marks a partition column and no partition is named; or the marked
            columns do not fit the partitions; or the write disposition does not.
    """
    scopes: dict[str, PartitionScope] = {}
    for name, resource in source.selected_resources.items():
        schema = known_schema(resource)
        marked = [column for column, hints in schema["columns"].items() if hints.get("partition")]
        if not partitions:
            if marked:
                raise LoadPlanError(
                    f"{name} is loaded by {', '.join(marked)}: run it for a partition, or pass "
                    "`partitions=[...]` to dlt.run, so that exactly those rows are replaced."
                )
            continue
        if not marked and _merges_by_key(schema):
            continue
        _require_replaceable(name, schema)
        columns = _columns(resource, marked, partitions[0])
        if PARTITION_COLUMN in columns.values():
            _add_partition_column(resource, partitions)
        resource.apply_hints(write_disposition=_DISPOSITION)
        scopes[name] = _scope(source, resource, schema, columns, partitions)
    return scopes


def _merges_by_key(schema: TTableSchema) -> bool:
    """Return whether a rerun updates the same rows, and no row of another partition."""
    strategy: Any = schema.get("x-merge-strategy")
    return (
        schema.get("write_disposition") == "merge"
        and strategy not in ("scd2", "cdc")  # they close or delete what a load does not have
        and any(
            hints.get("primary_key") or hints.get("merge_key")
            for hints in schema["columns"].values()
        )
    )


def _require_replaceable(name: str, schema: TTableSchema) -> None:
    strategy: Any = schema.get("x-merge-strategy")
    if (schema.get("write_disposition"), strategy) not in _REPLACEABLE:
        raise LoadPlanError(
            f"{name} is loaded by partition and has the merge strategy {strategy}. A partition is "
            "replaced as a whole: remove the strategy, or load the table in an asset without partitions."
        )


def _columns(
    resource: DltResource, marked: Sequence[str], partition: PartitionKey
) -> dict[str, str | None]:
    """Return the partition column of each dimension; None for the cursor."""
    dimensions = partition.dimensions or {"": partition}
    if not marked and cursor_of(resource) is None:
        return {"": PARTITION_COLUMN}
    columns: dict[str, str | None] = {name: name for name in dimensions if name in marked}
    open_columns = [column for column in marked if column not in columns]
    open_dimensions = [name for name in dimensions if name not in columns]
    if len(open_dimensions) == 1 and len(open_columns) == 1:
        columns[open_dimensions[0]] = open_columns[0]
    elif len(open_dimensions) == 1 and not open_columns and dimensions[open_dimensions[0]].window:
        columns[open_dimensions[0]] = None  # the cursor
    elif open_dimensions or open_columns:
        named = ", ".join(dimensions) if partition.dimensions else "one dimension"
        raise LoadPlanError(
            f"{resource.name} marks {', '.join(marked) or 'no column'} as its partition, and the "
            f"partitions have {named}. Mark one column for each dimension, with the dimension's name; "
            "Dagster's MultiPartitionsDefinition has several dimensions."
        )
    if None in columns.values() and cursor_of(resource) is None:
        raise LoadPlanError(
            f"{resource.name} marks no column for the dimension {open_dimensions[0]}. Mark the column "
            "that has its values with dlt's hint `partition`."
        )
    return columns


def _add_partition_column(resource: DltResource, partitions: Sequence[PartitionKey]) -> None:
    """Add the partition's key to the rows of a resource."""
    if len(partitions) > 1:
        raise LoadPlanError(
            f"{resource.name} marks no partition column, so its rows do not say to which of the "
            f"{len(partitions)} partitions they belong. Mark the column with dlt's hint `partition`, or "
            "load one partition at a time: dlt.run_in_batches(context, source, partitions_per_batch=1)."
        )
    key = str(partitions[0])

    def with_partition(item: Any) -> Any:
        if hasattr(item, "model_dump"):  # a Pydantic model
            item = item.model_dump()
        if isinstance(item, dict):
            return {**item, PARTITION_COLUMN: key}
        if isinstance(item, pa.Table | pa.RecordBatch):
            return item.append_column(PARTITION_COLUMN, pa.array([key] * len(item), pa.string()))
        raise LoadPlanError(
            f"{resource.name} marks no partition column, and a {type(item).__name__} cannot get one; "
            "nothing was loaded. Yield dicts or Arrow tables, or mark the column."
        )

    resource.add_map(with_partition)
    description = "The partition's key, which a load replaces."
    resource.apply_hints(
        # Never NULL, so that rows of loads without partitions do not stay beside those of partitions.
        columns={
            PARTITION_COLUMN: {"data_type": "text", "nullable": False, "description": description}
        }
    )


def _scope(
    source: DltSource,
    resource: DltResource,
    schema: TTableSchema,
    columns: Mapping[str, str | None],
    partitions: Sequence[PartitionKey],
) -> PartitionScope:
    """Return the scope of a resource.

    Raises:
        LoadPlanError: a partition is not a value of the declared type of its column.
    """
    naming = warehouse_naming(source.name)
    companions: Sequence[str] = schema.get(COMPANION_TABLES_HINT, [])  # type: ignore[assignment]
    named = [] if resource.has_dynamic_table_name else [table_of(resource)]
    scope = PartitionScope(
        resource=resource.name,
        tables=(*named, *map(naming.normalize_tables_path, companions)),
        columns={
            dimension: column and naming.normalize_path(column)
            for dimension, column in columns.items()
        },
        partitions=tuple(partitions),
        types={
            naming.normalize_path(column): hints
            for column, hints in schema["columns"].items()
            if column in columns.values() and hints.get("data_type")
        },
    )
    if None not in columns.values():
        scope.to_sql()
    return scope


def with_cursor_columns(
    scopes: Mapping[str, PartitionScope], source: DltSource, schema: Schema
) -> dict[str, PartitionScope]:
    """Return the scopes with the columns of cursors, which are known at the end of an extraction.

    Raises:
        LoadPlanError: a resource has no cursor, or its cursor is not a column.
    """
    return {
        name: replace(
            scope,
            columns={
                dimension: column or _cursor_column(source.resources[name], schema)
                for dimension, column in scope.columns.items()
            },
        )
        for name, scope in scopes.items()
    }


def bind_scopes(scopes: Mapping[str, PartitionScope], schema: Schema) -> dict[str, PartitionScope]:
    """Return the scopes by table, once a load knows the tables, their columns and types.

    A table without a type for its partition column has no rows, in the warehouse and in the load.

    Raises:
        LoadPlanError: a table has no partition column, or its type does not fit the partitions.
    """
    bound: dict[str, PartitionScope] = {}
    for name, scope in scopes.items():
        columns = scope.column_names
        for table, hints in schema.tables.items():
            if table not in scope.tables and (hints.get("resource") != name or "parent" in hints):
                continue
            stored = schema.get_table_columns(table)
            types = {column: stored[column] for column in columns if column in stored}
            if stored and (missing := set(columns) - hints["columns"].keys()):
                raise LoadPlanError(
                    f"{table} has no column {min(missing)}, by which {name} is loaded by partition; "
                    "nothing was loaded. Yield the column, or mark another one."
                )
            if len(types) == len(columns):
                bound[table] = replace(scope, types=types)
                bound[table].to_sql()
    return bound


def _cursor_column(resource: DltResource, schema: Schema) -> str:
    """Return the column of a resource's cursor."""
    cursor = bound_cursor(resource)
    if cursor is None:
        raise LoadPlanError(
            f"{resource.name} is loaded by partition and got no cursor; nothing was loaded. Mark its "
            "partition column with dlt's hint `partition`, or pass it a cursor on a time column."
        )
    path = str(cursor.cursor_path).removeprefix("$.")
    if not re.fullmatch(r"[^\[\]*$@?()]+", path):
        raise LoadPlanError(
            f"{resource.name} has a cursor on {path}, which is not a column; nothing was loaded. Mark its "
            "partition column with dlt's hint `partition`."
        )
    return schema.naming.normalize_path("__".join(path.split(".")))
