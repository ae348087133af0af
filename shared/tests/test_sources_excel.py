"""A cell of an Excel workbook loads as what it is, or its row is rejected."""

import datetime as dt
import re
import zipfile
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from dlt.common.schema.typing import TColumnSchema
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from shared import warehouse
from shared.sources.files import ExcelFormat, file_source, validate_file

Table = Sequence[Any]
NOON = dt.datetime(2025, 3, 10, 12)  # noqa: DTZ001 - a local time
MIDNIGHT = dt.datetime(2025, 3, 10)  # noqa: DTZ001 - a local time
COLUMNS: dict[str, TColumnSchema] = {
    "code": {"data_type": "text", "nullable": False},
    "price": {"data_type": "decimal", "precision": 18, "scale": 2},
}
FORMAT = ExcelFormat(COLUMNS)


@pytest.fixture(autouse=True)
def _drop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path))


def write(folder: Path, *tables: Table, first: str = "A1", **options: Any) -> str:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.worksheets[0])
    if options.get("epoch"):
        workbook.epoch = options["epoch"]
    for number, table in enumerate(tables, 1):
        sheet = workbook.create_sheet(f"Sheet{number}")
        start = sheet[first]
        for down, row in enumerate(table):
            for right, value in enumerate(row):
                cell = sheet.cell(start.row + down, start.column + right)
                cell.value = value
                if isinstance(value, str) and not value.startswith(("#", "=")):
                    cell.data_type = "s"
    workbook.save(folder / "file.xlsx")
    return "file.xlsx"


def quarantine(folder: Path, file_format: ExcelFormat) -> tuple[list[Any], list[Any]]:
    """Return the rows that load, and the row and the reason of the others."""
    rows, rejected = [], []
    for batch in file_format.read(folder / "file.xlsx"):
        rows += [tuple(row.values()) for row in batch.rows.to_pylist()]
        rejected += [(*row.location, row.reason) for row in batch.rejected]
    return rows, rejected


def test_a_text_is_no_number_and_empty_rows_are_skipped(tmp_path: Path) -> None:
    name = write(tmp_path, [["code", "price"], ["00123", 1.5], [], ["x", None], [None, None]])
    assert validate_file(name, FORMAT) == []
    assert quarantine(tmp_path, FORMAT) == ([("00123", Decimal("1.50")), ("x", None)], [])


VALUES: list[tuple[dict[str, Any], Any, Any]] = [
    ({"data_type": "text"}, 123, None),
    ({"data_type": "text"}, "#N/A", None),
    ({"data_type": "text"}, "=1+1", None),  # without a stored result
    ({"data_type": "text"}, True, None),
    ({"data_type": "bigint"}, 5, 5),
    ({"data_type": "bigint"}, 5.0, 5),
    ({"data_type": "bigint"}, 5.5, None),
    ({"data_type": "bigint"}, 1e20, None),
    ({"data_type": "bigint"}, "5", None),
    ({"data_type": "bigint"}, "#DIV/0!", None),
    ({"data_type": "bigint"}, True, None),
    ({"data_type": "bigint"}, NOON, None),
    ({"data_type": "double"}, 0.1, 0.1),
    ({"data_type": "double"}, 7, 7.0),
    ({"data_type": "decimal", "precision": 18, "scale": 2}, 3.3000000000000003, Decimal("3.30")),
    ({"data_type": "decimal", "precision": 18, "scale": 2}, 3.305, None),
    ({"data_type": "bool"}, True, True),
    ({"data_type": "bool"}, 1, None),
    ({"data_type": "date"}, MIDNIGHT, MIDNIGHT.date()),
    ({"data_type": "date"}, NOON, None),
    ({"data_type": "date"}, 45726, None),
    ({"data_type": "date"}, "2025-03-10", None),
    ({"data_type": "time"}, dt.time(12, 30), dt.time(12, 30)),
    ({"data_type": "time"}, NOON, None),
    ({"data_type": "timestamp", "timezone": False}, NOON, NOON),
    ({"data_type": "timestamp", "timezone": False}, dt.timedelta(days=3), None),
    ({"data_type": "json"}, '{"a": 1.10}', '{"a": 1.10}'),
    ({"data_type": "json"}, "{a}", None),
]


@pytest.mark.parametrize("epoch", [None, CALENDAR_MAC_1904])
@pytest.mark.parametrize(("hints", "value", "expected"), VALUES)
def test_a_cell_of_any_type_loads_unchanged_or_is_rejected(
    tmp_path: Path, hints: TColumnSchema, value: Any, expected: Any, epoch: Any
) -> None:
    write(tmp_path, [["a"], [value]], epoch=epoch)
    rows, rejected = quarantine(tmp_path, ExcelFormat({"a": hints}))
    assert rows == ([(expected,)] if expected is not None else [])
    assert [number for number, _ in rejected] == [2] * (expected is None)


def test_a_day_before_the_one_that_excel_invented_is_rejected(tmp_path: Path) -> None:
    write(tmp_path, [["a"], [dt.date(1900, 2, 28)], [dt.date(1900, 3, 1)]])
    rows, rejected = quarantine(tmp_path, ExcelFormat({"a": {"data_type": "date"}}))
    assert rows == [(dt.date(1900, 3, 1),)]
    assert [number for number, _ in rejected] == [2]


def test_errors_and_missing_values_are_named(tmp_path: Path) -> None:
    name = write(tmp_path, [["code", "price"], ["a", "#N/A"], [None, 1], ["b", "=1+1"], ["c", 1]])
    assert quarantine(tmp_path, FORMAT) == (
        [("c", Decimal("1.00"))],
        [
            (2, "column price: '#N/A' does not fit decimal"),
            (3, "column code: the value is missing"),
            (4, "column price: 'a formula without a stored result' does not fit decimal"),
        ],
    )
    assert validate_file(name, FORMAT)[0] == (
        "file.xlsx, row 2: column price: '#N/A' does not fit decimal"
    )


def test_a_range_of_a_sheet(tmp_path: Path) -> None:
    table = [["code", "price", "note"], ["a", 1, "x"], ["b", 2, "y"], ["Total", 3]]
    name = write(tmp_path, [["other"]], table, first="C4")
    (error,) = validate_file(name, FORMAT)
    assert error == "file.xlsx: it has no sheet ''; its sheets are ['Sheet1', 'Sheet2']"
    for cells, expected in {"C4:D6": ["a", "b"], "C4:D": ["a", "b", "Total"]}.items():
        rows, rejected = quarantine(tmp_path, ExcelFormat(COLUMNS, sheet="Sheet2", cells=cells))
        assert ([code for code, _ in rows], rejected) == (expected, [])


def test_a_header_of_two_rows(tmp_path: Path) -> None:
    columns: dict[str, TColumnSchema] = {
        name: {"data_type": "bigint"} for name in ("id", "2024 plan", "2024 actual", "2025 plan")
    }
    table = [["id", "2024", None, "2025"], [None, "plan", "actual", "plan"], [1, 2, 3, 4]]
    write(tmp_path, table)
    assert quarantine(tmp_path, ExcelFormat(columns, header_rows=2)) == ([(1, 2, 3, 4)], [])


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ([], "it has no header"),
        ([["code"]], "column 'price' is missing"),
        ([["code", "price", "n"]], "column 'n' is not declared"),
        ([["code", "price", "code"]], "column 'code' is there twice"),
        ([["code ", "price"]], "column 'code' is missing; column 'code ' is not declared"),
        ([["code", "price"]], "has no rows"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, table: Table, problem: str) -> None:
    (error,) = validate_file(write(tmp_path, table), FORMAT, "quarantine")
    assert problem in error


def test_a_value_in_a_column_without_a_name_is_a_bad_row(tmp_path: Path) -> None:
    write(tmp_path, [["code", "price"], ["a", 1, None, "note"], ["b", 2, None]])
    rows, rejected = quarantine(tmp_path, FORMAT)
    assert [code for code, _ in rows] == ["b"]
    assert rejected == [(2, "'note' is in a column without a name")]


def edit_sheet(file: Path, edit: Callable[[bytes], bytes]) -> None:
    """Change the XML of the first sheet."""
    with zipfile.ZipFile(file) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    edited = edit(parts[sheet])
    assert edited != parts[sheet]
    with zipfile.ZipFile(file, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, edited if part == sheet else content)


def test_a_formula_without_a_result_is_a_bad_row_in_any_form_of_xml(tmp_path: Path) -> None:
    name = write(tmp_path, [["code", "price"], ["a", "=1+1"]])
    edit_sheet(tmp_path / name, lambda xml: re.sub(rb"<(/?)(\w)", rb"<\1x:\2", xml))
    edit_sheet(tmp_path / name, lambda xml: xml.replace(b"xmlns=", b"xmlns:x="))
    rows, rejected = quarantine(tmp_path, FORMAT)
    assert (rows, [number for number, _ in rejected]) == ([], [2])


def test_a_wrong_size_in_the_file_loses_no_cells(tmp_path: Path) -> None:
    name = write(tmp_path, [["code", "price"], ["a", 1]])
    edit_sheet(tmp_path / name, lambda xml: xml.replace(b"A1:B2", b"A1:A1"))
    assert quarantine(tmp_path, FORMAT) == ([("a", Decimal("1.00"))], [])


@pytest.mark.parametrize("content", [b"", b"code,price\n", b"PK\3\4"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.xlsx").write_bytes(content)
    (error,) = validate_file("file.xlsx", FORMAT, "quarantine")
    assert error.startswith("file.xlsx: it cannot be read as Excel: ")


def test_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match='declare "timezone": False'):
        ExcelFormat({"a": {"data_type": "timestamp"}})


def test_a_rerun_replaces_the_rows_of_a_workbook(tmp_warehouse: Path) -> None:
    name = write(tmp_warehouse / "drop", [["code", "price"], ["a", 1], ["b", "x"]])
    for _ in range(2):
        spec = warehouse.pipeline("files_pipeline", dataset_name="files")
        source = file_source([name], "prices", FORMAT, "quarantine")
        warehouse.load(warehouse.plan_load(spec, source, [name]))
    assert warehouse.query("SELECT code FROM files.prices") == [{"code": "a"}]
    rejected = warehouse.query("SELECT row, raw FROM files.prices_rejected")
    assert rejected == [{"row": 3, "raw": '["b","x"]'}]
