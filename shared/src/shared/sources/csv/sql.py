"""DuckDB's SQL to read the values of a CSV file as texts, without guessing."""

from collections.abc import Mapping
from pathlib import Path

from shared.sources.quoting import glob_literal, literal

MAX_ROW_BYTES = 2_000_000  # DuckDB's own limit
EMPTY_IS_NULL = "''"
NEVER_NULL = "chr(10)"  # a line break, which a value without quotes cannot be


def text_name(position: int) -> str:
    """Return the name of the column at a position of the file, as text."""
    return f"_dlt_text_{position}"


def text_columns(width: int) -> dict[str, str]:
    """Return the columns of a file as texts, with DuckDB's types."""
    return {text_name(position): "VARCHAR" for position in range(width)}


def read_csv(
    file: Path,
    types: Mapping[str, str],
    *,
    max_row_bytes: int = MAX_ROW_BYTES,
    null: str = EMPTY_IS_NULL,
    delimiter: str = ",",
    quote: str = '"',
    has_header: bool = True,
    line_break: str = "",
) -> str:
    """Return the table expression of a file.

    Every option that DuckDB could guess is set. With its guesses it drops rows that begin with '#',
    joins files with a varying number of values into one column, and swaps day and month.

    Args:
        file: the file, in UTF-8.
        types: the file's columns in their order, with DuckDB's types.
        max_row_bytes: the maximum length of a row.
        null: the SQL of the text that is NULL if it is not quoted. DuckDB ignores delimiters at the end
            of a row if it is empty; with `NEVER_NULL` the query fails on such a row.
        delimiter: the character between values.
        quote: the character around values; "" if there is none.
        has_header: whether the first row is a header.
        line_break: the SQL of the line break; "" lets DuckDB take the first one, also inside of quotes.
    """
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
    return (
        f"read_csv({glob_literal(file)}, columns = {{{columns}}}, max_line_size = {max_row_bytes}, "
        f"auto_detect = false, delim = {literal(delimiter)}, quote = {literal(quote)}, "
        f"escape = {literal(quote)}, header = {str(has_header).lower()}, skip = 0, comment = '', "
        f"nullstr = {null}, allow_quoted_nulls = false, hive_partitioning = false"
        f"{f', new_line = {line_break}' if line_break else ''})"
    )
