"""A run that is killed, wherever it is, leaves the old rows or the new ones, and the next run is right."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stress.harness import Rows, ServerWorkspace, Tally, Workspace, objects_of
from stress.launcher import POINTS

DAY, OTHER = "2025-04-02", "2025-04-01"
HEADER = "date,share_price,amount,spend,shift,spread\n"
WHERE = {
    kind: [f"{when} {point}" for point in points for when in ("before", "after")]
    for kind, points in POINTS.items()
}


class Victim:
    """A pipeline to kill: how to change its upstream, run it, and see what landed.

    Attributes:
        never: points that a load of it does not pass.
        rows: finds the partition under attack, and `others` what must never change.
    """

    never: tuple[str, ...] = ("pushed down",)

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.rows: str
        self.others: str

    def change(self, version: int) -> None:
        """Makes upstream tell another version."""
        raise NotImplementedError

    def command(self, **more: Any) -> dict[str, Any]:
        """Returns the command that loads the partition under attack."""
        raise NotImplementedError


class Api(Victim):
    """A day of near-earth objects, which NASA revises."""

    rows = (
        "SELECT name, neo_reference_id FROM nasa_neo.near_earth_objects "
        f"WHERE close_approach_date = '{DAY}' ORDER BY 1, 2"
    )
    others = (
        "SELECT name, neo_reference_id FROM nasa_neo.near_earth_objects "
        f"WHERE close_approach_date <> '{DAY}' ORDER BY 1, 2"
    )

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        workspace.neows.days[OTHER] = objects_of(OTHER, 7)
        codes = workspace.run(
            workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=OTHER)
        )
        assert codes == [0]

    def change(self, version: int) -> None:
        self.workspace.neows.days[DAY] = objects_of(DAY, 3 + version % 5, version)

    def command(self, **more: Any) -> dict[str, Any]:
        return self.workspace.command(
            "api_etl", "nasa_neo/near_earth_objects", partition=DAY, **more
        )


class Csv(Victim):
    """A file of share prices, which is written again."""

    rows = (
        "SELECT share_price, amount FROM csv_data.share_prices_daily "
        "WHERE file_name = '2018-01-23.csv' ORDER BY 1, 2"
    )
    others = (
        "SELECT share_price, amount FROM csv_data.share_prices_daily "
        "WHERE file_name <> '2018-01-23.csv' ORDER BY 1, 2"
    )
    keys = ("csv_data/import_daily_file", "csv_data/share_prices_daily")

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        (workspace.drop / "2018-01-22.csv").write_text(HEADER + "2018/01/02,1,2,3,4,5\n" * 3)
        codes = workspace.run(workspace.command("csv_etl", *self.keys, partition="2018-01-22"))
        assert codes == [0]

    def change(self, version: int) -> None:
        rows = f"2018/01/02,{version + 1},2,3,4,5\n" * (1 + version % 4)
        (self.workspace.drop / "2018-01-23.csv").write_text(HEADER + rows)

    def command(self, **more: Any) -> dict[str, Any]:
        return self.workspace.command("csv_etl", *self.keys, partition="2018-01-23", **more)


class ApiOnPostgres(Api):
    """The same into a server."""

    never = ("merge",)


class CsvPushedDown(Csv):
    """The same, where the warehouse reads the file itself."""

    never = ("merge", "copy")

    def command(self, **more: Any) -> dict[str, Any]:
        return super().command(pushed_down_from=0, **more)


class Simple(Victim):
    """The list in the code, which replaces its table; it never changes."""

    rows = "SELECT id, name FROM simple.load_dict ORDER BY 1, 2"
    others = "SELECT 1"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        assert workspace.run(self.command()) == [0]

    def change(self, version: int) -> None:
        """Has nothing to change."""

    def command(self, **more: Any) -> dict[str, Any]:
        return self.workspace.command("simple_etl", "simple/load_dict", **more)


def attack(victim: Victim, tally: Tally, deaths: list[dict[str, Any]]) -> int:
    """Kills a run for each death; after each looks at what is there, and runs once more.

    Returns how many deaths left a write-ahead log behind, for the reader to take in.
    """
    logs = 0
    tally.promise += f" ({type(victim).__name__})"
    victim.change(0)
    assert victim.workspace.run(victim.command()) == [0], victim.workspace.log()[-3000:]
    landed: Rows = []
    for version, death in enumerate(deaths, 1):
        victim.change(version)
        before, others = victim.workspace.rows(victim.rows), victim.workspace.rows(victim.others)
        (code,) = victim.workspace.run(victim.command(**death))
        logs += victim.workspace.file.with_name("warehouse.duckdb.wal").exists()
        after = victim.workspace.rows(victim.rows)
        assert victim.workspace.run(victim.command()) == [0], victim.workspace.log()[-3000:]
        landed = victim.workspace.rows(victim.rows)
        whole = after in (before, landed)
        untouched = victim.workspace.rows(victim.others) == others
        killed = code == -9 or "die_after" in death
        told = f"{death}: {code}, {len(before)}, then {len(after)}, then {len(landed)} rows"
        tally.trial(killed and whole and untouched and bool(landed), told)
    folders = list((victim.workspace.folder / "warehouse.working").iterdir())
    assert len(folders) <= len(deaths), "runs that ended well left folders behind"
    return logs


@pytest.mark.parametrize(
    ("workspace", "victim"),
    [
        ("duckdb", Api),
        pytest.param("duckdb", Csv, marks=pytest.mark.slow),
        ("duckdb", CsvPushedDown),
        pytest.param("duckdb", Simple, marks=pytest.mark.slow),
        ("postgres", ApiOnPostgres),
    ],
    indirect=["workspace"],
)
def test_named_points(workspace: Workspace, tally: Tally, victim: Callable[..., Victim]) -> None:
    """Killed at a named point, a run leaves old rows or new; the next is exact."""
    attacked = victim(workspace)
    postgres_warehouse = isinstance(workspace, ServerWorkspace)
    known = WHERE["postgres" if postgres_warehouse else "duckdb"]
    where = [point for point in known if not point.endswith(attacked.never)]
    points = random.Random(1).sample(where, min(len(where), tally.asked))
    if postgres_warehouse:
        points = ["before insert", *points]
    elif "merge" not in attacked.never:
        points = ["inside merge", *points]
    logs = attack(attacked, tally, [{"die": point} for point in points])
    assert logs or postgres_warehouse, "no death left a write-ahead log"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workspace", "victim"),
    [
        ("duckdb", Api),
        ("duckdb", CsvPushedDown),
        ("duckdb", Simple),
        ("postgres", ApiOnPostgres),
        ("postgres", Simple),
    ],
    indirect=["workspace"],
)
def test_any_moment(workspace: Workspace, tally: Tally, victim: Callable[..., Victim]) -> None:
    """Killed at any moment, a run leaves old rows or new; the next is exact."""
    moments = random.Random(2)
    deaths = [{"die_after": moments.uniform(0.05, 1.5)} for _ in range(tally.asked)]
    attack(victim(workspace), tally, deaths)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A folder with two megabytes of room; needs the right to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk(workspace: Workspace, tally: Tally, small_disk: Path) -> None:
    """A disk that fills up while loading fails the run and leaves the old rows."""
    workspace.file = small_disk / "warehouse.duckdb"
    workspace.environment["WAREHOUSE_PATH"] = str(workspace.file)
    victim = Api(workspace)
    victim.change(1)
    assert workspace.run(victim.command()) == [0]
    before = workspace.rows(victim.rows)
    filler = small_disk / "filler"
    failed = 0
    for version in range(2, 2 + max(3, tally.asked // 3)):
        victim.change(version)
        with filler.open("wb") as file:
            room = 15_000 * (version - 2)
            file.write(b"x" * max(0, shutil.disk_usage(small_disk).free - room))
        (code,) = workspace.run(victim.command())
        filler.unlink()
        after = workspace.rows(victim.rows)
        assert workspace.run(victim.command()) == [0], workspace.log()[-3000:]
        landed = workspace.rows(victim.rows)
        tally.trial(after == (before if code else landed) and landed != before, f"{room}: {code}")
        failed += code != 0
        before = landed
    assert failed, "the disk was never full"
