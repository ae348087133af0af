"""Tells a location's owners of failed runs, failed checks and late tables, in their channel.

One sensor does it. Dagster's own sensors for failed runs forget a run whose alert could not be sent;
this one's cursor moves on only once the receiver has taken the message.
"""

import html
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.error import URLError
from urllib.parse import quote

import dagster as dg

# What Dagster shows has no public name.
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.events import JobFailureData
from dagster._core.execution.plan.objects import StepFailureData

from shared import settings
from shared.redaction import redact

MAX_RUNS_PER_TICK = 100
"""Ended runs looked at in a tick, of each kind; the others wait for the next one."""

MAX_ERROR_CHARS = 600
"""Characters of an error's, or a check's, own text in a message."""

MAX_ALERT_CHARS = 3_000
"""Characters of what is said of one run."""

MAX_MESSAGE_CHARS = 12_000
"""Characters of a message: Slack shows 40,000, Mattermost 16,383."""

WEBHOOK_TIMEOUT_SECONDS = 10
"""How long the receiver may take to answer; a sensor's tick has a minute."""

_LOADED = datetime.now(UTC).timestamp()  # what ended before is nobody's news


class AlertDeliveryError(Exception):
    """The receiver of alerts did not take a message; the next tick sends it again."""


@dataclass
class _Cursor:
    """What has been told.

    Attributes:
        since: runs that ended before this moment are not told.
        seen: the last event looked at, by its type.
        late: the tables that are known to be late.
    """

    since: float
    seen: dict[str, int] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)


def _default_status() -> dg.DefaultSensorStatus:
    """Returns whether the sensor is on: the variable is its switch, else its ticks are idle."""
    is_on = bool(settings.get("ALERTS_WEBHOOK_URL"))
    return dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED


@dg.sensor(
    default_status=_default_status(),
    description="Tells the owners of failed runs, failed checks and late tables of this location, in "
    "the channel that ALERTS_WEBHOOK_URL names; where it is set, the sensor is on.",
)
def alert_owners(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Sends one message about all that failed, or became late or fresh again, since the last one.

    Only runs and tables of its own location are told, so each is told once.

    Raises:
        AlertDeliveryError: the receiver did not take it; the cursor stays, so the next tick tells it.
    """
    if not settings.get("ALERTS_WEBHOOK_URL"):
        context.update_cursor("")  # once the variable is set, nothing old is told
        return dg.SkipReason("Nobody is told of failures: ALERTS_WEBHOOK_URL is not set.")
    cursor = _Cursor(**json.loads(context.cursor)) if context.cursor else _Cursor(_LOADED)
    alerts = [*_ended_runs(context, cursor), *_late_tables(context, cursor)]
    if alerts:
        send(alerts)
    context.update_cursor(json.dumps(asdict(cursor)))
    told = f"Sent: {'; '.join(alert.splitlines()[0] for alert in alerts)}"
    return dg.SkipReason(redact(told) if alerts else "Nothing failed, nothing is late.")


def send(alerts: Sequence[str]) -> None:
    """Sends alerts as one message to ALERTS_WEBHOOK_URL, without secrets; those too many are counted.

    Raises:
        AlertDeliveryError: the receiver did not take it; the text does not hold its address.
    """
    from slack_sdk.errors import SlackRequestError  # runs need none of it
    from slack_sdk.webhook import WebhookClient

    message, left = "", [_cut(alert) for alert in alerts]
    while left and len(message) + len(left[0]) < MAX_MESSAGE_CHARS:
        message += f"{left.pop(0)}\n\n"
    if left:
        message += f"and {len(left):,} more: {_page('runs')}"
    log = logging.getLogger(f"{__name__}.client")
    log.disabled = True  # it would tell the address
    client = WebhookClient(
        settings.get("ALERTS_WEBHOOK_URL"), timeout=WEBHOOK_TIMEOUT_SECONDS, logger=log
    )
    try:
        # An upstream's error text must not call a whole channel: Slack reads <!channel>.
        answer = client.send(text=html.escape(redact(message.strip()), quote=False))
    except (OSError, HTTPException, SlackRequestError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else type(error).__name__
        raise AlertDeliveryError(
            f"The receiver that ALERTS_WEBHOOK_URL names could not be reached ({reason}). "
            "The next tick sends the alert again."
        ) from None
    if answer.status_code // 100 != 2:  # noqa: PLR2004 - HTTP's success
        raise AlertDeliveryError(
            f"The receiver that ALERTS_WEBHOOK_URL names answered {answer.status_code} "
            f"({_brief(answer.body)}). The next tick sends the alert again."
        )


def _ended_runs(context: dg.SensorEvaluationContext, cursor: _Cursor) -> Iterator[str]:
    """Yields an alert for each run that failed, or in which a check did, and moves the cursor on."""
    for kind in (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS):
        found = context.instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(
                kind, after_timestamp=cursor.since, after_storage_id=cursor.seen.get(kind.value)
            ),
            limit=MAX_RUNS_PER_TICK,
            ascending=True,
        )
        ids = [record.run_id for record in found.records]
        runs = context.instance.get_runs(dg.RunsFilter(run_ids=ids)) if ids else []
        ours = {run.run_id: run for run in runs if _is_ours(context, run)}
        for record in found.records:
            cursor.seen[kind.value] = record.storage_id
            event = record.event_log_entry.dagster_event
            if (
                record.run_id in ours
                and event
                and (lines := _told(context, ours[record.run_id], event))
            ):
                yield "\n".join(lines)


def _is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Tells whether a run is of the sensor's location; what a command line executes is of none."""
    origin, ours = run.remote_job_origin, context.code_location_origin
    where = origin.repository_origin.code_location_origin.location_name if origin else None
    return where == (ours.location_name if ours else None)


def _told(
    context: dg.SensorEvaluationContext, run: dg.DagsterRun, ended: dg.DagsterEvent
) -> list[str]:
    """Returns what an alert says of an ended run, a line each; none if nothing is wrong."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    events = [
        record.event_log_entry.dagster_event
        for record in context.instance.get_records_for_run(run.run_id, of_type=kinds).records
    ]
    steps = [event for event in events if event and event.is_step_failure]
    # A step that was tried again has evaluated its checks again; the last time counts.
    evaluated = {
        (check.asset_key, check.check_name, check.partition): check
        for event in events
        if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        for check in [event.asset_check_evaluation_data]
    }
    checks = [check for check in evaluated.values() if not check.passed]
    lines = []
    keys = {check.asset_key for check in checks}
    if ended.is_failure:
        assets = _assets(context, run, {str(step.step_key) for step in steps})
        keys |= assets
        again = run.tags.get("dagster/will_retry") == "true"
        lines.append(
            f"*Run failed{', Dagster tries it again' if again else ''}*: "
            f"{_names(assets) or run.job_name}{_partition(run)}"
        )
        lines += [_brief(text) for text in _errors(ended, steps)]
    lines += [
        f"*Check failed ({check.severity.value})*: {check.asset_key.to_user_string()} "
        f"{check.check_name}{f', partition {check.partition}' if check.partition else _partition(run)}"
        f"{f': {_brief(check.description)}' if check.description else ''}"
        for check in checks
    ]
    if lines:
        lines.append(f"{_owners(context, keys, run.job_name)} {_page(f'runs/{run.run_id}')}")
    return lines


def _assets(
    context: dg.SensorEvaluationContext, run: dg.DagsterRun, steps: set[str]
) -> set[dg.AssetKey]:
    """Returns the assets of a run's failed steps; all that it was to materialize, if it has none."""
    assert context.repository_def
    chosen = set(run.asset_selection or ())
    of_steps = {
        key
        for key, asset in context.repository_def.assets_defs_by_key.items()
        if asset.is_executable and asset.node_def.name in steps
    }
    return (of_steps & chosen if chosen else of_steps) or chosen


def _errors(ended: dg.DagsterEvent, steps: Sequence[dg.DagsterEvent]) -> list[str]:
    """Returns the innermost error of each failed step; of a run that died, what Dagster says of it."""
    failures = [step.step_failure_data for step in steps]
    texts = []
    failed: list[StepFailureData | JobFailureData] = [*failures] or [ended.job_failure_data]
    for failure in failed:
        plainly = failure.user_failure_data if isinstance(failure, StepFailureData) else None
        if plainly and plainly.description:
            texts.append(plainly.description)
            continue
        error = failure.error
        if error and error.cls_name == "DagsterAssetCheckFailedError":
            continue  # the check is told itself
        cause = error
        while cause and cause.cause:
            cause = cause.cause
        texts.append(cause.message if cause else ended.message or "")
    return list(dict.fromkeys(texts))


def _late_tables(context: dg.SensorEvaluationContext, cursor: _Cursor) -> Iterator[str]:
    """Yields an alert for each table that became late or fresh again, and notes it in the cursor."""
    assert context.repository_def
    nodes = context.repository_def.asset_graph.asset_nodes
    keys = [node.key for node in nodes if node.freshness_policy_or_from_metadata]
    states = context.instance.get_freshness_state_records(keys) if keys else {}
    known, cursor.late = set(cursor.late), []
    for key, record in sorted(states.items()):
        name = key.to_user_string()
        late = record.freshness_state == FreshnessState.FAIL
        if late:
            cursor.late.append(name)
        if late == (name in known):
            continue
        if late:
            said = "*Table is late*"
        elif record.freshness_state in (FreshnessState.PASS, FreshnessState.WARN):
            said = "*Table is fresh again*"
        else:  # nobody asks any more whether it is
            continue
        event = context.instance.get_latest_materialization_event(key)
        loaded = (
            f"{datetime.fromtimestamp(event.timestamp, UTC):%Y-%m-%d %H:%M} UTC"
            if event
            else "never"
        )
        where = _page("/".join(["assets", *(quote(part, safe="") for part in key.path)]))
        yield f"{said}: {name}, last loaded {loaded}\n{_owners(context, [key])} {where}"


def _owners(context: dg.SensorEvaluationContext, keys: Iterable[dg.AssetKey], job: str = "") -> str:
    """Returns who owns some assets; where they say nothing, who owns the job."""
    assert context.repository_def
    graph = context.repository_def.asset_graph
    owners = {owner for key in keys if graph.has(key) for owner in graph.get(key).owners}
    if not owners and context.repository_def.has_job(job):
        owners = set(context.repository_def.get_job(job).owners or ())
    return f"Owner: {', '.join(sorted(owners)) or 'nobody'}."


def _names(keys: Iterable[dg.AssetKey]) -> str:
    return _brief(", ".join(sorted(key.to_user_string() for key in keys)))


def _partition(run: dg.DagsterRun) -> str:
    first = run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start")
    last = run.tags.get("dagster/asset_partition_range_end", first)
    return (
        ""
        if not first
        else f", partition {first}"
        if first == last
        else f", partitions {first} to {last}"
    )


def _page(path: str) -> str:
    return f"{settings.get('DAGSTER_UI_URL').rstrip('/')}/{path}"


def _brief(text: str, most: int = MAX_ERROR_CHARS) -> str:
    """Returns a text's beginning; what is secret is hidden before a cut could halve it."""
    text = redact(text.strip())
    return text if len(text) <= most else f"{text[:most].rstrip()} …"


def _cut(alert: str) -> str:
    """Returns an alert that is not too long; its last line, owner and link, stays."""
    if len(alert) <= MAX_ALERT_CHARS:
        return alert
    said, _, last = alert.rpartition("\n")
    return f"{_brief(said, MAX_ALERT_CHARS)}\n{last}"
