"""Split the text of a CSV file into rows, also after a row with wrong quotes."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from io import TextIOBase

from shared.sources.csv.sql import MAX_ROW_BYTES

_UNDECODED = re.compile("[\ud800-\udfff]")
_SHOWN_OF_LONG_ROW = 1_000  # characters


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


def iter_rows(
    lines: Iterator[str],
    number: int,
    width: int,
    trailing_delimiters: bool = False,
    delimiter: str = ",",
) -> Iterator[tuple[int, str, str]]:
    """Yield a file's rows: the line in which each starts, its text, and what is wrong with it.

    After a wrong quote the end of the row is unknown. Then only the line in which it starts is
    reported, and reading continues with the next line. Of a row that is too long, the text is cut.

    Args:
        lines: the file's lines below the header, with their line breaks, from `read_lines`.
        number: the number of the first line.
        width: the number of values in a row.
        trailing_delimiters: whether a row may end in delimiters after its last value.
        delimiter: the character between values.
    """
    csv.field_size_limit(2 * MAX_ROW_BYTES)  # _Reader checks the limit
    reader = _Reader(lines, delimiter)
    while (row := reader.read()) is not None:
        values, reason = row
        raw = "".join(reader.row_lines).removesuffix("\n").removesuffix("\r")
        # An empty line of a file with one column is a missing value.
        count = len(values) or int(width == 1)
        extra = delimiter * max(count - width, 0)
        is_allowed = trailing_delimiters and extra and raw.endswith(extra)
        if not reason and count != width and not is_allowed:
            reason = f"it has {count} values, and the header has {width}"
        if _UNDECODED.search(raw):
            reason = "it has bytes that are invalid in the file's encoding"
        if "\0" in raw:
            reason = "it has NUL bytes; a file that is not completely written may have them"
        if _size(raw) > MAX_ROW_BYTES:
            raw = f"{raw[:_SHOWN_OF_LONG_ROW]}…"
        if count:
            yield number, raw, reason
        number += len(reader.row_lines)


class _Reader:
    """Reads the values of rows, and goes back to the second line of a row with wrong quotes."""

    def __init__(self, lines: Iterator[str], delimiter: str) -> None:
        self.row_lines: list[str] = []
        self._lines = lines
        self._pushed_back: deque[str] = deque()
        self._delimiter = delimiter
        value = rf'(?:"(?:[^"]++|"")*+"|[^"\r\n{re.escape(delimiter)}]*+)'
        self._strict_row = re.compile(rf"{value}(?:{re.escape(delimiter)}{value})*+[\r\n]*")
        self._values = self._new_reader()

    def read(self) -> tuple[list[str], str] | None:
        """Return the values of the next row, and what is wrong with its quotes; None at the end."""
        self.row_lines.clear()
        try:
            values = next(self._values, None)
        except csv.Error as error:
            return self._go_back(str(error))
        if values and not self._is_strict("".join(self.row_lines)):
            return self._go_back("a quote is inside a value, or beside a space outside of it")
        return None if values is None else (values, "")

    def _go_back(self, error: str) -> tuple[list[str], str]:
        self._pushed_back.extendleft(reversed(self.row_lines[1:]))
        del self.row_lines[1:]
        self._values = self._new_reader()
        return [""], f"its quotes or its end are wrong: {error}"

    def _is_strict(self, raw: str) -> bool:
        """Return whether the quotes of a row are as in RFC 4180; Python and DuckDB accept others too."""
        return '"' not in raw or self._strict_row.fullmatch(raw) is not None

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self._next_lines(), strict=True, delimiter=self._delimiter)

    def _next_lines(self) -> Iterator[str]:
        size = 0
        while True:
            line = self._pushed_back.popleft() if self._pushed_back else next(self._lines, None)
            if line is None:
                return
            self.row_lines.append(line)
            size = size * (len(self.row_lines) > 1) + _size(line)
            if size > MAX_ROW_BYTES:
                raise csv.Error(f"it is longer than {MAX_ROW_BYTES:,} bytes")
            yield line


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
