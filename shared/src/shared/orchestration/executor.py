"""Where a run's steps are executed: in the run's process, or by workers on several machines."""

import dagster as dg

from shared import settings


def executor() -> dg.ExecutorDefinition:
    """Return the executor of a location: the run's process, or workers if they are configured.

    A process for each step is not an option: importing Dagster and dlt takes seconds.
    """
    if not settings.get("WORKERS_REDIS_URL"):
        return dg.in_process_executor
    from shared.orchestration import workers

    return workers.executor
