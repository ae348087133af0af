"""Backfills of years: they end exact after interruptions and repeat no request without need."""

import random
from datetime import date

import pytest

from api_etl.recorded.objects import synthetic_days
from stress.harness import OBJECTS_SQL, Tally, Workspace, expected_objects

pytestmark = pytest.mark.slow  # kills long backfills

FIRST = date(2015, 9, 1)
LONG = 100  # trials from which a backfill has all of its days
ALL_DAYS, FEW_DAYS = 4100, 120
COMPLETE_DAYS_SQL = """
    SELECT count(*) FROM nasa_neo.near_earth_objects_days
    LEFT JOIN (SELECT close_approach_date, count(*) AS n FROM nasa_neo.near_earth_objects GROUP BY 1)
        USING (close_approach_date)
    WHERE element_count = coalesce(n, 0)
"""


def serve_days(workspace: Workspace, tally: Tally) -> list[str]:
    """Serve synthetic days instead of the recorded ones, and return them."""
    workspace.neows.days = synthetic_days(FIRST, ALL_DAYS if tally.requested >= LONG else FEW_DAYS)
    return sorted(workspace.neows.days)


def is_exact(workspace: Workspace, days: list[str]) -> bool:
    """Return whether all days are loaded with the rows that the server has."""
    return workspace.rows(OBJECTS_SQL) == expected_objects(
        workspace.neows, days
    ) and workspace.rows(COMPLETE_DAYS_SQL) == [(len(days),)]


def backfill(workspace: Workspace, days: list[str], **more: object) -> dict[str, object]:
    key = "nasa_neo/near_earth_objects"
    return workspace.command("api_etl", key, first=days[0], last=days[-1], stored=True, **more)


def home(workspace: Workspace) -> dict[str, str]:
    """Return the setting that gives the runs their own Dagster instance."""
    folder = workspace.folder / "home"
    folder.mkdir(exist_ok=True)
    return {"DAGSTER_HOME": str(folder)}


def test_a_backfill_killed_again_and_again_ends_exact(workspace: Workspace, tally: Tally) -> None:
    """A backfill that is killed often, and restarted for the missing days, ends exact."""
    days, rng = serve_days(workspace, tally), random.Random(0)
    kills = 10 if tally.requested >= LONG else 3
    only_missing = {"etl/only_missing": "true"}
    for _ in range(kills):
        before = len(workspace.rows("SELECT 1 FROM nasa_neo.near_earth_objects_days"))
        max_seconds = 40 if tally.requested >= LONG else 6
        command = backfill(
            workspace,
            days,
            tags=only_missing,
            days_per_load=None if tally.requested >= LONG else 16,
            die_after=rng.uniform(max_seconds / 4, max_seconds),
            environment=home(workspace),
        )
        (code,) = workspace.run(command)
        after = len(workspace.rows("SELECT 1 FROM nasa_neo.near_earth_objects_days"))
        tally.trial(code in (0, -9) and after >= before, f"{code}: {before} days, then {after}")
    (code,) = workspace.run(
        backfill(workspace, days, tags=only_missing, environment=home(workspace))
    )
    tally.trial(code == 0 and is_exact(workspace, days), f"{code}: {workspace.log()[-3000:]}")
    # A kill repeats at most the requests of one load.
    min_requests = -(-len(days) // 8)
    tally.trial(
        len(workspace.neows.requests) <= min_requests + kills * 21,
        f"{len(workspace.neows.requests)} requests; {min_requests} are necessary",
    )


def test_a_backfill_under_a_limit_repeats_no_request(workspace: Workspace, tally: Tally) -> None:
    """A backfill under a limit of 100 requests per hour waits, continues, and repeats no request."""
    days = serve_days(workspace, tally)
    workspace.neows.limit = 100 if tally.requested >= LONG else 4
    workspace.neows.hour = 20.0 if tally.requested >= LONG else 2.0
    environment = {**home(workspace), "NASA_MAX_WAIT_SECONDS": "0"}
    (code,) = workspace.run(backfill(workspace, days, environment=environment))
    tally.trial(code == 0 and is_exact(workspace, days), f"{code}: {workspace.log()[-3000:]}")
    responses = workspace.neows.statuses.count(200)
    tally.trial(responses == -(-len(days) // 8), f"{responses} successful responses")


def test_ten_concurrent_backfills_share_one_limit(workspace: Workspace, tally: Tally) -> None:
    """Ten concurrent backfills share one view of the limit: all end exact, with few 429 responses."""
    days = serve_days(workspace, tally)
    workspace.neows.limit = 100 if tally.requested >= LONG else 10
    workspace.neows.hour = 30.0 if tally.requested >= LONG else 5.0
    size = -(-len(days) // 10)
    parts = [days[start : start + size] for start in range(0, len(days), size)]
    environment = {"NASA_MAX_WAIT_SECONDS": "120"}
    codes = workspace.run(
        *({**backfill(workspace, part, environment=environment), "stored": False} for part in parts)
    )
    success = codes == [0] * len(parts) and is_exact(workspace, days)
    tally.trial(success, f"{codes}: {workspace.log()[-3000:]}")
    accepted = workspace.neows.statuses.count(200)
    refused = workspace.neows.statuses.count(429)
    tally.trial(refused <= accepted // 2 + 10, f"{refused} refused, {accepted} accepted")
