"""Check the bytes of a file for what DuckDB's reader accepts, changes or loses without an error."""

import codecs
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc
from shared.sources.csv.rows import Dialect
from shared.sources.csv.sql import MAX_ROW_BYTES

_CHUNK_BYTES = 1 << 20  # stays in the processor's cache
_EVERY_OTHER = b"\x55" * (_CHUNK_BYTES // 8 + 1)  # the bits 1, 0, 1, 0, ...
_BLANK_LINE = re.compile(rb"\A(?:\xef\xbb\xbf)?[\r\n]|\n[\r\n]|\r\r")


class Structure(NamedTuple):
    """What the bytes of a file in UTF-8 say about its lines and quotes.

    Attributes:
        is_strict: quotes are where RFC 4180 allows them, no line exceeds DuckDB's limit, and there are
            no NUL bytes. DuckDB accepts quotes inside of values that are not quoted, skips a space before
            a quote and spaces after it, and loses a last line of more than 16 times its limit.
        has_empty_quotes: `""` may be a value, which is an empty text, not a missing value.
    """

    is_strict: bool
    has_empty_quotes: bool = False


def read_structure(file: Path, dialect: Dialect) -> Structure:
    """Return the structure of a file that is not empty."""
    with _mapped(file) as text:
        if text.find(b"\0") >= 0 or _has_long_line(text):
            return Structure(is_strict=False)
        if not dialect.quote or text.find(dialect.quote.encode()) < 0:
            return Structure(is_strict=True)
        if dialect.has_backslashes:
            return Structure(is_strict=False)
        return Structure(*_check_quotes(text, dialect.delimiter, dialect.quote.encode()))


def has_blank_line(file: Path) -> bool:
    """Return whether a line of a file that is not empty has no characters."""
    with _mapped(file) as text:
        return _BLANK_LINE.search(text) is not None


def has_delimiter_at_end(file: Path, delimiter: str) -> bool:
    """Return whether a line of a file that is not empty ends in a delimiter."""
    with _mapped(file) as text:
        return re.search(re.escape(delimiter.encode()) + rb"(?:[\r\n]|\Z)", text) is not None


@contextmanager
def _mapped(file: Path) -> Iterator[mmap.mmap]:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        yield text


def _has_long_line(text: mmap.mmap) -> bool:
    """Return whether a line exceeds DuckDB's limit; reads one page for each stretch of that length."""
    start = 0
    while (end := start + MAX_ROW_BYTES) < len(text):
        last = text.rfind(b"\n", start, end)
        if last < 0 and (last := text.rfind(b"\r", start, end)) < 0:
            return True
        start = last + 1
    return False


def _check_quotes(text: mmap.mmap, delimiter: str, quote: bytes) -> tuple[bool, bool]:
    """Return whether all quotes are as in RFC 4180, and whether two of them may be a value.

    In such a file every other quote opens a value and has a delimiter or a line break before it, and the
    next one closes it and has one after it. Two quotes inside a value close and open it.
    """
    outside_quotes = {*delimiter.encode(), *b"\r\n", *quote}
    quote_byte = pa.scalar(quote[0], pa.uint8())
    has_empty_quotes, is_open = False, False
    start = len(codecs.BOM_UTF8) * (text[:3] == codecs.BOM_UTF8)
    for first in range(start, len(text), _CHUNK_BYTES):
        chunk = text[first : first + _CHUNK_BYTES]
        if quote not in chunk:
            continue
        before = text[first - 1 : first] if first > start else b"\n"
        after = text[first + len(chunk) : first + len(chunk) + 1] or b"\n"
        array = _array(pa.uint8(), len(chunk) + 2, before + chunk + after)
        is_quote = pc.equal(array.slice(1, len(chunk)), quote_byte)
        befores, afters = (array.slice(shift, len(chunk)).filter(is_quote) for shift in (0, 2))
        opens = _array(pa.bool_(), len(befores) + 1, _EVERY_OTHER).slice(is_open, len(befores))
        outside = pc.unique(pc.if_else(opens, befores, afters))
        if not outside_quotes.issuperset(outside.to_pylist()):
            return False, has_empty_quotes
        empty = pc.and_(pc.invert(opens), pc.equal(befores, quote_byte))
        has_empty_quotes = has_empty_quotes or pc.any(empty).as_py()
        is_open ^= len(befores) % 2 == 1
    return not is_open, has_empty_quotes


def _array(kind: "pa.DataType", length: int, content: bytes) -> "pa.Array":
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(content)])
