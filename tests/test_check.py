"""`etl check` says what of a file would load, row by row, and touches no warehouse."""

import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from shared.cli import app
from shared.cli.check import MAX_BAD_ROWS
from shared.sources.csv import CsvFormat, InvalidFileError
from shared.sources.files import ExcelFormat, JsonFormat, JsonLinesFormat, ParquetFormat
from shared.sources.files.check import check_file

COLUMNS: dict[str, Any] = {
    "id": {"data_type": "bigint", "nullable": False},
    "v": {"data_type": "date"},
}
FORMATS: dict[str, Any] = {
    "x.csv": CsvFormat(COLUMNS),
    "x.csv.gz": CsvFormat(COLUMNS),
    "x.jsonl": JsonLinesFormat(COLUMNS),
    "x.json": JsonFormat(COLUMNS),
    "x.parquet": ParquetFormat(COLUMNS),
    "x.xlsx": ExcelFormat(COLUMNS),
}
"""The format of each kind of file."""


DAY = date(2025, 3, 10)


def write(path: Path, ids: Sequence[Any], column: str = "id") -> None:
    rows = [{column: value, "v": DAY.isoformat()} for value in ids]
    match path.suffix:
        case ".parquet":
            values = {column: pa.array(ids, pa.int64()), "v": pa.array([DAY] * len(ids))}
            pq.write_table(pa.table(values), path)
        case ".xlsx":
            book = openpyxl.Workbook()
            for cells in ([column, "v"], *([value, DAY] for value in ids)):
                book.active.append(cells)
            book.save(path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case _:
            lines = (f"{'' if value is None else value},{DAY}\n" for value in ids)
            with pa.output_stream(str(path), compression="detect") as file:
                file.write(f"{column},v\n{''.join(lines)}".encode())


@pytest.mark.parametrize("name", FORMATS)
def test_the_rows_that_fit_are_counted_and_the_others_are_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, [1, 2, 3])
    good = check_file(tmp_path / name, FORMATS[name], 5)
    assert (good.rows, good.bad_rows, good.problems) == (3, 0, [])
    write(tmp_path / name, [1, None, None, None, 5])
    bad = check_file(tmp_path / name, FORMATS[name], 2)
    assert (bad.rows, bad.bad_rows, len(bad.problems)) == (2, 3, 2)
    assert all(problem.startswith(f"{name}, ") and "id" in problem for problem in bad.problems)


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.startswith("x.json")])
def test_another_header_is_a_problem_of_the_file(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, [1, 2], column="identifier")
    found = check_file(tmp_path / name, FORMATS[name], 5)
    assert (found.rows, found.bad_rows) == (0, 0)
    (problem,) = found.problems
    assert "identifier" in problem


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_rows_and_a_damaged_file_do_not_load(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, [])
    assert check_file(tmp_path / name, FORMATS[name], 5).problems
    (tmp_path / name).write_bytes(b"\x00\xff")
    assert check_file(tmp_path / name, FORMATS[name], 5).problems


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"x\.json is not a file"):
        check_file(tmp_path / "x.json", FORMATS["x.json"], 5)


@pytest.fixture
def folder(tmp_warehouse: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the command: it has good.csv, and bad.csv with 25 bad rows more."""
    good = (root / "data" / "drop" / "2018-01-22.csv").read_text()
    (tmp_warehouse / "good.csv").write_text(good)
    bad = "".join(f"2018/01/{day:02},zero,1,1,1,1\n" for day in range(1, 26))
    (tmp_warehouse / "bad.csv").write_text(good.rstrip("\n") + "\n" + bad)
    shutil.copy(root / "workspace.yaml", tmp_warehouse)
    monkeypatch.chdir(tmp_warehouse)
    monkeypatch.setenv("PWD", str(tmp_warehouse))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_warehouse))
    yield tmp_warehouse
    assert not (tmp_warehouse / "warehouse.duckdb").exists(), "no warehouse is touched"


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments])


def test_a_file_that_loads_is_one_line(folder: Path) -> None:
    done = check("csv_etl", "good.csv")
    rows = len((folder / "good.csv").read_text().splitlines()) - 1
    assert (done.exit_code, done.output) == (0, f"good.csv: all {rows} rows load.\n")


def test_a_path_starts_at_the_folder_of_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    (folder / "good.csv").rename(folder / "sub" / "other.csv")
    monkeypatch.chdir(folder / "sub")
    assert check("csv_etl", "other.csv").exit_code == 0


def test_bad_rows_are_listed_with_their_place_column_and_reason(folder: Path) -> None:
    done = check("csv_etl", "good.csv", "bad.csv")
    lines = done.output.splitlines()
    rows = len((folder / "good.csv").read_text().splitlines()) - 1
    assert done.exit_code == 1
    assert lines[1] == f"bad.csv: {rows} rows fit, 25 do not:"
    assert lines[2].startswith(f"  line {rows + 2}: ")
    assert "share_price" in lines[2]
    assert "zero" in lines[2]
    assert lines[2 + MAX_BAD_ROWS] == "  … and 5 more: --all lists them."
    assert lines[-1] == "Correct the file, or the format SHARE_PRICES of the location."
    done = check("csv_etl", "bad.csv", "--all")
    assert len([line for line in done.output.splitlines() if line.startswith("  line ")]) == 25


def test_json_has_the_same(folder: Path) -> None:
    done = check("csv", "bad.csv", "--json", "--format", "SHARE_PRICES")
    (result,) = json.loads(done.output)
    assert (done.exit_code, result["file"], result["bad_rows"]) == (1, "bad.csv", 25)
    assert len(result["problems"]) == MAX_BAD_ROWS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shop_etl", "good.csv"], "No code location 'shop_etl'; workspace.yaml has simple_etl, "),
        (["simple_etl", "good.csv"], "simple_etl declares no format. Write one as a constant"),
        (["csv_etl", "gone.csv"], "gone.csv is not a file. Nothing"),
        (
            ["csv_etl", "good.csv", "--format", "X"],
            "No format 'X'; there are SHARE_PRICES.",
        ),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    folder: Path, arguments: Sequence[str], message: str
) -> None:
    done = check(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert done.output.endswith("Nothing was checked.\n")
    assert len(done.output.splitlines()) == 1
