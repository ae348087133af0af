"""Split the text of a CSV file into rows, also after a row with wrong quotes."""

import csv
import re
from collections import deque
from collections.abc import Iterator

from shared.sources.csv.sql import MAX_ROW_BYTES

_UNDECODED = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with a hexadecimal escape for each byte that could not be decoded."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def iter_rows(lines: Iterator[str], number: int, width: int) -> Iterator[tuple[int, str, str]]:
    """Yield a file's rows: the line in which each starts, its text, and what is wrong with it.

    After a wrong quote the end of the row is unknown. Then only the line in which it starts is
    reported, and reading continues with the next line.

    Args:
        lines: the file's lines below the header, with their line breaks.
        number: the number of the first line.
        width: the number of values in a row.
    """
    pushed_back: deque[str] = deque()
    row_lines: list[str] = []

    def read_lines() -> Iterator[str]:
        size = 0
        while (line := pushed_back.popleft() if pushed_back else next(lines, None)) is not None:
            row_lines.append(line)
            size = size + len(line) if len(row_lines) > 1 else len(line)
            if size > MAX_ROW_BYTES:
                raise csv.Error(f"it is longer than {MAX_ROW_BYTES:,} characters")
            yield line

    csv.field_size_limit(2 * MAX_ROW_BYTES)  # read_lines checks the limit
    reader = csv.reader(read_lines(), strict=True, skipinitialspace=True)
    while True:
        row_lines.clear()
        reason = ""
        try:
            # An empty line of a file with one column is a missing value.
            fields = next(reader) or [""] * (width == 1)
        except StopIteration:
            return
        except csv.Error as error:
            fields = [""]
            reason = f"its quotes or its end are wrong: {error}"
            pushed_back.extendleft(reversed(row_lines[1:]))
            del row_lines[1:]
            reader = csv.reader(read_lines(), strict=True, skipinitialspace=True)
        raw = "".join(row_lines)
        # DuckDB ignores a comma at the end of a row.
        values = len(fields) - (len(fields) == width + 1 and raw.rstrip("\r\n").endswith(","))
        if not reason and values != width:
            reason = f"it has {values} values, and the header has {width}"
        if _UNDECODED.search(raw):
            reason = "it has bytes that are invalid in the file's encoding"
        if fields:
            yield number, raw.removesuffix("\n").removesuffix("\r"), reason
        number += len(row_lines)
