"""`etl new NAME --from sql` creates a location that makes tables of what other locations load."""

import os
import subprocess
from pathlib import Path

import pytest

from shared.cli.new import _render
from support.processes import python


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Answers file template locations:DeprecationWarning")
def test_a_new_project_is_formatted_and_its_own_tests_pass(root: Path, tmp_path: Path) -> None:
    project = _render(tmp_path / "mart_etl", "mart", root, source="sql", style="code")
    assert (project / "src/mart_etl/sql/asteroids_per_week.sql").is_file()
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    for command in (
        ["ruff", "format", "--check", "--no-cache", "--config", str(root / "pyproject.toml"), "."],
        [
            "ruff",
            "check",
            "--no-cache",
            "--ignore=I",
            "--config",
            str(root / "pyproject.toml"),
            ".",
        ],
        ["pytest", "-n", "0", "-q"],
    ):
        done = subprocess.run(
            [python(), "-m", *command],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
