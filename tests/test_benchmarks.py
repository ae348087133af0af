"""The benchmarks run and report what result system loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_workload_is_measured_and_reported_as_a_table_and_charts(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "partitions_1", "partitions_30"]
    done = subprocess.run(
        [*command, "--runs", "1", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = {
        (result["workload"], result["system"]): result
        for result in json.loads((tmp_path / "latest.json").read_text())
    }
    assert {key: result["rows"] for key, result in results.items()} == {
        ("partitions_1", "limit"): 100,
        ("partitions_1", "ours"): 100,
        ("partitions_30", "limit"): 3_000,
        ("partitions_30", "ours"): 3_000,
    }
    for result in results.values():
        assert result["error"] is None
        assert result["seconds"] > 0
        assert result["ratio_to_limit"] > 0
        assert result["peak_mb"] > 0
    assert "| partitions_30 | ours | 3,000 |" in (tmp_path / "latest.md").read_text()
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")


def test_a_workload_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "csv_replace_7m"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such workload: csv_replace_7m" in done.stderr


def test_without_uv_one_line_names_the_next_step(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "UV"}
    results = tmp_path / "results"
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "partitions_1"]
    done = subprocess.run(
        [*command, "--results", str(results)],
        env={**clean, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "uv was not found. Run `make bench`, which installs uv into .uv/, "
        "or add the folder of uv to PATH.\n"
    )
    assert not results.exists()  # nothing was measured
