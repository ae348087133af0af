"""Merges that find nothing to replace, such as a first load: their rows are inserted, without staging."""

from collections.abc import Iterator, Sequence
from typing import Any

from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.common.schema.utils import (
    get_columns_names_with_prop,
    get_nested_tables,
    has_column_with_prop,
)

from shared.lazy_modules import duckdb
from shared.sources.quoting import quote
from shared.warehouse.guards import PackageContent, repeated_key
from shared.warehouse.scope import LoadState

_MIN_ROWS = 10_000
"""For fewer rows, to look for their keys takes as long as to merge them."""

_BY_KEY = ("delete-insert", "upsert", "insert-only")
_MERGED = {
    "x-merge-source-filter",
    "x-merge-destination-scope",
}
"""Hints with which dlt's merge inserts other rows than those of the load, or deletes others."""


def find_new_keys(client: Any, schema: Schema, content: PackageContent, state: LoadState) -> None:
    """Note which tables of a load have unique keys in it, and which of them have none of its keys yet.

    Args:
        client: the client of the dataset, which is locked.
        schema: the schema of the load.
        content: what it brings.
        state: receives the tables.
    """
    for name, rows in content.row_counts.items():
        table = schema.tables.get(name)
        if table is None or rows < _MIN_ROWS or name in state.partition_scopes:
            continue
        keys = get_columns_names_with_prop(table, "primary_key")
        strategy = table.get("x-merge-strategy", "delete-insert")
        if not keys or not _merges_by_primary_key(schema, table):
            continue
        files = content.files[name]
        if not table.get("x-stage-data-deduplicated") and _may_repeat(keys, files, state):
            continue
        if strategy in _BY_KEY:
            state.unique_tables.add(name)
            ranges = _key_ranges(table, keys, files)
        elif strategy == "cdc":  # it deletes the rows that the load does not bring
            ranges = iter(["1 = 1"])
        else:
            continue
        if any(not client.row_count(name, condition) for condition in ranges):
            state.inserted_tables.add(name)


def _may_repeat(keys: Sequence[str], files: Sequence[str], state: LoadState) -> bool:
    """Return whether two rows have one key, or whether that takes too much memory to know."""
    try:
        return repeated_key(keys, files, state.working_dir) is not None
    except duckdb.OutOfMemoryException:
        return True


def _merges_by_primary_key(schema: Schema, table: TTableSchema) -> bool:
    return (
        table.get("write_disposition") == "merge"
        and not table.get("parent")
        and len(get_nested_tables(schema.tables, str(table["name"]))) == 1
        and not has_column_with_prop(table, "merge_key")
        and not has_column_with_prop(table, "hard_delete")
        and not _MERGED & table.keys()
    )


def _key_ranges(table: TTableSchema, keys: Sequence[str], files: Sequence[str]) -> Iterator[str]:
    """Yield conditions each of which all stored rows with a key of the load satisfy.

    Only of integers: texts have another order in another collation, and a time may be infinite.
    """
    numbers = [key for key in keys if table["columns"][key].get("data_type") == "bigint"]
    for key in numbers:
        column = quote(key)
        with duckdb.connect() as connection:
            first, last = connection.execute(
                f"SELECT min({column}::HUGEINT), max({column}::HUGEINT) FROM read_parquet(?)",
                [list(files)],
            ).fetchall()[0]
        yield f"{column} BETWEEN {first} AND {last}"
    if not numbers:
        yield "1 = 1"
