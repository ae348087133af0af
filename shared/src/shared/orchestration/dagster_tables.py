"""The tables of a Dagster instance, for what its public methods answer with a query per asset or per run.

They are private names of Dagster, listed in `shared/tests/test_dagster_internals.py` as those of
`dagster_internals` are.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage import tags as _tags
from dagster._core.storage.event_log import schema as _events
from dagster._core.storage.runs import schema as _runs
from dagster._serdes import deserialize_value

EVENTS = _events.SqlEventLogStorageTable
EVENT_TAGS = _events.AssetEventTagsTable
ASSETS = _events.AssetKeyTable
CHECK_RESULTS = _events.AssetCheckExecutionsTable
RUNS = _runs.RunsTable
RUN_TAGS = _runs.RunTagsTable
REPOSITORY_LABEL_TAG = _tags.REPOSITORY_LABEL_TAG


def events_connection(instance: dg.DagsterInstance) -> AbstractContextManager[Any]:
    """Return a transaction on the tables `EVENTS`, `EVENT_TAGS`, `ASSETS` and `CHECK_RESULTS`.

    With SQLite, `EVENTS` has the events of assets, checks and run statuses of all runs; each run has its
    own file with all of its events.
    """
    storage: Any = instance.event_log_storage
    connection: AbstractContextManager[Any] = storage.index_connection()
    return connection


def runs_connection(instance: dg.DagsterInstance) -> AbstractContextManager[Any]:
    """Return a transaction on the tables `RUNS` and `RUN_TAGS`."""
    storage: Any = instance.run_storage
    connection: AbstractContextManager[Any] = storage.connect()
    return connection


def ticks_connection(instance: dg.DagsterInstance) -> AbstractContextManager[Any]:
    """Return a transaction on the tables of schedules and sensors; an instance in memory has none."""
    storage: Any = instance.schedule_storage
    connection: AbstractContextManager[Any] = storage.connect()
    return connection


def stored_event(text: str) -> dg.EventLogEntry:
    """Return an event of the columns `EVENTS.event` and `CHECK_RESULTS.evaluation_event`."""
    return deserialize_value(text, dg.EventLogEntry)


def run_file(instance: dg.DagsterInstance, run_id: str) -> Path | None:
    """Return the SQLite file with the events of a run; None if all runs share a table."""
    storage: Any = instance.event_log_storage
    return Path(storage.path_for_shard(run_id)) if storage.is_run_sharded else None


def delete_compute_logs(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete what the steps of a run printed."""
    instance.compute_log_manager.delete_logs(prefix=[run_id, "compute_logs"])


def run_artifacts(instance: dg.DagsterInstance, run_id: str) -> Path:
    """Return the folder of what the steps of a run passed to each other."""
    return Path(instance.storage_directory()) / run_id
