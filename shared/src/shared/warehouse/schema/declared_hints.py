"""The code decides: hints that a resource no longer declares do not live on in the stored schema.

dlt merges a resource's hints into the stored schema, so a key, a merge strategy or a contract that was
removed from the code would go on deleting or refusing rows (dlt#2440).
"""

from typing import Any

from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.extract import DltSource

from shared.sources.hints import APPEND_EACH_RUN
from shared.sources.protocol import COMPANION_TABLES_HINT

_COLUMN_HINTS = (
    "primary_key",
    "merge_key",
    "hard_delete",
    "dedup_sort",
    "partition",
    "x-row-version",
    "x-valid-from",
    "x-valid-to",
    "x-active-record-timestamp",
)
"""Hints of a column that decide which rows a load replaces."""

_TABLE_HINTS = (
    "x-merge-strategy",
    "x-stage-data-deduplicated",
    "x-merge-source-filter",
    "x-merge-destination-scope",
    "x-merge-skip-unchanged-rows",
    *APPEND_EACH_RUN,
    COMPANION_TABLES_HINT,
    "schema_contract",
    "x-boundary-timestamp",
)


def apply_declared_hints(schema: Schema | None, source: DltSource) -> None:
    """Remove from a restored schema what the selected resources no longer declare.

    Tables that a resource names while it is extracted keep their hints. So do hints that a schema's own
    rules infer from the names of columns.

    Args:
        schema: the schema of the source that the warehouse has, if it has one.
        source: what is about to be extracted.
    """
    if schema is None:
        return
    settings = (schema.settings, source.schema.settings)
    inferred = {str(hint) for each in settings for hint in each.get("default_hints") or {}}
    for resource in source.selected_resources.values():
        if resource.has_dynamic_table_name:
            continue
        for declared in resource.compute_tables(schema.naming):
            if stored := schema.tables.get(str(declared["name"])):
                for hint in _TABLE_HINTS:
                    if hint not in declared:
                        stored.pop(hint, None)  # type: ignore[misc]
                _apply_column_hints(
                    stored, declared, [h for h in _COLUMN_HINTS if h not in inferred]
                )


def _apply_column_hints(stored: TTableSchema, declared: TTableSchema, hints: list[str]) -> None:
    """Give the stored columns the hints of the declared ones, and no others."""
    columns: dict[str, Any] = stored["columns"]
    for name, column in columns.items():
        stated: Any = declared["columns"].get(name, {})
        for hint in hints:
            if column.pop(hint, None) and hint == "x-row-version" and name == "_dlt_id":
                # With the strategy `scd2` it was the hash of a row, and now it identifies one again.
                column |= {"unique": True, "row_key": True}
            if stated.get(hint):
                column[hint] = stated[hint]
        if stated.get("primary_key") or stated.get("merge_key"):
            # A key is not nullable. The contract would take this for another data type (dlt#2412).
            column["nullable"] = stated["nullable"]
