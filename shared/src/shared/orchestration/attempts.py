"""The latest attempts of assets and checks, read from the tables of the Dagster instance.

Dagster's public methods need a query per asset or per run; these need a fixed number.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import dagster as dg
from sqlalchemy import and_, case, func, or_, select

from shared.orchestration import dagster_internals, dagster_tables
from shared.orchestration.dagster_tables import ASSETS, CHECK_RESULTS, EVENTS, RUNS

T = TypeVar("T")

MAX_IDS_PER_QUERY = 1_000
"""Ids in one query; SQLite allows 32,766 parameters."""

FINISHED = {
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
}
"""The statuses of runs that have ended."""

PLANNED = "PLANNED"
"""The status of a check that has not been evaluated."""

_SUCCEEDED = "SUCCEEDED"


@dataclass(frozen=True)
class Attempt:
    """The latest attempt to materialize an asset, or one of its partitions, that has not succeeded.

    Attributes:
        key: the asset.
        partition: its partition; None without partitions.
        run_id: the run that tried.
        status: the status of that run; it may still be running.
    """

    key: dg.AssetKey
    partition: str | None
    run_id: str
    status: dg.DagsterRunStatus

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended."""
        return self.status in FINISHED


@dataclass(frozen=True)
class CheckResult:
    """The latest result of a check that has failed, or that did not run because its run failed.

    Attributes:
        check: the check.
        partition: its partition; None without partitions.
        run_id: the run that evaluated it.
        evaluated: its result; None if it did not run.
    """

    check: dg.AssetCheckKey
    partition: str | None
    run_id: str
    evaluated: dg.AssetCheckEvaluation | None


def unfinished_attempts(
    instance: dg.DagsterInstance, key: dg.AssetKey | None = None
) -> list[Attempt]:
    """Return the attempts after which no run has materialized the same asset or partition.

    Attempts of deleted runs are left out.

    Args:
        instance: the instance.
        key: an asset; by default all.
    """
    kinds = (
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
    )
    planned, done = (
        func.max(case((EVENTS.c.dagster_event_type == kind.value, EVENTS.c.id))) for kind in kinds
    )
    grouped = (
        select(EVENTS.c.asset_key, EVENTS.c.partition, planned.label("planned"))
        .join(ASSETS, ASSETS.c.asset_key == EVENTS.c.asset_key)
        .where(
            EVENTS.c.dagster_event_type.in_([kind.value for kind in kinds]),
            or_(ASSETS.c.wipe_timestamp.is_(None), EVENTS.c.timestamp > ASSETS.c.wipe_timestamp),
        )
        .group_by(EVENTS.c.asset_key, EVENTS.c.partition)
        .having(planned > func.coalesce(done, 0))
    )
    if key is not None:
        grouped = grouped.where(EVENTS.c.asset_key == key.to_string())
    latest = grouped.subquery()
    query = select(latest.c.asset_key, latest.c.partition, EVENTS.c.run_id).join(
        EVENTS, EVENTS.c.id == latest.c.planned
    )
    with dagster_tables.events_connection(instance) as connection:
        rows = connection.execute(query).fetchall()
    statuses = run_statuses(instance, {run_id for _, _, run_id in rows})
    return [
        Attempt(_asset_key(key), partition, run_id, statuses[run_id])
        for key, partition, run_id in rows
        if run_id in statuses
    ]


def failed_checks(instance: dg.DagsterInstance) -> list[CheckResult]:
    """Return the checks whose latest result is a failure, `ERROR` or `WARN`."""
    columns = CHECK_RESULTS.c
    is_done = columns.execution_status != PLANNED
    latest = (
        select(
            func.max(columns.id).label("last"),
            func.max(case((is_done, columns.id))).label("done"),
        )
        .group_by(columns.asset_key, columns.check_name, columns.partition)
        .subquery()
    )
    query = (
        select(columns.asset_key, columns.check_name, columns.partition, columns.run_id)
        .add_columns(columns.execution_status, columns.evaluation_event)
        .join(
            latest,
            or_(
                and_(columns.id == latest.c.last, ~is_done),
                and_(columns.id == latest.c.done, columns.execution_status != _SUCCEEDED),
            ),
        )
        .order_by(columns.id)
    )
    with dagster_tables.events_connection(instance) as connection:
        rows = connection.execute(query).fetchall()
    statuses = run_statuses(instance, {row.run_id for row in rows if _is_planned(row)})
    results = {}
    for row in rows:
        if _is_planned(row) and statuses.get(row.run_id) != dg.DagsterRunStatus.FAILURE:
            continue  # it is running, or was canceled: the result before it counts
        check = dg.AssetCheckKey(_asset_key(row.asset_key), row.check_name)
        evaluation = None
        if not _is_planned(row):
            event = dagster_tables.stored_event(row.evaluation_event).dagster_event
            evaluation = dagster_internals.check_evaluation(event) if event else None
        results[check, row.partition] = CheckResult(check, row.partition, row.run_id, evaluation)
    return list(results.values())


def run_statuses(
    instance: dg.DagsterInstance, run_ids: Iterable[str]
) -> dict[str, dg.DagsterRunStatus]:
    """Return the statuses of some runs; those that were deleted are left out."""
    statuses = {}
    with dagster_tables.runs_connection(instance) as connection:
        for ids in batches(sorted(run_ids)):
            query = select(RUNS.c.run_id, RUNS.c.status).where(RUNS.c.run_id.in_(ids))
            statuses.update(
                {
                    run_id: dg.DagsterRunStatus(status)
                    for run_id, status in connection.execute(query)
                }
            )
    return statuses


def batches(items: Sequence[T], size: int = MAX_IDS_PER_QUERY) -> Iterator[Sequence[T]]:
    """Yield parts of a sequence."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _is_planned(row: object) -> bool:
    return getattr(row, "execution_status", None) == PLANNED


def _asset_key(stored: str) -> dg.AssetKey:
    key = dg.AssetKey.from_db_string(stored)
    assert key
    return key
