"""Texts as parts of SQL."""

import re
from pathlib import Path


def literal(text: str) -> str:
    """Return a text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def glob_literal(file: Path) -> str:
    """Return a path as a SQL literal, for functions of DuckDB that read all files of a pattern."""
    return literal(re.sub(r"([*?\[])", r"[\1]", str(file)))


def quote(text: str) -> str:
    """Return a text in double quotes: a SQL identifier, or a value of a CSV file."""
    return '"' + text.replace('"', '""') + '"'
