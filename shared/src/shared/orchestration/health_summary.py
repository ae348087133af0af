"""A summary of a location's health for the alert channel, once a day."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from shared.orchestration import dagster_internals
from shared.orchestration.alerts import alerts_disabled, send, ui_page, webhook_url

# It imports the tables of Dagster's instance, which loading a location does not need.
if TYPE_CHECKING:
    from shared.orchestration.health import Problem

SUMMARY_HOUR = 6
"""The hour in UTC from which the summary of a day is sent."""

MAX_LINES = 20
"""Problems in a summary; the others are counted."""


@dg.sensor(
    minimum_interval_seconds=900,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Sends once a day, after 06:00 UTC, what failed and is missing in this location to the "
    "webhook of the alerts. Off until somebody switches it on.",
)
def health_summary(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Send the summary of the day, unless it was sent.

    Raises:
        AlertDeliveryError: the webhook did not accept it; the next tick sends it.
    """
    now = datetime.now(UTC)
    today = now.date().isoformat()
    if not webhook_url():
        return dg.SkipReason(alerts_disabled())
    if now.hour < SUMMARY_HOUR or context.cursor == today:
        return dg.SkipReason(f"The summary of {context.cursor or 'today'} was sent or is not due.")
    from shared.orchestration.health import failed_ticks, location_problems, stuck_runs

    assert context.repository_def
    location = dagster_internals.sensor_location(context)
    problems = [
        *location_problems(context.instance, context.repository_def),
        *stuck_runs(context.instance, location),
        *failed_ticks(context.instance, location, exclude=(health_summary.name,)),
    ]
    assets = dagster_internals.materializable_keys(
        dagster_internals.repository_graph(context.repository_def)
    )
    send([summary(location or context.repository_name or "", len(assets), problems)])
    context.update_cursor(today)
    return dg.SkipReason(f"Sent the summary of {today}.")


def summary(location: str, assets: int, problems: "Sequence[Problem]") -> str:
    """Return the text: failures first, then what is missing, one line each."""
    if not problems:
        return f"*Health of {location}*: all {assets:,} assets are loaded and nothing failed."
    kinds = Counter(problem.kind for problem in problems)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    ordered = sorted(problems, key=lambda problem: not problem.is_failure)
    lines = [f"{each.kind}: {each.subject}: {each.message}" for each in ordered[:MAX_LINES]]
    if len(ordered) > len(lines):
        lines.append(f"and {len(ordered) - len(lines):,} more: etl status")
    return "\n".join([f"*Health of {location}*: {counts}", *lines, ui_page("runs")])
