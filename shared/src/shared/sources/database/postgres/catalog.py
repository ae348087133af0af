"""What the catalog of Postgres says about a table."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from dlt.common.schema.typing import TColumnSchema

from shared.sources.database.base import Column, DatabaseError, Snapshot, TableInfo
from shared.sources.database.postgres.types import PostgresType, reading_of
from shared.sources.database.table import Table
from shared.sources.quoting import literal

_KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}

_TABLE_SQL = """
    SELECT c.oid::bigint, c.relkind::text, c.reltuples::bigint,
        c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)
    FROM pg_class AS c WHERE c.oid = to_regclass({name})
"""

_COLUMNS_SQL = """
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, base.name, base.modifier,
        base.is_array, base.is_composite, has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
        a.attnum::bigint
    FROM pg_attribute AS a CROSS JOIN LATERAL (
        WITH RECURSIVE types AS (
            SELECT t.oid, a.atttypmod AS modifier FROM pg_type AS t WHERE t.oid = a.atttypid
            UNION ALL
            SELECT t.typbasetype, CASE WHEN t.typtypmod = -1 THEN types.modifier ELSE t.typtypmod END
            FROM types JOIN pg_type AS t ON t.oid = types.oid WHERE t.typtype = 'd'
        )
        SELECT t.typname::text AS name, types.modifier::bigint AS modifier,
            t.typcategory = 'A' AS is_array, t.typtype = 'c' AS is_composite
        FROM types JOIN pg_type AS t ON t.oid = types.oid WHERE t.typtype <> 'd'
    ) AS base
    WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
"""A domain counts as the type that it is based on."""

_INDEXES_SQL = """
    SELECT i.indisprimary, i.indisunique AND i.indpred IS NULL AND i.indisvalid AND bool_and(a.attnotnull),
        string_agg(a.attname, chr(31) ORDER BY key.position) AS columns
    FROM pg_index AS i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS key(number, position)
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = key.number
    WHERE i.indrelid = {oid} AND i.indexprs IS NULL AND key.position <= i.indnkeyatts
    GROUP BY i.indexrelid, i.indisprimary, i.indisunique, i.indpred, i.indisvalid
    ORDER BY i.indisprimary DESC, 2 DESC, count(*)
"""


def describe(snapshot: Snapshot, table: Table) -> TableInfo:
    """Return what the catalog says about a table; see `Snapshot.describe`."""
    name = snapshot.quote(*filter(None, [table.schema, table.name]))
    found = snapshot.query(_TABLE_SQL.format(name=literal(name)))
    if not found:
        raise DatabaseError(
            f"{snapshot.server} has no table {table.full_name}{_similar_table(snapshot, table)}. Declare "
            "the schema and the name in the case that the database has."
        )
    ((oid, kind, rows, is_parent),) = found
    found_columns = snapshot.query(_COLUMNS_SQL.format(oid=oid))
    columns = {str(row[0]): _column(snapshot, table, row) for row in found_columns}
    selected = selected_columns(table, columns, snapshot.server)
    if denied := [
        name for name, *_, may_read, _ in found_columns if name in selected and not may_read
    ]:
        raise DatabaseError(
            f"{table.full_name} of {snapshot.server}: the user of the source may not read "
            f"{', '.join(denied)}. Grant the right: GRANT SELECT ON {name} TO the user; or exclude the columns."
        )
    indexes = [
        # An index of a table from which others inherit says nothing of their rows.
        (primary, unique and not is_parent, tuple(str(names).split("\x1f")))
        for primary, unique, names in snapshot.query(_INDEXES_SQL.format(oid=oid))
    ]
    return TableInfo(
        columns=selected,
        primary_key=next((names for _, unique, names in indexes if unique), ()),
        indexed=frozenset(names[0] for _, _, names in indexes),
        estimated_rows=int(rows),
        kind=_KINDS.get(str(kind), str(kind)),
        all_columns=columns,
        unique_keys=[frozenset(names) for _, unique, names in indexes if unique],
    )


def selected_columns(
    table: Table, columns: Mapping[str, Column], server: str
) -> Mapping[str, Column]:
    """Return the columns that a declaration loads, of those that the table has.

    Raises:
        DatabaseError: the declaration names a column that the table does not have.
    """
    cursor = [table.cursor] if table.cursor else []
    declared = [
        *table.columns,
        *table.key_columns,
        *cursor,
        *table.exclude,
        *table.masks,
        *table.types,
    ]
    for name in declared:
        if name not in columns:
            close = get_close_matches(name, columns, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise DatabaseError(
                f"{table.full_name} of {server} has no column {name}, which is declared.{hint} Its columns "
                f"are {', '.join(columns)}."
            )
    wanted = table.columns or [name for name in columns if name not in table.exclude]
    return {name: columns[name] for name in wanted}


def _column(snapshot: Snapshot, table: Table, row: tuple[Any, ...]) -> Column:
    name, full_name, is_required, base, modifier, is_array, is_composite, _, number = row
    kind = PostgresType(
        str(base), int(modifier), bool(is_array), bool(is_composite), str(full_name)
    )
    expression, hints = reading_of(snapshot.quote(name), kind, table.types.get(name))
    if name in table.key_columns and hints["data_type"] == "json":
        hints["data_type"] = "text"  # no warehouse compares JSON
    hints = {"nullable": not is_required, **hints, "name": name}
    return Column(name, cast(TColumnSchema, hints), expression, str(full_name), int(number))


def _similar_table(snapshot: Snapshot, table: Table) -> str:
    tables = snapshot.query(
        "SELECT n.nspname::text, c.relname::text FROM pg_class AS c JOIN pg_namespace AS n "
        "ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') "
        "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
    )
    names = [f"{schema}.{name}" for schema, name in tables]
    same = [name for name in names if name.endswith(f".{table.name}")]
    close = same or get_close_matches(f"{table.schema or 'public'}.{table.name}", names, 1)
    return f"; it has {close[0]}" if close else ""
