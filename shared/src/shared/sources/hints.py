"""Columns, Arrow schemas and tables of resources whose rows a run replaces."""

from collections.abc import Iterator, Mapping
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.libs.pyarrow import columns_to_arrow
from dlt.common.schema.typing import TColumnSchema

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


def arrow_schema(columns: Mapping[str, TColumnSchema]) -> pa.Schema:
    """Return the Arrow schema of dlt's columns; timestamps are UTC, unless their hints say no zone.

    Only decimals have their precision; integers have 64 bits and timestamps microseconds.
    """
    named: dict[str, TColumnSchema] = {}
    for name, hints in columns.items():
        precision = hints.get("precision") if hints["data_type"] == "decimal" else None
        named[name] = {**hints, "name": name, "precision": precision}
    return columns_to_arrow(named, DestinationCapabilitiesContext.generic_capabilities(), "UTC")


def empty_companion_table(name: str, columns: dict[str, TColumnSchema]) -> Iterator[Any]:
    """Yield the items that create a companion table of the running resource, without rows.

    A companion table starts with all hints of the resource, so the first item removes its columns.
    """
    for hinted in ({}, columns):
        hints = dlt.mark.make_hints(table_name=name, columns=hinted)
        yield dlt.mark.with_hints(
            arrow_schema(columns).empty_table(), hints, create_table_variant=True
        )
