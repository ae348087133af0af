"""The header of a CSV file, compared with the declared columns."""

import csv
import unicodedata
from collections import Counter
from collections.abc import Iterable
from io import TextIOBase

from shared.sources.csv.format import CsvFormat
from shared.sources.csv.rows import printable, read_lines
from shared.sources.drop_folder import InvalidFileError, shorten

_MAX_NAMES_CHARS = 200  # of each list in a message


def read_header(path: str, text: TextIOBase, csv_format: CsvFormat) -> tuple[list[str], int]:
    """Return the columns of a file in their order, and the number of lines of its header.

    Raises:
        InvalidFileError: the header cannot be read, or has other names than the declared columns.
    """
    reader = csv.reader(read_lines(text), strict=True, delimiter=csv_format.delimiter)
    try:
        header = [printable(name) for name in next(reader, [])]
    except (csv.Error, UnicodeError) as error:
        raise InvalidFileError(f"{path}: the header cannot be read: {error}") from None
    if not header:
        is_blank = reader.line_num > 0
        why = (
            ": line 1 is blank; the header must be in it"
            if is_blank
            else " is empty: it has no header"
        )
        raise InvalidFileError(f"{path}{why}")
    if csv_format.trailing_delimiters:
        while header[-1:] == [""]:
            header.pop()
    columns = {csv_format.header_names.get(name, name): name for name in csv_format.columns}
    if sorted(header) != sorted(columns):
        raise InvalidFileError(f"{path}: {_difference(header, columns)}")
    return [columns[name] for name in header], reader.line_num


def _difference(header: list[str], declared: Iterable[str]) -> str:
    differences = {
        "missing": Counter([*declared]) - Counter(header),
        "not expected": Counter(header) - Counter([*declared]),
    }
    parts = [f"the header is {_shown(header)}", f"expected {_shown(declared)}"]
    parts += [f"{what}: {_shown(names.elements())}" for what, names in differences.items() if names]
    return "; ".join(parts)


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
