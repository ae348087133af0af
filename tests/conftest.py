"""What tests across packages share: the workspace's root and a process environment of their own."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root() -> Path:
    """The folder of workspace.yaml."""
    return ROOT


@pytest.fixture
def process_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose warehouse and instance are the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("NASA_")}
    return {
        **cleared,
        "DAGSTER_HOME": str(home),
        "WAREHOUSE_PATH": str(tmp_path / "warehouse.duckdb"),
        "COLUMNS": "120",
    }
