"""The sensor that loads the tables of a database only when they have changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b

import dagster as dg

from shared.orchestration.dagster_internals import run_records
from shared.orchestration.translator import asset_key
from shared.sources.database.probe import Facts, describe_change, probe_tables
from shared.sources.database.table import Table

CHANGED_TABLES = "etl/changed_tables"
"""The run tag that says which tables have changed, and how."""

CHANGE_REQUEST = "etl/change_request"
"""The run tag by which the sensor finds the run that it requested, and Dagster's retries of it."""


@dataclass
class _Entry:
    """What the sensor's cursor has about a table.

    Attributes:
        loaded: the facts that a load has, because it began after them; None before the first load.
        requested: the facts for which a run was requested whose end is not known yet.
        request: the last request.
    """

    loaded: Facts | None = None
    requested: Facts | None = None
    request: str = ""


def build_changed_tables_sensor(
    tables: Sequence[Table],
    source_name: str,
    dataset: str,
    *,
    cursors: Mapping[str, str] | None = None,
    name: str = "changed_tables_sensor",
    minimum_interval_seconds: int = 60,
    retry_minutes: float = 10,
) -> dg.SensorDefinition:
    """Return a sensor that requests one run of the tables that have changed since they were loaded.

    Each tick opens one connection and probes all tables; `shared.sources.database.probe` says with which
    queries. A tick must end within Dagster's limit, a minute: so scans suit tables of some million rows.

    A probe counts as loaded once a run that was requested because of it has materialized the table. What
    changes after the probe differs at the next tick, also if the load has it already; then one more load
    finds nothing new. If the run fails or is canceled, another one is requested `retry_minutes` after its
    end, by then for what has changed meanwhile, too. A table whose run is queued or runs waits for its end. After
    a lost cursor each table is loaded once. If the database does not answer, the tick fails, and the
    cursor stays; the next tick probes again.

    Args:
        tables: the tables, as for `database_source`.
        source_name: the name of the source.
        dataset: the dataset of their pipeline, as in the keys of the assets.
        cursors: see `probe_tables`.
        name: the name of the sensor.
        minimum_interval_seconds: how often it probes.
        retry_minutes: how long it waits after a run that failed.

    Raises:
        DagsterInvalidDefinitionError: a table is loaded by partitions, which a probe does not see.
    """
    by_window = [table.target for table in tables if table.mode == "window"]
    if by_window:
        raise dg.DagsterInvalidDefinitionError(
            f"{', '.join(by_window)}: the mode window loads a partition at a time, and a probe does not see "
            "which has changed. Leave it out of the sensor, and load it on a schedule."
        )
    keys = {table.target: asset_key(dataset, table.target) for table in tables}

    @dg.sensor(
        name=name,
        asset_selection=list(keys.values()),
        minimum_interval_seconds=minimum_interval_seconds,
        description=f"Loads the tables of {source_name} that have changed since their last load.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        stored = json.loads(context.cursor) if context.cursor else {}
        entries = {target: _Entry(**stored.get(target, {})) for target in keys}
        waiting = {
            target: reason
            for target, entry in entries.items()
            if (reason := _settle(context.instance, keys[target], entry, retry_minutes * 60))
        }
        changes = _changes(entries, probe_tables(source_name, tables, cursors), waiting)
        return _request(context, keys, entries, changes, waiting)

    return sensor


@dataclass
class _Change:
    """What has changed in a table, and the facts that say so."""

    facts: Facts
    text: str


def _changes(
    entries: Mapping[str, _Entry], facts: Mapping[str, Facts], waiting: Mapping[str, str]
) -> dict[str, _Change]:
    """Return what has changed since the last load, by table, of those that do not wait."""
    return {
        target: _Change(facts[target], describe_change(entry.loaded, facts[target]))
        for target, entry in entries.items()
        if target not in waiting and entry.loaded != facts[target]
    }


def _request(
    context: dg.SensorEvaluationContext,
    keys: Mapping[str, dg.AssetKey],
    entries: Mapping[str, _Entry],
    changes: Mapping[str, _Change],
    waiting: Mapping[str, str],
) -> dg.SensorResult:
    """Return the request of a run of the tables that have changed, and note it in the entries."""
    request = ""
    if changes:
        changed = [(keys[name], entries[name], each.facts) for name, each in changes.items()]
        request = _request_id(context.instance, changed)
        for name, each in changes.items():
            entries[name].requested, entries[name].request = each.facts, request
    cursor = json.dumps({target: asdict(entry) for target, entry in entries.items()})
    if not changes:
        notes = "; ".join(f"{target} {reason}" for target, reason in waiting.items())
        return dg.SensorResult(cursor=cursor, skip_reason=notes or "No table has changed.")
    why = "; ".join(f"{name}: {each.text}" for name, each in changes.items())
    context.log.info("Changed: %s", why)
    run = dg.RunRequest(
        run_key=request,
        asset_selection=[keys[name] for name in changes],
        tags={CHANGED_TABLES: why, CHANGE_REQUEST: request},
    )
    return dg.SensorResult(cursor=cursor, run_requests=[run])


def _settle(
    instance: dg.DagsterInstance, key: dg.AssetKey, entry: _Entry, retry_seconds: float
) -> str:
    """Note in an entry how its request has ended; return why the table waits, empty if it does not."""
    if entry.requested is None:
        return ""
    records = instance.get_run_records(dg.RunsFilter(tags={CHANGE_REQUEST: entry.request}))
    runs = [record.dagster_run for record in records]
    if any(_has_materialized(instance, run.run_id, key) for run in runs):
        entry.loaded, entry.requested = entry.requested, None
        return ""
    if any(not run.is_finished for run in runs):
        return "is being loaded"
    ended = max((record.end_time or 0 for record in records), default=0)
    if datetime.now(UTC).timestamp() < ended + retry_seconds:
        return "waits after a run that failed"
    entry.requested = None
    return ""


def _has_materialized(instance: dg.DagsterInstance, run_id: str, key: dg.AssetKey) -> bool:
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    events = (
        record.event_log_entry.dagster_event for record in run_records(instance, run_id, kind)
    )
    return any(event is not None and event.asset_key == key for event in events)


def _request_id(
    instance: dg.DagsterInstance, tables: Sequence[tuple[dg.AssetKey, _Entry, Facts]]
) -> str:
    """Return the key of a request. A tick that is repeated has the same one, so Dagster ignores it."""
    state = []
    for key, entry, facts in tables:
        records = instance.fetch_materializations(key, limit=1).records
        loaded = records[0].storage_id if records else 0
        state.append([key.path, entry.request, loaded, dict(facts)])
    return blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=9).hexdigest()
