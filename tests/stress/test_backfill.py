"""Years of days, whatever interrupts them: each ends exact, and none is asked for in vain."""

import random
from datetime import date

import pytest

from shared.testing.neows_objects import synthetic_days
from stress.harness import OBJECTS, Tally, Workspace, expected_objects

pytestmark = pytest.mark.slow  # kills long backfills

FIRST = date(2015, 9, 1)
LONG = 100  # trials from which a backfill has all of its days
YEARS, WEEKS = 4100, 120
COUNTED = """
    SELECT count(*) FROM nasa_neo.near_earth_objects_days
    LEFT JOIN (SELECT close_approach_date, count(*) AS n FROM nasa_neo.near_earth_objects GROUP BY 1)
        USING (close_approach_date)
    WHERE element_count = coalesce(n, 0)
"""


def served(workspace: Workspace, tally: Tally) -> list[str]:
    """Returns made-up days that the server serves, and takes its recorded ones away."""
    workspace.neows.days = synthetic_days(FIRST, YEARS if tally.asked >= LONG else WEEKS)
    return sorted(workspace.neows.days)


def exact(workspace: Workspace, days: list[str]) -> bool:
    """Tells whether the days' rows are the generator's, and all days are there."""
    return workspace.rows(OBJECTS) == expected_objects(workspace.neows, days) and workspace.rows(
        COUNTED
    ) == [(len(days),)]


def backfill(workspace: Workspace, days: list[str], **more: object) -> dict[str, object]:
    key = "nasa_neo/near_earth_objects"
    return workspace.command("api_etl", key, first=days[0], last=days[-1], stored=True, **more)


def home(workspace: Workspace) -> dict[str, str]:
    """Returns the setting that gives the runs an instance of the test's own."""
    folder = workspace.folder / "home"
    folder.mkdir(exist_ok=True)
    return {"DAGSTER_HOME": str(folder)}


def test_killed_and_resumed(workspace: Workspace, tally: Tally) -> None:
    """A backfill that is killed again and again, and started again for what is missing, is exact."""
    days, chance = served(workspace, tally), random.Random(0)
    kills = 10 if tally.asked >= LONG else 3
    only_missing = {"etl/only_missing": "true"}
    for _ in range(kills):
        landed = len(workspace.rows("SELECT 1 FROM nasa_neo.near_earth_objects_days"))
        longest = 40 if tally.asked >= LONG else 6
        command = backfill(
            workspace,
            days,
            tags=only_missing,
            days_per_load=None if tally.asked >= LONG else 16,
            die_after=chance.uniform(longest / 4, longest),
            environment=home(workspace),
        )
        (code,) = workspace.run(command)
        after = len(workspace.rows("SELECT 1 FROM nasa_neo.near_earth_objects_days"))
        tally.trial(code in (0, -9) and after >= landed, f"{code}: {landed} days, then {after}")
    (code,) = workspace.run(
        backfill(workspace, days, tags=only_missing, environment=home(workspace))
    )
    tally.trial(code == 0 and exact(workspace, days), f"{code}: {workspace.log()[-3000:]}")
    # A kill costs the requests of one load.
    fewest = -(-len(days) // 8)
    tally.trial(
        len(workspace.neows.requests) <= fewest + kills * 21,
        f"{len(workspace.neows.requests)} requests, and {fewest} would do",
    )


def test_under_a_limit(workspace: Workspace, tally: Tally) -> None:
    """A backfill under a limit of 100 requests an hour waits, comes back, and asks nothing twice."""
    days = served(workspace, tally)
    workspace.neows.limit = 100 if tally.asked >= LONG else 4
    workspace.neows.hour = 20.0 if tally.asked >= LONG else 2.0
    environment = {**home(workspace), "NASA_MAX_WAIT_SECONDS": "0"}
    (code,) = workspace.run(backfill(workspace, days, environment=environment))
    tally.trial(code == 0 and exact(workspace, days), f"{code}: {workspace.log()[-3000:]}")
    answered = workspace.neows.statuses.count(200)
    tally.trial(answered == -(-len(days) // 8), f"{answered} requests were answered")


def test_side_by_side(workspace: Workspace, tally: Tally) -> None:
    """Ten backfills at once share one view of the limit: all end exact, without a storm of 429s."""
    days = served(workspace, tally)
    workspace.neows.limit = 100 if tally.asked >= LONG else 10
    workspace.neows.hour = 30.0 if tally.asked >= LONG else 5.0
    part = -(-len(days) // 10)
    parts = [days[start : start + part] for start in range(0, len(days), part)]
    environment = {"NASA_MAX_WAIT_SECONDS": "120"}
    codes = workspace.run(
        *({**backfill(workspace, each, environment=environment), "stored": False} for each in parts)
    )
    kept = codes == [0] * len(parts) and exact(workspace, days)
    tally.trial(kept, f"{codes}: {workspace.log()[-3000:]}")
    answered = workspace.neows.statuses.count(200)
    refused = workspace.neows.statuses.count(429)
    tally.trial(refused <= answered // 2 + 10, f"{refused} refused, {answered} answered")
