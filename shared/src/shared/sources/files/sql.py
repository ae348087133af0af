"""SQL of queries that the warehouse runs itself, and that fail on a row that must not load."""

from collections.abc import Mapping

from shared.sources.quoting import literal, quote

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


def escape_glob(path: str) -> str:
    """Return a path for DuckDB's readers, which take * and others for patterns."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
