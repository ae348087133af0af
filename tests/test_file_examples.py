"""What docs/load-files.md and docs/csv-files.md show loads as they say, wherever the files are."""

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.common.schema.typing import TColumnSchema

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.sources.csv import CsvFormat, ValueFormat
from shared.sources.csv.file import open_csv
from shared.sources.csv.pushdown import can_push_down
from shared.testing.file_server import FileServer
from shared.testing.sftp_server import SftpServer

ORDER = {
    "id": 1,
    "ordered_at": datetime(2025, 3, 10, tzinfo=UTC),
    "price": Decimal("1.50"),
    "tags": ["new"],
}


def parquet_example(root: Path) -> ModuleType:
    """Return the code of docs/load-files.md as a module."""
    page = (root / "docs" / "load-files.md").read_text()
    example = ModuleType("assets")
    (code,) = re.findall(r"```python.*?\n(.*?)```", page, re.DOTALL)
    exec(code, example.__dict__)
    return example


@pytest.fixture(params=["local", "sftp", "http"])
def _place(
    request: pytest.FixtureRequest, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Make the drop folder one of another place, as in the section "Where files can be"."""
    folder = tmp_warehouse / "drop"
    if request.param == "http":
        with FileServer(folder) as files:
            monkeypatch.setenv("DROP_FOLDER", files.url)
            yield
    elif request.param == "sftp":
        with SftpServer() as server:
            monkeypatch.setenv("DROP_FOLDER", server.url(folder))
            monkeypatch.setenv("DROP_FOLDER_PASSWORD", server.password)
            monkeypatch.setenv("SFTP_KNOWN_HOSTS", str(tmp_warehouse / "known_hosts"))
            (tmp_warehouse / "known_hosts").write_text(server.known_hosts)
            yield
    else:
        yield


@pytest.mark.usefixtures("_place")
def test_the_file_of_a_partition_loads_twice(
    root: Path, tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    example = parquet_example(root)
    pq.write_table(pa.Table.from_pylist([ORDER]), tmp_warehouse / "drop" / "a.parquet")
    instance.add_dynamic_partitions("order_files", ["a.parquet"])
    for _ in range(2):
        assert dg.materialize(
            [example.orders],
            instance=instance,
            partition_key="a.parquet",
            resources={"dlt": WarehouseDltResource()},
        ).success
    rows = warehouse.query("SELECT file_name, id, price, tags FROM shop.orders")
    assert rows == [
        {"file_name": "a.parquet", "id": 1, "price": Decimal("1.50"), "tags": '["new"]'}
    ]


def test_a_new_parquet_file_is_requested_once(
    root: Path, tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    sensor = parquet_example(root).orders_sensor
    pq.write_table(pa.Table.from_pylist([ORDER]), tmp_warehouse / "drop" / "a.parquet")
    cursor, requests = None, []
    for _ in range(3):
        result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
        cursor = result.cursor
        requests += [request.partition_key for request in result.run_requests]
    assert requests == ["a.parquet"]


COLUMNS: dict[str, TColumnSchema] = {"id": {"data_type": "bigint"}, "name": {"data_type": "text"}}
HINTS: dict[str, Any] = {"decimal": {"precision": 18, "scale": 2}}
BY_DUCKDB = {"DuckDB", "DuckDB, from a copy"}


def table_rows(root: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of docs/csv-files.md."""
    page = (root / "docs" / "csv-files.md").read_text().split(f"\n## {heading}\n")[1]
    lines = [line for line in page.split("\n## ")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[1:]]


def code_of(cell: str) -> list[str]:
    return re.findall("`([^`]*)`", cell)


def test_each_form_of_a_file_in_the_documentation_loads_as_it_says(
    root: Path, tmp_path: Path
) -> None:
    rows = table_rows(root, "The form of a file")
    for content, options, reader, _ in rows:
        csv_format = eval(f"CsvFormat(COLUMNS, {(code_of(options) or [''])[0]})")
        text = code_of(content)[0].replace("⏎", "\n") + "\n"
        (tmp_path / "x.csv").write_text(text, csv_format.encoding)
        with open_csv(tmp_path / "x.csv", csv_format) as file:
            assert [(len(batch.rows), batch.rejected) for batch in file.batches()] == [(1, [])]
            assert can_push_down(file) is (reader in BY_DUCKDB), text
            assert (file.body == file.source) is (reader != "DuckDB, from a copy"), text
    declared = " ".join(options for _, options, *_ in rows)
    assert {option.name for option in fields(CsvFormat)} - {*re.findall(r"(\w+)=", declared)} == {
        *("columns", "rules", "allow_empty", "date_format", "values")
    }


def test_each_way_to_write_values_in_the_documentation_loads_as_it_says(
    root: Path, tmp_path: Path
) -> None:
    rows = table_rows(root, "How values are written")
    for texts, data_type, options, reader, _ in rows:
        (kind,) = code_of(data_type)
        form = eval(f"ValueFormat({(code_of(options) or [''])[0]})")
        columns: Any = {"v": {"data_type": kind, **HINTS.get(kind, {})}, "name": COLUMNS["name"]}
        csv_format = CsvFormat(columns, delimiter=";", values={"v": form})
        values = code_of(texts)
        (tmp_path / "x.csv").write_text("v;name\n" + "".join(f"{value};x\n" for value in values))
        with open_csv(tmp_path / "x.csv", csv_format) as file:
            found = [(len(batch.rows), batch.rejected) for batch in file.batches()]
            assert found == [(len(values), [])], texts
            assert can_push_down(file) is (reader in BY_DUCKDB), texts
    declared = " ".join(options for _, _, options, *_ in rows)
    assert {option.name for option in fields(ValueFormat)} == {*re.findall(r"(\w+)=", declared)}


def test_the_declared_formats_of_the_documentation_read_a_file(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "csv-files.md").read_text()
    example = ModuleType("formats")
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, example.__dict__)
    (tmp_path / "x.csv").write_text("id;Betrag (EUR);day\n1;1.234,50;31.12.2024\n2;-;2024-12-31\n")
    (batch,) = example.SALES.read(tmp_path / "x.csv")
    assert batch.rows.column("amount").to_pylist() == [Decimal("1234.50"), None]
    (tmp_path / "x.txt").write_text(f"{1:>5}{'apple':15}20241231\n")
    (batch,) = example.STOCK.read(tmp_path / "x.txt")
    assert batch.rows.column("name").to_pylist() == ["apple"]
