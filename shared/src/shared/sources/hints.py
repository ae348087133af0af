"""Columns, Arrow schemas and tables of resources whose rows a run replaces."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import dlt
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltResource

from shared.lazy_modules import pyarrow as pa
from shared.sources.protocol import COMPANION_TABLES_HINT, SOURCE_FIELD_HINT

REPLACE_PARTITIONS: Any = {
    "write_disposition": {"disposition": "merge", "strategy": "delete-insert"},
    "schema_contract": {"columns": "freeze", "data_type": "freeze"},
}
"""Arguments of a resource with fixed columns; a run replaces its partitions or keys."""

APPEND_EACH_RUN: dict[str, Any] = {"x-append-each-run": True}
"""`additional_table_hints` of a resource that appends without a cursor: each run adds the rows that it
gets, also those that are there. Use it for events that a source delivers once, or for a resource that
keeps its own position in `dlt.current.resource_state()`."""


def column(data_type: str, description: str, **hints: Any) -> TColumnSchema:
    """Return a nullable column with dlt's type, its description and more of dlt's hints."""
    return {"data_type": data_type, "description": description, "nullable": True, **hints}  # type: ignore[typeddict-item]


def required_column(data_type: str, description: str, **hints: Any) -> TColumnSchema:
    """Return a column that is never NULL."""
    return column(data_type, description, nullable=False, **hints)


def with_source_fields(
    columns: Mapping[str, TColumnSchema], prefix: str = "", fields: Mapping[str, str] | None = None
) -> dict[str, TColumnSchema]:
    """Return columns that state from which field of the source they come; see `SOURCE_FIELD_HINT`.

    Args:
        columns: the columns.
        prefix: what comes before the name of each field, such as `$.orbital_data.`.
        fields: the names of fields by column, where they differ.
    """
    names = fields or {}
    return {
        name: {**hints, SOURCE_FIELD_HINT: f"{prefix}{names.get(name, name)}"}  # type: ignore[misc]
        for name, hints in columns.items()
    }


def arrow_schema(columns: Mapping[str, TColumnSchema]) -> "pa.Schema":
    """Return the Arrow schema of dlt's columns; timestamps are UTC, unless their hints say no zone.

    Only decimals have their precision; integers have 64 bits and timestamps microseconds.
    """
    named: dict[str, TColumnSchema] = {}
    for name, hints in columns.items():
        precision = hints.get("precision") if hints["data_type"] == "decimal" else None
        named[name] = {**hints, "name": name, "precision": precision}
    from dlt.common.libs.pyarrow import columns_to_arrow  # imports pyarrow

    return columns_to_arrow(named, DestinationCapabilitiesContext.generic_capabilities(), "UTC")


class CompanionTable(NamedTuple):
    """A table that a resource fills beside its own: what it is, and its columns."""

    description: str
    columns: dict[str, TColumnSchema]

    def empty(self, name: str) -> Any:
        """Return the item that creates the table, without rows."""
        return dlt.mark.with_table_name(arrow_schema(self.columns).empty_table(), name)


def with_companion_tables(
    resource: DltResource, tables: Mapping[str, CompanionTable]
) -> DltResource:
    """Declare the companion tables of a resource; see `COMPANION_TABLES_HINT`.

    Args:
        resource: the resource, with all other hints. It yields `CompanionTable.empty` in each load.
        tables: the tables, by name.
    """
    for name, (description, columns) in tables.items():
        # A table starts with all hints of the resource, so the first call removes its columns and keys.
        for hinted in ({}, columns):
            resource.apply_hints(
                table_name=name,
                columns=hinted,
                primary_key="",
                merge_key="",
                nested_hints={},
                additional_table_hints={"description": description},
                create_table_variant=True,
            )
    return resource.apply_hints(additional_table_hints={COMPANION_TABLES_HINT: [*tables]})
