"""Loads in threads of one process wait for each other as loads in processes do."""

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.extract import DltResource

from shared import warehouse
from shared.sources.hints import REPLACE_PARTITIONS
from shared.warehouse.errors import LockTimeoutError
from shared.warehouse.locks.file import FileLockManager
from support.processes import python

PIPELINE = warehouse.pipeline("shop_pipeline", dataset_name="shop")

HOLDS_IN_ANOTHER_PROCESS = """if True:
    from shared.warehouse.errors import LockTimeoutError
    from shared.warehouse.locks.file import FileLockManager
    try:
        with FileLockManager("shop", print).partition_lock({"orders": ["a"]}):
            print("free")
    except LockTimeoutError:
        print("held")
"""


def held_in_another_process() -> bool:
    environment = {**os.environ, "WAREHOUSE_WAIT_SECONDS": "0"}
    command = [python(), "-c", HOLDS_IN_ANOTHER_PROCESS]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return out.stdout.split()[-1] == "held"


@pytest.mark.usefixtures("any_warehouse")
def test_two_threads_that_load_the_same_partition_load_one_after_the_other() -> None:
    active, most = 0, 0
    lock, both_started = threading.Lock(), threading.Barrier(2)

    def load(number: int) -> None:
        @dlt.source(name="shop")
        def shop() -> DltResource:
            columns: Any = {"day": {"data_type": "text", "partition": True}}

            @dlt.resource(name="orders", columns=columns, **REPLACE_PARTITIONS)
            def orders() -> Iterator[dict[str, Any]]:
                nonlocal active, most
                with lock:
                    active += 1
                    most = max(most, active)
                threading.Event().wait(0.3)  # the other one would request its rows now
                yield from ({"day": "a", "id": row, "load": number} for row in range(3))
                with lock:
                    active -= 1

            return orders

        plan = warehouse.plan_load(PIPELINE, shop(), ["a"])
        both_started.wait(60)
        warehouse.load(plan)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(load, [1, 2]))
    assert most == 1
    rows = warehouse.query("SELECT load, count(*) AS n FROM shop.orders GROUP BY load")
    assert [row["n"] for row in rows] == [3]


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_load_that_ends_leaves_dlt_configured_for_those_that_run() -> None:
    second_runs, first_ended = threading.Event(), threading.Event()

    def load(name: str, wait: threading.Event, reached: threading.Event) -> None:
        @dlt.source(name=name)
        def source() -> DltResource:
            @dlt.resource(name=name, write_disposition="replace")
            def rows() -> Iterator[pa.Table]:
                reached.set()
                wait.wait(60)
                yield pa.table({"id": [1]})

            return rows

        spec = warehouse.pipeline(f"{name}_pipeline", dataset_name=name)
        warehouse.load(warehouse.plan_load(spec, source()))

    def first() -> None:
        load("first", second_runs, threading.Event())
        first_ended.set()

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(first)]
        running.append(threads.submit(load, "second", first_ended, second_runs))
        for each in running:
            each.result(120)
    for name in ("first", "second"):
        assert warehouse.query(f"SELECT count(_dlt_load_id) AS n FROM {name}.{name}") == [{"n": 1}]
    assert dlt.config.get("normalize.parquet_normalizer.add_dlt_load_id") is None


def manager() -> FileLockManager:
    return FileLockManager("shop", lambda _: None)


def test_a_thread_waits_for_a_partition_of_another_thread_and_not_for_other_partitions(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tmp_warehouse
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0")
    with manager().partition_lock({"orders": ["a", "b"]}):
        with manager().partition_lock({"orders": ["c"]}):
            pass
        with (
            pytest.raises(LockTimeoutError, match="the partition lock of shop"),
            manager().partition_lock({"orders": ["c", "a"]}),
        ):
            pytest.fail("another load holds a")
        with manager().partition_lock({"orders": ["c"]}):  # the refused one left nothing locked
            pass
    with manager().partition_lock({"orders": ["a"]}):
        pass


def test_a_load_that_ends_frees_no_partition_of_another_thread_for_other_processes(
    tmp_warehouse: Path,
) -> None:
    del tmp_warehouse
    with manager().partition_lock({"orders": ["a"]}):
        with manager().partition_lock({"orders": ["b"]}):
            pass
        assert held_in_another_process()
    assert not held_in_another_process()
