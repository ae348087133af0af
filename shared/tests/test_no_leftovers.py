"""A load leaves no files behind, whether it succeeds, fails or is killed.

What stays, and why:

- The warehouse itself and its lock files. Their number does not grow with the number of loads.
- The working directory of a load that failed or was killed, so that people can see what was extracted. The
  next load that starts a week later deletes it.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.job_client_impl import SqlJobClientBase, SqlLoadJob
from dlt.extract import DltResource

from shared import warehouse
from shared.sources.protocol import COMPANION_TABLES_HINT
from shared.testing.killed_loads import in_forked_process
from shared.warehouse.destinations.direct import DirectJob

SPEC = warehouse.pipeline("shop_pipeline", dataset_name="shop")
REPLACED: Any = {"disposition": "merge", "strategy": "delete-insert"}
LOCK_FILES = {"warehouse.lock", "warehouse.owner", "warehouse.partition-locks"}
POINTS = ["request", "replace", "complete"]
PATCHED: list[tuple[type, str]] = [
    (SqlLoadJob, "run"),
    (DirectJob, "run"),
    (SqlJobClientBase, "complete_load"),
]
DAY: Any = {"day": {"data_type": "text", "partition": True}}


@dlt.source(name="shop")
def shop(on_request: Callable[[], None]) -> Iterator[DltResource]:
    """Serves tables with nested and companion tables, and one that is replaced as a whole.

    `orders` is staged, because it has a nested table, and `visits` is loaded directly.
    """

    @dlt.resource(columns=DAY, write_disposition=REPLACED)
    def orders() -> Iterator[Any]:
        on_request()
        yield {"day": "mon", "n": 1, "lines": [{"item": "a"}, {"item": "b"}]}
        yield dlt.mark.with_table_name({"day": "mon", "count": 1}, "order_days")

    @dlt.resource(columns=DAY, write_disposition=REPLACED)
    def visits() -> Iterator[Any]:
        yield {"day": "mon", "n": 1}
        yield dlt.mark.with_table_name({"day": "mon", "count": 1}, "visit_days")

    @dlt.resource(write_disposition="replace")
    def totals() -> Iterator[Any]:
        yield {"n": 1, "parts": [{"n": 1}]}

    for resource, companion in ((orders, "order_days"), (visits, "visit_days")):
        yield resource.apply_hints(additional_table_hints={COMPANION_TABLES_HINT: [companion]})
    yield totals


def load(on_request: Callable[[], None] = lambda: None) -> None:
    warehouse.load(warehouse.plan_load(SPEC, shop(on_request), ["mon"]))


def load_until(point: str, stop: Callable[[], None]) -> None:
    """Load, and call `stop` before a point: the first request, a replacement, or the load's last write."""

    def stopping(*_: object) -> None:
        stop()

    *replacing, completing = PATCHED
    for owner, name in {"replace": replacing, "complete": [completing]}.get(point, []):
        setattr(owner, name, stopping)
    load(stop if point == "request" else lambda: None)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise DatabaseTerminalException(RuntimeError("stopped by the test"))


@pytest.fixture
def temp_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty directory the system's temporary directory, and return it."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)  # the next use reads TMPDIR
    return directory


def tree(directory: Path) -> set[str]:
    """Return everything in a directory, except the content of working directories."""
    paths = (path.relative_to(directory) for path in directory.rglob("*"))
    return {str(path) for path in paths if path.parts[0] != "warehouse.working"} - {
        "warehouse.duckdb.wal"  # DuckDB deletes it when it opens the file
    }


def working_dirs(directory: Path) -> list[Path]:
    return list((directory / "warehouse.working").iterdir())


def counts() -> dict[str, int]:
    tables = ("orders", "orders__lines", "order_days", "visits", "visit_days", "totals__parts")
    return {
        table: warehouse.query(f"SELECT count(*) AS n FROM shop.{table}")[0]["n"]
        for table in tables
    }


LOADED = {
    "orders": 1,
    "orders__lines": 2,
    "order_days": 1,
    "visits": 1,
    "visit_days": 1,
    "totals__parts": 1,
}


def test_a_load_leaves_only_the_warehouse_and_its_lock_files(
    any_warehouse: str, tmp_warehouse: Path, temp_dir: Path
) -> None:
    for _ in range(3):
        load()
        expected = {"warehouse.duckdb", *LOCK_FILES} if any_warehouse == "duckdb" else set()
        assert tree(tmp_warehouse) == {"drop", "tmp", *expected}
        assert working_dirs(tmp_warehouse) == []
    assert counts() == LOADED


def test_loads_that_fail_leave_only_their_working_directories(
    any_warehouse: str, tmp_warehouse: Path, temp_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    before = tree(tmp_warehouse)
    for point in POINTS:
        with monkeypatch.context() as patch:
            for owner, name in PATCHED:
                patch.setattr(owner, name, getattr(owner, name))  # restored at the end
            with pytest.raises(Exception, match="stopped by the test"):
                load_until(point, fail)
        assert tree(tmp_warehouse) == before, point
    assert_next_loads_clean_up(tmp_warehouse, before)


def test_loads_that_are_killed_leave_only_their_working_directories(
    any_warehouse: str, tmp_warehouse: Path, temp_dir: Path
) -> None:
    load()
    before = tree(tmp_warehouse)
    for point in POINTS:
        assert in_forked_process(partial(load_until, point, kill)) == -signal.SIGKILL, point
        # dlt writes files there for an instant, which another thread may just have done.
        shutil.rmtree(temp_dir)
        temp_dir.mkdir()
        assert tree(tmp_warehouse) == before, point
    assert_next_loads_clean_up(tmp_warehouse, before)


def assert_next_loads_clean_up(tmp_warehouse: Path, before: set[str]) -> None:
    """Check that a load keeps the working directories of the last week, and deletes older ones."""
    left = working_dirs(tmp_warehouse)
    assert len(left) == len(POINTS)
    long_ago = time.time() - 8 * 24 * 3600
    for directory in left[1:]:
        os.utime(directory, (long_ago, long_ago))
    load()
    assert working_dirs(tmp_warehouse) == left[:1]
    assert tree(tmp_warehouse) == before
    assert counts() == LOADED
