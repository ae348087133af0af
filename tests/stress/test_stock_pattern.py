"""The stock pattern under the same harness: its failures are counted, and fail nothing here."""

import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from shared.testing.neows_server import NeowsServer
from stress.harness import Launcher, Rows, Tally, Workspace, objects_of

pytestmark = pytest.mark.slow  # runs for minutes

DAYS = [(date(2025, 4, 1) + timedelta(days=n)).isoformat() for n in range(30)]
KEY = "marked-key-5f3a9c"
LONG = 100  # trials
ASSET = "dlt_neows_near_earth_objects"


def landed(workspace: Workspace) -> dict[str, Rows]:
    """Returns what stands of each day."""
    found: dict[str, Rows] = {}
    for day, name in workspace.rows(
        "SELECT day, neo_reference_id FROM nasa_neo.near_earth_objects"
    ):
        found.setdefault(day, []).append((name,))
    return {day: sorted(rows) for day, rows in found.items()}


@pytest.fixture
def stock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Workspace]:
    """A workspace whose runs are of the stock pattern; its one pipeline is made when it is imported."""
    if request.config.getoption("--trials") < LONG:
        pytest.skip("the stock pattern is tried at length only: make stress")
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "warehouse.duckdb"))
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("NASA_API_KEY", KEY)
    launcher = Launcher("stock")
    with NeowsServer(limit=1_000_000) as neows:
        yield Workspace(tmp_path, launcher, neows)
    launcher.close()


def test_stock_pattern(stock: Workspace, measure: Callable[[str], Tally]) -> None:
    """The stock pattern lands a day that is run once and alone; the rest is counted."""
    home = stock.folder / "home"
    home.mkdir()
    stock.environment["DAGSTER_HOME"] = str(home)
    alone, *others = DAYS
    for n, day in enumerate(DAYS):
        stock.neows.days[day] = objects_of(day, 1 + n % 20)
    expected = {
        day: sorted((item["neo_reference_id"],) for item in stock.neows.days[day]) for day in DAYS
    }
    assert stock.run(stock.command("stock", ASSET, partition=alone)) == [0], stock.log()
    assert landed(stock) == {alone: expected[alone]}

    tally = measure("24 daily partitions, started at once in 24 processes, all land exactly.")
    stock.run(*(stock.command("stock", ASSET, partition=day) for day in others[:24]))
    for day in others[:24]:
        tally.trial(landed(stock).get(day) == expected[day])

    tally = measure("A day run again is there once.")
    for _ in range(3):
        stock.run(stock.command("stock", ASSET, partition=alone))
        tally.trial(landed(stock)[alone] == expected[alone])

    tally = measure("Killed at any moment, a run leaves old rows or new; the next is exact.")
    moments, day = random.Random(2), others[25]
    for _ in range(tally.asked):
        before = landed(stock).get(day, [])
        stock.run(
            stock.command("stock", ASSET, partition=day, die_after=moments.uniform(0.05, 1.5))
        )
        whole = landed(stock).get(day, []) in (before, expected[day])
        stock.run(stock.command("stock", ASSET, partition=day))
        tally.trial(whole and landed(stock).get(day) == expected[day])

    tally = measure("After a failed request the key stands in no file that a run leaves.")
    stock.neows.failure = (503, "text/html", "<html>down</html>")
    (code,) = stock.run(stock.command("stock", ASSET, partition=alone, stored=True))
    files = [path for path in stock.folder.rglob("*") if path.is_file()]
    tally.trial(not any(KEY.encode() in path.read_bytes() for path in files))
    assert code == 1
