"""Pruning: old runs go, and what is loaded, failed or checked stays known."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import select, update

from shared.orchestration import dagster_internals, dagster_tables, health
from shared.orchestration.dagster_tables import CHECK_RESULTS, EVENT_TAGS, EVENTS, RUN_TAGS, RUNS
from shared.orchestration.prune import plan_pruning, prune, storage_size
from shared.testing.instigators import store_tick, switch_on
from shared.testing.postgres_server import PostgresServer

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
KEEP = timedelta(days=90)


class Shop:
    """A location in an instance, whose runs can be made old."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.error = instance, ""

        @dg.asset(partitions_def=dg.StaticPartitionsDefinition(DAYS))
        def orders(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
            context.log.info("x" * 20_000)
            print("printed")
            if self.error:
                raise ValueError(self.error)
            yield dg.MaterializeResult(metadata={"rows_loaded": 3})

        @dg.asset(check_specs=[dg.AssetCheckSpec("no_gaps", asset="totals")])
        def totals(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
            context.log.info("x" * 20_000)
            yield dg.MaterializeResult(
                check_results=[dg.AssetCheckResult(passed=True)],
                metadata={"run": context.run.run_id},
            )

        self.defs = dg.Definitions([orders, totals])

    def run(
        self, name: str, partition: str | None = None, *, days_old: int = 100, root: str = ""
    ) -> str:
        job = self.defs.resolve_implicit_global_asset_job_def()
        run_id = job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(name)],
            partition_key=partition,
            tags={"dagster/root_run_id": root} if root else {},
            raise_on_error=False,
        ).run_id
        with dagster_tables.runs_connection(self.instance) as connection:
            age = days_old * 24 * 3600
            connection.execute(
                update(RUNS)
                .where(RUNS.c.run_id == run_id)
                .values(end_time=RUNS.c.end_time - age, start_time=RUNS.c.start_time - age)
            )
        return run_id

    def column(self, column: Any) -> set[Any]:
        with dagster_tables.events_connection(self.instance) as connection:
            return {value for (value,) in connection.execute(select(column))}

    def state(self) -> dict[str, Any]:
        """What Dagster and `etl status` know; without the cache of Dagster."""
        key, storage = dg.AssetKey("orders"), self.instance.event_log_storage
        for asset in ("orders", "totals"):
            storage.wipe_asset_cached_status(dg.AssetKey(asset))
        latest = self.instance.get_latest_materialization_event(dg.AssetKey("totals"))
        assert latest
        assert latest.asset_materialization
        check = storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(dg.AssetKey("totals"), "no_gaps")]
        )
        return {
            "materialized": self.instance.get_materialized_partitions(key),
            "statuses": self.instance.get_status_by_partition(
                key, DAYS, dg.StaticPartitionsDefinition(DAYS)
            ),
            "latest": latest.asset_materialization.metadata,
            "check": [record.status for record in check.values()],
            "problems": health.location_problems(self.instance, self.defs.get_repository_def()),
            "assets": set(self.instance.get_asset_keys()),
        }


@contextmanager
def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    overrides = {}
    if kind == "postgres":
        server: PostgresServer = request.getfixturevalue("warehouse_server")
        url = server.database()
        overrides = {"storage": {"postgres": {"postgres_url": url}}}
    with dg.instance_for_test(overrides, temp_dir=str(folder)) as instance:
        yield instance


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def test_old_runs_go_and_what_is_loaded_failed_or_checked_stays_known(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with opened(kind, tmp_path, request) as instance:
        shop = Shop(instance)
        old = {shop.run("orders", day) for day in (*DAYS, *DAYS[:2])}
        old |= {shop.run("totals") for _ in range(3)}
        shop.error = "no header"
        first = shop.run("orders", DAYS[2])
        failed = shop.run("orders", DAYS[2], root=first)
        shop.error = ""
        new = shop.run("totals", days_old=10)
        waiting = dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTED)
        instance.add_run(waiting)
        before, size = shop.state(), storage_size(instance)
        assert before["materialized"] == set(DAYS)
        (problem,) = before["problems"]
        assert problem.message == f"partition {DAYS[2]} failed: ValueError: no header"

        plan = plan_pruning(instance, KEEP)
        assert set(plan.run_ids) == old
        assert list(plan.kept) == [first, failed]
        assert prune(instance, plan) == storage_size(instance)

        assert shop.state() == before
        assert {run.run_id for run in instance.get_runs()} == {first, failed, new, waiting.run_id}
        assert instance.all_logs(failed)
        with dagster_tables.runs_connection(instance) as connection:
            tagged = {run_id for (run_id,) in connection.execute(select(RUN_TAGS.c.run_id))}
        assert not tagged & old
        kept = shop.column(EVENTS.c.run_id) & old
        assert len(kept) == len(DAYS)  # one materialization of each day
        assert shop.column(CHECK_RESULTS.c.run_id) == {new}
        assert shop.column(EVENT_TAGS.c.event_id) <= shop.column(EVENTS.c.id)
        logs = {file.name for file in (tmp_path / "storage").glob("*/compute_logs")}
        assert not any((tmp_path / "storage" / run_id).exists() for run_id in old), logs
        if size is not None:
            assert storage_size(instance) < size / 2  # type: ignore[operator]
        assert (size is None) == (kind == "postgres")
        assert plan_pruning(instance, KEEP).run_ids == []

        shop.run("orders", DAYS[2])
        assert shop.state()["problems"] == []


def test_an_interrupted_pruning_can_run_again(
    stored_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.orchestration.prune.RUNS_PER_BATCH", 1)
    shop = Shop(stored_instance)
    runs = [shop.run("orders", day) for day in DAYS]
    shop.run("totals")
    before = shop.state()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(stored_instance, plan_pruning(stored_instance, KEEP), interrupt)
    assert shop.state() == before
    plan = plan_pruning(stored_instance, KEEP)
    assert list(plan.run_ids)[:2] == runs[1:]
    prune(stored_instance, plan)
    assert shop.state() == before


def test_a_new_event_never_gets_the_number_of_a_deleted_one(
    stored_instance: dg.DagsterInstance,
) -> None:
    shop = Shop(stored_instance)
    shop.run("totals")
    last = max(shop.column(EVENTS.c.id))
    prune(stored_instance, plan_pruning(stored_instance, KEEP))
    run = shop.run("totals")
    with dagster_tables.events_connection(stored_instance) as connection:
        query = select(EVENTS.c.id).where(EVENTS.c.run_id == run)
        assert all(event > last for (event,) in connection.execute(query))


def test_old_ticks_go_except_the_last_of_each_sensor(stored_instance: dg.DagsterInstance) -> None:
    Shop(stored_instance).run("totals", days_old=0)
    day = 24 * 3600
    for age in (300, 200, 100):
        store_tick(stored_instance, "new_files", "shop", seconds_ago=age * day)
    for age in (300, 1):
        store_tick(stored_instance, "old_files", "shop", "no folder", seconds_ago=age * day)
    prune(stored_instance, plan_pruning(stored_instance, KEEP))
    for name in ("new_files", "old_files"):
        state = switch_on(stored_instance, name, "shop")
        statuses = list(dagster_internals.TickStatus)
        assert len(dagster_internals.ticks(stored_instance, state, statuses, limit=9)) == 1
