"""A killed run leaves the old rows or the new rows, wherever it is killed; the next run is exact."""

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
POINT_NAMES = {
    kind: [f"{when} {point}" for point in points for when in ("before", "after")]
    for kind, points in POINTS.items()
}


class Pipeline:
    """A pipeline to kill: how to change its source data, run it, and read its rows.

    Attributes:
        excluded: points that a load of this pipeline does not pass.
        rows_sql: selects the partition whose load is killed.
        others_sql: selects the rows that must never change.
    """

    excluded: tuple[str, ...] = ("pushdown",)

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.rows_sql: str
        self.others_sql: str

    def change(self, version: int) -> None:
        """Change the source data to another version."""
        raise NotImplementedError

    def command(self, **more: Any) -> dict[str, Any]:
        """Return the command that loads the partition whose load is killed."""
        raise NotImplementedError


class Api(Pipeline):
    """A day of near-earth objects; the source data changes."""

    rows_sql = (
        "SELECT name, neo_reference_id FROM nasa_neo.near_earth_objects "
        f"WHERE close_approach_date = '{DAY}' ORDER BY 1, 2"
    )
    others_sql = (
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


class Csv(Pipeline):
    """A file of share prices, which is rewritten."""

    rows_sql = (
        "SELECT share_price, amount FROM csv_data.share_prices_daily "
        "WHERE file_name = '2018-01-23.csv' ORDER BY 1, 2"
    )
    others_sql = (
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
    """The same into a Postgres warehouse."""


class CsvPushedDown(Csv):
    """The same; the warehouse reads the file itself."""

    excluded = ("copy", "insert")

    def command(self, **more: Any) -> dict[str, Any]:
        return super().command(pushed_down_from=0, **more)


class Simple(Pipeline):
    """A list in the code, which replaces its table and never changes."""

    rows_sql = "SELECT id, name FROM simple.load_dict ORDER BY 1, 2"
    others_sql = "SELECT 1"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        assert workspace.run(self.command()) == [0]

    def change(self, version: int) -> None:
        """Do nothing: the list is in the code."""

    def command(self, **more: Any) -> dict[str, Any]:
        return self.workspace.command("simple_etl", "simple/load_dict", **more)


def kill_and_rerun(victim: Pipeline, tally: Tally, kills: list[dict[str, Any]]) -> int:
    """Kill a run in each given way; after each kill read the rows and run again.

    Returns:
        How many kills left a write-ahead log, which the next reader has to apply.
    """
    logs = 0
    tally.promise += f" ({type(victim).__name__})"
    victim.change(0)
    assert victim.workspace.run(victim.command()) == [0], victim.workspace.log()[-3000:]
    loaded: Rows = []
    for version, kill in enumerate(kills, 1):
        victim.change(version)
        before, others = (
            victim.workspace.rows(victim.rows_sql),
            victim.workspace.rows(victim.others_sql),
        )
        (code,) = victim.workspace.run(victim.command(**kill))
        logs += victim.workspace.file.with_name("warehouse.duckdb.wal").exists()
        after = victim.workspace.rows(victim.rows_sql)
        assert victim.workspace.run(victim.command()) == [0], victim.workspace.log()[-3000:]
        loaded = victim.workspace.rows(victim.rows_sql)
        complete = after in (before, loaded)
        untouched = victim.workspace.rows(victim.others_sql) == others
        killed = code == -9 or "die_after" in kill
        message = f"{kill}: {code}, {len(before)}, then {len(after)}, then {len(loaded)} rows"
        tally.trial(killed and complete and untouched and bool(loaded), message)
    folders = list((victim.workspace.folder / "warehouse.working").iterdir())
    assert len(folders) <= len(kills), "successful runs left working directories"
    return logs


@pytest.mark.parametrize(
    ("workspace", "victim"),
    [
        ("duckdb", Api),
        pytest.param("duckdb", Csv, marks=pytest.mark.slow),
        ("duckdb", CsvPushedDown),
        pytest.param("duckdb", Simple, marks=pytest.mark.slow),
        pytest.param("postgres", ApiOnPostgres, marks=pytest.mark.slow),
    ],
    indirect=["workspace"],
)
def test_a_run_killed_at_a_named_point_leaves_old_or_new_rows(
    workspace: Workspace, tally: Tally, victim: Callable[..., Pipeline]
) -> None:
    """A run that is killed at a named point leaves old or new rows; the next run is exact."""
    pipeline = victim(workspace)
    postgres_warehouse = isinstance(workspace, ServerWorkspace)
    all_points = POINT_NAMES["postgres" if postgres_warehouse else "duckdb"]
    possible = [point for point in all_points if not point.endswith(pipeline.excluded)]
    points = random.Random(1).sample(possible, min(len(possible), tally.requested))
    if "insert" not in pipeline.excluded:
        points = ["before insert", *points]
    logs = kill_and_rerun(pipeline, tally, [{"die": point} for point in points])
    assert logs or postgres_warehouse, "no kill left a write-ahead log"


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
def test_a_run_killed_at_any_time_leaves_old_or_new_rows(
    workspace: Workspace, tally: Tally, victim: Callable[..., Pipeline]
) -> None:
    """A run that is killed at any time leaves old or new rows; the next run is exact."""
    rng = random.Random(2)
    kills = [{"die_after": rng.uniform(0.05, 1.5)} for _ in range(tally.requested)]
    kill_and_rerun(victim(workspace), tally, kills)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A small file system of 6 MB; needs the right to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_fails_the_run_and_keeps_the_old_rows(
    workspace: Workspace, tally: Tally, small_disk: Path
) -> None:
    """A disk that fills up during a load fails the run and leaves the old rows."""
    workspace.file = small_disk / "warehouse.duckdb"
    workspace.environment["WAREHOUSE_PATH"] = str(workspace.file)
    victim = Api(workspace)
    victim.change(1)
    assert workspace.run(victim.command()) == [0]
    before = workspace.rows(victim.rows_sql)
    filler = small_disk / "filler"
    failed = 0
    for version in range(2, 2 + max(3, tally.requested // 3)):
        victim.change(version)
        with filler.open("wb") as file:
            free = 15_000 * (version - 2)
            file.write(b"x" * max(0, shutil.disk_usage(small_disk).free - free))
        (code,) = workspace.run(victim.command())
        filler.unlink()
        after = workspace.rows(victim.rows_sql)
        assert workspace.run(victim.command()) == [0], workspace.log()[-3000:]
        loaded = workspace.rows(victim.rows_sql)
        tally.trial(after == (before if code else loaded) and loaded != before, f"{free}: {code}")
        failed += code != 0
        before = loaded
    assert failed, "the disk was never full"
