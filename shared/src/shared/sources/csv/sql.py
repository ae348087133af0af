"""DuckDB's SQL to read a CSV file without guessing, and to check that values fit their types."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlt.common.schema.typing import TColumnSchema

from shared.sources.quoting import literal, quote

MAX_ROW_BYTES = 2_000_000  # DuckDB's own limit
EMPTY_IS_NULL = "''"
NEVER_NULL = "chr(10)"  # a line break, which a value without quotes cannot be

_DUCKDB_TYPES: dict[str | None, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}

TYPES = (*filter(None, _DUCKDB_TYPES), "decimal")
"""dlt's types that a column of a file can have."""


def duckdb_type(hints: TColumnSchema) -> str:
    """Return DuckDB's type for a column."""
    if hints["data_type"] == "decimal":
        return f"DECIMAL({hints['precision']}, {hints['scale']})"
    return _DUCKDB_TYPES[hints["data_type"]]


def read_csv(
    file: Path,
    types: Mapping[str, str],
    date_format: str = "%Y-%m-%d",
    *,
    max_row_bytes: int = MAX_ROW_BYTES,
    null: str = EMPTY_IS_NULL,
    delimiter: str = ",",
) -> str:
    """Return the table expression of a file with a header.

    Every option that DuckDB could guess is set. With its guesses it drops rows that begin with '#',
    joins files with a varying number of values into one column, and swaps day and month.

    Args:
        file: the file, in UTF-8.
        types: the file's columns in their order, with DuckDB's types.
        date_format: the format of dates, for strptime.
        max_row_bytes: the maximum length of a row.
        null: the SQL of the text that is NULL if it is not quoted. DuckDB ignores delimiters at the end
            of a row if it is empty; with `NEVER_NULL` the query fails on such a row.
        delimiter: the character between values.
    """
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
    # [*] is a literal * in a glob.
    name = re.sub(r"([*?\[])", r"[\1]", str(file))
    return (
        f"read_csv({literal(name)}, columns = {{{columns}}}, dateformat = {literal(date_format)}, "
        f"max_line_size = {max_row_bytes}, auto_detect = false, "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', header = true, skip = 0, comment = '', "
        f"nullstr = {null}, allow_quoted_nulls = false, hive_partitioning = false)"
    )


def read_texts(
    file: Path,
    names: Sequence[str],
    null: str,
    delimiter: str,
    null_values: Mapping[str, Sequence[str]],
) -> str:
    """Return the table expression of a file's values as text, with NULL for each that is missing.

    Args:
        file: the file, in UTF-8.
        names: the names of its columns in the query.
        null: as for `read_csv`.
        delimiter: the character between values.
        null_values: by column of the query, texts that are NULL.
    """
    table = read_csv(file, dict.fromkeys(names, "VARCHAR"), null=null, delimiter=delimiter)
    empty = ("",) if null == NEVER_NULL else ()
    values = [without(quote(name), (*empty, *null_values.get(name, ()))) for name in names]
    # With aliases, because dlt does not know the columns of read_csv.
    return f"(SELECT {', '.join(values)} FROM {table} AS texts({', '.join(map(quote, names))})) AS texts"


def without(text: str, null_values: Sequence[str]) -> str:
    """Return the SQL of a column of texts under its name, with NULL in place of some texts."""
    if not null_values:
        return text
    if len(null_values) == 1:
        return f"nullif({text}, {literal(null_values[0])}) AS {text}"
    return f"CASE WHEN {text} NOT IN ({', '.join(map(literal, null_values))}) THEN {text} END AS {text}"


def typed(text: str, hints: TColumnSchema, date_format: str) -> str:
    """Return the SQL expression of a text as the column's type; NULL where it does not fit."""
    if hints["data_type"] == "date":
        return f"try_strptime({text}, {literal(date_format)})::DATE"
    return f"TRY_CAST({text} AS {duckdb_type(hints)})"


def is_lossless(text: str, value: str, hints: TColumnSchema) -> str:
    """Return the SQL condition that a text keeps its meaning as a value of the column's type."""
    kind = hints["data_type"]
    conditions = [f"{value} IS NOT NULL"]
    pattern = None
    if kind in ("date", "timestamp"):
        # Rejects 18 for 2018, and infinity and epoch, which are dates for DuckDB.
        conditions.append(f"year({value}) > 999 AND regexp_matches({text}, '[0-9]')")
    if kind == "timestamp":
        # DuckDB drops a time zone and digits after the microseconds.
        pattern = "[0-9-]{10}([ T][0-9:]{5,8}(\\.[0-9]{1,6})?)?" + "Z?" * bool(
            hints.get("timezone", True)
        )
    if kind == "double":
        # DuckDB reads 1_0 as 10, and accepts infinity.
        conditions.append(f"isfinite({value})")
        pattern = "[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
    if kind in ("bigint", "decimal"):
        # DuckDB silently rounds 1.5 to 2 for a bigint, and decimals that exceed the scale.
        scale = hints.get("scale") if kind == "decimal" else 0
        pattern = f"[+-]?[0-9]*(\\.[0-9]{{0,{scale}}}0*)?"
    if pattern:
        conditions.append(f"regexp_full_match({text}, '{pattern}')")
    return f"{text} IS NULL OR coalesce({' AND '.join(conditions)}, false)"


def is_canonical(text: str, value: str, hints: TColumnSchema) -> str:
    """Return the SQL condition that DuckDB writes a value exactly like the text; then it fits."""
    condition = f"{text} = {value}::VARCHAR"
    if hints["data_type"] in ("date", "timestamp"):
        condition += f" AND {value} BETWEEN '1000-01-01' AND '9999-12-31'"
    if hints["data_type"] == "double":
        condition += f" AND isfinite({value})"
    return condition
