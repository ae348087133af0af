"""The sensor requests one run for each content of each file, and none for incomplete files."""

import os
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from csv_etl.automation import dropped_files_sensor
from csv_etl.definitions import defs
from shared.orchestration.dropped_files import MAX_FILES_PER_TICK
from shared.sources.csv import DropFolder

ROW = "2018/09/28,1,1,1,1,1\n"
HEADER = '"date","share_price","amount","spend","shift","spread"\n'


class Daemon:
    """Runs the sensor like Dagster's daemon: it keeps the cursor and ignores known run keys."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance, self.folder = instance, folder
        self.cursor: str | None = None
        self.run_keys: set[str] = set()

    def write(self, name: str, rows: int) -> None:
        (self.folder / name).write_text(HEADER + ROW * rows)

    def tick(self) -> list[str]:
        """Return the files for which a run is launched."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = dropped_files_sensor(context)
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for wanted in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions("dropped_files", list(wanted.partition_keys))
        launched = []
        for request in result.run_requests or []:
            assert request.run_key is not None
            assert request.partition_key is not None
            if request.run_key not in self.run_keys:
                self.run_keys.add(request.run_key)
                launched.append(request.partition_key)
        return launched

    def run(self, name: str) -> None:
        job = defs.resolve_job_def("dropped_file_job")
        job.execute_in_process(instance=self.instance, partition_key=name, raise_on_error=False)


@pytest.fixture
def daemon(instance: dg.DagsterInstance, tmp_warehouse: Path) -> Daemon:
    return Daemon(instance, tmp_warehouse / "drop")


def test_a_new_file_is_requested_once(daemon: Daemon) -> None:
    daemon.write("a.csv", 1)
    assert [daemon.tick() for _ in range(4)] == [[], ["a.csv"], [], []]
    daemon.write("b.csv", 1)
    assert [daemon.tick() for _ in range(3)] == [[], ["b.csv"], []]


def test_a_file_that_grows_is_not_requested_until_it_is_complete(daemon: Daemon) -> None:
    for rows in (1, 2, 3):
        daemon.write("a.csv", rows)
        assert daemon.tick() == []
    assert daemon.tick() == ["a.csv"]


def test_a_changed_file_is_requested_again(daemon: Daemon) -> None:
    daemon.write("a.csv", 1)
    daemon.tick()
    assert daemon.tick() == ["a.csv"]
    daemon.run("a.csv")
    daemon.write("a.csv", 2)
    assert [daemon.tick() for _ in range(3)] == [[], ["a.csv"], []]


def test_a_touched_file_with_the_same_content_is_not_requested(daemon: Daemon) -> None:
    daemon.write("a.csv", 1)
    daemon.tick()
    daemon.tick()
    os.utime(daemon.folder / "a.csv", (1, 1))  # the run is in progress
    assert [daemon.tick() for _ in range(3)] == [[], [], []]
    daemon.run("a.csv")
    os.utime(daemon.folder / "a.csv", (2, 2))
    assert [daemon.tick() for _ in range(3)] == [[], [], []]


def test_a_reverted_change_is_requested(daemon: Daemon) -> None:
    for rows, change in [(1, "a"), (2, "b"), (1, "back to a"), (2, "b again")]:
        daemon.write("a.csv", rows)
        daemon.tick()
        assert daemon.tick() == ["a.csv"], change
        daemon.run("a.csv")


def test_a_file_that_failed_its_check_is_not_requested_until_it_changes(daemon: Daemon) -> None:
    (daemon.folder / "a.csv").write_text("nonsense")
    daemon.tick()
    assert daemon.tick() == ["a.csv"]
    daemon.run("a.csv")
    assert [daemon.tick() for _ in range(3)] == [[], [], []]
    daemon.write("a.csv", 1)
    daemon.tick()
    assert daemon.tick() == ["a.csv"]


def test_a_lost_cursor_starts_no_run(daemon: Daemon) -> None:
    daemon.write("a.csv", 1)
    daemon.tick()
    daemon.tick()
    daemon.run("a.csv")
    daemon.cursor = None
    daemon.run_keys.clear()
    assert [daemon.tick() for _ in range(3)] == [[], [], []]


def test_the_cursor_stays_small_and_a_tick_bounded(daemon: Daemon) -> None:
    for n in range(250):
        daemon.write(f"{n}-{'long' * 20}.csv", 1)
    ticks = [len(daemon.tick()) for _ in range(5)]
    assert ticks == [0, MAX_FILES_PER_TICK, MAX_FILES_PER_TICK, 50, 0]
    assert daemon.cursor is not None
    assert len(daemon.cursor) < 250 * 9


def test_one_invalid_file_does_not_block_the_others(daemon: Daemon) -> None:
    folder = daemon.folder
    (folder / "circle.csv").symlink_to(folder / "circle.csv")
    os.mkfifo(folder / "pipe.csv")
    (folder / os.fsdecode(b"latin-\xe9.csv")).write_text(HEADER + ROW)
    daemon.write("a.csv", 1)
    daemon.tick()
    assert "a.csv" in daemon.tick()


def test_a_file_that_is_unreadable_for_a_time_is_retried(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> str:
        raise PermissionError("for a time")

    daemon.write("a.csv", 1)
    daemon.tick()
    with monkeypatch.context() as patch:
        patch.setattr(DropFolder, "content_hash", unreadable)
        assert daemon.tick() == []
    assert [daemon.tick() for _ in range(3)] == [["a.csv"], [], []]


def test_a_missing_drop_folder_is_reported_without_an_error(
    instance: dg.DagsterInstance, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROP_FOLDER", str(tmp_warehouse / "nowhere"))
    result = dropped_files_sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SkipReason)
    assert "nowhere does not exist" in str(result.skip_message)


def test_the_schedule_requests_yesterday_at_six(instance: dg.DagsterInstance) -> None:
    repository = defs.get_repository_def()
    schedule = repository.get_schedule_def("daily_file_schedule")
    assert schedule.cron_schedule == "0 6 * * *"
    now = datetime(2018, 1, 24, 6, tzinfo=UTC)
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=now, repository_def=repository
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2018-01-23"
