"""Find the values of a column that a conversion to another type would change."""

from collections.abc import Callable, Sequence
from typing import Any

_TRY_CAST_POSTGRES = """
    CREATE OR REPLACE FUNCTION pg_temp.{name}(value {old}) RETURNS {new} LANGUAGE plpgsql AS $$
    BEGIN RETURN CAST(value AS {new}); EXCEPTION WHEN data_exception THEN RETURN NULL; END $$
"""
"""Postgres has no TRY_CAST. A function of this session: other errors, such as a missing cast, are raised."""


def count_changed_values(
    execute: Callable[[str], Sequence[Sequence[Any]]],
    table: str,
    column: str,
    old: str,
    new: str,
    *,
    postgres: bool,
) -> tuple[int, str]:
    """Return how many values are not the same after a conversion to a type and back, and one of them.

    Args:
        execute: runs SQL and returns its rows.
        table: the table, quoted.
        column: the column, quoted.
        old: the database's type of the column.
        new: the database's type that it would have.
        postgres: whether the database is Postgres, otherwise DuckDB.
    """
    execute("SET TimeZone = 'UTC'")  # a day begins at another time elsewhere
    if postgres:
        for name, source, target in (("try_new", old, new), ("try_old", new, old)):
            execute(_TRY_CAST_POSTGRES.format(name=name, old=source, new=target))
        converted = f"pg_temp.try_old(pg_temp.try_new({column}))"
    else:
        converted = f"TRY_CAST(TRY_CAST({column} AS {new}) AS {old})"
    ((count, example),) = execute(
        f"SELECT count(*), min(CAST({column} AS {'text' if postgres else 'VARCHAR'})) FROM {table} "
        f"WHERE {column} IS NOT NULL AND ({converted}) IS DISTINCT FROM {column}"
    )
    return int(count), str(example)
