"""`etl dev` runs Dagster as `dagster dev` does, with processes that share what they have imported."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from shared.cli.preloaded import SUPPORTED
from support.processes import wait_for
from support.servers import EtlDev

pytestmark = [
    pytest.mark.slow,  # starts a webserver, a daemon and five locations
    pytest.mark.skipif(not SUPPORTED, reason="processes fork on Linux only"),
    pytest.mark.xdist_group("etl dev"),
]

LOCATION = """
import os, sys
import dagster as dg

@dg.asset(description={text})
def {name}() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={{"python": sys.executable}})

defs = dg.Definitions(assets=[{name}])
"""
WORKSPACE = """
load_from:
- python_module: {{module_name: simple_etl.definitions, location_name: simple_etl}}
- python_file: {{relative_path: first.py, location_name: first}}
- python_file: {{relative_path: second.py, location_name: second}}
- python_file: {{relative_path: own.py, location_name: own, executable_path: {python}}}
- python_file: {{relative_path: broken.py, location_name: broken}}
"""
PYTHON = "os.environ['OF_THE_FILE'] + ' ' + sys.executable"
ERRORS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    ... on PythonError { message errorChain { error { message } } } } } } } }"""
DESCRIPTIONS = "{ assetNodes { assetKey { path } description } }"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dev")
    (folder / "workspace.yaml").write_text(WORKSPACE.format(python=sys.executable))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / ".env").write_text("OF_THE_FILE=sample\n")
    for name in ("first", "second", "own"):
        (folder / f"{name}.py").write_text(LOCATION.format(name=name, text=PYTHON))
    (folder / "broken.py").write_text("def of(:\n")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[EtlDev]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")
    }
    with EtlDev(folder, environment, folder / "log") as server:
        server.loaded_locations()
        yield server


def processes(server: EtlDev) -> list[psutil.Process]:
    """Return all processes of `etl dev`: the server of the preloaded Python is its child."""
    etl = psutil.Process(server.process.pid)
    return [etl, *etl.children(recursive=True)]


def description(server: EtlDev, asset: str) -> str:
    nodes = server.api.query(DESCRIPTIONS)["assetNodes"]
    return next(str(node["description"]) for node in nodes if node["assetKey"]["path"] == [asset])


def load_error(server: EtlDev, location: str) -> str:
    """Return the error that the UI shows for a location, with its causes."""
    entries = server.api.query(ERRORS)["workspaceOrError"]["locationEntries"]
    return str(next(entry for entry in entries if entry["name"] == location))


def test_all_locations_load_and_a_broken_one_shows_its_error(server: EtlDev) -> None:
    errors = server.api.load_errors()
    assert errors.pop("broken")
    assert "SyntaxError" in load_error(server, "broken")
    assert errors == dict.fromkeys(("simple_etl", "first", "second", "own"))


def test_locations_fork_from_one_python_but_for_one_that_names_its_own(server: EtlDev) -> None:
    variable, _, python = description(server, "first").partition(" ")
    assert variable == "sample"
    assert python != sys.executable
    assert description(server, "second") == f"sample {python}"
    assert description(server, "own") == f"sample {sys.executable}"
    for name in ("dagster_webserver", "dagster._daemon"):  # they fork as well
        commands = [" ".join(process.cmdline()) for process in processes(server)]
        assert any(f"python -m {name}" in command for command in commands)


def test_the_server_has_one_thread_so_that_it_can_fork(server: EtlDev) -> None:
    [preloaded] = [
        process
        for process in psutil.Process(server.process.pid).children()
        if "server.py" in " ".join(process.cmdline())
    ]
    assert preloaded.num_threads() == 1


def test_a_run_that_is_launched_in_the_ui_succeeds(server: EtlDev) -> None:
    for location, asset in (("first", "first"), ("own", "own")):
        run = server.launch(location, [asset])
        assert server.final_status(run) == "SUCCESS"


def test_a_reload_reads_changed_code_and_shows_an_error_until_it_is_fixed(
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


def test_ctrl_c_ends_all_processes_and_removes_what_they_made(server: EtlDev) -> None:
    executable = Path(description(server, "first").partition(" ")[2])
    assert executable.exists()
    running = processes(server)
    os.killpg(server.process.pid, signal.SIGINT)
    server.process.wait(60)
    _, alive = psutil.wait_procs(running, timeout=60)
    assert alive == []
    wait_for(lambda: not executable.parent.exists(), 30)


def test_without_fork_it_is_plain_dagster_dev(folder: Path) -> None:
    code = (
        "import sys; from shared.cli import main; sys.modules['shared.cli.dev'].SUPPORTED = False\n"
        "sys.argv = ['etl', 'dev', '--version-of-nothing']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("etl dev: processes do not fork on this system")
    assert "No such option '--version-of-nothing'" in done.stderr
