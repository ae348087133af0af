"""What needs attention: failed and missing partitions, failed checks, stale tables, stuck runs, failed ticks.

The Dagster instance is the source. The warehouse is not read.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from shlex import quote
from typing import Any, Literal

import dagster as dg

from shared.orchestration import dagster_internals
from shared.orchestration.attempts import Attempt, failed_checks, unfinished_attempts
from shared.redaction import redact

MAX_QUEUED = timedelta(hours=1)
"""How long a run may be in the queue, or start, before it counts as stuck."""

MAX_RUNNING = timedelta(days=1)
"""How long a run may take before it counts as stuck; deploy/dagster.yaml ends it then."""

_WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
_MAX_AGES = {
    dg.DagsterRunStatus.STARTING: MAX_QUEUED,
    dg.DagsterRunStatus.STARTED: MAX_RUNNING,
    dg.DagsterRunStatus.CANCELING: MAX_QUEUED,
}

MAX_DAEMON_SILENCE = timedelta(minutes=10)
"""How long the daemon may be silent; it reports every half minute."""

MAX_RANGES = 3
"""Ranges of partitions in a message; the others are counted."""

_MAX_REASON_CHARS = 200
_ENDED_TICKS = (
    dagster_internals.TickStatus.SUCCESS,
    dagster_internals.TickStatus.SKIPPED,
    dagster_internals.TickStatus.FAILURE,
)


@dataclass(frozen=True)
class Problem:
    """One thing that needs attention.

    Attributes:
        kind: what it is.
        subject: the asset, check, run, schedule or sensor.
        message: what is wrong, in one line.
        fix: the next command, or the next step.
        is_failure: whether something failed; False for missing partitions and warnings.
        count: the number of partitions; 1 for others.
        partitions: the first and the last partition of each range.
        run_id: the latest run of the subject, if there is one.
        location: the code location, if it is known.
    """

    kind: Literal["failed", "check", "missing", "stale", "stuck", "tick", "daemon", "location"]
    subject: str
    message: str
    fix: str
    is_failure: bool = True
    count: int = 1
    partitions: Sequence[tuple[str, str]] = ()
    run_id: str = ""
    location: str = ""


def location_problems(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> list[Problem]:
    """Return the problems of a location's assets: failed, missing and stale ones, and failed checks."""
    graph = dagster_internals.repository_graph(repository)
    attempts: dict[dg.AssetKey, list[Attempt]] = {}
    for attempt in unfinished_attempts(instance):
        attempts.setdefault(attempt.key, []).append(attempt)
    problems: list[Problem] = []
    for key in dagster_internals.materializable_keys(graph):
        node = dagster_internals.asset_node(graph, key)
        problems += asset_problems(
            instance, key, node.partitions_def, attempts.get(key, ()), node.backfill_policy
        )
    problems += _check_problems(instance, dagster_internals.checks_of(graph))
    states = dagster_internals.freshness(repository, instance)
    return [*problems, *(_stale(instance, key) for key, fresh in states.items() if fresh is False)]


def unknown_asset_problems(
    instance: dg.DagsterInstance, known: Collection[str] = ()
) -> list[Problem]:
    """Return failed assets and checks without definitions, except those of some known assets."""
    attempts = [
        attempt
        for attempt in unfinished_attempts(instance)
        if attempt.status is dg.DagsterRunStatus.FAILURE
        and attempt.key.to_user_string() not in known
    ]
    attempts.sort(key=lambda attempt: (attempt.key.to_user_string(), attempt.partition or ""))
    problems = []
    for key, group in groupby(attempts, key=lambda attempt: attempt.key):
        failed = {attempt.partition: attempt for attempt in group}
        problems.append(_failed(instance, key, failed))
    return [*problems, *_check_problems(instance, None, known)]


def asset_problems(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    partitions: dg.PartitionsDefinition[Any] | None,
    attempts: Sequence[Attempt],
    policy: dg.BackfillPolicy | None = None,
    *,
    latest: int | None = None,
) -> Iterator[Problem]:
    """Yield what failed and what is missing of an asset.

    A window of time is missing only after it has ended. What a run is loading now is not missing.

    Args:
        instance: the instance.
        key: the asset.
        partitions: its partitions.
        attempts: its unfinished attempts.
        policy: its backfill policy, for the command that loads several partitions.
        latest: only the latest partitions can be missing; by default all.
    """
    keys = complete_partitions(partitions, instance) if partitions else []
    expected: set[str | None] = set(keys) if partitions else {None}
    current = {at.partition: at for at in attempts if at.partition in expected}
    failed = {
        partition: attempt
        for partition, attempt in current.items()
        if attempt.status is dg.DagsterRunStatus.FAILURE
    }
    if failed:
        yield _failed(instance, key, failed, keys, policy)
    pending = {part for part, at in current.items() if not at.is_finished}
    if partitions:
        loaded = dagster_internals.materialized_partitions(instance, key)
        known = loaded | pending | set(failed)
        missing = [part for part in keys[-latest if latest else 0 :] if part not in known]
        if missing:
            yield _missing(key, missing, keys, policy)
    elif not failed and not pending and not instance.get_latest_materialization_event(key):
        command = _command(key, [], policy)
        yield Problem("missing", key.to_user_string(), "was never loaded", command, False)


def complete_partitions(
    partitions: dg.PartitionsDefinition[Any], instance: dg.DagsterInstance
) -> list[str]:
    """Return the keys of partitions, without the windows of time that have not ended."""
    keys = list(partitions.get_partition_keys(dynamic_partitions_store=instance))
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        now = time.time()
        while keys and partitions.time_window_for_partition_key(keys[-1]).end.timestamp() > now:
            keys.pop()
    return keys


def partition_ranges(partitions: Collection[str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return the ranges of neighboring partitions, in the order of all keys: first and last of each."""
    wanted = set(partitions)
    positions = [position for position, key in enumerate(keys) if key in wanted]
    ranges = []
    for _, group in groupby(enumerate(positions), key=lambda item: item[1] - item[0]):
        members = [position for _, position in group]
        ranges.append((keys[members[0]], keys[members[-1]]))
    return ranges


def describe_ranges(ranges: Sequence[tuple[str, str]]) -> str:
    """Return the first ranges as text, and how many more there are."""
    shown = [
        first if first == last else f"{first} to {last}" for first, last in ranges[:MAX_RANGES]
    ]
    more = len(ranges) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more ranges" if more else "")


def stuck_runs(instance: dg.DagsterInstance, location: str | None = None) -> list[Problem]:
    """Return the runs that are queued or started for long, or whose process is gone.

    A long queue is not stuck while any run is executed, as in a backfill.
    """
    waiting, problems, is_moving = [], [], False
    for record in instance.get_run_records(dg.RunsFilter(statuses=[*_WAITING, *_MAX_AGES])):
        run = record.dagster_run
        since = record.start_time or record.create_timestamp.replace(tzinfo=UTC).timestamp()
        is_late = time.time() - since >= _MAX_AGES.get(run.status, MAX_QUEUED).total_seconds()
        is_gone = bool(record.start_time) and dagster_internals.is_process_gone(instance, run)
        if run.status not in _WAITING:
            is_moving |= not (is_late or is_gone)
        if not (is_late or is_gone) or location not in (None, dagster_internals.run_location(run)):
            continue
        if run.status in _WAITING:
            waiting.append((since, run))
            continue
        state = run.status.value.lower()
        message = f"{state} since {_utc(since)}{', and its process is gone' if is_gone else ''}"
        fix = "terminate it in the UI (Runs), or start the daemon, which ends it"
        subject = f"run {run.run_id[:8]} of {_run_subject(run)}"
        problems.append(Problem("stuck", subject, message, fix, run_id=run.run_id))
    if waiting and not is_moving:
        since, run = min(waiting, key=lambda item: item[0])
        message = (
            f"{len(waiting):,} runs wait, the first since {_utc(since)}, and no run is executed"
        )
        fix = "see that `dagster dev`, or the daemon and the locations, are running"
        count = len(waiting)
        problems.append(Problem("stuck", "the queue", message, fix, count=count, run_id=run.run_id))
    return problems


def daemon_problems(instance: dg.DagsterInstance) -> list[Problem]:
    """Return whether schedules and sensors are on, but the daemon that evaluates them does not run."""
    states = dagster_internals.instigators(instance)
    last = max(dagster_internals.daemon_heartbeats(instance).values(), default=0.0)
    if not states or time.time() - last < MAX_DAEMON_SILENCE.total_seconds():
        return []
    since = f"since {_utc(last)}" if last else "for this instance"
    message = f"no daemon has run {since}, so {len(states):,} schedules and sensors do not tick"
    fix = "uv run dagster dev -w workspace.yaml, or start the daemon's service"
    return [Problem("daemon", "the daemon", message, fix, is_failure=False)]


def failed_ticks(
    instance: dg.DagsterInstance, location: str | None = None, exclude: Collection[str] = ()
) -> list[Problem]:
    """Return the schedules and sensors that are switched on and whose last tick failed."""
    problems = []
    for state in dagster_internals.instigators(instance, location):
        last = next(iter(dagster_internals.ticks(instance, state, _ENDED_TICKS)), None)
        if state.name in exclude or not last:
            continue
        if last.status is dagster_internals.TickStatus.FAILURE:
            kind = state.instigator_type.value.lower()
            place = dagster_internals.location_of_instigator(state)
            message = f"its last tick failed at {_utc(last.timestamp)}: {tick_error(last)}"
            fix = "open it in the UI under Automation; after the fix, its next tick clears this"
            subject = f"{kind} {state.name} of {place}"
            problems.append(Problem("tick", subject, message, fix, location=place))
    return problems


def tick_error(tick: dagster_internals.InstigatorTick) -> str:
    """Return the innermost error of a failed tick, in one line."""
    error = tick.error
    while error and error.cause:
        error = error.cause
    lines = str(error.message if error else "").strip().splitlines()
    return _brief(lines[-1] if lines else "no error was stored")


def _check_problems(
    instance: dg.DagsterInstance,
    checks: Collection[dg.AssetCheckKey] | None,
    known: Collection[str] = (),
) -> Iterator[Problem]:
    """Yield the failed checks: some, or all except those of known assets."""
    for result in failed_checks(instance):
        key = result.check.asset_key
        if key.to_user_string() in known or (checks is not None and result.check not in checks):
            continue
        evaluation = result.evaluated
        partition = f", partition {result.partition}" if result.partition else ""
        text = evaluation.description if evaluation else "it did not run, because its run failed"
        severity = evaluation.severity if evaluation else dg.AssetCheckSeverity.ERROR
        yield Problem(
            "check",
            f"{key.to_user_string()} {result.check.name}",
            f"{severity.value}{partition}: {_brief(text or 'failed')}",
            f"fix the data, then: {_command(key, [result.partition or ''], None)}",
            severity is dg.AssetCheckSeverity.ERROR,
            run_id=result.run_id,
        )


def _failed(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    failed: Mapping[str | None, Attempt],
    keys: Sequence[str] | None = None,
    policy: dg.BackfillPolicy | None = None,
) -> Problem:
    """Return the problem of some failed partitions; without all keys, none counts as a neighbor."""
    names = [partition for partition in failed if partition is not None]
    ranges = [(name, name) for name in names] if keys is None else partition_ranges(names, keys)
    last = list(failed.values())[-1]
    what = f"{len(failed):,} partitions failed, {describe_ranges(ranges)}: " if ranges else ""
    if len(failed) == 1 and ranges:
        what = f"partition {ranges[0][0]} failed: "
    reason = failure_reason(instance, last.run_id)
    return Problem(
        "failed",
        key.to_user_string(),
        f"{what}{reason}",
        _command(key, ranges[0] if ranges else [], policy),
        count=len(failed),
        partitions=ranges,
        run_id=last.run_id,
    )


def _missing(
    key: dg.AssetKey,
    missing: Sequence[str],
    keys: Sequence[str],
    policy: dg.BackfillPolicy | None,
) -> Problem:
    ranges = partition_ranges(missing, keys)
    message = f"{len(missing):,} of {len(keys):,} partitions: {describe_ranges(ranges)}"
    command = _command(key, ranges[-1], policy)  # the latest ones are wanted first
    return Problem("missing", key.to_user_string(), message, command, False, len(missing), ranges)


def _stale(instance: dg.DagsterInstance, key: dg.AssetKey) -> Problem:
    event = instance.get_latest_materialization_event(key)
    message = f"last loaded {_utc(event.timestamp)}" if event else "never loaded"
    return Problem("stale", key.to_user_string(), message, _command(key, [], None))


def _command(key: dg.AssetKey, partitions: Sequence[str], policy: dg.BackfillPolicy | None) -> str:
    """Return the command that loads an asset, or the first partitions of a range."""
    command = f"uv run etl run {key.to_user_string()}"
    named = [partition for partition in partitions if partition]
    if not named:
        return command
    is_single_run = policy is not None and policy.max_partitions_per_run is None
    if len(set(named)) > 1 and is_single_run:
        return f"{command} --from {quote(named[0])} --to {quote(named[-1])}"
    return f"{command} --partition {quote(named[0])}"


def failure_reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why a run failed, in one line."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = [
        record.event_log_entry.dagster_event
        for record in dagster_internals.run_records(instance, run_id, kinds)
    ]
    steps = [event for event in events if event and event.is_step_failure]
    for event in steps or events:
        if event and (message := dagster_internals.failure_message(event)):
            return _brief(message)
    return "a check that it depends on failed" if events else "its events are deleted"


def _run_subject(run: dg.DagsterRun) -> str:
    keys = sorted(key.to_user_string() for key in run.asset_selection or ())
    return _brief(", ".join(keys)) or run.job_name


def _utc(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"


def _brief(text: str) -> str:
    """Return one line without secrets, not too long."""
    line = " ".join(redact(text).split())
    return line if len(line) <= _MAX_REASON_CHARS else f"{line[:_MAX_REASON_CHARS].rstrip()} …"
