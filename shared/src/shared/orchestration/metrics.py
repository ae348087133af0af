"""Metrics of the Dagster instance for Prometheus, read when they are scraped.

Counters count what happened since this process started, so they only grow, also after old runs are
pruned. Each scrape reads the new events; the number of queries does not grow with runs or partitions.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC

import dagster as dg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, and_, func, select

from shared.orchestration import dagster_internals, dagster_tables
from shared.orchestration.attempts import FINISHED, batches, failed_checks, unfinished_attempts
from shared.orchestration.dagster_internals import TickStatus
from shared.orchestration.dagster_tables import (
    EVENTS,
    REPOSITORY_LABEL_TAG,
    RUN_TAGS,
    RUNS,
)

CACHE_SECONDS = 5.0
"""Scrapes within it get the same numbers, without a query."""

SLOW_CACHE_SECONDS = 60.0
"""As `CACHE_SECONDS`, for what reads the latest attempt of every partition."""

EVENTS_PER_QUERY = 2_000

_MATERIALIZED = dg.DagsterEventType.ASSET_MATERIALIZATION.value
_ENDED = {
    dg.DagsterEventType.RUN_SUCCESS.value: "success",
    dg.DagsterEventType.RUN_FAILURE.value: "failure",
    dg.DagsterEventType.RUN_CANCELED.value: "canceled",
}
_NUMBERS = {
    "rows_loaded": ("etl_rows_loaded", "Rows that loads have added or replaced."),
    "bytes_read": ("etl_bytes_read", "Bytes that loads have read."),
    "duration_seconds": ("etl_load_seconds", "Seconds that loads took."),
}
"""The counters of what a load's metadata has."""


class InstanceCollector(Collector):
    """Reads an instance when Prometheus scrapes it.

    Args:
        instance: the instance. It is not read before the first scrape.
        cache_seconds: scrapes within it get the same numbers.
        slow_cache_seconds: the same for failed partitions and checks.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        cache_seconds: float = CACHE_SECONDS,
        slow_cache_seconds: float = SLOW_CACHE_SECONDS,
    ) -> None:
        self._instance = instance
        self._cache_seconds, self._slow_cache_seconds = cache_seconds, slow_cache_seconds
        self._lock = threading.Lock()
        self._cached: list[Metric] = []
        self._slow: list[Metric] = []
        self._cached_until = self._slow_until = 0.0
        self._cursor: int | None = None
        self._runs: Counter[tuple[str, str, str]] = Counter()
        self._numbers = {name: Counter[str]() for name in ("loads", *_NUMBERS)}
        self._last_success: dict[str, float] = {}

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registration does not read the instance."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        with self._lock:
            started = time.monotonic()
            if started >= self._cached_until:
                self._read_events()
                metrics = [*self._counters(), *self._current_runs(), *self._daemons()]
                if started >= self._slow_until:
                    self._slow = [*self._failures(), *self._ticks()]
                    self._slow_until = started + self._slow_cache_seconds
                took = GaugeMetricFamily("etl_collect_seconds", "Seconds to read the instance.")
                took.add_metric([], time.monotonic() - started)
                self._cached = [*metrics, took]
                self._cached_until = started + self._cache_seconds
            return [*self._cached, *self._slow]

    def _read_events(self) -> None:
        """Count the events since the last scrape; at the first one, only note when assets were loaded."""
        if self._cursor is None:
            self._add_known_jobs()
            query = select(EVENTS.c.asset_key, func.max(EVENTS.c.timestamp)).where(
                EVENTS.c.dagster_event_type == _MATERIALIZED, EVENTS.c.asset_key.is_not(None)
            )
            with dagster_tables.events_connection(self._instance) as connection:
                self._cursor = connection.execute(select(func.max(EVENTS.c.id))).scalar() or 0
                for key, loaded_at in connection.execute(query.group_by(EVENTS.c.asset_key)):
                    self._last_success[_name(key)] = loaded_at.replace(tzinfo=UTC).timestamp()
            for counter in self._numbers.values():
                counter.update(dict.fromkeys(self._last_success, 0))
        query = (
            select(EVENTS.c.id, EVENTS.c.run_id, EVENTS.c.dagster_event_type, EVENTS.c.event)
            .where(EVENTS.c.dagster_event_type.in_([_MATERIALIZED, *_ENDED]))
            .order_by(EVENTS.c.id)
            .limit(EVENTS_PER_QUERY)
        )
        ended: dict[str, str] = {}
        while True:
            with dagster_tables.events_connection(self._instance) as connection:
                rows = connection.execute(query.where(EVENTS.c.id > self._cursor)).fetchall()
            for event_id, run_id, kind, text in rows:
                self._cursor = event_id
                if kind == _MATERIALIZED:
                    self._add_load(dagster_tables.stored_event(text))
                else:
                    ended[run_id] = _ENDED[kind]
            if len(rows) < EVENTS_PER_QUERY:
                break
        for run_id, (location, job) in self._labels(list(ended)).items():
            self._runs[location, job, ended[run_id]] += 1

    def _add_known_jobs(self) -> None:
        """Start the counters of known jobs at 0: Prometheus sees no increase in a new series."""
        query = select(RUNS.c.pipeline_name, RUN_TAGS.c.value).distinct()
        with dagster_tables.runs_connection(self._instance) as connection:
            rows = connection.execute(query.join(RUN_TAGS, _is_location_tag(), isouter=True))
            for job, tag in rows:
                self._runs.update({(_location(tag), job, end): 0 for end in _ENDED.values()})

    def _add_load(self, entry: dg.EventLogEntry) -> None:
        materialization = entry.asset_materialization
        if materialization is None:
            return
        asset = materialization.asset_key.to_user_string()
        self._last_success[asset] = entry.timestamp
        self._numbers["loads"][asset] += 1
        for name in _NUMBERS:
            value = materialization.metadata.get(name)
            number = value.value if value else None
            if isinstance(number, int | float):
                self._numbers[name][asset] += number  # type: ignore[assignment]  # or a float

    def _labels(self, run_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return the location and the job of some runs."""
        labels = {}
        with dagster_tables.runs_connection(self._instance) as connection:
            for ids in batches(run_ids):
                query = (
                    select(RUNS.c.run_id, RUNS.c.pipeline_name, RUN_TAGS.c.value)
                    .join(RUN_TAGS, _is_location_tag(), isouter=True)
                    .where(RUNS.c.run_id.in_(ids))
                )
                for run_id, job, tag in connection.execute(query):
                    labels[run_id] = _location(tag), job
        return labels

    def _counters(self) -> Iterable[Metric]:
        runs = CounterMetricFamily(
            "etl_runs", "Runs that have ended.", labels=("location", "job", "status")
        )
        for labels, count in self._runs.items():
            runs.add_metric(labels, count)
        yield runs
        families = {"loads": ("etl_materializations", "Materializations of assets."), **_NUMBERS}
        for name, (metric, description) in families.items():
            counter = CounterMetricFamily(metric, description, labels=("asset",))
            for asset, number in self._numbers[name].items():
                counter.add_metric([asset], number)
            yield counter
        loaded = GaugeMetricFamily(
            "etl_asset_last_success_timestamp_seconds",
            "When the asset was last materialized.",
            labels=("asset",),
        )
        for asset, timestamp in sorted(self._last_success.items()):
            loaded.add_metric([asset], timestamp)
        yield loaded

    def _current_runs(self) -> Iterable[Metric]:
        tag = func.coalesce(RUN_TAGS.c.value, "")
        columns = (RUNS.c.status, RUNS.c.pipeline_name, tag)
        query = (
            select(*columns, func.count(), func.min(RUNS.c.create_timestamp))
            .join(RUN_TAGS, _is_location_tag(), isouter=True)
            .where(RUNS.c.status.not_in([status.value for status in FINISHED]))
            .group_by(*columns)
        )
        with dagster_tables.runs_connection(self._instance) as connection:
            rows = connection.execute(query).fetchall()
        current = GaugeMetricFamily(
            "etl_runs_in_progress",
            "Runs that have not ended.",
            labels=("location", "job", "status"),
        )
        queued, oldest = 0, 0.0
        for status, job, tag_value, count, created in rows:
            current.add_metric([_location(tag_value), job, status.lower()], count)
            if status == dg.DagsterRunStatus.QUEUED.value:
                queued += count
                oldest = max(oldest, time.time() - created.replace(tzinfo=UTC).timestamp())
        yield current
        yield GaugeMetricFamily("etl_queue_length", "Runs in the queue.", value=queued)
        yield GaugeMetricFamily(
            "etl_queue_oldest_seconds", "How long the oldest run is in the queue.", value=oldest
        )

    def _daemons(self) -> Iterable[Metric]:
        beats = GaugeMetricFamily(
            "etl_daemon_last_heartbeat_timestamp_seconds",
            "When a part of Dagster's daemon last reported that it runs.",
            labels=("daemon",),
        )
        for daemon, timestamp in dagster_internals.daemon_heartbeats(self._instance).items():
            beats.add_metric([daemon.lower()], timestamp)
        yield beats

    def _failures(self) -> Iterable[Metric]:
        failed = Counter(
            attempt.key.to_user_string()
            for attempt in unfinished_attempts(self._instance)
            if attempt.status is dg.DagsterRunStatus.FAILURE
        )
        assets = GaugeMetricFamily(
            "etl_asset_failed_partitions",
            "Partitions whose latest run failed; 1 for a failed asset without partitions.",
            labels=("asset",),
        )
        for asset in sorted(self._last_success.keys() | failed):
            assets.add_metric([asset], failed[asset])
        yield assets
        checks = GaugeMetricFamily(
            "etl_check_failed",
            "Checks whose latest result is a failure.",
            labels=("asset", "check"),
        )
        for check in dict.fromkeys(result.check for result in failed_checks(self._instance)):
            checks.add_metric([check.asset_key.to_user_string(), check.name], 1)
        yield checks

    def _ticks(self) -> Iterable[Metric]:
        ticks = GaugeMetricFamily(
            "etl_tick_failed",
            "Whether the last tick of a schedule or a sensor that is on failed.",
            labels=("location", "name"),
        )
        ended = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
        for state in dagster_internals.instigators(self._instance):
            for last in dagster_internals.ticks(self._instance, state, ended):
                place = dagster_internals.location_of_instigator(state)
                ticks.add_metric([place, state.name], last.status is TickStatus.FAILURE)
        yield ticks


def _is_location_tag() -> ColumnElement[bool]:
    return and_(RUN_TAGS.c.run_id == RUNS.c.run_id, RUN_TAGS.c.key == REPOSITORY_LABEL_TAG)


def _location(tag: str | None) -> str:
    """Return the location of a tag `repository@location`; empty for runs of a command line."""
    return (tag or "").rpartition("@")[2]


def _name(stored: str) -> str:
    key = dg.AssetKey.from_db_string(stored)
    return key.to_user_string() if key else stored
