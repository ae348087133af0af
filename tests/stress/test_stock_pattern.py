"""The stock pattern of dagster-dlt in the same tests: its failures are counted and fail no test."""

import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from api_etl.recorded.server import NeowsServer
from stress.harness import Launcher, Rows, Tally, Workspace, objects_of

pytestmark = pytest.mark.slow  # runs for minutes

DAYS = [(date(2025, 4, 1) + timedelta(days=n)).isoformat() for n in range(30)]
KEY = "marked-key-5f3a9c"
LONG = 100  # trials
ASSET = "dlt_neows_near_earth_objects"


def loaded_days(workspace: Workspace) -> dict[str, Rows]:
    """Return the rows of each day in the warehouse."""
    days: dict[str, Rows] = {}
    for day, name in workspace.rows(
        "SELECT day, neo_reference_id FROM nasa_neo.near_earth_objects"
    ):
        days.setdefault(day, []).append((name,))
    return {day: sorted(rows) for day, rows in days.items()}


@pytest.fixture
def stock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Workspace]:
    """A workspace whose runs use the stock pattern: one pipeline, created at import."""
    if request.config.getoption("--trials") < LONG:
        pytest.skip("this test takes long; it needs --trials 100 (make stress)")
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "warehouse.duckdb"))
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("NASA_API_KEY", KEY)
    launcher = Launcher("stock")
    with NeowsServer(limit=1_000_000) as neows:
        yield Workspace(tmp_path, launcher, neows)
    launcher.close()


def test_the_failures_of_the_stock_pattern_are_counted(
    stock: Workspace, measure: Callable[[str], Tally]
) -> None:
    """The stock pattern loads a day that runs once and alone; the other cases are counted."""
    home = stock.folder / "home"
    home.mkdir()
    stock.environment["DAGSTER_HOME"] = str(home)
    single, *others = DAYS
    for n, day in enumerate(DAYS):
        stock.neows.days[day] = objects_of(day, 1 + n % 20)
    expected = {
        day: sorted((item["neo_reference_id"],) for item in stock.neows.days[day]) for day in DAYS
    }
    assert stock.run(stock.command("stock", ASSET, partition=single)) == [0], stock.log()
    assert loaded_days(stock) == {single: expected[single]}

    tally = measure("24 daily partitions, started at once in 24 processes, load exactly.")
    stock.run(*(stock.command("stock", ASSET, partition=day) for day in others[:24]))
    for day in others[:24]:
        tally.trial(loaded_days(stock).get(day) == expected[day])

    tally = measure("A rerun leaves the rows of a day once.")
    for _ in range(3):
        stock.run(stock.command("stock", ASSET, partition=single))
        tally.trial(loaded_days(stock)[single] == expected[single])

    tally = measure(
        "A run that is killed at any time leaves old or new rows; the next run is exact."
    )
    rng, day = random.Random(2), others[25]
    for _ in range(tally.requested):
        before = loaded_days(stock).get(day, [])
        stock.run(stock.command("stock", ASSET, partition=day, die_after=rng.uniform(0.05, 1.5)))
        complete = loaded_days(stock).get(day, []) in (before, expected[day])
        stock.run(stock.command("stock", ASSET, partition=day))
        tally.trial(complete and loaded_days(stock).get(day) == expected[day])

    tally = measure("After a failed request no file of the run has the key.")
    stock.neows.failure = (503, "text/html", "<html>down</html>")
    (code,) = stock.run(stock.command("stock", ASSET, partition=single, stored=True))
    files = [path for path in stock.folder.rglob("*") if path.is_file()]
    tally.trial(not any(KEY.encode() in path.read_bytes() for path in files))
    assert code == 1
