"""The load engine runs without Dagster: the page's example is run where Dagster cannot be imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_DAGSTER = """
import sys
sys.modules.update(dagster=None, dagster_dlt=None)  # an import of them raises ImportError
"""


def test_the_example_loads_the_same_rows_each_time_without_dagster(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (root / "docs" / "load-without-dagster.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "warehouse.duckdb"))
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_DAGSTER + example[1]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.endswith("{'sales': 1} 1\n")
