"""A made-up file fits the format that a real file proposes, and has none of its values."""

import json
import runpy
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.cli.proposals import propose, write_source
from shared.sources.csv import CsvFormat, InvalidFileError, csv_source
from shared.sources.files import file_source
from shared.sources.proposals.made_up import write_made_up

ROWS = {
    "name": ["Alice", "Zoë"],
    "id": [1001, 1002],
    "ratio": [1000.25, 2000.5],
    "flag": [True, False],
    "day": ["2019-12-31", "2018-12-31"],
    "at": ["2019-12-31T10:00:00Z", "2018-12-31T10:00:00.5Z"],
    "digits": [2**63, 2**64],
}
NAMES = ["x.csv", "semicolon.csv", "day_first.csv", "x.jsonl", "x.json", "x.parquet", "x.xlsx"]


def write(path: Path) -> None:
    rows = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]
    match path.suffix:
        case ".csv":
            delimiter = ";" if path.name == "semicolon.csv" else ","
            lines = [ROWS, *(map(json.dumps, row.values()) for row in rows)]
            text = "".join(delimiter.join(line) + "\n" for line in lines)
            if path.name == "day_first.csv":
                text = text.replace('2019-12-31"', '31/12/2019"').replace(
                    '2018-12-31"', '31/12/2018"'
                )
            path.write_text(text)
        case ".parquet":
            table = {name: values for name, values in ROWS.items() if name != "digits"}
            pq.write_table(pa.table({**table, "tags": [["a"], ["b"]], "raw": [b"x", b"y"]}), path)
        case ".xlsx":
            book = openpyxl.Workbook()
            book.create_sheet("Second")
            book.active.append(["A title"])
            book.active.append(list(ROWS))
            for row in rows:
                book.active.append(list(row.values()))
            book.save(path)
        case ".json":
            path.write_text(json.dumps(rows))
        case _:
            path.write_text("".join(json.dumps({**row, "tags": ["a"]}) + "\n" for row in rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_made_up_file_loads_and_has_none_of_the_values(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    found = propose(tmp_path / name)
    made_up = tmp_path / f"made_up{found.suffix}"
    write_made_up(found, made_up)
    package = tmp_path / "package"
    package.mkdir()
    write_source(package, "orders", found, sample=False)
    assert [file.name for file in package.iterdir()] == ["source.py"]
    files = runpy.run_path(str(package / "source.py"))["FILES"]
    source: Any = csv_source if isinstance(files, CsvFormat) else file_source
    resource = source([made_up.name], "orders", files, folder=str(tmp_path))
    rows = [row for table in resource for row in table.to_pylist()]
    assert len(rows) == 2
    assert all(value is not None for row in rows for value in row.values())
    real = {"Alice", "Zoë", 1001, 1002, 1000.25}
    assert real.isdisjoint(value for row in rows for value in row.values())


def test_a_source_without_a_sample_says_which_setting_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.csv").write_text("id\n1\n")
    package = tmp_path / "package"
    package.mkdir()
    write_source(package, "web_orders", propose(tmp_path / "x.csv"), sample=False)
    module = runpy.run_path(str(package / "source.py"))
    assert [*module["web_orders_source"]([]).resources] == ["web_orders"], "definitions load"
    with pytest.raises(InvalidFileError, match="Set SOURCES__WEB_ORDERS__FOLDER"):
        module["list_files"]()
    with pytest.raises(InvalidFileError, match="Set SOURCES__WEB_ORDERS__FOLDER"):
        module["web_orders_source"](["x.csv"])
    monkeypatch.setenv("SOURCES__WEB_ORDERS__FOLDER", str(tmp_path))
    assert module["list_files"]() == ["x.csv"]
