"""Column lineage: from a field of an upstream asset, or of a root, to the column of a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dlt.common.schema import Schema
from dlt.common.schema.utils import get_root_table

from shared.orchestration.metadata import SOURCE_FIELD

COLUMN_LINEAGE = "dagster/column_lineage"
UPSTREAM_COLUMNS = "upstream_columns"
"""The metadata that lists, for each column, the columns of other assets that it comes from."""

_COLUMN_SCHEMA = "dagster/column_schema"


def with_column_lineage(assets: Iterable[Any]) -> list[Any]:
    """Return a location's assets, in which tables name the columns of upstream assets they come from.

    A column comes from an upstream asset if that has a column with the name of its source field.
    """
    definitions = list(assets)
    columns = {
        spec.key: {column.name for column in spec.metadata[_COLUMN_SCHEMA].columns}
        for definition in definitions
        for spec in _specs(definition)
        if _COLUMN_SCHEMA in spec.metadata
    }

    def add_lineage(spec: dg.AssetSpec) -> dg.AssetSpec:
        declared = spec.metadata.get(_COLUMN_SCHEMA, dg.TableSchema(columns=[]))
        lineage = {
            column.name: [
                dg.TableColumnDep(asset_key=dep.asset_key, column_name=field)
                for dep in spec.deps
                if (field := column.tags.get(SOURCE_FIELD)) in columns.get(dep.asset_key, ())
            ]
            for column in declared.columns
        }
        found = {name: sources for name, sources in lineage.items() if sources}
        if not found or COLUMN_LINEAGE in spec.metadata:
            return spec
        return spec.merge_attributes(metadata={COLUMN_LINEAGE: dg.TableColumnLineage(found)})

    return [
        definition.map_asset_specs(add_lineage)
        if isinstance(definition, dg.AssetsDefinition)
        else definition
        for definition in definitions
    ]


def _specs(definition: Any) -> Sequence[dg.AssetSpec]:
    if isinstance(definition, dg.AssetSpec):
        return [definition]
    return list(definition.specs) if isinstance(definition, dg.AssetsDefinition) else []


def lineage_metadata(spec: dg.AssetSpec, table: str, schema: Schema) -> dict[str, Any]:
    """Return the column lineage of a loaded table: that of its spec, and of a nested row to its parent.

    Args:
        spec: the spec of the table's asset.
        table: the table.
        schema: the schema of its source after a load.
    """
    declared = spec.metadata.get(COLUMN_LINEAGE)
    lineage = dict(declared.deps_by_column) if declared else {}
    if parent := schema.tables.get(table, {}).get("parent"):
        root = str(get_root_table(schema.tables, table)["name"])
        for hint, upstream in (("parent_key", str(parent)), ("root_key", root)):
            for name, hints in schema.get_table_columns(table).items():
                if hints.get(hint):
                    key = dg.AssetKey([*spec.key.path[:-1], upstream])
                    lineage[name] = [
                        dg.TableColumnDep(asset_key=key, column_name=row_key)
                        for row_key, of_row in schema.get_table_columns(upstream).items()
                        if of_row.get("row_key")
                    ]
    return {COLUMN_LINEAGE: dg.TableColumnLineage(lineage)} if lineage else {}


def with_upstream_columns(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with the column lineage as a list, which Dagster's open-source UI shows.

    Its view of the lineage is a part of Dagster+
    (https://docs.dagster.io/guides/build/assets/metadata-and-tags/column-level-lineage).

    Args:
        metadata: of a materialization.
    """
    lineage = metadata.get(COLUMN_LINEAGE)
    if lineage is None:
        return dict(metadata)
    lines = [
        f"- `{column}`: "
        + ", ".join(sorted(f"`{dep.asset_key.to_user_string()}.{dep.column_name}`" for dep in deps))
        for column, deps in getattr(lineage, "value", lineage).deps_by_column.items()
        if deps
    ]
    return {**metadata, UPSTREAM_COLUMNS: dg.MetadataValue.md("\n".join(lines))}
