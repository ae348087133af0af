"""`etl new`: a pipeline that is whole at once, or nothing at all."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from typer.testing import CliRunner

from shared.cli import app

KINDS = ("list", "csv", "api")
MADE = [f"from_{kind}_etl" for kind in KINDS]
PROJECTS = [f"projects/{package}" for package in MADE]
NOWHERE = "http://127.0.0.1:9"

WORKSPACE_TESTS = ["tests/test_workspace.py", "tests/test_workflows.py"]
NOT_OF_OTHERS = "not (_etl] and not from_api) and not raises_at_import"
"""Less what is said of each other location, and what a new one does not change."""

FAILING = """

def test_that_fails() -> None:
    raise AssertionError
"""


def content(folder: Path) -> dict[str, bytes | None]:
    """Returns what stands in a folder: each file with what it holds, and each folder."""
    paths = {path: path.is_file() for path in folder.rglob("*") if "__pycache__" not in path.parts}
    return {str(path): path.read_bytes() if file else None for path, file in paths.items()}


@pytest.mark.slow
def test_a_pipeline_of_each_kind_is_whole_at_once(
    root: Path, clone: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    def call(*command: str, folder: Path = clone) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env=shell,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lists = [clone / name for name in ("workspace.yaml", "dg.toml", ".github/CODEOWNERS")]
    before = [file.read_text() for file in lists]
    for kind in KINDS:
        command = ["uv", "run", "etl", "new", f"from_{kind}", "--from", kind]
        told = call(*command, folder=clone / "docs")
        assert f"  uv run etl run from_{kind}_etl\n" in told.partition("Next:\n")[2]
    for file, text in zip(lists, before, strict=True):
        assert file.read_text().startswith(text), "what was there stays as it was written"
    assert "/projects/from_csv_etl/  @example/from-csv\n" in lists[2].read_text()

    for package in MADE:
        call(str(clone / ".venv" / "bin" / "python"), "-c", f"import {package}")

    # From here on in this environment, whose bytecode is there: it need not be made once more. What
    # is not on this machine is behind a proxy that is not there.
    python = (sys.executable, "-m")
    shell["PYTHONPATH"] = os.pathsep.join(str(clone / project / "src") for project in PROJECTS)
    shell |= {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1"}
    told = call(*python, "shared.cli", "run", *MADE)
    landed = {tuple(line.split()[:2]) for line in told.splitlines() if line.startswith(" from_")}
    assert landed == {(f"from_{kind}/from_{kind}", "5") for kind in KINDS}

    call(*python, "ruff", "check", *PROJECTS)
    call(*python, "ruff", "format", "--check", *PROJECTS)
    parts = [f"{project}/{part}" for project in PROJECTS for part in ("src", "tests")]
    call(*python, "mypy", "--cache-dir", str(root / ".mypy_cache"), *parts)

    found = runpy.run_path(str(clone / ".github" / "changed_members.py"))["affected"]
    assert set(PROJECTS) <= {member["folder"] for member in found(["uv.lock"])}
    broken = clone / PROJECTS[0] / "tests" / f"test_{MADE[0]}.py"
    changed = str(broken.relative_to(clone))
    assert [member["folder"] for member in found([changed])] == PROJECTS[:1]
    broken.write_text(broken.read_text() + FAILING)
    tested = subprocess.run(
        [*python, "pytest", "-n", "0", *PROJECTS, *WORKSPACE_TESTS, "-k", NOT_OF_OTHERS],
        cwd=clone,
        env=shell,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [line for line in tested.stdout.splitlines() if line.startswith("FAILED")]
    assert [line.split()[1] for line in failed] == [f"{changed}::test_that_fails"], tested.stdout


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is no name for a pipeline"),
        ("Orders", "is no name for a pipeline"),
        ("web-orders", "is no name for a pipeline"),
        ("2nd_orders", "is no name for a pipeline"),
        ("web__orders", "is no name for a pipeline"),
        ("_orders", "is no name for a pipeline"),
        ("orders_", "is no name for a pipeline"),
        ("../orders", "is no name for a pipeline"),
        ("größe", "is no name for a pipeline"),
        ("o" * 41, "is no name for a pipeline"),
        ("class", "'class' is a word of Python"),
        ("json", "'json' is a module of Python's"),
        ("dagster", "'dagster' is an installed package"),
        ("shared_etl", "'shared' is an installed package"),
        ("order", "'order' is a word of DuckDB's"),
        ("temp", "'temp' is a word of DuckDB's"),
        ("warehouse", "'warehouse' is the warehouse's own name"),
        ("simple", "projects/simple_etl exists"),
        ("simple_etl", "projects/simple_etl exists"),
        ("nasa_neo", "another pipeline loads into the dataset 'nasa_neo'"),
        ("csv_data_staging", "another pipeline loads into the dataset 'csv_data_staging'"),
    ],
)
def test_a_name_that_cannot_be_is_one_clear_line_and_changes_nothing(
    clone: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    before = content(clone)
    monkeypatch.chdir(clone)
    monkeypatch.setenv("PWD", str(clone))
    monkeypatch.setenv("DAGSTER_HOME", str(clone))
    monkeypatch.setenv("WAREHOUSE_PATH", "data/warehouse.duckdb")
    refused = CliRunner().invoke(app, ["new", name])
    assert refused.exit_code == 2
    assert why in refused.output
    assert len(refused.output.splitlines()) == 1
    assert content(clone) == before


def new(clone: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "shared.cli", "new", *arguments],
        cwd=clone,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Where the tests run in the background SIGINT is ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_where_locking_fails_nothing_has_changed(clone: Path, tmp_path: Path) -> None:
    before = content(clone)
    made = new(clone, "web_orders", UV_OFFLINE="1", UV_CACHE_DIR=str(tmp_path / "empty"))
    told, _ = made.communicate(timeout=120)
    assert made.returncode == 1
    assert told.startswith("uv failed, so nothing was changed: ")
    assert "network" in told
    assert len(told.splitlines()) == 1
    assert content(clone) == before


def test_a_list_that_cannot_be_added_to_is_named_and_nothing_has_changed(clone: Path) -> None:
    with (clone / "workspace.yaml").open("a") as workspace:
        workspace.write("telemetry: {}\n")
    before = content(clone)
    made = new(clone, "web_orders")
    told, _ = made.communicate(timeout=120)
    assert made.returncode == 1
    assert told.startswith("workspace.yaml and dg.toml must end with their lists of locations")
    assert content(clone) == before


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_ended_midway_has_changed_nothing(
    clone: Path, tmp_path: Path, ends: signal.Signals
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    slow = tmp_path / "uv"
    slow.write_text(f"#!/bin/sh\necho > {started}\nexec sleep 600\n")
    slow.chmod(0o755)
    before = content(clone)
    made = new(clone, "web_orders", UV=str(slow))
    try:
        started.read_text()  # once it is written to
        assert (clone / "projects" / "web_orders_etl").exists()
        assert content(clone) != before
        os.killpg(made.pid, ends)
        made.communicate(timeout=120)
    finally:
        if made.poll() is None:
            os.killpg(made.pid, signal.SIGKILL)
    assert made.returncode != 0
    assert content(clone) == before


def test_the_templates_are_part_of_the_package(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [os.environ["UV"], "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), "shared"],
        cwd=root,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    source = root / "shared" / "src"
    templates = source / "shared" / "cli" / "templates"
    files = {str(path.relative_to(source)) for path in templates.rglob("*") if path.is_file()}
    with ZipFile(wheel) as packed:
        assert files <= set(packed.namelist())
    assert len(files) > 15
