"""Alerts about failed runs, checks, schedules and sensors, and stale tables, in a channel of the owners.

One sensor sends them. Dagster's own sensors for failed runs skip a run whose alert could not be sent; the
cursor of this one moves on only after the webhook has accepted the message.
"""

import html
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.error import URLError
from urllib.parse import quote

import dagster as dg

from shared import environments, settings
from shared.orchestration import dagster_internals
from shared.orchestration.dagster_internals import TickStatus
from shared.redaction import redact

MAX_RUNS_PER_TICK = 100
"""Ended runs that a tick processes, of each kind; the others wait for the next tick."""

MAX_ERROR_CHARS = 600
"""Characters of an error's or a check's text in a message."""

MAX_ALERT_CHARS = 3_000
"""Characters of the alert about one run."""

MAX_MESSAGE_CHARS = 12_000
"""Characters of a message: Slack shows 40,000, Mattermost 16,383."""

WEBHOOK_TIMEOUT_SECONDS = 10
"""How long the webhook may take to respond; a sensor's tick has a minute."""

_LOADED_AT = datetime.now(UTC).timestamp()  # what ended before is not reported


class AlertDeliveryError(Exception):
    """The webhook did not accept a message; the next tick sends it again."""


@dataclass
class _Cursor:
    """What has been reported.

    Attributes:
        since: runs that ended before this timestamp are not reported.
        last_event_ids: the last event processed, by its type.
        stale_assets: the tables that were reported as stale.
        failed_ticks: the timestamp of the last failed tick, by the name of the schedule or sensor.
        failing: the schedules and sensors that were reported as failed.
    """

    since: float
    last_event_ids: dict[str, int] = field(default_factory=dict)
    stale_assets: list[str] = field(default_factory=list)
    failed_ticks: dict[str, float] = field(default_factory=dict)
    failing: list[str] = field(default_factory=list)


def webhook_url() -> str:
    """Return the webhook of this environment; empty for no alerts.

    The profile of the environment names the variable that has it (`alerts_webhook`).
    """
    try:
        name = environments.current().alerts_webhook
    except (environments.EnvironmentNameError, environments.EnvironmentFileError):
        return ""  # the definitions of the location report it
    settings.load_env_file()
    return os.environ.get(name, "") if name else ""


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING
    if webhook_url()
    else dg.DefaultSensorStatus.STOPPED,
    description="Sends an alert about failed runs, checks, schedules and sensors, and stale tables of this "
    "location to the webhook ALERTS_WEBHOOK_URL. The sensor is on if the variable is set.",
)
def alert_owners(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Send one message about all that failed, or became stale or fresh again, since the last one.

    It reports only runs and tables of its own location, so each is reported once.

    Raises:
        AlertDeliveryError: the webhook did not accept it; the cursor stays, so the next tick sends it.
    """
    if not webhook_url():
        context.update_cursor("")  # once the variable is set, nothing old is reported
        return dg.SkipReason(alerts_disabled())
    cursor = _Cursor(**json.loads(context.cursor)) if context.cursor else _Cursor(_LOADED_AT)
    alerts = [
        *_run_alerts(context, cursor),
        *_tick_alerts(context, cursor),
        *_freshness_alerts(context, cursor),
    ]
    if alerts:
        send(alerts)
    context.update_cursor(json.dumps(asdict(cursor)))
    sent = f"Sent: {'; '.join(alert.splitlines()[0] for alert in alerts)}"
    return dg.SkipReason(redact(sent) if alerts else "Nothing failed and no table is stale.")


def alerts_disabled() -> str:
    """Return why no alerts are sent in this environment."""
    name = environments.current().alerts_webhook
    if not name:
        return f"Alerts are disabled in the environment {environments.current().name}."
    return f"Alerts are disabled: {name} is not set."


def send(alerts: Sequence[str]) -> None:
    """Send alerts as one message to the webhook, without secrets; it counts those it omits.

    Each alert begins with the name of the environment, except in `production` and `local`.

    Raises:
        AlertDeliveryError: the webhook did not accept it; the text does not contain its URL.
    """
    from slack_sdk.errors import SlackRequestError  # runs do not need it
    from slack_sdk.webhook import WebhookClient

    message, pending = "", [_truncated(f"{_environment_label()}{alert}") for alert in alerts]
    while pending and len(message) + len(pending[0]) < MAX_MESSAGE_CHARS:
        message += f"{pending.pop(0)}\n\n"
    if pending:
        message += f"and {len(pending):,} more: {ui_page('runs')}"
    log = logging.getLogger(f"{__name__}.client")
    log.disabled = True  # it would log the URL
    client = WebhookClient(webhook_url(), timeout=WEBHOOK_TIMEOUT_SECONDS, logger=log)
    try:
        # An upstream's error text must not notify a whole channel: Slack interprets <!channel>.
        response = client.send(text=html.escape(redact(message.strip()), quote=False))
    except (OSError, HTTPException, SlackRequestError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else type(error).__name__
        problem = f"could not be reached ({reason})"
    else:
        if response.status_code // 100 == 2:  # noqa: PLR2004 - HTTP's success
            return
        problem = f"responded with {response.status_code} ({_brief(response.body)})"
    raise AlertDeliveryError(
        f"The webhook in {environments.current().alerts_webhook} {problem}. The next tick sends the alert again."
    )


def _run_alerts(context: dg.SensorEvaluationContext, cursor: _Cursor) -> Iterator[str]:
    """Yield an alert for each run that failed, or in which a check failed, and advance the cursor."""
    for kind in (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS):
        changes = context.instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(
                kind,
                after_timestamp=cursor.since,
                after_storage_id=cursor.last_event_ids.get(kind.value),
            ),
            limit=MAX_RUNS_PER_TICK,
            ascending=True,
        )
        ids = [record.run_id for record in changes.records]
        runs = context.instance.get_runs(dg.RunsFilter(run_ids=ids)) if ids else []
        by_id = {
            run.run_id: run for run in runs if dagster_internals.is_run_of_location(context, run)
        }
        for record in changes.records:
            cursor.last_event_ids[kind.value] = record.storage_id
            event = record.event_log_entry.dagster_event
            if (
                record.run_id in by_id
                and event
                and (lines := _alert_lines(context, by_id[record.run_id], event))
            ):
                yield "\n".join(lines)


def _alert_lines(
    context: dg.SensorEvaluationContext, run: dg.DagsterRun, ended: dg.DagsterEvent
) -> list[str]:
    """Return the lines of the alert about an ended run; none if nothing failed."""
    assert context.repository_def
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    events = [
        record.event_log_entry.dagster_event
        for record in dagster_internals.run_records(context.instance, run.run_id, kinds)
    ]
    steps = [event for event in events if event and event.is_step_failure]
    # A step that was retried has evaluated its checks more than once; the last time counts.
    evaluated = {
        (check.asset_key, check.check_name, check.partition): check
        for event in events
        if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        for check in [dagster_internals.check_evaluation(event)]
    }
    checks = [check for check in evaluated.values() if not check.passed]
    lines = []
    keys = {check.asset_key for check in checks}
    if ended.is_failure:
        step_keys = {str(step.step_key) for step in steps}
        assets = dagster_internals.assets_of_steps(context.repository_def, step_keys)
        if selected := set(run.asset_selection or ()):
            assets = assets & selected or selected
        keys |= assets
        retried = run.tags.get("dagster/will_retry") == "true"
        lines.append(
            f"*Run failed{', Dagster retries it' if retried else ''}*: "
            f"{_names(assets) or run.job_name}{_partition(run)}"
        )
        # A failed check that blocked a step has its own line.
        messages = map(dagster_internals.failure_message, steps or [ended])
        lines += [_brief(text) for text in dict.fromkeys(messages) if text is not None]
    lines += [
        f"*Check failed ({check.severity.value})*: {check.asset_key.to_user_string()} "
        f"{check.check_name}{f', partition {check.partition}' if check.partition else _partition(run)}"
        f"{f': {_brief(check.description)}' if check.description else ''}"
        for check in checks
    ]
    if lines:
        lines.append(f"{_owners(context, keys, run.job_name)} {ui_page(f'runs/{run.run_id}')}")
    return lines


def _tick_alerts(context: dg.SensorEvaluationContext, cursor: _Cursor) -> Iterator[str]:
    """Yield an alert for each schedule or sensor of the location that failed, or works again.

    Each failed tick of a schedule is reported, because it has missed its runs. A sensor tries again in
    seconds, so it is reported once until it works again. This sensor cannot report itself.
    """
    from shared.orchestration.health import tick_error  # imports the tables of Dagster's instance

    location = dagster_internals.sensor_location(context)
    for state in dagster_internals.instigators(context.instance, location):
        name = state.name
        if name == alert_owners.name:
            continue
        last = cursor.failed_ticks.get(name, cursor.since)
        failed = dagster_internals.ticks(context.instance, state, [TickStatus.FAILURE], after=last)
        kind = state.instigator_type.value.lower()
        pages = f"{dagster_internals.repository_label(state)}/{kind}s/{quote(name)}"
        end = f"{_owners(context, (), name)} {ui_page(f'locations/{pages}')}"
        if failed:
            cursor.failed_ticks[name] = failed[0].timestamp
            if kind == "schedule" or name not in cursor.failing:
                yield f"*{kind.capitalize()} failed*: {name}: {tick_error(failed[0])}\n{end}"
            cursor.failing = sorted({*cursor.failing, name})
        elif name in cursor.failing and dagster_internals.ticks(
            context.instance, state, [TickStatus.SUCCESS, TickStatus.SKIPPED], after=last
        ):
            cursor.failing.remove(name)
            yield f"*{kind.capitalize()} works again*: {name}\n{end}"


def _freshness_alerts(context: dg.SensorEvaluationContext, cursor: _Cursor) -> Iterator[str]:
    """Yield an alert for each table that became stale or fresh again, and record it in the cursor."""
    assert context.repository_def
    states = dagster_internals.freshness(context.repository_def, context.instance)
    reported = set(cursor.stale_assets)
    cursor.stale_assets = [key.to_user_string() for key, fresh in states.items() if fresh is False]
    for key, is_fresh in states.items():
        name = key.to_user_string()
        if is_fresh is None or is_fresh != (name in reported):
            continue  # unknown, or as reported
        event = context.instance.get_latest_materialization_event(key)
        loaded = (
            f"{datetime.fromtimestamp(event.timestamp, UTC):%Y-%m-%d %H:%M} UTC"
            if event
            else "never"
        )
        page = ui_page("/".join(["assets", *(quote(part, safe="") for part in key.path)]))
        change = "fresh again" if is_fresh else "stale"
        yield f"*Table is {change}*: {name}, last loaded {loaded}\n{_owners(context, [key])} {page}"


def _owners(
    context: dg.SensorEvaluationContext, keys: Iterable[dg.AssetKey], name: str = ""
) -> str:
    """Return the line with the owners of some assets, or of a job, schedule or sensor if they have none."""
    repository = context.repository_def
    assert repository
    owners = dagster_internals.asset_owners(repository, keys)
    if not owners and repository.has_job(name):
        owners = set(repository.get_job(name).owners or ())
    ticking: list[dg.ScheduleDefinition | dg.SensorDefinition]
    ticking = [*repository.schedule_defs, *repository.sensor_defs]
    for definition in ticking:
        if definition.name == name and not owners:
            owners = set(definition.owners or ())
    return f"Owner: {', '.join(sorted(owners)) or 'nobody'}."


def _names(keys: Iterable[dg.AssetKey]) -> str:
    return _brief(", ".join(sorted(key.to_user_string() for key in keys)))


def _partition(run: dg.DagsterRun) -> str:
    first = run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start")
    last = run.tags.get("dagster/asset_partition_range_end", first)
    if not first:
        return ""
    return f", partition {first}" if first == last else f", partitions {first} to {last}"


def _environment_label() -> str:
    name = environments.current().name
    return "" if name in (environments.LOCAL, environments.PRODUCTION) else f"[{name}] "


def ui_page(path: str) -> str:
    """Return the URL of a page of the UI."""
    return f"{settings.get('DAGSTER_UI_URL').rstrip('/')}/{path}"


def _brief(text: str, max_chars: int = MAX_ERROR_CHARS) -> str:
    """Return a text's beginning. It is redacted first, so that no part of a secret is left."""
    text = redact(text.strip())
    return text if len(text) <= max_chars else f"{text[:max_chars].rstrip()} …"


def _truncated(alert: str) -> str:
    """Return an alert that is not too long; its last line, owner and link, is kept."""
    if len(alert) <= MAX_ALERT_CHARS:
        return alert
    body, _, last = alert.rpartition("\n")
    return f"{_brief(body, MAX_ALERT_CHARS)}\n{last}"
