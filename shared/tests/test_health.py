"""What needs attention: each problem is listed until it is solved, and with the next command."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.events import EngineEventData
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy import update

from shared.orchestration import dagster_tables, health
from shared.orchestration.health import Problem
from shared.orchestration.partition_checks import build_partitions_check
from shared.testing.instigators import store_tick

FILES = ["a", "b", "c", "d", "e"]


class Shop:
    """A location with a partitioned table, a table, and a check; their next run may fail."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.error, self.passed = instance, "", True
        self.severity = dg.AssetCheckSeverity.ERROR

        @dg.asset(
            key=["shop", "orders"],
            partitions_def=dg.StaticPartitionsDefinition(FILES),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def orders() -> None:
            if self.error:
                raise RuntimeError("the load failed") from ValueError(self.error)

        @dg.asset(
            key=["shop", "totals"],
            freshness_policy=dg.FreshnessPolicy.time_window(timedelta(hours=1)),
            check_specs=[dg.AssetCheckSpec("no_gaps", asset=["shop", "totals"])],
        )
        def totals() -> Iterator[dg.MaterializeResult[None]]:
            if self.error:
                raise ValueError(self.error)
            result = dg.AssetCheckResult(
                passed=self.passed, severity=self.severity, description="3 rows are missing."
            )
            yield dg.MaterializeResult(check_results=[result])

        self.defs = dg.Definitions([orders, totals])
        self.repository = self.defs.get_repository_def()

    def run(self, name: str, partition: str | None = None) -> str:
        job = self.defs.resolve_implicit_global_asset_job_def()
        key = dg.AssetKey(["shop", name])
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[key],
            partition_key=partition,
            raise_on_error=False,
        ).run_id

    def problems(self, kind: str = "") -> list[Problem]:
        found = health.location_problems(self.instance, self.repository)
        return [problem for problem in found if kind in ("", problem.kind)]


@pytest.fixture
def shop(instance: dg.DagsterInstance) -> Shop:
    return Shop(instance)


def test_a_failed_partition_is_listed_until_a_later_run_loads_it(shop: Shop) -> None:
    for partition in FILES:
        shop.run("orders", partition)
    shop.run("totals")
    assert shop.problems() == []
    shop.error = "file has no header"
    shop.run("orders", "b")
    run = shop.run("orders", "c")
    (failed,) = shop.problems()
    assert failed.kind == "failed"
    assert failed.is_failure
    assert failed.subject == "shop/orders"
    assert failed.message == "2 partitions failed, b to c: ValueError: file has no header"
    assert failed.fix == "uv run etl run shop/orders --from b --to c"
    assert (failed.count, list(failed.partitions), failed.run_id) == (2, [("b", "c")], run)
    (unknown,) = health.unknown_asset_problems(shop.instance)
    assert unknown.message == "2 partitions failed, b, c: ValueError: file has no header"
    assert health.unknown_asset_problems(shop.instance, ["shop/orders"]) == []
    shop.error = ""
    shop.run("orders", "b")
    (failed,) = shop.problems()
    assert failed.message == "partition c failed: ValueError: file has no header"
    assert failed.fix == "uv run etl run shop/orders --partition c"
    shop.run("orders", "c")
    assert shop.problems() == []


def test_a_table_without_partitions_is_listed_until_it_is_loaded(shop: Shop) -> None:
    subjects = [(problem.subject, problem.message) for problem in shop.problems("missing")]
    assert ("shop/totals", "was never loaded") in subjects
    shop.error = "no table"
    shop.run("totals")
    failed, not_evaluated = [p for p in shop.problems() if p.subject.startswith("shop/totals")]
    assert (failed.kind, failed.message) == ("failed", "ValueError: no table")
    assert not_evaluated.kind == "check"
    assert not_evaluated.message == "ERROR: it did not run, because its run failed"
    shop.error = ""
    shop.run("totals")
    assert shop.problems("failed") == shop.problems("check") == []


def test_missing_partitions_are_listed_as_ranges_and_are_no_failure(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run("totals")
    shop.run("orders", "c")
    (missing,) = shop.problems()
    assert (missing.kind, missing.is_failure, missing.count) == ("missing", False, 4)
    assert missing.message == "4 of 5 partitions: a to b, d to e"
    assert missing.fix == "uv run etl run shop/orders --from d --to e"
    monkeypatch.setattr(health, "MAX_RANGES", 1)
    assert shop.problems()[0].message == "4 of 5 partitions: a to b and 1 more ranges"


def test_a_window_that_has_not_ended_is_not_missing(instance: dg.DagsterInstance) -> None:
    ended = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-04")
    assert health.complete_partitions(ended, instance) == [
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]
    open_ended = dg.DailyPartitionsDefinition("2026-01-01", end_offset=2)
    until_today = dg.DailyPartitionsDefinition("2026-01-01")
    assert health.complete_partitions(open_ended, instance) == health.complete_partitions(
        until_today, instance
    )


@pytest.mark.parametrize("severity", ["ERROR", "WARN"])
def test_a_failed_check_is_listed_until_it_passes_and_a_warning_is_no_failure(
    shop: Shop, severity: str
) -> None:
    shop.passed, shop.severity = False, dg.AssetCheckSeverity[severity]
    run = shop.run("totals")
    (check,) = shop.problems("check")
    assert check.subject == "shop/totals no_gaps"
    assert check.message == f"{severity}: 3 rows are missing."
    assert check.is_failure == (severity == "ERROR")
    assert check.run_id == run
    shop.passed = True
    shop.run("totals")
    assert shop.problems("check") == []


def test_a_stale_table_is_listed(shop: Shop) -> None:
    shop.run("totals")
    shop.instance._report_runless_asset_event(
        FreshnessStateChange(
            key=dg.AssetKey(["shop", "totals"]),
            new_state=FreshnessState.FAIL,
            previous_state=FreshnessState.UNKNOWN,
            state_change_timestamp=0.0,
        )
    )
    (stale,) = shop.problems("stale")
    assert stale.is_failure
    assert stale.message.startswith("last loaded 2")


def test_a_wiped_asset_has_no_failed_attempt(shop: Shop) -> None:
    shop.error = "no table"
    shop.run("totals")
    shop.instance.wipe_assets([dg.AssetKey(["shop", "totals"])])
    assert shop.problems("failed") == shop.problems("check") == []


def test_the_number_of_queries_does_not_grow_with_failed_runs(shop: Shop) -> None:
    from shared.testing.queries import count_queries

    shop.error = "no file"
    shop.run("orders", "a")
    with count_queries() as before:
        shop.problems()
    for partition in FILES[1:]:
        shop.run("orders", partition)
    with count_queries() as after:
        shop.problems()
    assert len(after) == len(before)


def old_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, days: float) -> str:
    keys = frozenset({dg.AssetKey(["shop", "orders"])})
    run = dg.DagsterRun("job", status=status, asset_selection=keys)
    instance.add_run(run)
    created = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
    with dagster_tables.runs_connection(instance) as connection:
        where = dagster_tables.RUNS.c.run_id == run.run_id
        change = update(dagster_tables.RUNS).where(where)
        connection.execute(change.values(create_timestamp=created))
    return run.run_id


def test_a_run_that_starts_or_runs_for_long_is_stuck(instance: dg.DagsterInstance) -> None:
    status = dg.DagsterRunStatus
    for fresh in (status.STARTING, status.STARTED, status.SUCCESS):
        old_run(instance, fresh, 0.01)
    old_run(instance, status.STARTED, 0.5)
    old_run(instance, status.SUCCESS, 50)
    assert health.stuck_runs(instance) == []
    stuck = [old_run(instance, status.STARTED, 2), old_run(instance, status.STARTING, 0.1)]
    second, first = health.stuck_runs(instance)
    assert [first.run_id, second.run_id] == stuck
    assert first.subject == f"run {stuck[0][:8]} of shop/orders"
    assert first.message.startswith("started since 2")
    assert health.stuck_runs(instance, "another location") == []


def test_a_queue_is_stuck_only_while_no_run_is_executed(instance: dg.DagsterInstance) -> None:
    status = dg.DagsterRunStatus
    for _ in range(3):
        old_run(instance, status.NOT_STARTED, 0.1)
    old_run(instance, status.NOT_STARTED, 0)
    (queue,) = health.stuck_runs(instance)
    assert queue.count == 3
    assert queue.message.startswith("3 runs wait, the first since 2")
    old_run(instance, status.STARTED, 0)
    assert health.stuck_runs(instance) == []


def test_a_run_whose_process_is_gone_is_stuck(tmp_path: Path) -> None:
    launcher = {"module": "shared.orchestration.run_launcher", "class": "LocalRunLauncher"}
    with dg.instance_for_test({"run_launcher": launcher}, temp_dir=str(tmp_path)) as instance:
        for pid in (os.getpid(), 2**22 + 1):
            run = dg.DagsterRun("job", status=dg.DagsterRunStatus.NOT_STARTED)
            instance.add_run(run)
            instance.report_engine_event(
                "started", run, EngineEventData({"pid": dg.MetadataValue.text(str(pid))})
            )
            instance.report_dagster_event(
                dg.DagsterEvent("PIPELINE_START", "job"), run_id=run.run_id
            )
        (stuck,) = health.stuck_runs(instance)
        assert stuck.run_id == run.run_id
        assert stuck.message.endswith(", and its process is gone")
        assert stuck.is_failure


def test_a_sensor_whose_last_tick_failed_is_listed_until_a_tick_succeeds(
    stored_instance: dg.DagsterInstance,
) -> None:
    store_tick(stored_instance, "new_files", "shop", seconds_ago=60)
    assert health.failed_ticks(stored_instance) == []
    store_tick(stored_instance, "new_files", "shop", "the folder is gone", seconds_ago=30)
    (tick,) = health.failed_ticks(stored_instance)
    assert tick.subject == "sensor new_files of shop"
    assert tick.message.endswith("ValueError: the folder is gone")
    assert health.failed_ticks(stored_instance, "bakery") == []
    store_tick(stored_instance, "new_files", "shop")
    assert health.failed_ticks(stored_instance) == []


def test_a_daemon_that_does_not_run_is_a_warning_if_a_sensor_is_on(
    stored_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert health.daemon_problems(stored_instance) == []
    store_tick(stored_instance, "new_files", "shop")
    (daemon,) = health.daemon_problems(stored_instance)
    assert not daemon.is_failure
    assert daemon.message == (
        "no daemon has run for this instance, so 1 schedules and sensors do not tick"
    )
    heartbeat = DaemonHeartbeat(time.time(), "SENSOR", "id", [])
    stored_instance.add_daemon_heartbeat(heartbeat)
    assert health.daemon_problems(stored_instance) == []


def test_a_standing_check_fails_while_a_partition_failed_or_is_missing(
    instance: dg.DagsterInstance,
) -> None:
    partitions, errors = dg.StaticPartitionsDefinition(FILES), [""]

    @dg.asset(partitions_def=partitions)
    def orders() -> None:
        if errors[0]:
            raise ValueError(errors[0])

    check = build_partitions_check(orders.key, partitions, latest=2)

    def run(partition: str) -> dg.AssetCheckEvaluation | None:
        done = dg.materialize(
            [orders, check], instance=instance, partition_key=partition, raise_on_error=False
        )
        return next(iter(done.get_asset_check_evaluations()), None)

    first = run("d")
    assert first
    assert not first.passed
    assert first.description == "missing: 1 of 5 partitions: e"
    second = run("e")
    assert second
    assert second.passed
    errors[0] = "no header"
    assert run("a") is None
    errors[0] = ""
    third = run("e")
    assert third
    assert third.description == "failed: partition a failed: ValueError: no header"
    assert {name: value.value for name, value in third.metadata.items()} == {
        "failed": 1,
        "missing": 0,
    }
    with pytest.raises(ValueError, match="latest is 0"):
        build_partitions_check(orders.key, partitions, latest=0)
