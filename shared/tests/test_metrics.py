"""Metrics for Prometheus: they count what happened, and a scrape costs the same with many runs."""

from collections.abc import Iterator

import dagster as dg
import pytest
from prometheus_client import CollectorRegistry

from shared.orchestration.metrics import InstanceCollector
from shared.testing.instigators import store_tick
from shared.testing.queries import count_queries

FILES = [str(number) for number in range(20)]


class Shop:
    """A location in an instance, and the metrics of that instance."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.error, self.passed = instance, "", True

        @dg.asset(
            partitions_def=dg.StaticPartitionsDefinition(FILES),
            check_specs=[dg.AssetCheckSpec("no_gaps", asset="orders")],
        )
        def orders() -> Iterator[dg.MaterializeResult[None]]:
            if self.error:
                raise ValueError(self.error)
            numbers = {"rows_loaded": 3, "bytes_read": 100, "duration_seconds": 0.5}
            result = dg.AssetCheckResult(passed=self.passed)
            yield dg.MaterializeResult(metadata=numbers, check_results=[result])

        self.job = dg.Definitions([orders]).resolve_implicit_global_asset_job_def()
        self.registry = CollectorRegistry()
        self.registry.register(InstanceCollector(instance, 0, 0))

    def run(self, partition: str) -> None:
        tags = {".dagster/repository": "__repository__@shop"}
        self.job.execute_in_process(
            instance=self.instance, partition_key=partition, tags=tags, raise_on_error=False
        )

    def value(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def shop(instance: dg.DagsterInstance) -> Shop:
    return Shop(instance)


def test_counters_start_at_zero_and_count_each_run_and_load_once(shop: Shop) -> None:
    shop.run("0")
    ended = {"location": "shop", "job": "__ASSET_JOB"}
    assert shop.value("etl_runs_total", status="success", **ended) == 0
    assert shop.value("etl_rows_loaded_total", asset="orders") == 0
    shop.run("1")
    shop.run("1")
    shop.error = "no file"
    shop.run("2")
    for _ in range(2):
        assert shop.value("etl_runs_total", status="success", **ended) == 2
        assert shop.value("etl_runs_total", status="failure", **ended) == 1
        assert shop.value("etl_materializations_total", asset="orders") == 2
        assert shop.value("etl_rows_loaded_total", asset="orders") == 6
        assert shop.value("etl_bytes_read_total", asset="orders") == 200
        assert shop.value("etl_load_seconds_total", asset="orders") == 1


def test_gauges_show_what_fails_now(shop: Shop) -> None:
    loaded = "etl_asset_last_success_timestamp_seconds"
    assert shop.value(loaded, asset="orders") is None
    shop.passed = False
    shop.run("0")
    at = shop.value(loaded, asset="orders")
    assert shop.value("etl_asset_failed_partitions", asset="orders") == 0
    assert shop.value("etl_check_failed", asset="orders", check="no_gaps") == 1
    shop.error, shop.passed = "no file", True
    shop.run("1")
    shop.run("2")
    assert shop.value("etl_asset_failed_partitions", asset="orders") == 2
    assert shop.value(loaded, asset="orders") == at
    shop.error = ""
    shop.run("1")
    assert shop.value("etl_asset_failed_partitions", asset="orders") == 1
    assert shop.value("etl_check_failed", asset="orders", check="no_gaps") is None
    later = shop.value(loaded, asset="orders")
    assert at
    assert later
    assert later > at


def test_runs_that_have_not_ended_and_the_queue_are_shown(shop: Shop) -> None:
    assert shop.value("etl_queue_length") == 0
    shop.instance.add_run(dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTED))
    labels = {"location": "", "job": "job", "status": "started"}
    assert shop.value("etl_runs_in_progress", **labels) == 1
    assert shop.value("etl_queue_oldest_seconds") == 0


def test_a_failed_tick_is_shown(stored_instance: dg.DagsterInstance) -> None:
    shop = Shop(stored_instance)
    store_tick(stored_instance, "new_files", "shop", "no folder", seconds_ago=30)
    assert shop.value("etl_tick_failed", location="shop", name="new_files") == 1
    store_tick(stored_instance, "new_files", "shop")
    assert shop.value("etl_tick_failed", location="shop", name="new_files") == 0


def test_a_scrape_has_the_same_few_queries_with_many_partitions_and_runs(shop: Shop) -> None:
    shop.run("0")
    shop.value("etl_queue_length")  # the first scrape reads more
    with count_queries() as few:
        shop.value("etl_queue_length")
    for partition in FILES[1:10]:
        shop.run(partition)
    shop.error = "no file"
    for partition in FILES[10:]:
        shop.run(partition)
    with count_queries() as many:
        shop.value("etl_queue_length")
    assert len(many) <= len(few) + 3  # the labels of the new runs, the statuses of failed ones
    assert len(many) <= 15


def test_scrapes_within_the_cache_time_have_no_query_and_neither_has_the_registration(
    instance: dg.DagsterInstance,
) -> None:
    registry = CollectorRegistry()
    with count_queries() as registration:
        registry.register(InstanceCollector(instance, 60))
    assert registration == []
    registry.get_sample_value("etl_queue_length")
    with count_queries() as second:
        assert registry.get_sample_value("etl_queue_length") == 0
    assert second == []
