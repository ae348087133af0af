"""Processes for tests: `etl` as a user starts it, free ports, and waiting for an event."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PROGRAMS = Path(sys.executable).parent
"""The directory of the environment's programs: `dagster-webserver`, `dagster-daemon`."""

POLL_SECONDS = 0.1


def python() -> str:
    """Return the Python that starts fast, or this one where there is none; see preloaded_python.py."""
    return os.environ.get("PRELOADED_PYTHON", sys.executable)


def etl(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `etl` in the workspace of the fixture `etl_environment` and return the finished process."""
    return subprocess.run(
        [python(), "-m", "shared.cli", *arguments],
        cwd=workspace(environment),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_script(script: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a shell script, which must succeed, and return its output."""
    done = subprocess.run(
        ["bash", "-c", f"set -eo pipefail\n{script}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def workspace(environment: dict[str, str]) -> Path:
    """Return the directory of the workspace of the fixture `etl_environment`."""
    return Path(environment["WAREHOUSE_PATH"]).parent / "workspace"


def free_port() -> int:
    """Return a port of the loopback interface that no process listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for(
    condition: Callable[[], T],
    seconds: float = 300,
    describe: Callable[[], str] = lambda: "the condition did not become true",
    ignore: tuple[type[Exception], ...] = (),
) -> T:
    """Call `condition` until it returns a true value, and return that value.

    Args:
        condition: the function to call.
        seconds: how long to try.
        describe: builds the message of the error, for example the end of a log.
        ignore: exceptions that mean "not yet".

    Raises:
        TimeoutError: the value was false for that long.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except ignore:
            pass
        time.sleep(POLL_SECONDS)
    raise TimeoutError(describe())
