"""JSON lines and JSON arrays: Arrow reads what it reads exactly, and Python the rest with its errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from io import BytesIO
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.schema.typing import TColumnSchema
from pyarrow.json import ParseOptions, read_json

from shared.sources.files.format import Batch, FileFormat, RejectedRow, show
from shared.sources.files.json_sql import lines_select
from shared.sources.files.json_text import DECODER, dump_json
from shared.sources.files.values import (
    check_parsed,
    check_rows,
    exact_double,
    parsed_schema,
    require_int64,
)
from shared.sources.hints import required_column

_BLOCK_BYTES = 16_000_000  # of a file; a longer line is read as a whole
_MAX_RAW_CHARS = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_EXACT_INTEGERS = 2**53  # doubles have no gaps up to here

_ACCEPTED: Mapping[str, Sequence[type]] = {
    "text": (str,),
    "bigint": (int,),
    "double": (int, Decimal),
    "decimal": (int, Decimal, str),
    "bool": (bool,),
    **dict.fromkeys(("date", "time", "timestamp", "binary"), (str,)),
}


@dataclass(frozen=True)
class JsonLinesFormat(FileFormat):
    """What a file with one JSON object in each line must look like; it may have blank lines.

    JSON has types, so `"12"` is not a `bigint`. Texts in ISO 8601 are dates, times and timestamps, texts
    in Base64 are bytes, and a text may be a decimal.
    """

    location: ClassVar[Mapping[str, TColumnSchema]] = {
        "line": required_column("bigint", "The line of the row; the first is 1."),
    }

    def read(self, file: Path) -> Iterator[Batch]:
        """Yield the rows of a file; see `FileFormat.read`."""
        first = 1
        with file.open("rb") as stream:
            if stream.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
                stream.seek(0)
            while block := stream.read(_BLOCK_BYTES):
                block += stream.readline()
                count = block.count(b"\n") + (not block.endswith(b"\n"))
                table = self._read_exact(block, count)
                if table is None:
                    yield parse_rows(enumerate(BytesIO(block), first), self)
                else:
                    rows, reasons = check_rows(table, self)
                    lines = BytesIO(block).readlines() if reasons else []
                    rejected = [
                        RejectedRow((first + index,), reason, _raw(lines[index]))
                        for index, reason in reasons.items()
                    ]
                    yield Batch(rows, rejected)
                first += count

    def pushdown_select(self, file: Path) -> str | None:
        """Return SQL of all rows that fails on a line that DuckDB may not read exactly; see `FileFormat`."""
        return lines_select(file, self)

    def _read_exact(self, block: bytes, lines: int) -> pa.Table | None:
        """Return the rows of a block, if all of its lines are valid and Arrow reads them without loss."""
        kinds = {name: str(hints["data_type"]) for name, hints in self.columns.items()}
        # So that each line has one object: Arrow reads more, and objects over several lines.
        ends = block.count(b"}\n{") + block[-3:].rstrip().endswith(b"}")
        if ends != lines:
            ends += block.count(b"}\r\n{")
        if "json" in kinds.values() or not block.startswith(b"{") or ends != lines:
            return None
        fields = [
            declared if kinds[declared.name] == "decimal" else parsed
            for declared, parsed in zip(self.schema, parsed_schema(self), strict=True)
        ]
        options = ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="error")
        try:
            block.decode()  # Arrow reads text that is not UTF-8
            table = read_json(pa.BufferReader(block), parse_options=options)
        except (ValueError, pa.ArrowException):
            return None
        for name, values in zip(table.column_names, table.columns, strict=True):
            # Arrow reads NaN, and rounds large integers.
            are_exact = (
                kinds[name] != "double"
                or pc.all(pc.less(pc.abs(values), _EXACT_INTEGERS), min_count=0).as_py()
            )
            # A key that is not there is NULL for Arrow. This text can only be a key.
            keys = len(values) if not values.null_count else block.count(b'"%b":' % name.encode())
            if not are_exact or (keys != lines and name not in self.optional):
                return None
        return table if len(table) == lines else None


@dataclass(frozen=True)
class JsonFormat(FileFormat):
    """What a file with one JSON array of objects must look like; it is read into memory as a whole.

    Values are as in `JsonLinesFormat`.
    """

    location: ClassVar[Mapping[str, TColumnSchema]] = {
        "element": required_column("bigint", "The element of the array; the first is 0."),
    }

    def read(self, file: Path) -> Iterator[Batch]:
        """Yield the rows of a file; see `FileFormat.read`."""
        text = file.read_bytes().removeprefix(_BYTE_ORDER_MARK).decode()
        yield parse_rows(enumerate(_elements(text)), self)


def _elements(text: str) -> Iterator[bytes]:
    """Yield the text of each element of an array, without the checks of `DECODER`."""
    scan = JSONDecoder(parse_int=str, parse_float=str).raw_decode
    position = _skip_space(text, 0)
    if not text.startswith("[", position):
        raise ValueError("it is no JSON array; a file with an object in each line is JSON lines")
    position = _skip_space(text, position + 1)
    is_closed = text.startswith("]", position)
    while not is_closed:
        start = position
        _, end = scan(text, start)
        yield text[start:end].encode()
        position = _skip_space(text, end)
        is_closed = text.startswith("]", position)
        if not is_closed:
            if not text.startswith(",", position):
                raise ValueError(f"no comma after character {end:,}; the file may be incomplete")
            position = _skip_space(text, position + 1)
    if _skip_space(text, position + 1) < len(text):
        raise ValueError("there is more after the JSON array")


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def parse_rows(texts: Iterator[tuple[int, bytes]], file_format: FileFormat) -> Batch:
    """Return the rows of JSON texts, each with its number in the file."""
    items = ((number, text) for number, text in texts if text.strip(b" \t\r\n"))
    return check_parsed(items, partial(_parse_row, file_format), _raw, file_format)


def _parse_row(file_format: FileFormat, text: bytes) -> dict[str, Any]:
    """Return the values of an object, with the types of JSON that its columns can have."""
    try:
        row = DECODER.decode(text.decode())
    except JSONDecodeError as error:
        incomplete = "" if text.endswith(b"\n") else "; the file may be incomplete"
        raise ValueError(
            f"it is not JSON: {error.msg}, in column {error.colno}{incomplete}"
        ) from None
    if not isinstance(row, dict):
        raise ValueError(f"{show(row)} is no object")  # noqa: TRY004 - a value of the file
    problems, values = file_format.column_problems(row), {}
    for name in row.keys() & file_format.columns.keys():
        kind = str(file_format.columns[name]["data_type"])
        try:
            values[name] = None if row[name] is None else _convert(row[name], kind)
        except (ValueError, OverflowError):
            problems.append(f"column {name}: {show(row[name])} does not fit {kind}")
    if problems:
        raise ValueError("; ".join(problems))
    return values


def _convert(value: Any, kind: str) -> Any:
    if kind == "json":
        value = dump_json(value)
    elif type(value) not in _ACCEPTED[kind]:
        raise ValueError(value)
    if isinstance(value, str):
        value.encode()  # raises on half of a surrogate pair
    if kind == "bigint":
        return require_int64(value)
    if kind == "decimal":
        return str(value)
    if kind == "double":
        return exact_double(value)
    return value


def _raw(text: bytes) -> str:
    line = text[:_MAX_RAW_CHARS].decode(errors="backslashreplace").rstrip("\r\n")
    return line.replace("\0", "\\x00")  # Postgres stores no NUL
