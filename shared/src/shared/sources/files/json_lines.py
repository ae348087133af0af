"""JSON lines and JSON arrays: Arrow reads what it reads exactly, and Python the rest with its errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from io import BytesIO
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc
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
_SMALL_BLOCK_BYTES = 100_000
_PARTS = 16  # of a block with a line that Arrow does not read
_MAX_RAW_CHARS = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN_OBJECTS = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_DECIMAL_DIGITS = 38  # of Arrow's decimals of 128 bits
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
            for block, count in _blocks(stream, _BLOCK_BYTES):
                yield from self._read_block(block, first, count, _BLOCK_BYTES)
                first += count

    def _read_block(self, block: bytes, first: int, count: int, size: int) -> Iterator[Batch]:
        """Yield the rows of a block; if Arrow cannot read all of it, Python reads only the small parts."""
        if batch := read_exact(self, block, first, count):
            yield batch
        elif size < _SMALL_BLOCK_BYTES or not _can_read_exactly(self):
            yield parse_rows(enumerate(BytesIO(block), first), self)
        else:
            for part, lines in _blocks(BytesIO(block), size // _PARTS):
                yield from self._read_block(part, first, lines, size // _PARTS)
                first += lines

    def pushdown_select(self, file: Path, folder: Path) -> str | None:
        """Return SQL of all rows that fails on a line that DuckDB may not read exactly; see `FileFormat`."""
        return lines_select(file, self) or super().pushdown_select(file, folder)


@dataclass(frozen=True)
class JsonFormat(FileFormat):
    """What a file with one JSON array of objects must look like; it is read into memory as a whole.

    Values are as in `JsonLinesFormat`.

    Attributes:
        rows_in: where the array is in an object, such as `data` or `result.items`; "" if the file is the
            array. What else the object has is not read.
    """

    rows_in: str = ""

    location: ClassVar[Mapping[str, TColumnSchema]] = {
        "element": required_column("bigint", "The element of the array; the first is 0."),
    }

    def read(self, file: Path) -> Iterator[Batch]:
        """Yield the rows of a file; see `FileFormat.read`."""
        content = file.read_bytes().removeprefix(_BYTE_ORDER_MARK)
        if self.rows_in:
            content = dump_json(value_at(DECODER.decode(content.decode()), self.rows_in)).encode()
        lines = _one_line_each(content)
        yield read_exact(self, lines, 0, lines.count(b"\n") + 1) or parse_rows(
            enumerate(_elements(content.decode())), self
        )


def value_at(document: Any, path: str) -> Any:
    """Return the value below keys of an object, which are separated by points.

    Raises:
        ValueError: there is no such key.
    """
    for key in path.split("."):
        if not isinstance(document, dict) or key not in document:
            keys = (
                f"its keys are {show([*document])}"
                if isinstance(document, dict)
                else "it is not an object"
            )
            raise ValueError(f"it has no rows in {path!r}: {key!r} is missing; {keys}")
        document = document[key]
    return document


def _blocks(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield the content of a stream in blocks of whole lines, with the number of lines of each."""
    while block := stream.read(size):
        block += stream.readline()
        yield block, block.count(b"\n") + (not block.endswith(b"\n"))


def _can_read_exactly(file_format: FileFormat) -> bool:
    return all(
        hints["data_type"] != "json"
        and (not pa.types.is_decimal(field.type) or field.type.scale < _DECIMAL_DIGITS)
        for field, hints in zip(file_format.schema, file_format.columns.values(), strict=True)
    )


def _safe_decimal(kind: "pa.DataType") -> "pa.DataType":
    """Return a decimal without the numbers that Arrow multiplies by the scale until they overflow."""
    return pa.decimal128(min(kind.precision, _DECIMAL_DIGITS - kind.scale), kind.scale)


def read_exact(file_format: FileFormat, block: bytes, first: int, lines: int) -> Batch | None:
    """Return the rows of a block; None if a line is invalid, or if Arrow may not read it exactly.

    Args:
        file_format: what the rows must be.
        block: lines of JSON.
        first: the number of the first line.
        lines: the number of lines.
    """
    table = _arrow_table(file_format, block, lines)
    if table is None:
        return None
    rows, reasons = check_rows(table, file_format)
    texts = BytesIO(block).readlines() if reasons else []
    return Batch(
        rows,
        [
            RejectedRow((first + index,), reason, _raw(texts[index]))
            for index, reason in reasons.items()
        ],
    )


def _arrow_table(file_format: FileFormat, block: bytes, lines: int) -> "pa.Table | None":
    kinds = {name: str(hints["data_type"]) for name, hints in file_format.columns.items()}
    # So that each line has one object: Arrow reads more, and objects over several lines.
    ends = block.count(b"}\n{") + block[-3:].rstrip().endswith(b"}")
    if ends != lines:
        ends += block.count(b"}\r\n{")
    if not _can_read_exactly(file_format) or not block.startswith(b"{") or ends != lines:
        return None
    fields = [
        pa.field(declared.name, _safe_decimal(declared.type))
        if kinds[declared.name] == "decimal"
        else parsed
        for declared, parsed in zip(file_format.schema, parsed_schema(file_format), strict=True)
    ]
    from pyarrow.json import ParseOptions, read_json

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
        if not are_exact or (keys != lines and name not in file_format.optional):
            return None
    return table if len(table) == lines else None


def _one_line_each(array: bytes) -> bytes:
    """Return an array with each of its elements in a line of its own, if it is written without more lines.

    The lines are JSON only if each of them is an element: a break inside of an element replaces a comma
    between two values, or it is in a text, which JSON does not allow.
    """
    content = array.strip(b" \t\r\n")
    if not content.startswith(b"[") or not content.endswith(b"]"):
        return b""
    return _BETWEEN_OBJECTS.sub(b"}\n{", content[1:-1].strip(b" \t\r\n"))


def _elements(text: str) -> Iterator[bytes]:
    """Yield the text of each element of an array, without the checks of `DECODER`."""
    scan = JSONDecoder(parse_int=str, parse_float=str).raw_decode
    position = _skip_space(text, 0)
    if not text.startswith("[", position):
        raise ValueError("it is not a JSON array; a file with an object in each line is JSON lines")
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
        raise ValueError(f"{show(row)} is not an object")  # noqa: TRY004 - a value of the file
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
