"""Concurrent runs in separate processes load all of their rows into one warehouse."""

import threading
import time
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from stress.harness import OBJECTS_SQL, Tally, Workspace, expected_objects, objects_of

DAYS = [(date(2025, 4, 1) + timedelta(days=n)).isoformat() for n in range(24)]
ON_EACH_WAREHOUSE = pytest.mark.parametrize("workspace", ["duckdb", "postgres"], indirect=True)
SAMPLE = Path(__file__).parents[2] / "data" / "drop"


@pytest.mark.parametrize(
    "workspace",
    [pytest.param("duckdb", marks=pytest.mark.slow), "postgres"],
    indirect=True,
)
def test_24_partitions_started_at_once_load_exactly(workspace: Workspace, tally: Tally) -> None:
    """24 daily partitions of an asset, started at once in 24 processes, load exactly."""
    for n, day in enumerate(DAYS):
        workspace.neows.days[day] = objects_of(day, 1 + n % 20)
    commands = [
        workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=day) for day in DAYS
    ]
    codes = workspace.run(*commands)
    for day, code in zip(DAYS, codes, strict=True):
        tally.trial(code == 0, f"{day} ended with {code}: {workspace.log()[-3000:]}")
    assert workspace.rows(OBJECTS_SQL) == expected_objects(workspace.neows, DAYS)
    waits = (
        "Waiting for the warehouse lock (owner: pid ",
        "Waiting for the lock of dataset nasa_neo ",
    )
    assert any(wait in workspace.log() for wait in waits)


@pytest.mark.slow
@ON_EACH_WAREHOUSE
def test_overlapping_backfills_leave_each_day_once(workspace: Workspace, tally: Tally) -> None:
    """Concurrent backfills of the same days leave each day once."""
    for day in DAYS:
        workspace.neows.days[day] = objects_of(day, 5)
    ranges = [(0, 15), (8, 23), (4, 20), (0, 23)]
    for _ in range(max(1, tally.requested // 5)):
        commands = [
            workspace.command(
                "api_etl",
                "nasa_neo/near_earth_objects",
                "nasa_neo/daily_summary",
                first=DAYS[first],
                last=DAYS[last],
            )
            for first, last in ranges
        ]
        codes = workspace.run(*commands)
        is_exact = workspace.rows(OBJECTS_SQL) == expected_objects(workspace.neows, DAYS)
        summed = workspace.rows("SELECT count(*), sum(objects) FROM nasa_neo.daily_summary")
        tally.trial(codes == [0] * 4 and is_exact and summed == [(24, 120)], f"{codes} {summed}")


@pytest.mark.slow
@ON_EACH_WAREHOUSE
def test_an_older_response_never_replaces_a_newer_one(
    workspace: Workspace, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older response that arrives late never replaces a newer one of the same day."""
    day = DAYS[0]
    answer = workspace.neows.respond
    first_request = threading.Lock()

    def delay_first_response(
        address: str, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], str]:
        old = answer(address, headers)
        if first_request.acquire(blocking=False):
            workspace.neows.days[day] = objects_of(day, 3, version + 1)
            time.sleep(1)
        return old

    monkeypatch.setattr(workspace.neows, "respond", delay_first_response)
    for version in range(0, 2 * max(2, tally.requested // 5), 2):
        if first_request.locked():
            first_request.release()
        workspace.neows.days[day] = objects_of(day, 3, version)
        command = workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=day)
        codes = workspace.run(command, command)
        loaded = workspace.rows(OBJECTS_SQL)
        tally.trial(
            codes == [0, 0] and loaded == expected_objects(workspace.neows, [day]),
            f"{codes} {loaded}",
        )
    assert "Waiting for the partition lock of nasa_neo " in workspace.log()


@pytest.mark.slow
@ON_EACH_WAREHOUSE
def test_three_locations_load_at_once_without_a_lock_error(
    workspace: Workspace, tally: Tally
) -> None:
    """The three locations, each started twice, load at once without a lock error."""
    for file in SAMPLE.glob("*.csv"):
        (workspace.drop / file.name).write_bytes(file.read_bytes())
    commands = [
        workspace.command("simple_etl", "simple/load_dict"),
        workspace.command("csv_etl", "csv_data/import_file", "csv_data/share_prices"),
        workspace.command("api_etl", "nasa_neo/asteroids"),
    ]
    for _ in range(max(1, tally.requested // 5)):
        codes = workspace.run(*commands * 2)
        loaded = [
            workspace.rows(f"SELECT count(*) FROM {table}")
            for table in ("simple.load_dict", "csv_data.share_prices", "nasa_neo.asteroids")
        ]
        tally.trial(codes == [0] * 6 and loaded == [[(2,)], [(8,)], [(15,)]], f"{codes} {loaded}")
