"""The examples of docs/partitions.md load."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
import yaml

from shared import warehouse
from shared.orchestration.component import WarehouseLoadComponent
from shared.orchestration.resource import WarehouseDltResource


@pytest.fixture
def example(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module with the Python of the page, with an empty warehouse."""
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "warehouse.duckdb"))
    page = (root / "docs" / "partitions.md").read_text()
    code = "\n".join(re.findall(r"```python.*?\n(.*?)```", page, re.DOTALL))
    module = ModuleType("weather_etl.source")
    monkeypatch.setitem(sys.modules, "weather_etl.source", module)
    exec(code, module.__dict__)
    return module


def test_an_hour_is_loaded_with_the_hours_before_it(example: ModuleType) -> None:
    for key in ("2025-03-09-05:00", "2025-03-09-05:00"):
        assert dg.materialize(
            [example.readings], partition_key=key, resources={"dlt": WarehouseDltResource()}
        ).success
    (row,) = warehouse.query("SELECT count(*) AS n FROM weather.readings")
    assert row["n"] == 3 * 3


def test_the_component_loads_a_cell(root: Path, example: ModuleType) -> None:
    page = (root / "docs" / "partitions.md").read_text()
    (text,) = re.findall(r"```yaml.*?\n(.*?)```", page, re.DOTALL)
    attributes: Any = yaml.safe_load(text)["attributes"]
    component = WarehouseLoadComponent.from_attributes_dict(attributes=attributes)
    defs = dg.Definitions.merge(
        dg.build_defs_for_component(component),
        dg.Definitions(resources={"dlt": WarehouseDltResource()}),
    )
    job = defs.resolve_implicit_global_asset_job_def()
    for cell in ("2025-03-09|eu", "2025-03-09|us", "2025-03-09|eu"):
        assert job.execute_in_process(partition_key=cell).success
    rows = warehouse.query("SELECT region, sold FROM weather.sales ORDER BY 1")
    assert rows == [{"region": "eu", "sold": 3}, {"region": "us", "sold": 3}]
