"""`etl dev` runs Dagster as `dagster dev` does, with processes that share what they have imported."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import psutil  # type: ignore[import-untyped]
import pytest

from shared.cli.preloaded import SUPPORTED
from support.processes import wait_for
from support.servers import EtlDev

pytestmark = [
    pytest.mark.slow,  # starts a webserver, a daemon and five locations
    pytest.mark.skipif(not SUPPORTED, reason="processes fork on Linux only"),
]

LOCATION = """
import os, sys
import dagster as dg

@dg.asset(description={text})
def {name}() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={{"python": sys.executable}})

defs = dg.Definitions(assets=[{name}])
"""
SLOW = """
import subprocess
import dagster as dg

@dg.asset
def slow() -> None:
    subprocess.run(["sleep", "600"], check=True)

defs = dg.Definitions(assets=[slow])
"""
WORKSPACE = """
load_from:
- python_module: {{module_name: simple_etl.definitions, location_name: simple_etl}}
- python_file: {{relative_path: first.py, location_name: first}}
- python_file: {{relative_path: second.py, location_name: second}}
- python_file: {{relative_path: slow.py, location_name: slow}}
- python_file: {{relative_path: own.py, location_name: own, executable_path: {python}}}
- python_file: {{relative_path: broken.py, location_name: broken}}
"""
PYTHON = "os.environ['OF_THE_FILE'] + ' ' + sys.executable"
ERRORS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    ... on PythonError { message errorChain { error { message } } } } } } } }"""
DESCRIPTIONS = "{ assetNodes { assetKey { path } description } }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "workspace.yaml").write_text(WORKSPACE.format(python=sys.executable))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / ".env").write_text("OF_THE_FILE=sample\n")
    for name in ("first", "second", "own"):
        (folder / f"{name}.py").write_text(LOCATION.format(name=name, text=PYTHON))
    (folder / "slow.py").write_text(SLOW)
    (folder / "broken.py").write_text("def of(:\n")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[EtlDev]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")
    }
    environment["WAREHOUSE_PATH"] = str(folder / "warehouse.duckdb")
    with EtlDev(folder, environment, folder / "log") as server:
        server.loaded_locations()
        yield server


def processes(server: EtlDev) -> list[psutil.Process]:
    """Return all processes of `etl dev`: the server of the preloaded Python is its child."""
    etl = psutil.Process(server.process.pid)
    return [etl, *etl.children(recursive=True)]


def commands(server: EtlDev) -> list[str]:
    """Return the command lines of all processes of `etl dev`."""
    lines = []
    for process in processes(server):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            lines.append(" ".join(process.cmdline()))
    return lines


def description(server: EtlDev, asset: str) -> str:
    nodes = server.api.query(DESCRIPTIONS)["assetNodes"]
    return next(str(node["description"]) for node in nodes if node["assetKey"]["path"] == [asset])


def load_error(server: EtlDev, location: str) -> str:
    """Return the error that the UI shows for a location, with its causes."""
    entries = server.api.query(ERRORS)["workspaceOrError"]["locationEntries"]
    return str(next(entry for entry in entries if entry["name"] == location))


def all_locations_load_and_a_broken_one_shows_its_error(server: EtlDev) -> None:
    errors = server.api.load_errors()
    assert errors.pop("broken")
    assert "SyntaxError" in load_error(server, "broken")
    assert errors == dict.fromkeys(("simple_etl", "first", "second", "slow", "own"))


def locations_fork_from_one_python_but_for_one_that_names_its_own(server: EtlDev) -> None:
    variable, _, python = description(server, "first").partition(" ")
    assert variable == "sample"
    assert python != sys.executable
    assert description(server, "second") == f"sample {python}"
    assert description(server, "own") == f"sample {sys.executable}"
    for name in ("dagster_webserver", "dagster._daemon"):  # they fork as well
        assert any(f"python -m {name}" in command for command in commands(server))


def the_server_has_one_thread_so_that_it_can_fork(server: EtlDev) -> None:
    [preloaded] = [
        process
        for process in psutil.Process(server.process.pid).children()
        if "server.py" in " ".join(process.cmdline())
    ]
    assert preloaded.num_threads() == 1


def a_run_that_is_launched_in_the_ui_succeeds(server: EtlDev, folder: Path) -> None:
    runs = [server.launch(location) for location in ("simple_etl", "first", "own")]
    assert [server.final_status(run) for run in runs] == ["SUCCESS"] * 3
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("FROM simple.load_dict").fetchall()


def a_reload_reads_changed_code_and_shows_an_error_until_it_is_fixed(
    server: EtlDev, folder: Path
) -> None:
    code = folder / "second.py"
    code.write_text(LOCATION.format(name="second", text="'changed'"))
    server.api.reload("second")
    assert description(server, "second") == "changed"
    code.write_text("raise ValueError('of the test')")
    server.api.reload("second")
    assert "of the test" in load_error(server, "second")
    code.write_text(LOCATION.format(name="second", text="'fixed'"))
    server.api.reload("second")
    assert description(server, "second") == "fixed"


def ctrl_c_ends_all_processes_and_the_run_that_they_execute(server: EtlDev, folder: Path) -> None:
    executable = Path(description(server, "first").partition(" ")[2])
    assert executable.exists()
    run = server.launch("slow")
    server.wait_for(lambda: "sleep 600" in commands(server))
    running = processes(server)
    os.killpg(server.process.pid, signal.SIGINT)
    server.process.wait(60)
    _, alive = psutil.wait_procs(running, timeout=60)
    assert alive == []
    wait_for(lambda: not executable.parent.exists(), 30)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        stopped = instance.get_run_by_id(run)
    assert stopped
    assert stopped.status == dg.DagsterRunStatus.FAILURE


def test_etl_dev_does_what_dagster_dev_does_with_processes_that_fork(
    server: EtlDev, folder: Path
) -> None:
    all_locations_load_and_a_broken_one_shows_its_error(server)
    locations_fork_from_one_python_but_for_one_that_names_its_own(server)
    the_server_has_one_thread_so_that_it_can_fork(server)
    a_run_that_is_launched_in_the_ui_succeeds(server, folder)
    a_reload_reads_changed_code_and_shows_an_error_until_it_is_fixed(server, folder)
    ctrl_c_ends_all_processes_and_the_run_that_they_execute(server, folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("preloaded.SUPPORTED = False", "processes do not fork on this system"),
        ("tempfile.tempdir = '{folder}'", "path too long"),
        (
            "tempfile.tempdir = '{temporary}'; os.access = lambda *_: False",  # as of `noexec`
            "no program can run in",
        ),
    ],
    ids=["no fork", "a long path", "no programs"],
)
def test_without_fork_it_is_plain_dagster_dev(change: str, reason: str, folder: Path) -> None:
    long, temporary = folder / ("long" * 30), folder / "temporary"
    long.mkdir()
    temporary.mkdir()
    code = (
        "import os, sys, tempfile; from shared.cli import main, preloaded\n"
        f"{change.format(folder=long, temporary=temporary)}\n"
        "sys.argv = ['etl', 'dev', '--version-of-nothing']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert not [*long.iterdir(), *temporary.iterdir()]
    assert done.stdout.startswith("etl dev: this is plain `dagster dev`, because ")
    assert reason in done.stdout
    assert "No such option '--version-of-nothing'" in done.stderr
