"""Fixtures of the tests across packages: the workspace, a clone of it, environments and a database."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest

from shared.cli.preloaded import SUPPORTED, PreloadedPython
from shared.testing.postgres_server import PostgresServer
from support.preloaded_python import MODULES, start_programs_fast

ROOT = Path(__file__).parents[1]
collect_ignore = ["ducklake"]  # test_ducklake.py runs them, in their own environment


@pytest.fixture
def root() -> Path:
    """The folder of workspace.yaml."""
    return ROOT


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """A copy of the files that git tracks, or would track."""
    copy = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((root / name).read_bytes())
    return copy


@pytest.fixture
def shell() -> dict[str, str]:
    """The environment of a user's shell: with uv, and without the variables of this test run."""
    ours = (
        "NASA_",
        "WAREHOUSE_",
        "DESTINATION__",
        "DROP_FOLDER",
        "DAGSTER",
        "VIRTUAL_ENV",
        "PYTEST",
        "PYTHONDONTWRITEBYTECODE",
        "UV_COMPILE_BYTECODE",  # of `make test`; with it every `uv run` reads every file
        "UV_PROJECT",
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    uv = Path(os.environ["UV"]).parent  # uv run sets it
    return {**clean, "PATH": f"{uv}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def start_fast(clone: Path) -> Iterator[Callable[[], None]]:
    """Let the programs of the clone's environment start fast; call it after they are installed."""
    with ExitStack() as stack:
        started: list[PreloadedPython] = []

        def start() -> None:
            interpreter = clone / ".venv" / "bin" / "python"
            if SUPPORTED and interpreter.exists():
                if not started:
                    preloaded = PreloadedPython(str(interpreter), MODULES)
                    started.append(stack.enter_context(preloaded))
                start_programs_fast(started[0])

        yield start


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder for the pictures of pages."""
    folder: Path = request.config.getoption("pictures") or tmp_path / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def process_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process with a warehouse and a Dagster instance for this test."""
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


@pytest.fixture
def etl_environment(
    root: Path, tmp_path: Path, process_environment: dict[str, str]
) -> dict[str, str]:
    """An environment whose workspace has a copy of workspace.yaml and of the sample data only."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    shutil.copy(root / "workspace.yaml", workspace)
    shutil.copytree(root / "data" / "drop", workspace / "data" / "drop")
    return process_environment


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A Postgres server for this test, which may stop it."""
    with PostgresServer(tmp_path) as server:
        yield server


@pytest.fixture
def server_environment(
    root: Path,
    postgres: PostgresServer,
    process_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """The environment of a server: the shipped instance file, and a database with its tables.

    The tables are created here because two processes must not create them concurrently.
    """
    home = Path(process_environment["DAGSTER_HOME"])
    (home / "dagster.yaml").write_text((root / "deploy" / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres.database())
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
    return {**process_environment, "DAGSTER_POSTGRES_URL": os.environ["DAGSTER_POSTGRES_URL"]}


SLOWEST = (
    "test_documents.py",
    "test_ducklake.py",
    "test_new.py",
    "test_browser.py",
    "test_hosts.py",
    "test_first_run.py",
    "test_workers.py",
    "test_deploy.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slowest tests first, so that no worker waits for them at the end."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options: the number of trials of a stress test, and the folder for pictures."""
    parser.addoption("--pictures", type=Path, help="Folder for the browser's pictures.")
    parser.addoption("--trials", type=int, default=2, help="Trials of each stress test.")


def pytest_configure(config: pytest.Config) -> None:
    """Start the Python that starts fast, once for this run; its workers start with it as well."""
    if sys.executable == os.environ.get("PRELOADED_PYTHON"):  # tests of fresh processes start this
        sys.executable = str(Path(sys.prefix) / "bin" / "python")
        multiprocessing.set_executable(sys.executable)
    is_worker = hasattr(config, "workerinput") or "PRELOADED_PYTHON" in os.environ
    if is_worker or config.option.collectonly or not SUPPORTED:
        return
    preloaded = PreloadedPython(modules=MODULES)
    executable = str(preloaded.start())
    os.environ["PRELOADED_PYTHON"] = executable
    workers = getattr(config.option, "tx", None) or []
    local = f"popen//python={executable}"
    config.option.tx = [local if worker == "popen" else worker for worker in workers]
    config.add_cleanup(preloaded.stop)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the stress tests, one line for each promise."""
    listed = [entry for entries in terminalreporter.stats.values() for entry in entries]
    reports = [entry for entry in listed if isinstance(entry, pytest.TestReport)]
    lines = sorted(
        {
            tuple(cast(list[Any], value))
            for report in reports
            for name, value in report.user_properties
            if name == "stress"
        },
        key=lambda line: (line[0].startswith("STOCK"), line),
    )
    if lines:
        terminalreporter.section("stress")
        terminalreporter.write_line(f"{'trials':>7} {'failures':>8} {'seconds':>8}  promise")
        for promise, trials, failures, seconds in lines:
            terminalreporter.write_line(f"{trials:>7} {failures:>8} {seconds:>8.1f}  {promise}")
