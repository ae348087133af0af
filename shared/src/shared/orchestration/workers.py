"""Workers that execute steps on several machines: `celery -A shared.orchestration.workers worker`.

A run's process sends its steps through Redis, waits for them, and records the result. The settings below
apply to both sides: no step is lost, and none runs twice at the same time.
"""

from typing import Any

from dagster_celery import celery_executor

from shared import settings
from shared.orchestration.dagster_internals import build_celery_app

_REDIS_URL = settings.get("WORKERS_REDIS_URL")
if not _REDIS_URL:
    raise ValueError("WORKERS_REDIS_URL is not set; it is where workers get steps from.")
_MAX_STEP_SECONDS = settings.get_seconds("WORKERS_MAX_STEP_SECONDS")

SETTINGS: dict[str, Any] = {
    # Redis keeps a step until it is done, so the step survives a killed worker.
    "task_acks_late": True,
    # A step whose process was killed is retried at once, at most twice: the step may be the cause.
    "task_retry_on_worker_lost": True,
    "task_annotations": {"execute_plan": {"max_retries": 2, "default_retry_delay": 0}},
    "task_reject_on_worker_lost": True,  # and stays in Redis if the retry fails
    # A step whose whole worker was killed is retried when it cannot be running any more.
    "task_time_limit": _MAX_STEP_SECONDS,
    "broker_transport_options": {
        "visibility_timeout": _MAX_STEP_SECONDS + 60,
        "unacked_restore_throttle": 1,  # checks every 10 seconds, not every 100
    },
    # A step that was done by then is not retried.
    "worker_deduplicate_successful_tasks": True,
    # A worker takes no step in advance that another one could execute.
    "worker_prefetch_multiplier": 1,
    # A run waits for a Redis that restarts.
    "result_backend_always_retry": True,
    # Each step leaks about 0.2 MB of memory in its process.
    "worker_max_tasks_per_child": 100,
}
"""Celery's configuration, for workers and for the runs that use them."""

app, execute_plan = build_celery_app(
    {**SETTINGS, "broker_url": _REDIS_URL, "result_backend": _REDIS_URL}
)

_FROM_ENVIRONMENT = {"env": "WORKERS_REDIS_URL"}  # the URL is not stored with the run
executor = celery_executor.configured(
    {"broker": _FROM_ENVIRONMENT, "backend": _FROM_ENVIRONMENT, "config_source": SETTINGS}
)
