"""A folder proposes what fits all of its files of one kind, and says what it left out."""

import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.cli.proposals import propose, summary, write_source
from shared.sources.drop_folder import InvalidFileError
from shared.sources.proposals.kinds import MAX_FILES, propose_folder

Rows = Sequence[Mapping[str, Any]]
KINDS = (".csv", ".parquet", ".jsonl", ".json", ".xlsx")


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    match path.suffix:
        case ".csv":
            header = [*rows[0]]
            lines = (
                ",".join("" if v is None else str(v) for v in each)
                for each in [header, *(row.values() for row in rows)]
            )
            path.write_text("\n".join(lines))  # without a line break at its end
        case ".parquet":
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case _:
            book = openpyxl.Workbook()
            for values in (rows[0], *(row.values() for row in rows)):
                book.active.append(list(values))
            book.save(path)


def loaded(folder: Path) -> list[dict[str, Any]]:
    """Return all rows of a folder, loaded with the source that is written for it."""
    found = propose(folder)
    package = folder.parent / "package"
    package.mkdir()
    write_source(package, "orders", found)
    module = runpy.run_path(str(package / "source.py"))
    assert module["list_files"]() == [found.file.name], "the sample"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCES__ORDERS__FOLDER", found.folder)
        source = module["orders_source"](module["list_files"]())
        return [row for table in source for row in table.to_pylist()]


@pytest.mark.parametrize("suffix", KINDS)
def test_the_columns_fit_all_files(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "drop"
    write(folder / f"a{suffix}", [{"id": 1, "v": 1, "w": "x"}, {"id": 2, "v": 2, "w": "y"}])
    write(folder / f"b{suffix}", [{"id": 3, "v": 1.5, "w": None}])
    found = propose_folder(folder)
    assert found.columns == {
        "id": {"data_type": "bigint", "nullable": False},
        "v": {"data_type": "double", "nullable": False},
        "w": {"data_type": "text"},
    }
    assert (found.rows, found.key, found.file.name) == (3, ("id",), f"a{suffix}")
    assert [row["v"] for row in loaded(folder)] == [1, 2, 1.5]


@pytest.mark.parametrize("suffix", KINDS)
def test_a_column_of_some_files_is_optional(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "drop"
    for number in range(3):
        write(folder / f"{number}{suffix}", [{"id": number}])
    for number in (3, 4):
        write(folder / f"{number}{suffix}", [{"id": number, "new": "a"}])
    found = propose_folder(folder)
    assert found.options == {"optional": ["new"]}
    assert found.columns["new"] == {"data_type": "text"}
    assert found.notes["new"] == "only in 2 of 5 files"
    assert [row["new"] for row in loaded(folder)] == [None, None, None, "a", "a"]


@pytest.mark.parametrize("suffix", KINDS)
def test_a_key_is_one_within_each_file(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        rows = [{"id": 1, "v": 7, "w": name}, {"id": 2, "v": 7, "w": name}]
        write(tmp_path / f"{name}{suffix}", [*rows, {"id": 3, "v": 7, "w": "a"}])
    assert propose_folder(tmp_path).key == ("id",)


def test_the_types_of_parquet_files_that_differ_are_a_note(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"id": 1, "v": 1}])
    write(tmp_path / "b.parquet", [{"id": 2, "v": 1.5}])
    write(tmp_path / "c.parquet", [{"id": 3}])
    note = "the files have the types int64 and double; only in 2 of 3 files"
    assert propose_folder(tmp_path).notes == {"v": note}


def test_csv_files_of_another_form_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;v\n1;1\n")
    (tmp_path / "b.csv").write_text("id,v\n1,1\n")
    with pytest.raises(InvalidFileError, match=r"b\.csv has another form than a\.csv: {} and {'d"):
        propose_folder(tmp_path)


def test_csv_files_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    write(folder / "a.csv", [{"id": 1, "v": "a"}])
    write(folder / "b.csv", [{"v": "b", "id": 2}])
    assert [*propose_folder(folder).columns] == ["id", "v"]
    assert [(row["id"], row["v"]) for row in loaded(folder)] == [(1, "a"), (2, "b")]


def test_the_order_of_day_and_month_is_decided_by_all_files(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [{"id": 1, "day": "01/02/2024"}])
    write(tmp_path / "b.csv", [{"id": 2, "day": "02/13/2024"}])
    assert propose_folder(tmp_path).options == {"date_format": "%m/%d/%Y"}


@pytest.mark.parametrize(
    ("suffix", "values", "message"),
    [
        (".parquet", (1, "x"), r"v is int64 in a\.parquet and string in b\.parquet"),
        (".csv", (1, None), ""),
    ],
)
def test_types_that_no_column_has_are_named(
    tmp_path: Path, suffix: str, values: tuple[Any, Any], message: str
) -> None:
    for name, value in zip("ab", values, strict=True):
        write(tmp_path / f"{name}{suffix}", [{"id": 1, "v": value}])
    if message:
        with pytest.raises(InvalidFileError, match=message):
            propose_folder(tmp_path)
    else:
        assert propose_folder(tmp_path).columns["v"] == {"data_type": "bigint"}


def test_the_most_frequent_kind_is_proposed_and_the_others_are_named(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a.csv", [{"id": 1}])
    write(tmp_path / "b.csv", [{"id": 2}])
    write(tmp_path / "c.jsonl", [{"id": 3}])
    (tmp_path / "README.txt").touch()
    (tmp_path / ".hidden").touch()
    found = propose_folder(tmp_path)
    assert (found.rows, found.suffix) == (2, ".csv")
    assert found.remarks == ["Left out: README.txt and c.jsonl, which are no .csv files"]
    assert "Left out: README.txt and c.jsonl, which are no .csv files.\n" in summary("x", found)
    assert "from 2 rows of 2 files" in summary("x", found)


def test_only_the_first_files_of_many_are_read(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 5):
        write(tmp_path / f"{number:03}.csv", [{"id": number}])
    found = propose_folder(tmp_path)
    assert found.rows == MAX_FILES
    assert found.remarks == [f"Read the first {MAX_FILES} of {MAX_FILES + 5} files"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no file whose name ends in .csv, .parquet, "),
        (
            {"a.csv": "id\n1\n", "b.csv": "1,2\n3,4\n"},
            r"b\.csv has another form than a\.csv.*Move the",
        ),
        (
            {"a.csv": "id\n1\n", "b.csv": "id\n"},
            r"b\.csv has no rows.*Move the file out",
        ),
        ({"a.jsonl": '{"id": 1}', "b.jsonl": ""}, r"b\.jsonl has no rows.*Move the file out"),
    ],
)
def test_a_folder_that_proposes_nothing_says_what_to_do(
    tmp_path: Path, files: Mapping[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidFileError, match=message):
        propose_folder(tmp_path)
