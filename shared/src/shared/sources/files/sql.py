"""SQL of queries that the warehouse runs itself, and that fail on a row that must not load."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from shared.sources.quoting import glob_literal, literal, quote

LAST_INSTANT = "9999-12-31 23:59:59.999999"


def error_if(condition: str, value: str, name: str) -> str:
    """Return the SQL of a value of a column; the query fails where the condition is true."""
    return f"CASE WHEN {condition} THEN error({literal(name)}) ELSE {value} END"


def strict_select(values: Mapping[str, str], table: str, rules: Mapping[str, str]) -> str:
    """Return the SQL of all rows; the query fails on a row that breaks a rule.

    Args:
        values: by column, its SQL.
        table: the table expression that has them.
        rules: by column, the SQL condition that its rows must meet.
    """
    selected = ", ".join(f"{value} AS {quote(name)}" for name, value in values.items())
    kept = " AND ".join(
        f"CASE WHEN ({rule}\n) IS NOT FALSE THEN true ELSE error({literal(name)}) END"
        for name, rule in rules.items()
    )
    return f"SELECT * FROM (SELECT {selected} FROM {table}) AS typed WHERE {kept or 'true'}"


def read_parquet(file: Path, names: Iterable[str]) -> str:
    """Return the table expression of a Parquet file with these columns."""
    # With aliases, because dlt does not know the file's columns.
    return (
        f"read_parquet({glob_literal(file)}, hive_partitioning = false, binary_as_string = false) "
        f"AS stored({', '.join(map(quote, names))})"
    )
