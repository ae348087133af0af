"""Excel workbooks: a cell is what the file says it is, never what its text looks like."""

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import partial
from itertools import islice, repeat, zip_longest
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from dlt.common.schema.typing import TColumnSchema

from shared.sources.drop_folder import shorten
from shared.sources.files.format import BATCH_ROWS, Batch, FileFormat, header_names, show
from shared.sources.files.json_text import dump_json
from shared.sources.files.values import check_parsed, exact_double, require_int64
from shared.sources.hints import required_column

_FIRST_DAY = date(1900, 3, 1)  # Excel counts a 29 February 1900, so earlier days are ambiguous
_MAX_ROWS = 1_048_576
_FORMULA = re.compile(rb"<(\w+:)?f[ />]")  # the prefix of a namespace is possible
_DAMAGED = (zipfile.BadZipFile, KeyError, SyntaxError, OSError)  # a SyntaxError of XML

Row = tuple[int, list[Any]]
"""The number of a row in its sheet, and its values."""

_ACCEPTED: Mapping[str, Sequence[type]] = {
    "bigint": (int, float),
    "double": (int, float),
    "decimal": (int, float),
    "bool": (bool,),
    "date": (datetime,),
    "timestamp": (datetime,),
    "time": (time,),
    **dict.fromkeys(("text", "json", "binary"), (str,)),
}


@dataclass(frozen=True)
class ExcelFormat(FileFormat):
    """What a sheet of an Excel workbook (.xlsx, .xlsm) must look like.

    A cell has its own type: a text `00123` is not a number, and a number is not a text. Numbers for a decimal
    are read with the 15 digits that Excel shows. Error cells, and formulas without a stored result, are
    bad rows. Empty rows are skipped. A workbook has no time zones, so timestamps are local times.

    Attributes:
        sheet: the name of the sheet; it may be left out if there is only one.
        cells: the range of the table with its header, such as `B3:F100` or `B3:F` for all rows below.
        header_rows: the number of header rows. The names of a column are joined by a space; a name over
            several columns is for each of them.

    Raises:
        ValueError: as `FileFormat`; also for a timestamp with a time zone.
    """

    sheet: str = ""
    cells: str = ""
    header_rows: int = 1

    location: ClassVar[Mapping[str, TColumnSchema]] = {
        "row": required_column("bigint", "The row in the sheet; the first is 1."),
    }

    def __post_init__(self) -> None:
        """Check the declaration."""
        super().__post_init__()
        for name, hints in self.columns.items():
            if hints["data_type"] == "timestamp" and hints.get("timezone", True):
                raise ValueError(f'{name}: Excel has no time zones; declare "timezone": False')

    def read(self, file: Path) -> Iterator[Batch]:
        """Yield the rows of a file; see `FileFormat.read`."""
        with file.open("rb") as stream:
            rows = self.read_cells(stream)
            names = header_names([row for _, row in next_rows(rows, self.header_rows)])
            if not any(names):
                raise ValueError("it has no header")
            if problems := self.column_problems(filter(None, names)):
                raise ValueError("; ".join(problems))
            parse = partial(self._parse_row, names)
            while batch := next_rows(rows, BATCH_ROWS):
                filled = [each for each in batch if any(value is not None for value in each[1])]
                yield check_parsed(filled, parse, _raw, self)

    def read_cells(self, stream: BinaryIO) -> Iterator[Row]:
        """Yield the values of each row of the range, with the row's number.

        Raises:
            ImportError: the extra `excel` is not installed.
        """
        try:
            from openpyxl import load_workbook
            from openpyxl.utils.cell import range_boundaries
        except ImportError as error:
            raise ImportError("Add shared[excel] to the project, to read Excel files") from error
        ends = self.cells if self.cells[-1:].isdigit() else f"{self.cells}{_MAX_ROWS}"
        min_col, min_row, max_col, max_row = range_boundaries(
            ends if self.cells else "A1:XFD1048576"
        )
        if not self.cells:
            max_col = None
        values = self._sheet(load_workbook(stream, read_only=True, data_only=True))
        limits = {"min_row": min_row, "max_row": max_row, "min_col": min_col, "max_col": max_col}
        rows: Iterator[Any] = zip(values.iter_rows(**limits), repeat(()))
        if _has_formulas(stream):
            formulas = self._sheet(load_workbook(stream, read_only=True))
            rows = zip(values.iter_rows(**limits), formulas.iter_rows(**limits), strict=True)
        for number, (cells, sources) in enumerate(rows, min_row):
            yield number, [_value(*pair) for pair in zip_longest(cells, sources)]

    def _sheet(self, workbook: Any) -> Any:
        names = workbook.sheetnames
        name = self.sheet or (names[0] if len(names) == 1 else "")
        if name not in names:
            raise ValueError(f"it has no sheet {show(name)}; its sheets are {shorten(str(names))}")
        sheet = workbook[name]
        sheet.reset_dimensions()  # some programs write wrong ones, and then cells are lost
        return sheet

    def _parse_row(self, names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
        problems, values = [], {}
        for name, value in zip_longest(names, row, fillvalue=None):
            if value is None:
                continue
            if not name:
                problems.append(f"{show(value)} is in a column without a name")
                continue
            kind = str(self.columns[name]["data_type"])
            try:
                values[name] = _convert(value, kind)
            except (ValueError, OverflowError):
                problems.append(f"column {name}: {show(value)} does not fit {kind}")
        if problems:
            raise ValueError("; ".join(problems))
        return values


class CellError(str):
    """What a cell has in place of a value, such as `#N/A`."""

    __slots__ = ()


def next_rows(rows: Iterator[Row], count: int) -> list[Row]:
    """Return the next rows of a sheet.

    Raises:
        ValueError: the workbook is damaged.
    """
    with damaged_as_value_error():
        return list(islice(rows, count))


@contextmanager
def damaged_as_value_error() -> Iterator[None]:
    """Raise `ValueError` for a damaged workbook."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts of a workbook that are not read
            yield
    except _DAMAGED as error:
        raise ValueError(f"it cannot be read as Excel: {error}") from None


def _raw(row: Sequence[Any]) -> str:
    return dump_json([None if value is None else str(value) for value in row])


def _has_formulas(stream: BinaryIO) -> bool:
    with zipfile.ZipFile(stream) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        return any(_FORMULA.search(archive.read(name)) for name in sheets)


def _value(cell: Any, source: Any) -> Any:
    if cell.data_type == "e":
        return CellError(cell.value)
    if cell.value is None and source is not None and source.data_type == "f":
        return CellError("a formula without a stored result")
    return cell.value


def _convert(value: Any, kind: str) -> Any:
    if type(value) not in _ACCEPTED[kind]:
        raise ValueError(value)
    if isinstance(value, datetime) and value.date() < _FIRST_DAY:
        raise ValueError(value)
    if kind == "date":
        if value != datetime(value.year, value.month, value.day):  # noqa: DTZ001 - a local time
            raise ValueError(value)
        return value.date().isoformat()
    if kind in ("timestamp", "time"):
        return value.isoformat()
    if kind == "bigint":
        if int(value) != value:
            raise ValueError(value)
        return require_int64(int(value))
    if kind == "double":
        return exact_double(value)
    if kind == "decimal":
        return str(value) if isinstance(value, int) else f"{value:.15g}"
    return value
