"""The launcher of runs for a Dagster instance on one machine, such as that of `dagster dev`."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import psutil  # type: ignore[import-untyped]

_CLOCK_TOLERANCE_SECONDS = 60
_WITH_A_PROCESS = {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Dagster's default launcher, which also knows whether the process of a run is alive.

    Without it, Dagster's run monitoring ends a run whose process was killed together with its code server,
    as by a power loss, only after `max_runtime_seconds`; until then the run occupies a place in the queue.
    All runs of the instance must execute on this machine, launched or started by a command.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring requests the state of a run's process."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Return whether the process of a started run is alive."""
        from shared.orchestration import dagster_internals  # imports dlt; the webserver needs none

        return dagster_internals.run_worker_health(alive=self._is_alive(run.run_id))

    def terminate(self, run_id: str) -> bool:
        """Stop a run; one whose process is gone is canceled at once, without its code server."""
        run = self._instance.get_run_by_id(run_id)
        if run and run.status in _WITH_A_PROCESS and not self._is_alive(run_id):
            self._instance.report_run_canceled(run, "The process of the run is gone.")
            return True
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]

    def _is_alive(self, run_id: str) -> bool:
        processes = list(self._processes(run_id))
        if processes:
            return any(_exists(pid, at) for pid, at in processes)
        record = self._instance.get_run_record_by_id(run_id)
        started = record.start_time if record else None
        # A run that has just started has logged no process yet.
        return started is None or time.time() - started < _CLOCK_TOLERANCE_SECONDS

    def _processes(self, run_id: str) -> Iterator[tuple[int, float]]:
        """Yield the ids of the run's processes, and when each was logged."""
        kind = dg.DagsterEventType.ENGINE_EVENT
        for entry in self._instance.all_logs(run_id, of_type=kind):
            event = entry.dagster_event
            if event and "pid" in (metadata := event.engine_event_data.metadata):
                yield int(str(metadata["pid"].value)), entry.timestamp


def _exists(pid: int, logged_at: float) -> bool:
    """Return whether a process is alive, and not another one that got its id, as after a restart."""
    try:
        process = psutil.Process(pid)
        is_same = process.create_time() < logged_at + _CLOCK_TOLERANCE_SECONDS
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
