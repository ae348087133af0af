"""The tables of a resource: the names that they have in the warehouse, and what is known of them."""

import os
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import chain

import dlt
from dlt.common.configuration.container import Container
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema, TTableSchemaColumns
from dlt.common.schema.utils import get_nested_tables
from dlt.extract import DltResource, DltSource
from dlt.extract.exceptions import InconsistentTableTemplate
from dlt.extract.items import TableNameMeta

from shared.sources.protocol import COMPANION_TABLES_HINT, SOURCE_FIELD_HINT
from shared.warehouse.comments import DLT_COLUMNS, Descriptions
from shared.warehouse.destinations.base import destination_class
from shared.warehouse.destinations.configuration import DESTINATION_NAME, warehouse_type
from shared.warehouse.dlt_internals import docstring
from shared.warehouse.errors import LoadPlanError
from shared.warehouse.rows.normalizer import with_normalizers


def warehouse_naming(source_name: str | None = None) -> NamingConvention:
    """Return the naming convention with which the warehouse stores a source's tables.

    It has the warehouse's longest name; without it, dlt shortens no name before the load.
    """
    settings = tuple(item for item in os.environ.items() if item[0].endswith("SCHEMA__NAMING"))
    return _naming(warehouse_type(), source_name or DESTINATION_NAME, settings)


def normalize_name(name: str) -> str:
    """Return the name that a dataset or a table gets in the warehouse.

    It follows dlt: `normalize_tables_path` keeps the two underscores of a nested table's name.
    """
    return warehouse_naming().normalize_tables_path(name)


def table_of(resource: DltResource) -> str:
    """Return the table of a resource, as it is named in the warehouse.

    A resource whose table name is a function of the row has no such table; it gets its own name.
    """
    name = resource.name if resource.has_dynamic_table_name else str(resource.table_name)
    return warehouse_naming(resource.source_name).normalize_tables_path(name)


def known_schema(resource: DltResource) -> TTableSchema:
    """Return the part of a resource's table schema that does not depend on its rows.

    The table's name and columns may be functions of the row; such columns are left out.

    Raises:
        LoadPlanError: another hint is a function of the row, so what a load replaces is not known
            before its first request.
    """
    return _with_fixed_table(resource).compute_table_schema()


def declared_tables(resource: DltResource) -> dict[str, TTableSchema]:
    """Return what is known of a resource's tables before a load, by their names in the warehouse.

    The first is the resource's own table, by default described by the resource's docstring. The others are the nested tables of its `nested_hints`, and
    the companion tables that `with_companion_tables` declares.
    """
    naming = warehouse_naming(resource.source_name)
    fixed = _with_fixed_table(resource)
    tables = fixed.compute_tables(naming)
    for name, hints in fixed.compute_table_schema()["columns"].items():
        if (column := naming.normalize_path(name)) != name and SOURCE_FIELD_HINT not in hints:
            tables[0]["columns"][column][SOURCE_FIELD_HINT] = name  # type: ignore[literal-required]
    # The first paragraph of a docstring describes the table; the rest is for programmers.
    description = str(tables[0].get("description") or docstring(resource)).partition("\n\n")[0]
    tables[0]["description"] = description
    companions: Sequence[str] = tables[0].get(COMPANION_TABLES_HINT, [])  # type: ignore[assignment]
    tables += [fixed.compute_tables(naming, meta=TableNameMeta(name))[0] for name in companions]
    return {naming.normalize_tables_path(str(table["name"])): table for table in tables}


def _with_fixed_table(resource: DltResource) -> DltResource:
    """Return a resource whose table name and columns are not functions of the row; see `known_schema`."""
    if not resource.has_dynamic_table_name:  # then dlt accepts no other function either
        return resource
    fixed = resource.with_name(resource.name)
    columns: TTableSchemaColumns | None = {} if callable(resource.columns) else None
    try:
        return fixed.apply_hints(table_name=table_of(resource), columns=columns)
    except InconsistentTableTemplate as error:
        raise LoadPlanError(
            f"{resource.name} has a hint that is a function of the row, such as its write disposition or "
            "a key: what a load replaces must be known before the first row. Write the value; only "
            "table_name and columns may be functions. `dlt.mark.with_hints` gives one table other hints."
        ) from error


def reject_colliding_tables(source: DltSource) -> None:
    """Reject two names that become one table, such as `userOrders` and `user_orders`.

    Resources with the same table name load one table, because they say so.

    Raises:
        LoadPlanError: with both names, and the table.
    """
    names: dict[str, str] = {}
    for resource in source.selected_resources.values():
        name = resource.name if resource.has_dynamic_table_name else str(resource.table_name)
        table = table_of(resource)
        if names.setdefault(table, name) != name:
            raise LoadPlanError(
                f"{source.name} has {names[table]!r} and {name!r}, which are both the table {table} in "
                "the warehouse. Give one of them another table_name, or both the same one if they are "
                "to load one table."
            )


def reject_split_tables(source: DltSource, selected: Collection[str]) -> None:
    """Reject a selection that replaces a table without the rows of a resource that shares it.

    Args:
        source: the source, with all of its declared resources selected.
        selected: the resources to load.

    Raises:
        LoadPlanError: a resource that is not selected has the table of one that is.
    """
    tables: dict[str, list[str]] = {}
    for name, resource in source.selected_resources.items():
        tables.setdefault(table_of(resource), []).append(name)
    for table, names in tables.items():
        missing = [name for name in names if name not in selected]
        if missing and len(missing) < len(names):
            raise LoadPlanError(
                f"{', '.join(missing)} also loads the table {table}, whose rows this run would replace. "
                f"Select {', '.join(names)} together."
            )


def filled_tables(resource: DltResource, schema: Schema) -> list[str]:
    """Return the root tables that a resource's loads have filled, its own table first.

    There are several if its table name is a function of the row, or if it yields
    `dlt.mark.with_table_name` or `dlt.mark.with_hints`. If it has filled none, the result is its own
    table. Companion tables are left out.

    Args:
        resource: the resource.
        schema: the schema of its source after a load.
    """
    own = table_of(resource)
    naming = warehouse_naming(resource.source_name)
    companions: Sequence[str] = schema.tables.get(own, {}).get(COMPANION_TABLES_HINT, [])  # type: ignore[assignment]
    related = set(map(naming.normalize_tables_path, companions))
    filled = {
        str(table["name"])
        for table in schema.data_tables(seen_data_only=True)
        if table.get("resource") == resource.name and not table.get("parent")
        if table["name"] not in related
    }
    if not filled and not resource.has_dynamic_table_name:
        return [own]
    return sorted(filled, key=lambda table: (table != own, table))


def root_tables(source: DltSource, schema: Schema) -> list[str]:
    """Return the tables that the resources of a source have filled, without nested and companion tables."""
    filled = (filled_tables(each, schema) for each in source.selected_resources.values())
    return list(dict.fromkeys(chain.from_iterable(filled)))


def with_related_tables(table: str, schema: Schema) -> list[str]:
    """Return a table and, after it, its nested and companion tables with their nested ones.

    Args:
        table: a root table, which need not exist yet.
        schema: the schema of its source after a load.
    """
    companions: Sequence[str] = schema.tables.get(table, {}).get(COMPANION_TABLES_HINT, [])  # type: ignore[assignment]
    return [
        str(nested["name"])
        for root in (table, *map(schema.naming.normalize_tables_path, companions))
        if root in schema.tables
        for nested in get_nested_tables(schema.tables, root)
    ] or [table]


def find_descriptions(
    source: DltSource, schema: Schema, tables: Iterable[str]
) -> dict[str, Descriptions]:
    """Return what a source says about tables that it has loaded, and what dlt's columns contain.

    Args:
        source: the source; the docstring of a resource describes its table.
        schema: the schema of the source after the load.
        tables: names of tables.
    """
    own = {}
    for resource in source.selected_resources.values():
        table, declared = next(iter(declared_tables(resource).items()))
        own[table] = str(declared["description"])
    return {
        table: Descriptions(
            str(schema.tables[table].get("description") or own.get(table, "")),
            {
                name: str(hints.get("description") or DLT_COLUMNS.get(name, ""))
                for name, hints in schema.get_table_columns(table).items()
            },
        )
        for table in tables
        if table in schema.tables
    }


def reject_refresh(pipeline: dlt.Pipeline, source: DltSource, refresh: str | None) -> None:
    """Reject a `refresh` that would drop the tables of resources which this load does not fill.

    `drop_sources` drops all tables in the stored schema of the source; dlt's other modes those of the
    selected resources, and of resources from which these take their rows.

    Raises:
        LoadPlanError: with the tables.
    """
    name = source.schema.name
    if refresh is None or name not in pipeline.schemas:
        return
    extracted = {resource.name for resource in source.resources.extracted}
    dropped = [
        f"{pipeline.dataset_name}.{table['name']}"
        for table in pipeline.schemas[name].data_tables(seen_data_only=True)
        if (resource := table.get("resource")) and resource not in source.selected_resources
        if refresh == "drop_sources" or resource in extracted
    ]
    if dropped:
        raise LoadPlanError(
            f"refresh={refresh!r} would delete the rows of {', '.join(sorted(dropped))}, which this load "
            f"does not fill: they belong to other resources of the source {name}. Nothing was dropped or "
            "loaded. Select those resources as well, or use refresh='drop_resources', which drops the "
            "tables of the selected resources."
        )


@cache
def _naming(
    of_type: str,
    source_name: str,
    settings: tuple[tuple[str, str], ...],  # noqa: ARG001 - another setting, another convention
) -> NamingConvention:
    with Container().injectable_context(_capabilities(of_type)):
        return with_normalizers(Schema(source_name)).naming


@cache
def _capabilities(of_type: str) -> DestinationCapabilitiesContext:
    capabilities: DestinationCapabilitiesContext = destination_class(of_type)(
        destination_name=DESTINATION_NAME
    ).capabilities()
    return capabilities
