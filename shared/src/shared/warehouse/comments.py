"""Descriptions of tables and columns as comments in the database, so that any SQL client shows them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlt.common.utils import digest128

from shared.sources.quoting import literal, quote

DLT_COLUMNS = {
    "_dlt_load_id": "The load that inserted the row; _dlt_loads has its time.",
    "_dlt_id": "The row's identifier, set by dlt.",
    "_dlt_parent_id": "The _dlt_id of the row in the parent table.",
    "_dlt_root_id": "The _dlt_id of the row in the root table.",
    "_dlt_list_idx": "The position in the nested list, from 0.",
}
"""What dlt's own columns contain."""

_STORED_SQL = {
    "duckdb": """
        SELECT 'TABLE', table_name, NULL, comment FROM duckdb_tables()
        WHERE database_name = current_database() AND schema_name = {dataset} AND table_name IN ({tables})
        UNION ALL
        SELECT 'VIEW', view_name, NULL, comment FROM duckdb_views()
        WHERE database_name = current_database() AND schema_name = {dataset} AND view_name IN ({tables})
        UNION ALL
        SELECT 'COLUMN', table_name, column_name, comment FROM duckdb_columns()
        WHERE database_name = current_database() AND schema_name = {dataset} AND table_name IN ({tables})
    """,
    "postgres": """
        WITH relations AS (
            SELECT oid, relname, CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind
            FROM pg_class
            WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {dataset})
                AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname IN ({tables})
        )
        SELECT kind, relname, NULL, obj_description(oid, 'pg_class') FROM relations
        UNION ALL
        SELECT 'COLUMN', relname, attname, col_description(oid, attnum)
        FROM relations JOIN pg_attribute ON attrelid = oid WHERE attnum > 0 AND NOT attisdropped
    """,
}
"""The tables, views and columns that exist, with their comments."""


@dataclass(frozen=True)
class Descriptions:
    """What a table and its columns contain. What has no description keeps its comment."""

    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def has_comments(warehouse_type: str) -> bool:
    """Return whether `update_comments` writes comments into a warehouse of a type."""
    return warehouse_type in _STORED_SQL


def digest(tables: Mapping[str, Descriptions]) -> str:
    """Return a text that changes with the descriptions."""
    return digest128(repr([(name, tables[name]) for name in sorted(tables)]))


def update_comments(
    execute: Callable[[str], Sequence[Sequence[Any]] | None],
    warehouse_type: str,
    dataset: str,
    tables: Mapping[str, Descriptions],
) -> int:
    """Comment tables, views and their columns, and return how many comments changed.

    It sends one query if all are unchanged, and nothing to a warehouse other than DuckDB and Postgres.
    The caller has a lock or a transaction, and handles the errors of the database.

    Args:
        execute: runs a statement on a connection that can write, and returns its rows.
        warehouse_type: the type of the warehouse.
        dataset: the database schema, as it is stored.
        tables: the descriptions, by table or view; one that does not exist is left out.
    """
    statements = list(_statements(execute, warehouse_type, dataset, tables))
    for statement in statements:
        execute(statement)
    return len(statements)


def _statements(
    execute: Callable[[str], Sequence[Sequence[Any]] | None],
    warehouse_type: str,
    dataset: str,
    tables: Mapping[str, Descriptions],
) -> Iterator[str]:
    sql = _STORED_SQL.get(warehouse_type)
    if sql is None or not tables:
        return
    names = ", ".join(map(literal, tables))
    for kind, table, column, comment in (
        execute(sql.format(dataset=literal(dataset), tables=names)) or ()
    ):
        described = tables[table]
        text = described.columns.get(column, "") if column else described.table
        text = text.replace("\0", "")  # Postgres cannot store it
        if text and text != comment:
            name = ".".join(map(quote, filter(None, (dataset, table, column))))
            yield f"COMMENT ON {kind} {name} IS {literal(text)}"
