"""The example of docs/load-files.md loads, wherever its files are."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.testing.file_server import FileServer
from shared.testing.sftp_server import SftpServer


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
    page = (root / "docs" / "load-files.md").read_text()
    example = ModuleType("assets")
    (code,) = re.findall(r"```python.*?\n(.*?)```", page, re.DOTALL)
    exec(code, example.__dict__)
    order = {
        "id": 1,
        "ordered_at": datetime(2025, 3, 10, tzinfo=UTC),
        "price": Decimal("1.50"),
        "tags": ["new"],
    }
    pq.write_table(pa.Table.from_pylist([order]), tmp_warehouse / "drop" / "a.parquet")
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
