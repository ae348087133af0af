"""The workers that execute steps on several machines: `celery -A shared.orchestration.workers worker`.

A run's own process hands its steps over through Redis, waits for them, and writes down how it ends. What
keeps a step from being lost, or from running twice at once, stands here for both sides.
"""

from typing import Any

from dagster_celery import celery_executor
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from shared import settings

_ADDRESS = settings.get("WORKERS_REDIS_URL")
if not _ADDRESS:
    raise ValueError("WORKERS_REDIS_URL is not set; it is where workers get steps from.")
_LONGEST_STEP = settings.get_seconds("WORKERS_MAX_STEP_SECONDS")

SETTINGS: dict[str, Any] = {
    # Redis forgets a step when it is done, not when it begins: so it outlives a killed worker.
    "task_acks_late": True,
    # One whose process was killed runs again at once, twice at most: it may be what kills.
    "task_retry_on_worker_lost": True,
    "task_annotations": {"execute_plan": {"max_retries": 2, "default_retry_delay": 0}},
    "task_reject_on_worker_lost": True,  # and stays in Redis, should that fail
    # One whose worker was killed as a whole runs again when it cannot be running any more.
    "task_time_limit": _LONGEST_STEP,
    "broker_transport_options": {
        "visibility_timeout": _LONGEST_STEP + 60,
        "unacked_restore_throttle": 1,  # looks every 10 seconds, not every 100
    },
    # One that was done by then does not.
    "worker_deduplicate_successful_tasks": True,
    # No worker keeps a step waiting that another one could execute.
    "worker_prefetch_multiplier": 1,
    # A run waits for a Redis that is started again.
    "result_backend_always_retry": True,
    # Each step leaves some 0.2 MB behind in its process.
    "worker_max_tasks_per_child": 100,
}
"""Celery's configuration, of workers and of the runs that they work for."""

app = make_app()  # type: ignore[no-untyped-call]
app.conf.update(SETTINGS, broker_url=_ADDRESS, result_backend=_ADDRESS)
execute_plan = create_task(app)  # type: ignore[no-untyped-call]

# The address stays out of what is written down of a run.
_FROM_ENVIRONMENT = {"env": "WORKERS_REDIS_URL"}
executor = celery_executor.configured(
    {"broker": _FROM_ENVIRONMENT, "backend": _FROM_ENVIRONMENT, "config_source": SETTINGS}
)
