"""Delete old runs from the Dagster instance, and keep what Dagster needs to know what is loaded.

`DagsterInstance.delete_run` also deletes the materializations of a run, so that its partitions count as
missing (dagster#33785).
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy import and_, delete, func, or_, select

from shared.orchestration import dagster_internals, dagster_tables
from shared.orchestration.attempts import (
    FINISHED,
    PLANNED,
    batches,
    failed_checks,
    unfinished_attempts,
)
from shared.orchestration.dagster_tables import CHECK_RESULTS, EVENT_TAGS, EVENTS, RUN_TAGS, RUNS

RUNS_PER_BATCH = 100
"""Runs that one transaction deletes; between two, the daemon can write."""

_VACUUM_WAIT_MILLISECONDS = 60_000  # for other writers
_ROOT_RUN = "dagster/root_run_id"
_KEPT_EVENTS = (
    dg.DagsterEventType.ASSET_MATERIALIZATION.value,
    dg.DagsterEventType.ASSET_OBSERVATION.value,
)


@dataclass(frozen=True)
class Pruning:
    """What pruning deletes.

    Attributes:
        before: runs that ended before it are deleted.
        run_ids: the runs to delete.
        kept: the old runs that are kept, because their failure is not solved.
        size: the size of the instance's SQLite files in bytes; None for another database.
    """

    before: datetime
    run_ids: Sequence[str]
    kept: Sequence[str]
    size: int | None


def plan_pruning(instance: dg.DagsterInstance, keep: timedelta) -> Pruning:
    """Return what pruning would delete: the runs that ended before, and are not needed.

    Kept are runs that have not ended, and those whose failure is the latest attempt of an asset, of a
    partition or of a check.
    """
    before = datetime.now(UTC) - keep
    failed = dg.DagsterRunStatus.FAILURE
    needed = {at.run_id for at in unfinished_attempts(instance) if at.status is failed}
    needed |= {result.run_id for result in failed_checks(instance)}
    query = select(RUNS.c.run_id).where(
        RUNS.c.status.in_([status.value for status in FINISHED]),
        # A run that was canceled in the queue has no end.
        or_(
            RUNS.c.end_time < before.timestamp(),
            and_(RUNS.c.end_time.is_(None), RUNS.c.update_timestamp < before.replace(tzinfo=None)),
        ),
    )
    roots = select(RUN_TAGS.c.run_id, RUN_TAGS.c.value).where(RUN_TAGS.c.key == _ROOT_RUN)
    with dagster_tables.runs_connection(instance) as connection:
        old = [run_id for (run_id,) in connection.execute(query.order_by(RUNS.c.id))]
        deleted = set(old) - needed
        # Dagster needs the first run of those that were retried.
        needed |= {root for run_id, root in connection.execute(roots) if run_id not in deleted}
    return Pruning(
        before,
        [run_id for run_id in old if run_id not in needed],
        [run_id for run_id in old if run_id in needed],
        storage_size(instance),
    )


def prune(
    instance: dg.DagsterInstance,
    pruning: Pruning,
    progress: Callable[[int], None] = lambda _: None,
) -> int | None:
    """Delete the runs of a plan with their events and logs, and old ticks.

    It can be stopped at any time, and run again: the row of a run goes last. With SQLite, the space is
    given back to the disk; Postgres reuses it.

    Args:
        instance: the instance; its daemon may be running.
        pruning: the plan.
        progress: is called with the number of runs deleted so far.

    Returns:
        The size of the instance's SQLite files after it in bytes; None for another database.
    """
    done = 0
    for run_ids in batches(pruning.run_ids, RUNS_PER_BATCH):
        _delete_events(instance, run_ids)
        for run_id in run_ids:
            _delete_files(instance, run_id)
        with dagster_tables.runs_connection(instance) as connection:
            # SQLite deletes no tags with a run.
            connection.execute(delete(RUN_TAGS).where(RUN_TAGS.c.run_id.in_(run_ids)))
            connection.execute(delete(RUNS).where(RUNS.c.run_id.in_(run_ids)))
        done += len(run_ids)
        progress(done)
    for state in dagster_internals.instigators(instance, switched_on=False):
        last = dagster_internals.ticks(instance, state, list(dagster_internals.TickStatus))
        before = min([pruning.before.timestamp(), *(tick.timestamp for tick in last)])
        dagster_internals.purge_ticks(instance, state, before)
    _vacuum(instance)
    return storage_size(instance)


def storage_size(instance: dg.DagsterInstance) -> int | None:
    """Return the size of the instance's SQLite files in bytes; None for another database."""
    files = [_sqlite_file(connection) for connection in _connections(instance)]
    paths = {file for file in files if file}
    if not paths:
        return None
    folders = {file.parent for file in paths}
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.db*"))


def _delete_events(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Delete the events of some runs, except the latest of each asset and partition."""
    kept = _latest_events(run_ids)
    events = and_(EVENTS.c.run_id.in_(run_ids), EVENTS.c.id.not_in(kept))
    checks = and_(CHECK_RESULTS.c.run_id.in_(run_ids), CHECK_RESULTS.c.id.not_in(_latest_results()))
    with dagster_tables.events_connection(instance) as connection:
        ids = [
            event
            for (event,) in connection.execute(
                select(EVENTS.c.id).where(events, EVENTS.c.dagster_event_type.in_(_KEPT_EVENTS))
            )
        ]
        for part in batches(ids):
            connection.execute(delete(EVENT_TAGS).where(EVENT_TAGS.c.event_id.in_(part)))
        connection.execute(delete(EVENTS).where(events))
        connection.execute(delete(CHECK_RESULTS).where(checks))


def _latest_events(run_ids: Sequence[str]) -> Any:
    """Return the query for the ids of events to keep.

    They are the latest materialization and observation of each asset and partition, and the last event
    of all: SQLite would give its id to a new event, which the cursors of sensors have passed.
    """
    touched = (
        select(EVENTS.c.asset_key)
        .where(EVENTS.c.run_id.in_(run_ids), EVENTS.c.dagster_event_type.in_(_KEPT_EVENTS))
        .distinct()
    )
    latest = (
        select(func.max(EVENTS.c.id))
        .where(EVENTS.c.asset_key.in_(touched), EVENTS.c.dagster_event_type.in_(_KEPT_EVENTS))
        .group_by(EVENTS.c.asset_key, EVENTS.c.dagster_event_type, EVENTS.c.partition)
    )
    return latest.union_all(select(func.max(EVENTS.c.id)))


def _latest_results() -> Any:
    """Return the query for the ids of the latest result of each check and partition."""
    columns = CHECK_RESULTS.c
    return (
        select(func.max(columns.id))
        .where(columns.execution_status != PLANNED)
        .group_by(columns.asset_key, columns.check_name, columns.partition)
    )


def _delete_files(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete the SQLite file of a run, what its steps printed, and what they passed to each other."""
    if file := dagster_tables.run_file(instance, run_id):
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)
    dagster_tables.delete_compute_logs(instance, run_id)
    if folder := dagster_tables.run_artifacts(instance, run_id):
        shutil.rmtree(folder, ignore_errors=True)


def _connections(instance: dg.DagsterInstance) -> Iterator[Any]:
    """Yield a connection to each database of the instance, one after the other."""
    for connect in (
        dagster_tables.events_connection,
        dagster_tables.runs_connection,
        dagster_tables.ticks_connection,
    ):
        with connect(instance) as connection:
            yield connection


def _vacuum(instance: dg.DagsterInstance) -> None:
    """Give the free space of SQLite files back to the disk. Writers wait meanwhile."""
    for connection in _connections(instance):
        if _sqlite_file(connection):
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_VACUUM_WAIT_MILLISECONDS}")
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _sqlite_file(connection: Any) -> Path | None:
    """Return the file of a database; None for a server, or for a database in memory."""
    url = connection.engine.url
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(url.database) if is_file else None
