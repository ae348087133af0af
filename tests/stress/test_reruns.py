"""Runs in any order and number: each day has the source data of its last run."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stress.harness import OBJECTS_SQL, Rows, Tally, Workspace, expected_objects, objects_of

DAYS = [f"2025-04-0{n}" for n in range(1, 6)]
FILES = [f"2018-01-2{n}" for n in range(2, 5)]
HEADER = "date,share_price,amount,spend,shift,spread\n"

spans = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(sorted)
steps = st.fixed_dictionaries(
    {
        "days": st.dictionaries(st.sampled_from(DAYS), st.sampled_from([0, 1, 5, 20]), max_size=2),
        "files": st.dictionaries(st.sampled_from(FILES), st.integers(1, 9), max_size=2),
        "at once": st.lists(
            st.one_of(
                st.tuples(st.just("api"), spans), st.tuples(st.just("csv"), st.sampled_from(FILES))
            ),
            min_size=1,
            max_size=3,
        ),
        "times": st.sampled_from([1, 1, 2, 5]),
    }
)
"""The edits of the source data, the runs that start at once after them, and how often."""


@pytest.mark.slow
def test_edits_and_reruns_in_any_order_leave_the_last_source_data(
    workspace: Workspace, tally: Tally
) -> None:
    """After edits and concurrent reruns in any order, the rows are those of the last run."""
    plans = 0

    @given(st.lists(steps, min_size=2, max_size=5))
    @settings(
        max_examples=max(2, tally.requested // 3),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def follow(plan: list[dict[str, Any]]) -> None:
        nonlocal plans
        plans += 1
        workspace.file = workspace.folder / f"plan-{plans}.duckdb"
        workspace.environment["WAREHOUSE_PATH"] = str(workspace.file)
        workspace.neows.days.update({day: objects_of(day, 2) for day in DAYS})
        for name in FILES:
            write(workspace, name, 1, 0)
        objects: dict[str, Rows] = {}
        prices: dict[str, int] = {}
        for version, step in enumerate(plan, 1):
            for day, count in step["days"].items():
                workspace.neows.days[day] = objects_of(day, count, version)
            for name, count in step["files"].items():
                write(workspace, name, count, version)
            for _ in range(step["times"]):
                codes = workspace.run(*(command(workspace, *which) for which in step["at once"]))
                assert not any(codes), workspace.log()[-3000:]
            for kind, which in step["at once"]:
                if kind == "api":
                    ran = DAYS[which[0] : which[1] + 1]
                    objects |= {day: expected_objects(workspace.neows, [day]) for day in ran}
                else:
                    lines = (workspace.drop / f"{which}.csv").read_text().splitlines()
                    prices[f"{which}.csv"] = sum(int(line.split(",")[2]) for line in lines[1:])
            loaded: Any = (workspace.rows(OBJECTS_SQL), dict(workspace.rows(PRICES_SQL)))
            expected = sorted(row for rows in objects.values() for row in rows), prices
            tally.trial(loaded == expected, f"step {version} of {plan}")
            assert loaded == expected

    follow()


PRICES_SQL = "SELECT file_name, sum(amount)::BIGINT FROM csv_data.share_prices_daily GROUP BY 1"


def write(workspace: Workspace, name: str, count: int, version: int) -> None:
    rows = (f"2018/01/02,1,{version * 100 + n},3,4,5\n" for n in range(count))
    (workspace.drop / f"{name}.csv").write_text(HEADER + "".join(rows))


def command(workspace: Workspace, kind: str, which: Any) -> dict[str, Any]:
    if kind == "api":
        first, last = DAYS[which[0]], DAYS[which[1]]
        return workspace.command("api_etl", "nasa_neo/near_earth_objects", first=first, last=last)
    keys = ("csv_data/import_daily_file", "csv_data/share_prices_daily")
    return workspace.command("csv_etl", *keys, partition=which)


def test_a_clock_that_jumps_changes_no_row(workspace: Workspace, tally: Tally) -> None:
    """A clock that jumps a day forward or back between runs changes no row."""
    day = DAYS[0]
    for version, hours in enumerate([0, 24, -24, 48, 0]):
        workspace.neows.days[day] = objects_of(day, 3, version)
        command = workspace.command(
            "api_etl", "nasa_neo/near_earth_objects", partition=day, clock=hours * 3600
        )
        codes = workspace.run(command)
        is_exact = workspace.rows(OBJECTS_SQL) == expected_objects(workspace.neows, [day])
        tally.trial(codes == [0] and is_exact, f"{hours} hours: {codes}")


def test_damaged_leftovers_in_the_working_directory_disturb_no_run(
    workspace: Workspace, tally: Tally
) -> None:
    """Damaged files of other runs in the working directory disturb no run."""
    folder = workspace.folder / "warehouse.working"
    for n, content in enumerate([b"", b"\x00" * 5000, b"{"]):
        leftover = folder / f"left-{n}" / "nasa_neo_pipeline" / "load" / "normalized"
        leftover.mkdir(parents=True)
        (leftover.parents[1] / "state.json").write_bytes(content)
        (folder / f"file-{n}").write_bytes(content)
        day = DAYS[n]
        workspace.neows.days[day] = objects_of(day, 4)
        codes = workspace.run(
            workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=day)
        )
        is_exact = workspace.rows(OBJECTS_SQL) == expected_objects(workspace.neows, DAYS[: n + 1])
        tally.trial(codes == [0] and is_exact, f"{content[:4]!r}: {codes}")
