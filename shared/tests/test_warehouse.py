"""The DuckDB file: one writer at a time, with waits that are logged and time out."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from dlt.common.schema import Schema

from shared import warehouse
from shared.sources.simple import simple_source
from shared.warehouse.statistics import collect_stats

OWN_LOCK = """
import sys, time
from shared import warehouse
from shared.sources.simple import simple_source
with warehouse.exclusive_connection():
    print("locked", flush=True)
    time.sleep(float(sys.argv[1]))
"""
OTHER_PROGRAM = """
import sys, time, duckdb
with duckdb.connect(sys.argv[2], read_only=sys.argv[3] == "read"):
    print("locked", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def lock_owner(code: str, seconds: float, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that owns the warehouse lock, and return once it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(seconds), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def rows() -> list[int]:
    return [row["n"] for row in warehouse.query("SELECT n FROM numbers ORDER BY n")]


@pytest.fixture
def file(tmp_warehouse: Path) -> Path:
    with warehouse.exclusive_connection() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
    return tmp_warehouse / "warehouse.duckdb"


@pytest.mark.usefixtures("file")
def test_a_writer_waits_for_another_and_logs_its_owner() -> None:
    logged: list[str] = []
    with (
        lock_owner(OWN_LOCK, 1) as other,
        warehouse.exclusive_connection(logged.append) as connection,
    ):
        assert other.poll() is not None or other.wait(5) == 0
        connection.execute("INSERT INTO numbers VALUES (2)")
    assert rows() == [1, 2]
    assert logged == [f"Waiting for the warehouse lock (owner: pid {other.pid})"]


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_program_without_the_lock_file_delays_a_writer_and_does_not_fail_it(
    file: Path, mode: str
) -> None:
    logged: list[str] = []
    with (
        lock_owner(OTHER_PROGRAM, 1, str(file), mode) as other,
        warehouse.exclusive_connection(logged.append),
    ):
        assert other.poll() is not None or other.wait(5) == 0
    assert len(logged) == 1
    assert str(other.pid) in logged[0]


@pytest.mark.usefixtures("file")
def test_a_reader_waits_for_a_writer() -> None:
    with lock_owner(OWN_LOCK, 1):
        assert rows() == [1]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (OWN_LOCK, r"0.3 s waiting for the warehouse lock \(owner: pid"),
        (OTHER_PROGRAM, "owner: another program"),
    ],
)
def test_waiting_times_out_with_an_error_that_names_the_owner(
    file: Path, monkeypatch: pytest.MonkeyPatch, code: str, what: str
) -> None:
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0.3")
    with lock_owner(code, 30, str(file), "write") as other:
        with (
            pytest.raises(warehouse.LockTimeoutError, match=what) as caught,
            warehouse.exclusive_connection(),
        ):
            pytest.fail("another process owns the lock")
        other.kill()
    assert str(other.pid) in str(caught.value)
    assert "WAREHOUSE_WAIT_SECONDS" in str(caught.value)


@pytest.mark.usefixtures("file")
def test_a_killed_writer_frees_the_warehouse() -> None:
    with lock_owner(OWN_LOCK, 600) as other:
        os.kill(other.pid, signal.SIGKILL)
    with warehouse.exclusive_connection() as connection:
        connection.execute("INSERT INTO numbers VALUES (2)")
    assert rows() == [1, 2]


def test_reading_before_the_first_load_names_the_command(tmp_warehouse: Path) -> None:
    with pytest.raises(FileNotFoundError, match="uv run etl run"):
        warehouse.query("SELECT 1")
    assert not (tmp_warehouse / "warehouse.duckdb").exists()


def test_a_damaged_file_fails_without_a_wait(tmp_warehouse: Path) -> None:
    (tmp_warehouse / "warehouse.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(duckdb.IOException), warehouse.exclusive_connection():
        pytest.fail("it opened")


@pytest.mark.parametrize(
    ("setting", "stored", "header"),
    [(None, "v1.4.0+", 67), ("v1.0.0", "v1.0.0+", 64), ("latest", "v2.0.0+", 999)],
)
def test_a_new_file_has_a_format_that_older_programs_can_open_and_keeps_it(
    tmp_warehouse: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    stored: str,
    header: int,
) -> None:
    if setting:
        monkeypatch.setenv("WAREHOUSE_STORAGE_VERSION", setting)
    with warehouse.exclusive_connection() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS n FROM range(1000)")
    monkeypatch.setenv("WAREHOUSE_STORAGE_VERSION", "v1.2.0")  # no longer has an effect
    with warehouse.exclusive_connection() as connection:
        connection.execute("CREATE TABLE u AS FROM t")
        tags = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE path IS NOT NULL"
        assert connection.execute(tags).fetchall() == [(stored,)]
    # DuckDB 1.0 opens format 64, and DuckDB 1.4 those up to 67; older ones refuse the file by it.
    assert (
        int.from_bytes((tmp_warehouse / "warehouse.duckdb").read_bytes()[12:20], "little") == header
    )


def test_an_unknown_format_is_refused_by_the_name_of_the_setting(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_STORAGE_VERSION", "1.4")
    with (
        pytest.raises(warehouse.WarehouseConfigError, match=r"WAREHOUSE_STORAGE_VERSION is '1\.4'"),
        warehouse.exclusive_connection(),
    ):
        pass


def test_declaring_a_pipeline_writes_nothing(tmp_warehouse: Path) -> None:
    before = sorted(tmp_warehouse.rglob("*"))
    declared = warehouse.pipeline("a_pipeline", dataset_name="a_dataset")
    assert (declared.pipeline_name, declared.dataset_name) == ("a_pipeline", "a_dataset")
    assert sorted(tmp_warehouse.rglob("*")) == before


def test_each_run_has_its_own_working_directory_and_old_ones_are_deleted(
    tmp_warehouse: Path,
) -> None:
    declared = warehouse.pipeline("a_pipeline", dataset_name="a_dataset")
    plan = warehouse.plan_load(declared, simple_source())
    first, second = warehouse.LoadRun(plan), warehouse.LoadRun(plan)
    assert first.pipeline.working_dir != second.pipeline.working_dir
    directories = tmp_warehouse / "warehouse.working"
    assert len(list(directories.iterdir())) == 2
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(first.pipelines_dir, (long_ago, long_ago))
    third = warehouse.LoadRun(plan)
    left = {directory.name for directory in directories.iterdir()}
    assert left == {Path(second.pipelines_dir).name, Path(third.pipelines_dir).name}


def test_a_table_that_cannot_be_counted_after_its_load_does_not_fail_the_load() -> None:
    class Refusing:
        def row_count(self, table: str) -> int:
            raise ConnectionError(f"the server closed the connection of {table}")

    logged: list[str] = []
    stats = collect_stats(
        Refusing(), Schema("numbers"), "numbers", [], preview_rows=5, log=logged.append
    )
    assert stats.row_count is None
    assert logged == [
        "numbers is loaded, and cannot be described: the server closed the connection of numbers"
    ]
