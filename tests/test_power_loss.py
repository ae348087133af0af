"""Runs whose processes are gone, as after a power loss, end by themselves, and block no queue."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil  # type: ignore[import-untyped]
import pytest
import yaml

from support.processes import python, wait_for
from support.servers import DagsterDev, Webserver

WAITING = """
import os
import time
from pathlib import Path
import dagster as dg

@dg.asset
def waiting() -> None:
    (Path("started") / str(os.getpid())).touch()
    while not Path("released").exists():
        time.sleep(0.1)

defs = dg.Definitions(assets=[waiting], executor=dg.in_process_executor)
"""
PLACES = 4  # of the queue
TERMINATE = "mutation($run: String!) { terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } } }"


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A workspace with the shipped instance file, and an asset that runs until it is released."""
    workspace = tmp_path / "workspace"
    (workspace / "started").mkdir(parents=True)
    (workspace / "waiting.py").write_text(WAITING)
    shutil.copy(root / "dagster.yaml", workspace)
    location = {"python_module": {"module_name": "waiting", "location_name": "waiting"}}
    (workspace / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [location]}))
    return workspace


@pytest.fixture
def environment(process_environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of a user who has not set DAGSTER_HOME."""
    return {**process_environment, "DAGSTER_HOME": str(folder), "PYTHONPATH": str(folder)}


def started(folder: Path) -> list[int]:
    return [int(file.name) for file in (folder / "started").iterdir()]


@pytest.fixture
def started_run(folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a run that a command has started."""
    command = [python(), "-m", "dagster", "asset", "materialize", "-m", "waiting", "--select", "*"]
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    wait_for(lambda: started(folder), 60)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def test_a_run_is_healthy_while_its_process_lives_and_is_ended_once_it_is_killed(
    folder: Path, started_run: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        launcher: Any = instance.run_launcher
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED
        assert launcher.check_run_worker_health(run).status.value == "RUNNING"
        os.killpg(started_run.pid, signal.SIGKILL)
        wait_for(lambda: launcher.check_run_worker_health(run).status.value == "NOT_FOUND", 30)
        assert launcher.terminate(run.run_id)
        ended = instance.get_run_by_id(run.run_id)
        assert ended
        assert ended.status == dg.DagsterRunStatus.CANCELED


@pytest.mark.slow
def test_after_everything_was_killed_the_runs_end_within_a_minute_and_the_queue_goes_on(
    folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    dev = DagsterDev(folder, environment, tmp_path / "dev.log")
    dev.command[0] = sys.executable  # so that all processes are its descendants
    with dev as server:
        assert server.loaded_locations() == {"waiting"}
        runs = [server.launch("waiting", ["waiting"]) for _ in range(PLACES)]
        server.wait_for(lambda: len(started(folder)) == PLACES)
        queued = server.launch("waiting", ["waiting"])
        processes = [server.process.pid, *started(folder)]
        tree = [child.pid for pid in processes for child in psutil.Process(pid).children(True)]
        for pid in {*processes, *tree}:
            os.kill(pid, signal.SIGKILL)
        server.process.wait(30)
    (folder / "released").touch()
    with Webserver(folder, environment, tmp_path / "web.log") as web:  # no daemon ends a run here
        assert web.loaded_locations() == {"waiting"}
        terminated = web.api.query(TERMINATE, run=runs[0])["terminateRun"]
        assert terminated["__typename"] == "TerminateRunSuccess", terminated
        assert [web.api.status(run) for run in runs] == ["CANCELED", *["STARTED"] * (PLACES - 1)]
    with DagsterDev(folder, environment, tmp_path / "dev.log") as server:
        server.wait_for(lambda: all(server.api.status(run) == "FAILURE" for run in runs[1:]), 60)
        assert server.final_status(queued) == "SUCCESS"
