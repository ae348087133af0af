"""The Dagster instance of DAGSTER_HOME, for the commands that read it."""

import os

import dagster as dg
from filelock import FileLock

from shared.cli.reports import LOGS
from shared.cli.terminal import fail


def open_instance() -> dg.DagsterInstance:
    """Return the instance. Only one process may create its tables."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with FileLock(LOGS / "instance.lock"):
        instance = dg.DagsterInstance.get()
        instance.get_runs_count()
    return instance


def instance_or_fail() -> dg.DagsterInstance:
    """Return the instance, or end the command with one line if it does not open."""
    try:
        return open_instance()
    except Exception as error:  # noqa: BLE001 - each storage has its own errors
        home = os.environ.get("DAGSTER_HOME")
        fail(f"Dagster's instance in {home} does not open: {error}. See uv run etl doctor.")
