"""A proposed Excel format loads the workbook that it was made from, with the types of its cells."""

import datetime as dt
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from shared.cli.proposals import dependency, propose, write_source
from shared.sources.drop_folder import InvalidFileError
from shared.sources.files import ExcelFormat, file_source
from shared.sources.proposals.proposal import Proposal
from shared.sources.proposals.workbooks import propose_excel, write_sample

NOON = dt.datetime(2025, 3, 10, 12)  # noqa: DTZ001 - a local time
DAY = dt.datetime(2025, 3, 10)  # noqa: DTZ001 - a local time
LOCAL = {"data_type": "timestamp", "timezone": False}

CELLS: Mapping[str, tuple[list[Any], Mapping[str, Any], str]] = {
    "text": (["00123", "b"], {"data_type": "text"}, ""),
    "like a formula": (["=1+1", "b"], {"data_type": "text"}, ""),
    "whole": ([1, -2], {"data_type": "bigint"}, ""),
    "whole as double": ([1.0, 2], {"data_type": "bigint"}, ""),
    "number": ([1.5, 2], {"data_type": "double"}, ""),
    "beyond 64 bits": ([1e19, 1], {"data_type": "double"}, ""),
    "flag": ([True, False], {"data_type": "bool"}, ""),
    "day": ([DAY, DAY], {"data_type": "date"}, ""),
    "local": ([NOON, DAY], LOCAL, "a local time"),
    "time": ([dt.time(12, 30), dt.time(0, 5)], {"data_type": "time"}, ""),
}
"""Cells of a column, its proposed type, and a part of the note."""


def workbook(path: Path, sheets: Mapping[str, Sequence[Sequence[Any]]], first: str = "A1") -> Path:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        start = sheet[first]
        for down, row in enumerate(rows):
            for right, value in enumerate(row):
                cell = sheet.cell(start.row + down, start.column + right)
                cell.value = value
                if isinstance(value, str) and not value.startswith("#"):
                    cell.data_type = "s"
    book.save(path)
    return path


def loaded(found: Proposal, folder: Path) -> list[dict[str, Any]]:
    excel = ExcelFormat(found.columns, **found.options)
    source = file_source([found.file.name], "rows", excel, folder=str(folder))
    return [row for table in source for row in table.to_pylist()]


@pytest.mark.parametrize("kind", CELLS)
def test_a_column_gets_the_type_of_its_cells(kind: str, tmp_path: Path) -> None:
    values, hints, note = CELLS[kind]
    rows: list[Any] = [["v", "w"], *([value, "x"] for value in values)]
    found = propose_excel(workbook(tmp_path / "a.xlsx", {"one": rows}))
    assert found.columns["v"] == {**hints, "nullable": False}
    assert note in found.notes.get("v", "")
    assert bool(note) == ("v" in found.notes)
    assert found.options == {}
    assert len(loaded(found, tmp_path)) == 2


@pytest.mark.parametrize(
    ("values", "data_type", "note"),
    [
        ([1, 2, "n/a"], "bigint", "row 4 has 'n/a' among whole numbers: a bad row"),
        (["a", "b", 7], "text", "row 4 has 7 among texts: a bad row"),
        ([1.5, "#N/A", 2.5], "double", "row 3 has '#N/A' among numbers: a bad row"),
        ([DAY, DAY, "10.3."], "date", "row 4 has '10.3.' among dates: a bad row"),
    ],
)
def test_a_cell_of_another_type_is_named(
    tmp_path: Path, values: list[Any], data_type: str, note: str
) -> None:
    rows: list[Any] = [["v", "w"], *([value, "x"] for value in values)]
    found = propose_excel(workbook(tmp_path / "a.xlsx", {"one": rows}))
    assert found.columns["v"]["data_type"] == data_type
    assert found.notes["v"] == note


def test_a_missing_value_makes_a_column_nullable_and_the_key_is_found(tmp_path: Path) -> None:
    rows: list[Any] = [
        ["order id", "v", "empty"],
        [1, 2, None],
        [None, None, None],
        [2, None, None],
    ]
    found = propose_excel(workbook(tmp_path / "a.xlsx", {"one": rows}))
    assert found.columns == {
        "order id": {"data_type": "bigint", "nullable": False},
        "v": {"data_type": "bigint"},
        "empty": {"data_type": "text"},
    }
    assert found.rows == 2
    assert found.key == ("order id",)
    assert found.notes == {"empty": "has no value in the sample"}


def test_the_first_sheet_with_a_table_is_named(tmp_path: Path) -> None:
    sheets: dict[str, Any] = {
        "Notes": [["read me"]],
        "Orders": [["id", "v"], [1, "a"]],
        "Old": [["id"], [1]],
    }
    found = propose_excel(workbook(tmp_path / "a.xlsx", sheets))
    assert found.options == {"sheet": "Orders"}
    assert found.remarks == [
        "a.xlsx has the sheets Notes, Orders and Old; Orders is the first with a table"
    ]
    assert [row["id"] for row in loaded(found, tmp_path)] == [1]


def test_a_table_below_a_title_is_found(tmp_path: Path) -> None:
    rows: list[Any] = [["Orders of March"], [], ["id", "v", "w"], [1, "a", 1.5], [2, "b", 2.5]]
    found = propose_excel(workbook(tmp_path / "a.xlsx", {"one": rows}, first="B2"))
    assert found.options == {"cells": "B4:D"}
    assert found.remarks == ["The table of a.xlsx begins in B4"]
    assert [row["id"] for row in loaded(found, tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no sheet with a header and rows"),
        ([["id", "v"]], "has no sheet with a header and rows"),
        ([[1, 2], [3, 4]], r"row 1 of the sheet 'one' is not a header: it has 1\. Write the names"),
        (
            [["id", "id"], [3, 4]],
            "'id' is twice in the header, row 1 of the sheet 'one'. Rename one",
        ),
        ([[None, "v"], [0, 4], [1, 5]], "row 2 of the sheet 'one' is not a header: it has 0"),
    ],
)
def test_a_workbook_without_a_table_is_refused_with_the_next_step(
    tmp_path: Path, rows: Sequence[Sequence[Any]], message: str
) -> None:
    with pytest.raises(InvalidFileError, match=message):
        propose_excel(workbook(tmp_path / "a.xlsx", {"one": rows}))


def test_a_damaged_workbook_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("no")
    with pytest.raises(InvalidFileError, match=r"a\.xlsx: it cannot be read as Excel"):
        propose_excel(tmp_path / "a.xlsx")


def test_the_sample_has_the_first_rows_with_the_formats_of_their_cells(tmp_path: Path) -> None:
    values: list[Any] = [list(CELLS), *([CELLS[kind][0][n] for kind in CELLS] for n in (0, 1))]
    path = workbook(tmp_path / "a.xlsx", {"Notes": [["x"]], "one": [["Title"], *values]}, "C3")
    found = propose_excel(path)
    (tmp_path / "sample").mkdir()
    write_sample(found, tmp_path / "sample", 1)
    all_rows = loaded(found, tmp_path)
    assert loaded(found, tmp_path / "sample") == all_rows[:1]
    formats = [
        [cell.number_format for cell in openpyxl.load_workbook(each)["one"][5]]
        for each in (path, tmp_path / "sample" / "a.xlsx")
    ]
    assert formats[0] == formats[1]


@pytest.mark.parametrize("name", ["x.xlsx", "X.XLSM"])
def test_the_written_source_loads_its_sample(tmp_path: Path, name: str) -> None:
    found = propose(workbook(tmp_path / name, {"a b": [["id", "note"], [1, "a"], [2, None]]}))
    assert dependency(found) == "shared[excel]"
    package = tmp_path / "package"
    package.mkdir()
    write_source(package, "orders", found)
    module = runpy.run_path(str(package / "source.py"))
    assert module["list_files"]() == [name]
    source = module["orders_source"]([name])
    assert [row["id"] for table in source for row in table.to_pylist()] == [1, 2]
