"""The benchmarks run and report what result system loaded."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

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
        ("partitions_1", "dagster"): 0,  # it loads nothing
        ("partitions_1", "ours"): 100,
        ("partitions_30", "limit"): 3_000,
        ("partitions_30", "dagster"): 0,
        ("partitions_30", "ours"): 3_000,
    }
    for result in results.values():
        assert result["error"] is None
        assert result["seconds"] > 0
        assert result["ratio_to_limit"] > 0
        assert result["peak_mb"] > 0
    assert "| partitions_30 | ours | 3,000 |" in (tmp_path / "latest.md").read_text()
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")


def figures(monkeypatch: pytest.MonkeyPatch, measured: list[dict[str, Any]]) -> dict[Path, str]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    texts: dict[Path, str] = import_module("documents").documents_with_figures(measured)
    return texts


def test_the_figures_in_the_documents_are_those_of_the_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = json.loads((ROOT / "benchmarks/results/latest.json").read_text())
    texts = figures(monkeypatch, measured)
    assert {file.name for file in texts} >= {"compare.md", "load-files.md", "speed.md", "scale.md"}
    wrong = [file.name for file, text in texts.items() if file.read_text() != text]
    assert not wrong, "run: uv run python benchmarks/documents.py"


def test_another_result_changes_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = json.loads((ROOT / "benchmarks/results/latest.json").read_text())
    for result in measured:
        result["seconds"] = 98_765.0
    texts = figures(monkeypatch, measured)
    same = [file.name for file, text in texts.items() if file.read_text() == text]
    assert not same


def test_every_result_says_where_it_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/results/latest.json").read_text())
    assert all(result["cpu"] and result["versions"] and result["date"] for result in measured)
    assert all("noise" in result for result in measured)


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
