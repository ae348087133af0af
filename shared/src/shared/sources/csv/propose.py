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

from shared.sources.csv import sql
from shared.sources.csv.file import open_csv
from shared.sources.csv.format import CsvFormat
from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.proposal import MAX_ROWS, Proposal, find_key
from shared.sources.quoting import quote

DATE_FORMATS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
)
"""The formats of dates that a proposal tries, in this order."""

_MAX_SCALE, _MAX_DIGITS = 4, 15  # beyond them, numbers are measurements and not amounts
_MAX_MARKS, _MAX_MARK_CHARS = 2, 5  # such as NA, N/A, -, which stand for no value
_DELIMITERS = (",", ";", "\t", "|")


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
    except ValueError as error:
        raise InvalidFileError(f"{path.name}: {error}") from None
    with open_csv(drop_folder, path.name, texts) as file:
        if problems := file.problems("fail"):
            raise InvalidFileError("; ".join(problems))
        batches = list(islice(file.rows(), max(MAX_ROWS // 100_000, 1)))
    with duckdb.connect() as connection:
        connection.register("texts", pa.Table.from_batches(batches))
        return _propose(path, connection, header, delimiter)


def _header(name: str, file: Path) -> tuple[list[str], str]:
    """Return the names of the columns and the delimiter; refuse a file without a header."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            first = "".join(islice(text, 1))
            text.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            header = next(csv.reader(text, strict=True, delimiter=delimiter), [])
    except (csv.Error, UnicodeError) as error:
        raise InvalidFileError(f"{name}: the header cannot be read: {error}") from None
    if not all(name.strip() for name in header):
        raise InvalidFileError(
            f"{name}: the column {[*map(str.strip, header)].index('') + 1} of the header has no name. Give it "
            "one; a row index that a program has written can be left out."
        )
    numbers = [column for column in header if re.fullmatch(r"[+-]?[0-9.]+", column)]
    if numbers:
        raise InvalidFileError(
            f"{name} begins with a row of values, such as {numbers[0]}, and not with a header. Add a first "
            "row with the names of the columns."
        )
    return header, delimiter


def _propose(
    file: Path, connection: duckdb.DuckDBPyConnection, header: Sequence[str], delimiter: str
) -> Proposal:
    columns: dict[str, TColumnSchema] = {}
    notes: dict[str, str] = {}
    null_values: dict[str, Sequence[str]] = {}
    date_format = ""
    (rows,) = connection.execute("SELECT count(*) FROM texts").fetchone() or (0,)
    for name in header:
        column = _Column(connection, name)
        hints, note = column.propose([date_format] if date_format else DATE_FORMATS)
        if column.null_values:
            null_values[name] = column.null_values
            column = _Column(connection, name, column.null_values)
            hints, _ = column.propose(DATE_FORMATS)
        if column.date_format:
            date_format = column.date_format
        if column.filled == rows:
            hints["nullable"] = False
        columns[name] = hints
        if note:
            notes[name] = note
    options: dict[str, Any] = {"date_format": date_format} if date_format else {}
    if delimiter != ",":
        options["delimiter"] = delimiter
    if null_values:
        options["null_values"] = null_values
    key = find_key(connection, "texts", columns, rows)
    return Proposal(file, "CsvFormat", ".csv", rows, columns, key, notes, options)


class _Column:
    """A column of texts, and the types that all of its values fit."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, name: str, null_values: Sequence[str] = ()
    ) -> None:
        self._connection, self._quoted = connection, quote(name)
        self._rows = f"(SELECT {sql.without(self._quoted, null_values)} FROM texts)"
        self.null_values = null_values
        self.filled = self._count("true")
        self.date_format = ""

    def propose(self, date_formats: Sequence[str]) -> tuple[TColumnSchema, str]:
        """Return the type, and what a person should check."""
        if not self.filled:
            return {"data_type": "text"}, "has no value in the sample"
        found = self._number() or self._flag() or self._date(date_formats) or self._timestamp()
        return found or self._text()

    def _number(self) -> tuple[TColumnSchema, str] | None:
        if self._fits("bigint"):
            if self._count(f"regexp_matches({self._quoted}, '^\\s*[+-]?0[0-9]')"):
                return {"data_type": "text"}, "codes with leading zeros, which a number would lose"
            return {"data_type": "bigint"}, ""
        return self._fraction() if self._fits("double") else None

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
        value = sql.typed(self._quoted, hints, date_format)
        return self._count(f"NOT ({sql.is_lossless(self._quoted, value, hints)})")

    def _fits(self, data_type: str) -> bool:
        return not self._misfits({"data_type": data_type})  # type: ignore[typeddict-item]

    def _fraction(self) -> tuple[TColumnSchema, str]:
        """Return a decimal if all values have the same few digits after the point, otherwise a double."""
        scale = f"length(split_part({self._quoted}, '.', 2))"
        digits = f"length(regexp_replace({self._quoted}, '[^0-9]', '', 'g'))"
        least, most, longest, exponents = self._connection.execute(
            f"SELECT min({scale}), max({scale}), max({digits}), "
            f"count(*) FILTER (contains(lower({self._quoted}), 'e')) FROM {self._rows}"
        ).fetchone() or (0, 0, 0, 0)
        if 0 < least == most <= _MAX_SCALE and longest <= _MAX_DIGITS and not exponents:
            return {"data_type": "decimal", "precision": 18, "scale": most}, ""
        return {"data_type": "double"}, ""

    def _date(self, formats: Sequence[str]) -> tuple[TColumnSchema, str] | None:
        """Return the type of dates, and which values decide whether the day or the month is first."""
        misfits = {form: self._misfits({"data_type": "date"}, form) for form in formats}
        fitting = [form for form, count in misfits.items() if not count]
        if not fitting:
            return None
        self.date_format = fitting[0]
        other = _swapped(self.date_format)
        if other is None:
            return {"data_type": "date"}, ""
        deciding = (
            misfits[other] if other in misfits else self._misfits({"data_type": "date"}, other)
        )
        first = "day" if self.date_format.startswith("%d") else "month"
        values = f"{deciding:,} of {self.filled:,} values decide"
        return {"data_type": "date"}, f"the {first} is first: {values}"

    def _text(self) -> tuple[TColumnSchema, str]:
        """Return text. If all values but one or two short texts are numbers, these are `null_values`."""
        value = sql.typed(self._quoted, {"data_type": "double"}, "")
        misfit = f"NOT ({sql.is_lossless(self._quoted, value, {'data_type': 'double'})})"
        others = self._connection.execute(
            f"SELECT DISTINCT {self._quoted} FROM {self._rows} WHERE {misfit} LIMIT {_MAX_MARKS + 1}"
        ).fetchall()
        marks = sorted(mark for (mark,) in others)
        if len(marks) <= _MAX_MARKS and all(len(mark) <= _MAX_MARK_CHARS for mark in marks):
            count = self._count(misfit)
            if count < self.filled:
                self.null_values = marks
                shown = " and ".join(map(repr, marks))
                return {"data_type": "text"}, f"{shown} is no value: {count:,} of {self.filled:,}"
        return {"data_type": "text"}, ""


def _swapped(date_format: str) -> str | None:
    """Return the format with day and month swapped, if values can fit both."""
    if date_format.startswith("%Y"):
        return None
    return date_format.translate(str.maketrans("dm", "md"))


def write_sample(proposal: Proposal, folder: Path, rows: int) -> None:
    """Write the header and the first rows of a proposal's file into a folder, without compression.

    Args:
        proposal: what the file proposes.
        folder: an existing folder.
        rows: how many rows.
    """
    name, delimiter = proposal.file.name, str(proposal.options.get("delimiter", ","))
    stem = name[: name.lower().index(proposal.suffix)] if proposal.suffix in name.lower() else name
    with (
        DropFolder(str(proposal.file.parent)).local_copy(name) as copy,
        copy.open(encoding="utf-8-sig", newline="") as text,
        (folder / f"{stem}{proposal.suffix}").open("w", encoding="utf-8", newline="") as sample,
    ):
        lines: list[str] = []

        def read() -> Iterator[str]:
            for line in text:
                lines.append(line)
                yield line

        for _ in islice(csv.reader(read(), strict=True, delimiter=delimiter), rows + 1):
            sample.writelines(lines)
            lines.clear()
