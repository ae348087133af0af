"""The CSV source reads only its folder, guesses nothing and loads a file completely or not at all."""

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import (
    CsvFormat,
    DropFolder,
    InvalidFileError,
    csv_source,
    validate_file,
)

COLUMNS: dict[str, TColumnSchema] = {
    "day": {"data_type": "date", "nullable": False},
    "code": {"data_type": "text"},
    "price": {"data_type": "decimal", "precision": 18, "scale": 4},
    "pieces": {"data_type": "bigint"},
}
HEADER = "day,code,price,pieces\n"
RULES = {"price": "price > 0"}


def drop(folder: Path, text: str, name: str = "file.csv") -> str:
    (folder / name).write_bytes(text.encode())
    return name


def load(*names: str, rules: Mapping[str, str] = RULES) -> list[dict[str, Any]]:
    source = csv_source(names, "rows", CsvFormat(COLUMNS, rules, date_format="%d/%m/%Y"))
    return [row for batch in source for row in batch.to_pylist()]


def problems(name: str, rules: Mapping[str, str] = RULES) -> list[str]:
    return validate_file(name, CsvFormat(COLUMNS, rules, date_format="%d/%m/%Y"))


@pytest.fixture(autouse=True)
def _drop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path))


def test_values_have_the_declared_types(tmp_path: Path) -> None:
    name = drop(tmp_path, HEADER + '02/01/2018,08123,1.5,7\n03/01/2018,,"-2",\n')
    assert problems(name, rules={}) == []
    assert load(name, rules={}) == [
        {
            "file_name": name,
            "day": date(2018, 1, 2),
            "code": "08123",
            "price": Decimal("1.5000"),
            "pieces": 7,
        },
        {
            "file_name": name,
            "day": date(2018, 1, 3),
            "code": None,
            "price": Decimal(-2),
            "pieces": None,
        },
    ]


def test_the_order_of_columns_in_a_file_does_not_matter(tmp_path: Path) -> None:
    name = drop(tmp_path, "pieces,price,code,day\n7,1.5,x,02/01/2018\n")
    (row,) = load(name)
    assert (row["pieces"], row["code"], row["day"]) == (7, "x", date(2018, 1, 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#1", "#1"),  # not a comment
        ('"two\nlines"', "two\nlines"),
        ('"a ""quote"", and a comma"', 'a "quote", and a comma'),
        ('""', ""),  # an empty text, not a missing one
        ("NULL", "NULL"),
        (" x ", " x "),
    ],
)
def test_values_that_readers_often_guess_wrongly_are_unchanged(
    tmp_path: Path, text: str, expected: str
) -> None:
    name = drop(tmp_path, f"{HEADER}02/01/2018,{text},1,1\n02/01/2018,last,2,2\n")
    assert [row["code"] for row in load(name)] == [expected, "last"]


def test_the_name_of_a_folder_is_not_read_as_a_value(tmp_path: Path) -> None:
    (tmp_path / "code=folder").mkdir()
    name = drop(tmp_path, HEADER + "02/01/2018,file,1,1\n", "code=folder/x.csv")
    assert [row["code"] for row in load(name)] == ["file"]


@pytest.mark.parametrize("path", ["./a.csv", "below//a.csv", "below/./a.csv", "a.csv/"])
def test_a_file_has_only_one_valid_path(tmp_path: Path, path: str) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.csv", "below/a.csv"):
        drop(tmp_path, HEADER, name)
    with pytest.raises(InvalidFileError, match="not a path below"):
        problems(path)


@pytest.mark.parametrize(
    "name", ["it's {x} é.csv", "a[1]*?.csv", "2018 01.csv", "below/deep.csv", "-- ;.csv"]
)
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "below").mkdir()
    drop(tmp_path, HEADER + "02/01/2018,x,1,1\n", name)
    drop(tmp_path, HEADER + "02/01/2018,other,1,1\n", "a1b.csv")
    assert problems(name) == []
    assert [(row["file_name"], row["code"]) for row in load(name)] == [(name, "x")]
    assert name in DropFolder(str(tmp_path)).list()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("2018-01-02,x,1,1", "line 3: column day: '2018-01-02' does not fit DATE"),
        ("13/31/2018,x,1,1", "line 3: column day: '13/31/2018' does not fit DATE"),
        (",x,1,1", "line 3: column day: the value is missing"),
        ("infinity,x,1,1", "line 3: column day: 'infinity' does not fit DATE"),
        ("epoch,x,1,1", "line 3: column day: 'epoch' does not fit DATE"),
        ("02/01/18,x,1,1", "line 3: column day: '02/01/18' does not fit DATE"),
        ("02/01/2018,x,0,1", "line 3: column price: '0' breaks the rule price > 0"),
        ("02/01/2018,x,cheap,1", "line 3: column price: 'cheap' does not fit DECIMAL(18, 4)"),
        (
            "02/01/2018,x,1.23456,1",
            "line 3: column price: '1.23456' does not fit DECIMAL(18, 4)",
        ),
        ("02/01/2018,x,1,1.5", "line 3: column pieces: '1.5' does not fit BIGINT"),
        ("02/01/2018,x,1,99999999999999999999", "column pieces: '99999999999999999999' does not"),
        ("02/01/2018,x,1", "line 3: it has 3 values, and the header has 4"),
        ("02/01/2018,x,1,1,1", "line 3: it has 5 values, and the header has 4"),
    ],
)
def test_a_bad_value_is_reported_with_line_and_column(
    tmp_path: Path, row: str, problem: str
) -> None:
    name = drop(tmp_path, HEADER + "02/01/2018,x,1.2300,1\n" + row + "\n")
    (error,) = problems(name)
    assert error.startswith("file.csv")
    assert problem in error


def test_a_value_that_does_not_fit_fails_the_load(tmp_path: Path) -> None:
    name = drop(tmp_path, HEADER + "02/01/2018,x,1,1\n2018-01-02,x,1,1\n")
    with pytest.raises(Exception, match=r"file\.csv, line 3: column day"):
        load(name)


def test_a_missing_value_in_a_required_column_fails_the_load(tmp_path: Path) -> None:
    name = drop(tmp_path, HEADER + ",x,1,1\n")
    with pytest.raises(Exception, match=r"file\.csv, line 2: column day: the value is missing"):
        load(name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty: it has no header"),
        ("day,code,price\n", "the header is day, code, price; expected day, code, price, pieces"),
        ("day,code,price,pieces,more\n", "expected day, code, price, pieces"),
        ("day,code,price,price\n", "the header is day, code, price, price"),
        ("day,code,price,price\n", "missing: pieces; not expected: price"),
        ("\nday,code,price,pieces\n", "line 1 is blank; the header must be in it"),
        ("day,code, price,pieces\n", "missing: price; not expected: ' price'"),
        ("\ufeff\ufeffday,code,price,pieces\n", "missing: day; not expected: '\\ufeffday'"),
        ("day,code,price\0,pieces\n", "missing: price; not expected: 'price\\x00'"),
        ("day,code,price,e\u0301\n", "missing: pieces; not expected: 'e\\u0301'"),
        ("day,code,price,pi\u00a0eces\n", "missing: pieces; not expected: 'pi\\xa0eces'"),
        ("02/01/2018,x,1,1\n", "the header is 02/01/2018"),
        ("day;code;price;pieces\n", "the header is day;code;price;pieces"),
    ],
)
def test_a_wrong_header_is_rejected(tmp_path: Path, text: str, problem: str) -> None:
    name = drop(tmp_path, text)
    (error,) = problems(name)
    assert problem in error
    with pytest.raises(Exception, match="header"):
        load(name)


def test_a_file_without_rows_is_reported(tmp_path: Path) -> None:
    assert problems(drop(tmp_path, HEADER)) == ["file.csv has no rows"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../outside.csv", "not a path below"),
        ("/etc/passwd", "not a path below"),
        ("file:///etc/passwd", "not a path below"),
        ("https://example.com/x.csv", "not a path below"),
        ("", "not a path below"),
        ("link.csv", "outside the drop folder"),
        ("linked/outside.csv", "outside the drop folder"),
        ("folder", "is a folder"),
        (".", "is a folder"),
        ("missing.csv", "is not in"),
        ("pipe.csv", "is not a regular file"),
    ],
)
def test_a_path_that_is_not_a_file_below_the_folder_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    folder = tmp_path / "drop"
    (folder / "folder").mkdir(parents=True)
    drop(tmp_path, HEADER, "outside.csv")
    (folder / "link.csv").symlink_to(tmp_path / "outside.csv")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(InvalidFileError, match=message):
        DropFolder(str(folder)).resolve(path)
    monkeypatch.setenv("DROP_FOLDER", str(folder))
    with pytest.raises(InvalidFileError, match=message):
        problems(path)


def test_a_listing_has_only_csv_files_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    drop(tmp_path, HEADER, "outside.csv")
    (folder / "link.csv").symlink_to(tmp_path / "outside.csv")
    for name in ("good.csv", ".hidden.csv", "half.csv.part", "notes.txt"):
        drop(folder, HEADER, name)
    (folder / "circle.csv").symlink_to(folder / "circle.csv")
    (folder / "nowhere.csv").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.csv")
    assert list(DropFolder(str(folder)).list()) == ["good.csv"]


def test_a_file_that_is_written_with_equal_size_and_time_has_another_stat(tmp_path: Path) -> None:
    file = tmp_path / drop(tmp_path, HEADER + "02/01/2018,x,1,1\n")
    drop_folder = DropFolder(str(tmp_path))
    before, times = drop_folder.stat(file.name), file.stat()
    assert drop_folder.stat(file.name) == before
    assert drop_folder.list() == {file.name: before}
    file.write_text(HEADER + "02/01/2018,y,1,1\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert drop_folder.stat(file.name) != before


def test_the_error_for_a_missing_drop_folder_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="DROP_FOLDER"):
        DropFolder(str(tmp_path / "nowhere")).list()


LOAD_TIMESTAMPS = """
import sys
from shared import warehouse
from shared.sources import csv
from shared.sources.files import source as files

files._PUSHDOWN_MIN_BYTES = int(sys.argv[1])
if sys.argv[1] == "0":
    csv.CsvFormat.read = None  # pushdown must not fall back to reading row by row
columns = {"happened_at": {"data_type": "timestamp"}, "\u540d\u524d": {"data_type": "text"}, "empty": {"data_type": "text"}}
for _ in range(2):
    source = csv.csv_source(["file.csv", "file.csv"], "timestamps", csv.CsvFormat(columns))
    spec = warehouse.pipeline("p", dataset_name="d")
    warehouse.load(warehouse.plan_load(spec, source, ["file.csv"]))
rows = warehouse.query("SELECT epoch_us(happened_at) AS us, * FROM d.timestamps")
print(ascii([(row["us"], row["\u540d\u524d"], row["empty"]) for row in rows]))
"""


@pytest.mark.parametrize(("pushdown_min_bytes", "empty"), [(0, ""), (0, '""'), (10**9, '""')])
def test_timestamps_are_utc_in_any_time_zone_and_a_file_listed_twice_loads_once(
    tmp_path: Path, pushdown_min_bytes: int, empty: str
) -> None:
    drop(
        tmp_path,
        f'happened_at,\u540d\u524d,empty\n2020-01-02T03:04:05.123456Z,"x, ""\u65e5""",{empty}\n',
    )
    run = subprocess.run(
        [sys.executable, "-c", LOAD_TIMESTAMPS, str(pushdown_min_bytes)],
        env={
            **os.environ,
            "TZ": "America/New_York",
            "WAREHOUSE_PATH": str(tmp_path / "warehouse.duckdb"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    loaded_empty = "''" if empty else None
    rows = f"""[(1577934245123456, 'x, "\\u65e5"', {loaded_empty})]"""
    assert rows in run.stdout, run.stderr


def test_a_rule_about_an_undeclared_column_is_an_error_of_the_declaration() -> None:
    with pytest.raises(ValueError, match="rules named cost"):
        CsvFormat(COLUMNS, rules={"cost": "cost > 0"})


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ({"data_type": "wei"}, "the type wei; a file has text, bigint"),
        ({"data_type": "bigint", "precision": 8}, "a precision; only decimals"),
        ({}, "the type None"),
        ({"data_type": "decimal"}, "precision None and scale None; declare both"),
        ({"data_type": "decimal", "precision": 18}, "scale None; declare both"),
        ({"data_type": "decimal", "precision": 39, "scale": 2}, "with at most 38 digits"),
    ],
)
def test_a_type_that_cannot_be_read_is_an_error_of_the_declaration(
    hints: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"The column price .*{message}"):
        CsvFormat({"price": hints})


@pytest.mark.parametrize(
    "rule", ["price >", "cost > 0", "price > 'cheap'", "price > 0 AND (", "no_function(price)"]
)
def test_a_rule_that_is_not_sql_is_named_in_the_error(tmp_path: Path, rule: str) -> None:
    name = drop(tmp_path, HEADER + "02/01/2018,x,1,1\n")
    (problem,) = problems(name, {"price": rule})
    assert f"the rule of column price is not a condition in SQL: {rule}" in problem


REPEATED = "day,code,price,pieces\n02/01/2018,x,1,1\n"


def test_a_repeated_header_is_a_row_of_text_and_rejected_in_a_column_with_a_type(
    tmp_path: Path,
) -> None:
    name = drop(tmp_path, REPEATED * 2)
    assert len(problems(name)) == 1
    assert "line 3: column day: 'day' does not fit DATE" in problems(name)[0]
    texts = CsvFormat({column: {"data_type": "text"} for column in COLUMNS})
    assert validate_file(name, texts) == []


def test_a_rule_may_end_with_a_comment(tmp_path: Path) -> None:
    name = drop(tmp_path, HEADER + "02/01/2018,x,0,1\n")
    (problem,) = problems(name, {"price": "price > 0 -- US dollars"})
    assert "line 2: column price: '0' breaks the rule" in problem
