"""Runs in any order, of any days, however often: each day is what upstream said when it last ran."""

import random
from typing import Any

from torture.harness import OBJECTS, Tally, Workspace, expected_objects, objects_of

DAYS = [f"2025-04-0{n}" for n in range(1, 6)]


def test_any_order(workspace: Workspace, tally: Tally) -> None:
    """Edits upstream and reruns, in any order: every day is as upstream was at its last run."""
    choice = random.Random(3)
    seen: dict[str, list[dict[str, Any]]] = {day: [] for day in DAYS}
    for day in DAYS:
        workspace.neows.days[day] = []
    for version in range(tally.asked):
        edited = choice.sample(DAYS, choice.randint(0, 2))
        for day in edited:
            workspace.neows.days[day] = objects_of(day, choice.choice([0, 1, 5, 20]), version)
        first, last = sorted(choice.choices(range(len(DAYS)), k=2))
        times = choice.choice([1, 1, 2, 5])
        for _ in range(times):
            command = workspace.command(
                "api_etl", "nasa_neo/near_earth_objects", first=DAYS[first], last=DAYS[last]
            )
            assert workspace.run(command) == [0], workspace.log()[-3000:]
        for day in DAYS[first : last + 1]:
            seen[day] = workspace.neows.days[day]
        expected = sorted((day, item["neo_reference_id"]) for day in DAYS for item in seen[day])
        tally.trial(workspace.rows(OBJECTS) == expected, f"step {version}: {edited} {first}-{last}")


def test_clock(workspace: Workspace, tally: Tally) -> None:
    """A clock that jumps a day forward or back between runs changes no row."""
    day = DAYS[0]
    for version, hours in enumerate([0, 24, -24, 48, 0]):
        workspace.neows.days[day] = objects_of(day, 3, version)
        command = workspace.command(
            "api_etl", "nasa_neo/near_earth_objects", partition=day, clock=hours * 3600
        )
        codes = workspace.run(command)
        kept = workspace.rows(OBJECTS) == expected_objects(workspace.neows, [day])
        tally.trial(codes == [0] and kept, f"{hours} hours: {codes}")


def test_working_folder(workspace: Workspace, tally: Tally) -> None:
    """Damaged leftovers of other runs in the working folder disturb no run."""
    folder = workspace.folder / "warehouse.working"
    for n, content in enumerate([b"", b"\x00" * 5000, b"{"]):
        left = folder / f"left-{n}" / "nasa_neo_pipeline" / "load" / "normalized"
        left.mkdir(parents=True)
        (left.parents[1] / "state.json").write_bytes(content)
        (folder / f"file-{n}").write_bytes(content)
        day = DAYS[n]
        workspace.neows.days[day] = objects_of(day, 4)
        codes = workspace.run(
            workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=day)
        )
        kept = workspace.rows(OBJECTS) == expected_objects(workspace.neows, DAYS[: n + 1])
        tally.trial(codes == [0] and kept, f"{content[:4]!r}: {codes}")
