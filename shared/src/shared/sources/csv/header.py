"""The header of a CSV file, compared with the declared columns."""

import csv
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOBase
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from shared.sources.csv.rows import Dialect, printable, read_lines
from shared.sources.drop_folder import shorten
from shared.sources.files.format import header_names

if TYPE_CHECKING:
    from shared.sources.csv.format import CsvFormat

_MAX_NAMES_CHARS = 200  # of each list in a message


class Header(NamedTuple):
    """The header of a file.

    Attributes:
        width: the number of columns of the file.
        columns: the declared columns that it has, each with its position.
        extra: the names of the other columns, each with its position.
        lines: the number of lines above the first row.
    """

    width: int
    columns: Mapping[str, int]
    extra: Mapping[str, int]
    lines: int


def read_header(text: TextIOBase, csv_format: "CsvFormat") -> Header:
    """Return the header of a file.

    Raises:
        ValueError: it cannot be read, or has other names than the declared columns.
    """
    lines = read_lines(text)
    skipped = sum(1 for _ in islice(lines, csv_format.skip_lines))
    if not csv_format.is_delimited:
        skipped += sum(1 for _ in islice(lines, csv_format.header_rows))
    if not (csv_format.header_rows and csv_format.is_delimited):
        columns = {name: position for position, name in enumerate(csv_format.columns)}
        return Header(len(columns), columns, {}, skipped)
    comments: list[str] = []

    def without_comments() -> Iterator[str]:
        for line in lines:
            if csv_format.comment and line.startswith(csv_format.comment):
                comments.append(line)
            else:
                yield line

    reader = csv.reader(without_comments(), strict=True, **Dialect.of(csv_format).arguments())
    try:
        rows = [*islice(reader, csv_format.header_rows)]
    except (csv.Error, UnicodeError) as error:
        raise ValueError(f"the header cannot be read: {error}") from None
    above = skipped + len(comments)
    if len(rows) < csv_format.header_rows or not any(rows):
        is_blank = len(rows) == csv_format.header_rows
        raise ValueError(
            f"line {above + 1} is blank; the header must be in it"
            if is_blank
            else f"it is empty: it has no header in line {above + max(csv_format.header_rows, 1)}"
        )
    if csv_format.trailing_delimiters:
        rows = [_without_end(row) for row in rows]
    names = [printable(name) for name in (header_names(rows) if len(rows) > 1 else rows[0])]
    return _match(names, csv_format, above + reader.line_num)


def _without_end(row: list[str]) -> list[str]:
    while row[-1:] == [""]:
        row = row[:-1]
    return row


def _match(names: list[str], csv_format: "CsvFormat", lines: int) -> Header:
    """Return the header with these names; raise `ValueError` if they are not the declared ones."""
    declared = {csv_format.header_names.get(name, name): name for name in csv_format.columns}
    found, expected = Counter(names), Counter([*declared])
    missing = expected - found
    for name in csv_format.optional:
        missing.pop(csv_format.header_names.get(name, name), None)
    unexpected = found - expected
    if csv_format.extra_columns != "fail":
        # An object in JSON has each name once, and a declared column can only be one of the file's.
        unexpected = Counter(
            name
            for name in unexpected
            if name in declared or (csv_format.extra_columns == "json" and found[name] > 1)
        )
    if missing or unexpected:
        parts = [f"the header is {_shown(names)}", f"expected {_shown(declared)}"]
        parts += [f"missing: {_shown(missing.elements())}"] * bool(missing)
        parts += [f"not expected: {_shown(unexpected.elements())}"] * bool(unexpected)
        other = [each for each in ";\t|," if each in names[0] and len(names) == 1]
        parts += [f"if {each!r} is the delimiter, declare it" for each in other[:1]]
        raise ValueError("; ".join(parts))
    positions = {name: position for position, name in enumerate(names)}
    columns = {name: positions.pop(each) for each, name in declared.items() if each in positions}
    return Header(len(names), columns, positions, lines)


def _shown(names: Iterable[str]) -> str:
    """Return names for a message; those that may look like another one are quoted and escaped."""

    def shown(name: str) -> str:
        is_plain = (
            name.isprintable()
            and name == name.strip()
            and unicodedata.is_normalized("NFC", name)
            and name
        )
        return name if is_plain else ascii(name)

    return shorten(", ".join(map(shown, names)), _MAX_NAMES_CHARS)
