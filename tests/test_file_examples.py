"""The example of docs/load-files.md loads."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource


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
