"""Where a run's steps are executed: in its own process, or by workers on several machines."""

import dagster as dg

from shared import settings


def executor() -> dg.ExecutorDefinition:
    """Returns what executes a location's steps: the run's own process, unless there are workers.

    Importing Dagster and dlt takes seconds, so a process for each step is no third choice.
    """
    if not settings.get("WORKERS_REDIS_URL"):
        return dg.in_process_executor
    from shared.orchestration import workers

    return workers.executor
