"""Readers during loads see complete days and no error."""

import threading

import pytest

from shared import warehouse
from stress.harness import Tally, Workspace, objects_of

pytestmark = pytest.mark.slow  # reads during many runs

DAYS = [f"2025-04-{n:02}" for n in range(1, 9)]


def test_a_reader_sees_complete_days_during_loads(
    workspace: Workspace, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`warehouse.query` returns complete days, and no error, during eight concurrent loads."""
    monkeypatch.setenv("WAREHOUSE_PATH", str(workspace.file))
    for day in DAYS:
        workspace.neows.days[day] = objects_of(day, 40)
    commands = [
        workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=day) for day in DAYS
    ]
    assert workspace.run(commands[0]) == [0]
    codes: list[int] = []
    loads = threading.Thread(target=lambda: codes.extend(workspace.run(*commands)))
    loads.start()
    while loads.is_alive():
        rows = warehouse.query(
            "SELECT close_approach_date AS day, count(*) AS n "
            "FROM nasa_neo.near_earth_objects GROUP BY 1"
        )
        tally.trial({row["n"] for row in rows} == {40}, str(rows))
    loads.join()
    tally.trial(codes == [0] * len(DAYS), str(codes))
