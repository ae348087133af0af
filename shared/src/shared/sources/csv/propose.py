"""Propose the declaration of a CSV file from its rows. A person edits it; a load only checks it."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import values
from shared.sources.csv.format import CsvFormat
from shared.sources.csv.values import ValueFormat
from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.files.format import BATCH_ROWS, Batch
from shared.sources.proposal import MAX_ROWS, Proposal, find_key, open_sample
from shared.sources.quoting import quote

DATE_FORMATS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
)
"""The formats of dates that a proposal tries, in this order."""

_MAX_SCALE, _MAX_DIGITS = 4, 15  # beyond them, numbers are measurements and not amounts
_DELIMITERS = (";", "\t", "|", ",")
_ROWS_TO_COMPARE = 50
_NO_VALUE = frozenset(
    [
        "NA",
        "N/A",
        "#N/A",
        "n/a",
        "NaN",
        "nan",
        "NULL",
        "Null",
        "null",
        "None",
        "none",
        "nil",
        "-",
        "--",
        ".",
        "?",
    ]
)
_CODES = {
    "^\\s*[+-]?0[0-9]": "codes with leading zeros, which a number would lose",
    "^\\s*[+]": "codes that begin with +, which a number would lose",
}


def propose(path: Path) -> Proposal:
    """Propose a format for a CSV file.

    Raises:
        InvalidFileError: the file cannot be read, or has a form that `CsvFormat` cannot declare.
    """
    drop_folder = DropFolder(str(path.parent))
    with drop_folder.local_copy(path.name) as copy:
        header, delimiter = _header(path.name, copy)
    try:
        texts = CsvFormat({name: {"data_type": "text"} for name in header}, delimiter=delimiter)
        with drop_folder.local_copy(path.name) as copy:
            tables = list(_first_rows(path.name, texts.read(copy)))
    except ValueError as error:
        raise InvalidFileError(f"{path.name}: {error}") from None
    if not tables:
        raise InvalidFileError(f"{path.name} has no rows")
    with duckdb.connect() as connection:
        connection.register("texts", pa.concat_tables(tables))
        return _propose(path, connection, header, delimiter)


def _first_rows(name: str, batches: Iterator[Batch]) -> Iterator[pa.Table]:
    for batch in islice(batches, MAX_ROWS // BATCH_ROWS):
        for row in batch.rejected:
            raise InvalidFileError(f"{name}, line {row.location[0]}: {row.reason}")
        yield batch.rows


def _header(name: str, file: Path) -> tuple[list[str], str]:
    """Return the names of the columns and the delimiter; refuse a file without a header."""
    found: dict[str, list[list[str]]] = {}
    for delimiter in _DELIMITERS:
        try:
            with file.open(encoding="utf-8-sig", newline="") as text:
                reader = csv.reader(text, strict=True, delimiter=delimiter)
                found[delimiter] = list(islice(filter(None, reader), _ROWS_TO_COMPARE))
        except UnicodeError as error:
            raise InvalidFileError(
                f"{name} is not UTF-8: {error}. Save it as UTF-8, or create the project from a copy in UTF-8, "
                "and declare `encoding` in its source.py"
            ) from None
        except csv.Error:  # quotes that are wrong for this delimiter
            continue

    def fit(delimiter: str) -> tuple[bool, int]:
        widths = [*map(len, found[delimiter])]
        width = max(widths[:1], default=0)
        return width > 1 and {*widths} == {width}, width

    if not found:
        raise InvalidFileError(f"{name}: its quotes are wrong; see the rules of RFC 4180")
    delimiter = max(found, key=fit)  # the first of equal ones: a comma may be a decimal comma
    header = next(iter(found[delimiter]), [])
    if not all(column.strip() for column in header):
        raise InvalidFileError(
            f"{name}: the column {[*map(str.strip, header)].index('') + 1} of the header has no name. Give it "
            "one; a row index that a program has written can be left out"
        )
    if len({*header}) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise InvalidFileError(f"{name}: {twice} is twice in the header. Rename one of them")
    numbers = [column for column in header if re.fullmatch(r"[+-]?[0-9.]+", column)]
    if numbers and (len(numbers) == len(header) or any("." in number for number in numbers)):
        raise InvalidFileError(
            f"{name} begins with a row of values, such as {numbers[0]}, and not with a header. Add a first "
            "row with the names of the columns"
        )
    return header, delimiter


def _propose(
    file: Path, connection: duckdb.DuckDBPyConnection, header: Sequence[str], delimiter: str
) -> Proposal:
    (rows,) = connection.execute("SELECT count(*) FROM texts").fetchone() or (0,)
    found = [_Column(connection, name) for name in header]
    filled = {column.name: column.filled for column in found}
    null_values = {column.name: each for column in found if (each := column.find_null_values())}
    found = [_Column(connection, name, null_values.get(name, ())) for name in header]
    date_formats = {column.name: column.fitting_date_formats() for column in found}
    date_format = max(
        DATE_FORMATS, key=lambda form: sum(form in fitting for fitting in date_formats.values())
    )
    has_dates = any(date_formats.values())
    columns: dict[str, TColumnSchema] = {}
    notes: dict[str, str] = {}
    for column in found:
        hints, note = column.propose(date_formats[column.name], date_format)
        if column.filled == rows:
            hints["nullable"] = False
        columns[column.name] = hints
        if marks := null_values.get(column.name):
            missing, of = filled[column.name] - column.filled, filled[column.name]
            note = f"{' and '.join(map(repr, marks))}: no value, in {missing:,} of {of:,}"
        if note:
            notes[column.name] = note
    options: dict[str, Any] = {"date_format": date_format} if has_dates else {}
    if delimiter != ",":
        options["delimiter"] = delimiter
    if null_values:
        options["values"] = {name: ValueFormat(texts) for name, texts in null_values.items()}
    key = find_key(connection, "texts", columns, rows)
    return Proposal(file, "CsvFormat", ".csv", rows, columns, key, notes, options)


class _Column:
    """A column of texts, and the types that all of its values fit."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, name: str, null_values: Sequence[str] = ()
    ) -> None:
        self._connection, self.name, self._quoted = connection, name, quote(name)
        self._rows = f"(SELECT {values.cleaned(self._quoted, ValueFormat(null_values))} AS {self._quoted} FROM texts)"
        self.filled = self._count("true")

    def find_null_values(self) -> list[str]:
        """Return the known texts for a missing value, such as NA, if all other texts are numbers."""
        number: TColumnSchema = {"data_type": "double"}
        plain = ValueFormat()
        misfit = f"NOT ({values.is_lossless(self._quoted, values.typed(self._quoted, number, plain), number, plain)})"
        others = self._connection.execute(
            f"SELECT DISTINCT {self._quoted} FROM {self._rows} WHERE {misfit} LIMIT {len(_NO_VALUE) + 1}"
        ).fetchall()
        marks = sorted(mark for (mark,) in others)
        if not marks or not _NO_VALUE.issuperset(marks) or self._count(misfit) == self.filled:
            return []
        found = _Column(self._connection, self.name, marks).number()
        return marks if found and found[0]["data_type"] != "text" else []

    def fitting_date_formats(self) -> list[str]:
        """Return the formats with which all values are dates."""
        if not self.filled or self.number() or self._flag():
            return []
        return [form for form in DATE_FORMATS if not self._misfits({"data_type": "date"}, form)]

    def propose(self, date_formats: Sequence[str], date_format: str) -> tuple[TColumnSchema, str]:
        """Return the type, and what a person should check.

        Args:
            date_formats: the formats with which all values are dates.
            date_format: the format of the file's dates.
        """
        if not self.filled:
            return {"data_type": "text"}, "has no value in the sample"
        if date_format in date_formats:
            return {"data_type": "date"}, self._order_of(date_format)
        if date_formats:
            return {
                "data_type": "text"
            }, f"dates in another format, {date_formats[0]}; a file has one"
        return self.number() or self._flag() or self._timestamp() or ({"data_type": "text"}, "")

    def number(self) -> tuple[TColumnSchema, str] | None:
        """Return the type of numbers, or of texts that are none although they look like them."""
        if not self.filled or not self._fits("double"):
            return None
        for pattern, note in _CODES.items():
            if self._count(f"regexp_matches({self._quoted}, '{pattern}')"):
                return {"data_type": "text"}, note
        if self._fits("bigint") and not self._count(f"contains({self._quoted}, '.')"):
            return {"data_type": "bigint"}, ""
        return self._fraction()

    def _flag(self) -> tuple[TColumnSchema, str] | None:
        others = self._count(f"lower({self._quoted}) NOT IN ('true', 'false')")
        return None if others else ({"data_type": "bool"}, "")

    def _timestamp(self) -> tuple[TColumnSchema, str] | None:
        if not self._fits("timestamp"):
            return None
        has_zone = not self._count(f"NOT ends_with({self._quoted}, 'Z')")
        return {"data_type": "timestamp"}, "" if has_zone else "without a time zone: read as UTC"

    def _count(self, condition: str) -> int:
        query = (
            f"SELECT count(*) FROM {self._rows} WHERE {self._quoted} IS NOT NULL AND ({condition})"
        )
        (count,) = self._connection.execute(query).fetchone() or (0,)
        return int(count)

    def _misfits(self, hints: TColumnSchema, date_format: str = "") -> int:
        form = ValueFormat(formats=[date_format] if date_format else [])
        value = values.typed(self._quoted, hints, form)
        return self._count(f"NOT ({values.is_lossless(self._quoted, value, hints, form)})")

    def _fits(self, data_type: str) -> bool:
        return not self._misfits({"data_type": data_type})  # type: ignore[typeddict-item]

    def _fraction(self) -> tuple[TColumnSchema, str]:
        """Return a decimal for amounts, and for numbers with more digits than a double has."""
        scale = f"length(split_part({self._quoted}, '.', 2))"
        digits = f"length(regexp_replace({self._quoted}, '[^0-9]', '', 'g'))"
        least, most, longest = self._connection.execute(
            f"SELECT min({scale}), max({scale}), max({digits}) FROM {self._rows}"
        ).fetchone() or (0, 0, 0)
        if self._count(f"contains(lower({self._quoted}), 'e')"):
            return {
                "data_type": "double"
            }, "has numbers with an exponent; codes such as 12E5 are text"
        if longest > _MAX_DIGITS:
            exact: TColumnSchema = {"data_type": "decimal", "precision": 38, "scale": most}
            if not self._misfits(exact):
                return exact, "has more digits than a double"
            return {"data_type": "text"}, "numbers with more digits than a decimal has"
        if 0 < least == most <= _MAX_SCALE:
            return {"data_type": "decimal", "precision": 18, "scale": most}, ""
        return {"data_type": "double"}, ""

    def _order_of(self, date_format: str) -> str:
        """Return which values decide whether the day or the month is first."""
        if date_format.startswith("%Y"):
            return ""
        swapped = date_format.translate(str.maketrans("dm", "md"))
        deciding = self._misfits({"data_type": "date"}, swapped)
        first = "day" if date_format.startswith("%d") else "month"
        return f"the {first} is first: {deciding:,} of {self.filled:,} values decide"


def write_sample(proposal: Proposal, folder: Path, rows: int) -> None:
    """Write the header and the first rows of a proposal's file into a folder, as a file of its name.

    Args:
        proposal: what the file proposes.
        folder: an existing folder.
        rows: how many rows.
    """
    delimiter = str(proposal.options.get("delimiter", ","))
    with (
        DropFolder(str(proposal.file.parent)).local_copy(proposal.file.name) as copy,
        copy.open(encoding="utf-8-sig", newline="") as text,
        open_sample(proposal, folder) as sample,
    ):
        lines: list[str] = []

        def read() -> Iterator[str]:
            for line in text:
                lines.append(line)
                yield line

        for _ in islice(csv.reader(read(), strict=True, delimiter=delimiter), rows + 1):
            sample.writelines(lines)
            lines.clear()
