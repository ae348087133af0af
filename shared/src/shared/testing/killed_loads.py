"""Loads in a process that is killed at a stated point."""

import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

from dlt.common.destination.client import RunnableLoadJob
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient
from dlt.destinations.job_client_impl import SqlJobClientBase

RECORDED = ("complete", "completed")
"""Points before and after a load is recorded as complete. The other points are tables: before their rows."""


def killed_load(point: str, load: Callable[[], object], times: int = 1) -> int:
    """Load in a forked process that is killed at a point, and return the signal that ended it.

    Args:
        point: a table of the load, or one of `RECORDED`.
        load: what loads.
        times: at which time the point is reached it is killed.
    """

    def run() -> None:
        _kill_at(point, times)
        load()

    return in_forked_process(run)


def in_forked_process(run: Callable[[], object]) -> int:
    """Run something in a forked process, and return the signal that ended it.

    Args:
        run: what to run; it calls `kill` somewhere.
    """
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()  # Python warns about threads; those that exist own no locks here
    if child == 0:
        try:
            signal.alarm(60)
            run()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_at(point: str, times: int) -> None:
    """Change this process so that it dies at a point."""
    left = iter([*[True] * (times - 1), *[False] * 100])  # whether it lives on
    run_job = RunnableLoadJob.run_managed

    def run(self: RunnableLoadJob, *arguments: Any) -> None:
        if self.job_file_info().table_name == point and not next(left):
            time.sleep(0.3)  # the other jobs commit
            kill()
        run_job(self, *arguments)

    RunnableLoadJob.run_managed = run  # type: ignore[method-assign]
    clients: list[Any] = [SqlJobClientBase, FilesystemClient]
    for client in clients if point in RECORDED else ():
        client.complete_load = _killed_when_complete(client.complete_load, point, left)


def _killed_when_complete(
    original: Callable[..., None], point: str, left: Any
) -> Callable[..., None]:
    def complete_load(self: Any, load_id: str) -> None:
        is_last = not next(left)
        if point == "completed" or not is_last:
            original(self, load_id)
        if is_last:
            kill()

    return complete_load
