"""Propose the declaration of Excel workbooks: a cell has a type, and a sheet has a table."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema

from shared.sources.drop_folder import InvalidFileError
from shared.sources.files.excel import ExcelFormat, Row, damaged_as_value_error, next_rows
from shared.sources.files.format import show
from shared.sources.proposals.proposal import MAX_ROWS, Proposal, find_key_of_table
from shared.sources.proposals.typed_files import missing_in_files

_ROWS_TO_SEARCH = 50  # for the header
_INTEGER_LIMIT = 2**63

_TEXTS, _NUMBERS, _WHOLE = "texts", "numbers", "whole numbers"
_KINDS: dict[type, str] = {
    str: _TEXTS,
    int: _NUMBERS,
    float: _NUMBERS,
    bool: "booleans",
    datetime: "dates",
    time: "times",
}
"""What the cells of a type are. Others, such as errors and durations, are bad rows in any column."""


@dataclass(frozen=True)
class _Table:
    """A table in a sheet: where its header is, and its names."""

    path: Path
    sheets: Sequence[str]
    sheet: str
    header_row: int
    first_column: int
    names: Sequence[str]

    @property
    def corner(self) -> str:
        return f"{_letter(self.first_column)}{self.header_row}"

    def remarks(self) -> Iterator[str]:
        if len(self.sheets) > 1:
            names = f"{', '.join(self.sheets[:-1])} and {self.sheets[-1]}"
            yield f"{self.path.name} has the sheets {names}; {self.sheet} is the first with a table"
        if self.corner != "A1":
            yield f"The table of {self.path.name} begins in {self.corner}"

    def rows(self, limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows below the header that have a value, with their number in the sheet."""
        first = self.first_column - 1
        for number, row in islice(_rows(self.path, self.sheet), limit):
            values = dict(zip(self.names, row[first : first + len(self.names)], strict=False))
            if number > self.header_row and any(value is not None for value in values.values()):
                yield number, values


def propose_excel(*paths: Path) -> Proposal:
    """Propose a format for workbooks: for the first sheet that has a header and rows.

    Raises:
        InvalidFileError: one cannot be read, has no such sheet, or has it in another place than the first.
    """
    tables, rows = [], []
    for path in paths:
        try:
            tables.append(_find_table(path))
            rows += list(tables[-1].rows(MAX_ROWS // len(paths)))
        except ValueError as error:
            raise InvalidFileError(f"{path.name}: {error}") from None
    options = _options(tables)
    columns: dict[str, TColumnSchema] = {}
    present = Counter(name for table in tables for name in table.names)
    notes = missing_in_files(present, len(tables))
    if notes:
        options["optional"] = [*notes]
    for name in present:
        filled = [(number, row[name]) for number, row in rows if row.get(name) is not None]
        columns[name], note = _type_of(filled)
        if len(filled) == len(rows):
            columns[name]["nullable"] = False
        if note:
            notes[name] = note
    texts = {name: [str(row.get(name)) for _, row in rows] for name in present}
    key = find_key_of_table(pa.table(texts), columns)
    suffix, remarks = paths[0].suffix.lower(), list(tables[0].remarks())
    return Proposal(
        paths[0], "ExcelFormat", suffix, len(rows), columns, key, notes, options, remarks=remarks
    )


def _options(tables: Sequence[_Table]) -> dict[str, Any]:
    """Return the arguments of the format that say where the table is in each workbook.

    Raises:
        InvalidFileError: it is not in the same place in all workbooks.
    """
    first, widest = tables[0], max(len(table.names) for table in tables)
    has_several = any(len(table.sheets) > 1 for table in tables)
    for table in tables:
        here = (table.corner, table.sheet if has_several else first.sheet)
        if here != (first.corner, first.sheet):
            raise InvalidFileError(
                f"the table is in {first.sheet}, {first.corner}, of {first.path.name} and in "
                f"{table.sheet}, {table.corner}, of {table.path.name}"
            )
    options = {"sheet": first.sheet} if has_several else {}
    if first.corner != "A1":
        options["cells"] = f"{first.corner}:{_letter(first.first_column + widest - 1)}"
    return options


def _find_table(path: Path) -> _Table:
    """Return the table of the first sheet with a header and rows.

    The header is the first of the longest rows: above it may be a title.

    Raises:
        ValueError: there is none; the message is the next step.
    """
    sheets = _open(path).sheetnames
    problem = (
        "it has no sheet with a header and rows. Write the names of all columns above the rows"
    )
    for sheet in sheets:
        rows = list(islice(_rows(path, sheet), _ROWS_TO_SEARCH))
        filled = [(number, _filled(row), row) for number, row in rows]
        width = max((len(columns) for _, columns, _ in filled), default=0)
        number, columns, row = next((each for each in filled if len(each[1]) == width), (0, [], []))
        if not width or not any(columns for below, columns, _ in filled if below > number):
            continue
        names = [row[column] for column in columns]
        where = f"row {number} of the sheet {show(sheet)}"
        wrong = [name for name in names if type(name) is not str]
        twice = [name for name in names if names.count(name) > 1]
        if wrong or columns[-1] - columns[0] >= width:
            value = show(wrong[0]) if wrong else "a column without a name"
            problem = f"{where} is not a header: it has {value}. Write the names of all columns above the rows"
        elif twice:
            problem = f"{show(twice[0])} is twice in the header, {where}. Rename one of them"
        else:
            return _Table(path, sheets, sheet, number, columns[0] + 1, names)
    raise ValueError(problem)


def _filled(row: Sequence[Any]) -> list[int]:
    return [column for column, value in enumerate(row) if value is not None]


def _type_of(cells: Sequence[tuple[int, Any]]) -> tuple[TColumnSchema, str]:
    """Return the type that most cells of a column have, and the first cell that has another.

    Args:
        cells: the number of the row, and the value.
    """
    kinds = Counter(kind for _, value in cells if (kind := _KINDS.get(type(value))))
    if not cells:
        return {"data_type": "text"}, "has no value in the sample"
    if not kinds:
        return {"data_type": "text"}, f"has {show(cells[0][1])}, which no type has: bad rows"
    kind = kinds.most_common(1)[0][0]
    values = [value for _, value in cells if _KINDS.get(type(value)) == kind]
    hints, note = _hints(kind, values)
    if kind == _NUMBERS and hints["data_type"] == "bigint":
        kind = _WHOLE
    for number, value in cells if len(values) < len(cells) else ():
        if _KINDS.get(type(value)) not in (kind, _NUMBERS if kind == _WHOLE else kind):
            return hints, f"row {number} has {_shown(value)} among {kind}: a bad row"
    return hints, note


def _hints(kind: str, values: Sequence[Any]) -> tuple[TColumnSchema, str]:
    if kind == _NUMBERS:
        is_whole = all(value == int(value) and abs(value) < _INTEGER_LIMIT for value in values)
        return {"data_type": "bigint" if is_whole else "double"}, ""
    if kind == "dates" and any(value.time() != time() for value in values):
        return {
            "data_type": "timestamp",
            "timezone": False,
        }, "a local time: Excel has no time zones"
    data_type = {_TEXTS: "text", "booleans": "bool", "dates": "date", "times": "time"}[kind]
    return {"data_type": data_type}, ""  # type: ignore[typeddict-item]


def _shown(value: object) -> str:
    return show(str(value)) if isinstance(value, str | datetime | time) else show(value)


def write_sample(proposal: Proposal, folder: Path, rows: int) -> None:
    """Write the sheet of a proposal down to its first rows, with the formats of the cells.

    Args:
        proposal: what the workbook proposes.
        folder: an existing folder.
        rows: how many rows.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    table = _find_table(proposal.file)
    last = [number for number, _ in islice(table.rows(MAX_ROWS), rows)][-1]
    sample = Workbook(write_only=True)
    sheet = sample.create_sheet(table.sheet)
    for row in _open(proposal.file)[table.sheet].iter_rows(max_row=last):
        cells = []
        for cell in row:
            copy = WriteOnlyCell(sheet, cell.value)
            if cell.value is not None:
                copy.number_format = cell.number_format
                copy.data_type = cell.data_type  # a text may begin like a formula
            cells.append(copy)
        sheet.append(cells)
    sample.save(folder / proposal.file.name)


def _rows(path: Path, sheet: str) -> Iterator[Row]:
    """Yield the rows of a sheet, as a load reads them.

    Raises:
        ValueError: the workbook is damaged.
    """
    with path.open("rb") as stream:
        rows = ExcelFormat({}, sheet=sheet).read_cells(stream)
        yield from chain.from_iterable(iter(lambda: next_rows(rows, _ROWS_TO_SEARCH), []))


def _open(path: Path) -> Any:
    """Return an open workbook, without formulas.

    Raises:
        ValueError: it is damaged.
    """
    from openpyxl import load_workbook

    with damaged_as_value_error():
        return load_workbook(path, read_only=True, data_only=True)


def _letter(column: int) -> str:
    from openpyxl.utils import get_column_letter

    return str(get_column_letter(column))
