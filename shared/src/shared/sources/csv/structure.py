"""Check the bytes of a file for what DuckDB's reader accepts, changes or loses without an error."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc
from shared.sources.csv.rows import Dialect
from shared.sources.csv.sql import MAX_ROW_BYTES

_CHUNK_BYTES = 1 << 20  # stays in the processor's cache
_EVERY_OTHER = b"\x55" * (_CHUNK_BYTES // 8 + 1)  # the bits 1, 0, 1, 0, ...
_BLANK_LINE = re.compile(rb"\n[\r\n]|\r\r")


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
    quote = dialect.quote.encode()
    quotes: _Quotes | None = None
    line_bytes = 0  # of the line that the stretch before did not end
    for stretch in _stretches(file):
        content = stretch.content
        first, last = _line_breaks(content)
        if b"\0" in content or line_bytes + first >= MAX_ROW_BYTES:
            return Structure(is_strict=False)
        line_bytes = len(content) - last - 1 if last >= 0 else line_bytes + len(content)
        if quote and quote in content:
            if dialect.has_backslashes:
                return Structure(is_strict=False)
            quotes = quotes or _Quotes(dialect.delimiter, quote)
            if not quotes.check(stretch):
                return Structure(is_strict=False)
    if quotes is None:
        return Structure(is_strict=True)
    return Structure(not quotes.is_open, quotes.has_empty)


def has_blank_line(file: Path) -> bool:
    """Return whether a line of a file that is not empty has no characters."""
    return any(_BLANK_LINE.search(each.before + each.content) for each in _stretches(file))


def has_delimiter_at_end(file: Path, delimiter: str) -> bool:
    """Return whether a line of a file that is not empty ends in a delimiter."""
    at_end = re.compile(re.escape(delimiter.encode()) + rb"[\r\n]")
    return any(at_end.search(each.content + each.after) for each in _stretches(file))


class _Stretch(NamedTuple):
    """A part of a file, with the byte before it and the one after it; the file is between line breaks."""

    before: bytes
    content: bytes
    after: bytes


def _stretches(file: Path) -> Iterator[_Stretch]:
    """Yield a file in parts, without the mark at its start.

    It is read, not mapped: the pages of a mapped file count as memory of the process.
    """
    with file.open("rb") as opened:
        before, content = b"\n", opened.read(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
        while content:
            following = opened.read(_CHUNK_BYTES)
            yield _Stretch(before, content, following[:1] or b"\n")
            before, content = content[-1:], following


def _line_breaks(content: bytes) -> tuple[int, int]:
    """Return the positions of the first and of the last line break; without one, the length and -1."""
    found = [at for mark in (b"\n", b"\r") if (at := content.find(mark)) >= 0]
    return min(found, default=len(content)), max(content.rfind(b"\n"), content.rfind(b"\r"))


class _Quotes:
    """The quotes of a file, of which every other one opens a value.

    As in RFC 4180, it has a delimiter or a line break before it, and the next one closes the value and
    has one after it. Two quotes inside a value close and open it.
    """

    def __init__(self, delimiter: str, quote: bytes) -> None:
        self._quote = quote
        self._quote_byte = pa.scalar(quote[0], pa.uint8())
        self._outside_quotes = {*delimiter.encode(), *b"\r\n", *quote}
        self.is_open = False
        self.has_empty = False  # two of them may be a value

    def check(self, stretch: _Stretch) -> bool:
        """Return whether the quotes of the next part of the file with quotes are as in RFC 4180."""
        length = len(stretch.content)
        array = _array(pa.uint8(), length + 2, b"".join(stretch))
        is_quote = pc.equal(array.slice(1, length), self._quote_byte)
        befores, afters = (array.slice(shift, length).filter(is_quote) for shift in (0, 2))
        opens = _array(pa.bool_(), len(befores) + 1, _EVERY_OTHER).slice(self.is_open, len(befores))
        outside = pc.unique(pc.if_else(opens, befores, afters))
        if not self._outside_quotes.issuperset(outside.to_pylist()):
            return False
        empty = pc.and_(pc.invert(opens), pc.equal(befores, self._quote_byte))
        self.has_empty = self.has_empty or pc.any(empty).as_py()
        self.is_open ^= len(befores) % 2 == 1
        return True


def _array(kind: "pa.DataType", length: int, content: bytes) -> "pa.Array":
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(content)])
