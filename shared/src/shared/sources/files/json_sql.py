"""DuckDB's SQL of JSON lines, with a pattern of the lines that DuckDB reads without loss."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import duckdb
from shared.lazy_modules import pyarrow as pa
from shared.sources.files.format import FileFormat
from shared.sources.files.json_text import DECODER
from shared.sources.files.sql import LAST_INSTANT, error_if, strict_select
from shared.sources.quoting import glob_literal, literal

_SAMPLE_BYTES = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANKS = "[ \\t]*"
_DATE = "[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_ZONE = "(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"

_PATTERNS: Mapping[str, str] = {
    "text": r'"(?:[^"\\]|\\.)*"',
    "bigint": "-?[0-9]+",
    # A double has each integer of 15 digits.
    "double": "-?(?:[0-9]{1,15}|[0-9]+[.eE][0-9.eE+-]+)",
    "bool": "(?:true|false)",
    "date": f'"{_DATE}"',
    "time": f'"{_TIME}"',
    "binary": f'"{_BASE64}"',
}
"""How a value is written that DuckDB reads without loss, if the line is JSON; DuckDB checks that itself."""

_TYPES: Mapping[str, str] = {
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "time": "TIME",
}


def lines_select(file: Path, file_format: FileFormat) -> str | None:
    """Return SQL of all rows of a file; it fails on a line that DuckDB may read in another way.

    The pattern has the keys in the order of the file's first lines. Each of them is there exactly once,
    because the pattern names them, and a quote cannot be inside of a text without a backslash.

    Args:
        file: JSON lines.
        file_format: its columns and rules.

    Returns:
        None if the query would fail on the first lines, or there is a column that it cannot check.
    """
    with suppress(ValueError, RecursionError, duckdb.Error):
        lines = _first_lines(file)
        rows = [DECODER.decode(line) for line in lines]
        if not rows or not all(isinstance(row, dict) for row in rows):
            return None
        longest: dict[str, Any] = max(rows, key=len)
        names = list(longest)
        if file_format.column_problems(names) or not _can_check(names, file_format):
            return None
        with duckdb.connect() as connection:
            connection.register(
                "texts", pa.table({"line": [line.rstrip("\r\n") for line in lines]})
            )
            connection.sql(_select("texts", names, file_format)).to_arrow_table()
        return _select(_read_lines(file, lines[0]), names, file_format)
    return None


def _first_lines(file: Path) -> list[str]:
    with file.open("rb") as stream:
        content = stream.read(_SAMPLE_BYTES)
    lines = content.removeprefix(_BYTE_ORDER_MARK).splitlines(keepends=True)
    if len(content) == _SAMPLE_BYTES:
        del lines[-1:]  # it may be cut off
    return [line.decode() for line in lines if line.strip()]


def _can_check(names: Iterable[str], file_format: FileFormat) -> bool:
    """Return whether a pattern can have all keys, and says enough about their values."""
    return all(
        json.dumps(name, ensure_ascii=False) == f'"{name}"'
        and file_format.columns[name]["data_type"] != "json"
        and not pa.types.is_decimal256(file_format.schema.field(name).type)
        for name in names
    )


def _read_lines(file: Path, first: str) -> str:
    """Return the table expression of a file's lines; it fails on another line break than the first."""
    line_break = r"\r\n" if first.endswith("\r\n") else r"\n"
    # As a CSV file with one column. A line break is never in it, so no line is NULL.
    return (
        f"read_csv({glob_literal(file)}, columns = {{'line': 'VARCHAR'}}, "
        f"new_line = {literal(line_break)}, nullstr = chr(10), delim = '', quote = '', escape = '', "
        "comment = '', header = false, skip = 0, auto_detect = false, hive_partitioning = false) "
        "AS stored(line)"
    )


def _select(table: str, names: Sequence[str], file_format: FileFormat) -> str:
    pattern = _BLANKS + "".join(_key(name, file_format) for name in names) + rf"\}}{_BLANKS}"
    types = {name: _duckdb_type(name, file_format) for name in names}
    row = f"json_transform(line, {literal(json.dumps(types, ensure_ascii=False))})"
    checked = (
        f"(SELECT line, CASE WHEN regexp_full_match(line, {literal(pattern)}) THEN {row} "
        f"ELSE error('line') END AS fields FROM {table}) AS lines"
    )
    values = {
        name: _value(name, file_format.columns[name]) if name in names else "NULL"
        for name in file_format.columns
    }
    return strict_select(values, checked, file_format.rules)


def _key(name: str, file_format: FileFormat) -> str:
    """Return the pattern of a key with what is before it, and of its value."""
    hints = file_format.columns[name]
    kind = hints["data_type"]
    if kind == "decimal":
        scale = file_format.schema.field(name).type.scale
        value = rf'"?-?[0-9]+(?:\.[0-9]{{0,{scale}}}0*)?"?'
    elif kind == "timestamp":
        value = f'"{_DATE}[T ]{_TIME}{_ZONE if hints.get("timezone", True) else ""}"'
    else:
        value = _PATTERNS[str(kind)]
    if hints.get("nullable") is not False:
        value = f"(?:null|{value})"
    pair = rf'[{{,]{_BLANKS}"{re.escape(name)}"{_BLANKS}:{_BLANKS}{value}{_BLANKS}'
    return f"(?:{pair})?" if name in file_format.optional else pair


def _duckdb_type(name: str, file_format: FileFormat) -> str:
    hints: Any = file_format.columns[name]
    if hints["data_type"] == "decimal":
        kind = file_format.schema.field(name).type
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if hints["data_type"] == "timestamp":
        return "TIMESTAMPTZ" if hints.get("timezone", True) else "TIMESTAMP"
    return _TYPES.get(hints["data_type"], "VARCHAR")


def _value(name: str, hints: TColumnSchema) -> str:
    """Return the SQL of a column; json_transform returns NULL for a value that does not fit."""
    kind, value = hints["data_type"], f"struct_extract(fields, {literal(name)})"
    is_there = rf'"{re.escape(name)}"{_BLANKS}:{_BLANKS}[^ \tn]'
    bad = f"{value} IS NULL AND regexp_matches(line, {literal(is_there)})"
    if kind == "text":
        return value
    if kind == "binary":
        return f"from_base64({value})"
    if kind == "double":
        bad += f" OR NOT isfinite({value})"
    if kind == "timestamp" and hints.get("timezone", True):
        bad += f" OR {value} > TIMESTAMPTZ '{LAST_INSTANT}+00'"
    return error_if(bad, value, name)
