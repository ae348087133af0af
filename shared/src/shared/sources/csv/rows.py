"""Split the text of a CSV file into rows, also after a row with wrong quotes."""

import csv
import re
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import TextIOBase
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from shared.sources.csv.sql import MAX_ROW_BYTES
from shared.sources.quoting import quote

if TYPE_CHECKING:
    from shared.sources.csv.format import CsvFormat

_UNDECODED = re.compile("[\ud800-\udfff]")
_SHOWN_OF_LONG_ROW = 1_000  # characters


class Row(NamedTuple):
    """A row: the line in which it starts, its text, what is wrong with it, and its values in RFC 4180."""

    line: int
    raw: str
    reason: str
    fields: str


@dataclass(frozen=True)
class Dialect:
    """The characters that separate values, lines and comments of a file."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    comment: str = ""
    trailing_delimiters: bool = False

    @classmethod
    def of(cls, csv_format: "CsvFormat") -> "Dialect":
        """Return the dialect of a format."""
        return cls(
            csv_format.delimiter,
            csv_format.quote,
            csv_format.escape,
            csv_format.comment,
            csv_format.trailing_delimiters,
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of Python's reader, which gets lines from `plain`."""
        if not self.quote:
            return {"delimiter": self.delimiter, "quoting": csv.QUOTE_NONE}
        return {"delimiter": self.delimiter, "quotechar": self.quote}

    @property
    def has_backslashes(self) -> bool:
        """Whether a backslash is before a quote inside of quotes."""
        return self.escape == "\\"

    def plain(self, line: str) -> str:
        """Return a line without escaped quotes, with as many characters."""
        return re.sub(rf"\\[\\{self.quote}]", "xx", line) if self.has_backslashes else line

    @cached_property
    def _value(self) -> str:
        """The regular expression of a value."""
        bare = rf"[^\r\n{re.escape(self.delimiter + self.quote)}]*+"
        if not self.quote:
            return f"(?:{bare})"
        inside = (
            rf"[^{self.quote}\\]++|\\."
            if self.has_backslashes
            else rf"[^{self.quote}]++|{self.quote * 2}"
        )
        return rf"(?:{self.quote}(?:{inside})*+{self.quote}|{bare})"

    @cached_property
    def _strict_row(self) -> re.Pattern[str]:
        delimiter = re.escape(self.delimiter)
        return re.compile(rf"{self._value}(?:{delimiter}{self._value})*+[\r\n]*", re.DOTALL)

    def is_strict(self, row: str) -> bool:
        """Return whether the quotes of a row are as in RFC 4180; Python and DuckDB accept others too."""
        return (
            not self.quote or self.quote not in row or self._strict_row.fullmatch(row) is not None
        )

    def standard(self, row: str) -> str:
        """Return the text of a strict row in RFC 4180."""
        if self.quote == '"' and not self.has_backslashes:
            return row
        # No alternative of a value is empty at the end of another one: a delimiter is between them.
        values = re.findall(rf"({self._value})(?:{re.escape(self.delimiter)}|\Z)", row, re.DOTALL)
        if row and not row.endswith(self.delimiter):
            values.pop()  # the empty match at the end
        return self.delimiter.join(map(self._standard_value, values))

    def _standard_value(self, value: str) -> str:
        if not self.quote or not value.startswith(self.quote):
            return quote(value) if value else ""
        inside = value[1:-1]
        if self.has_backslashes:
            return quote(re.sub(rf"\\([\\{self.quote}])", r"\1", inside))
        return quote(inside.replace(self.quote * 2, self.quote))


def printable(text: str) -> str:
    """Return a text with a hexadecimal escape for each byte that could not be decoded."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_lines(text: TextIOBase) -> Iterator[str]:
    """Yield the lines of a text with their line breaks; only the start of one that is too long."""
    limit = MAX_ROW_BYTES + 1
    while line := text.readline(limit):
        yield line
        while len(line) == limit and not line.endswith(("\n", "\r")):
            line = text.readline(limit)


def without_footer(lines: Iterator[str], footer: Sequence[str]) -> Iterator[str]:
    """Yield lines without the last ones, which are the footer; blank lines in and after it are left out too.

    Raises:
        ValueError: the last lines do not begin with the texts of the footer.
    """
    held: deque[str] = deque()
    filled = 0
    for line in lines:
        held.append(line)
        filled += bool(line.strip())
        while filled > len(footer):
            filled -= bool(held[0].strip())
            yield held.popleft()
    while held and not held[0].strip():
        yield held.popleft()
    last = [line for line in held if line.strip()]
    if len(last) < len(footer) or not all(map(str.startswith, last, footer)):
        raise ValueError(
            f"its last lines do not begin with {', '.join(map(repr, footer))}; the file may be incomplete"
        )


def copy_rows(
    text: TextIOBase, target: TextIO, first: int, footer: Sequence[str], dialect: Dialect
) -> None:
    """Copy the lines of a text, without the first ones, the footer and comments outside of quotes."""
    if not footer and not dialect.comment:
        for _ in range(first):
            text.readline()
        shutil.copyfileobj(text, target, 1 << 20)
        return
    lines = islice(read_lines(text), first, None)
    is_quoted = False
    for line in without_footer(lines, footer) if footer else lines:
        if dialect.comment and not is_quoted and line.startswith(dialect.comment):
            continue
        if dialect.quote:
            is_quoted ^= dialect.plain(line).count(dialect.quote) % 2 == 1
        target.write(line)


def iter_rows(lines: Iterator[str], number: int, width: int, dialect: Dialect) -> Iterator[Row]:
    """Yield a file's rows.

    After a wrong quote the end of the row is unknown. Then only the line in which it starts is
    reported, and reading continues with the next line. Of a row that is too long, the text is cut.

    Args:
        lines: the file's lines below the header, with their line breaks, from `read_lines`.
        number: the number of the first line.
        width: the number of values in a row.
        dialect: the characters between them.
    """
    csv.field_size_limit(2 * MAX_ROW_BYTES)  # _Reader checks the limit
    reader = _Reader(lines, dialect)
    while (row := reader.read()) is not None:
        values, reason = row
        raw = "".join(reader.row_lines).removesuffix("\n").removesuffix("\r")
        # An empty line of a file with one column is a missing value.
        count = len(values) or int(width == 1)
        extra = dialect.delimiter * max(count - width, 0)
        is_allowed = dialect.trailing_delimiters and extra and raw.endswith(extra)
        if not reason and count != width and not is_allowed:
            reason = f"it has {count} values, and the header has {width}"
        raw, reason = row_problem(raw, reason)
        number += reader.comments
        if count:
            fields = dialect.delimiter * (width - 1) if reason else dialect.standard(raw)
            yield Row(number, raw, reason, fields)
        number += len(reader.row_lines)


def row_problem(raw: str, reason: str) -> tuple[str, str]:
    """Return the text of a row to show, and what is wrong with it: its characters, or the reason so far."""
    if _UNDECODED.search(raw):
        reason = "it has bytes that are invalid in the file's encoding"
    if "\0" in raw:
        reason = "it has NUL bytes; a file that is not completely written may have them"
    if _size(raw) > MAX_ROW_BYTES:
        return (
            f"{raw[:_SHOWN_OF_LONG_ROW]}…",
            reason or f"it is longer than {MAX_ROW_BYTES:,} bytes",
        )
    return raw, reason


class _Reader:
    """Reads the values of rows, and goes back to the second line of a row with wrong quotes."""

    def __init__(self, lines: Iterator[str], dialect: Dialect) -> None:
        self.row_lines: list[str] = []
        self.comments = 0
        self._lines = lines
        self._pushed_back: deque[str] = deque()
        self._dialect = dialect
        self._values = self._new_reader()

    def read(self) -> tuple[list[str], str] | None:
        """Return the values of the next row, and what is wrong with its quotes; None at the end."""
        self.row_lines.clear()
        self.comments = 0
        try:
            values = next(self._values, None)
        except csv.Error as error:
            return self._go_back(str(error))
        if values and not self._dialect.is_strict("".join(self.row_lines)):
            return self._go_back("a quote is inside a value, or beside a space outside of it")
        return None if values is None else (values, "")

    def _go_back(self, error: str) -> tuple[list[str], str]:
        self._pushed_back.extendleft(reversed(self.row_lines[1:]))
        del self.row_lines[1:]
        self._values = self._new_reader()
        return [""], f"its quotes or its end are wrong: {error}"

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self._next_lines(), strict=True, **self._dialect.arguments())

    def _next_lines(self) -> Iterator[str]:
        size, comment = 0, self._dialect.comment
        while True:
            line = self._pushed_back.popleft() if self._pushed_back else next(self._lines, None)
            if line is None:
                return
            if comment and not self.row_lines and line.startswith(comment):
                self.comments += 1
                continue
            self.row_lines.append(line)
            size = size * (len(self.row_lines) > 1) + _size(line)
            if size > MAX_ROW_BYTES:
                raise csv.Error(f"it is longer than {MAX_ROW_BYTES:,} bytes")
            yield self._dialect.plain(line)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
