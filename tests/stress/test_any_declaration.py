"""The contract of docs/exact-loads.md under random changes and kills, in any order, on each warehouse."""

import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
import pytest
from dlt.common.destination.client import RunnableLoadJob
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.extract import DltSource

from shared import warehouse
from shared.sources.partitions import PartitionKey, TimeWindow
from stress.harness import Tally

pytestmark = pytest.mark.slow  # many loads, and processes that are killed

SPEC = warehouse.pipeline("shop_pipeline", "shop")
POINTS = [
    "orders",
    "orders__lines",
    "_dlt_pipeline_state",
    "before complete",
    "after complete",
    None,
    None,
]
MIN_STEPS = 4
Rows = dict[int, int]
"""The upstream rows of a partition: a value by identifier."""


def day(number: int) -> PartitionKey:
    start = datetime(2025, 3, number, tzinfo=UTC)
    return PartitionKey(f"{start:%Y-%m-%d}", TimeWindow(start, start + timedelta(days=1)))


@dataclass(frozen=True)
class Kind:
    """A row of the contract: how the resource is declared, and what its table has after each load.

    Attributes:
        hints: of the resource.
        expected: the rows that the table has, from those before the load and those upstream.
        partitioned: whether a load is for one day.
        active: the condition of the rows that count.
    """

    hints: dict[str, Any]
    expected: Callable[[Rows, Rows], Rows]
    partitioned: bool = False
    active: str = "TRUE"


def upstream_only(_: Rows, upstream: Rows) -> Rows:
    return upstream


def both(stored: Rows, upstream: Rows) -> Rows:
    return {**stored, **upstream}


def new_ones(stored: Rows, upstream: Rows) -> Rows:
    return {**upstream, **stored}


def merge(strategy: str) -> dict[str, Any]:
    return {"disposition": "merge", "strategy": strategy}


MARKED = {"day": {"data_type": "timestamp", "partition": True}}
KINDS = {
    "nothing stated": Kind({}, upstream_only),
    "replace": Kind({"write_disposition": "replace"}, upstream_only),
    "append after a cursor": Kind(
        {"write_disposition": "append", "incremental": dlt.sources.incremental("id")}, new_ones
    ),
    "merge by key": Kind({"write_disposition": "merge", "primary_key": "id"}, both),
    "upsert": Kind({"write_disposition": merge("upsert"), "primary_key": "id"}, both),
    "cdc": Kind({"write_disposition": merge("cdc"), "primary_key": "id"}, upstream_only),
    "scd2": Kind(
        {"write_disposition": merge("scd2")}, upstream_only, active="_dlt_valid_to IS NULL"
    ),
    "partition, marked": Kind({"columns": MARKED}, upstream_only, partitioned=True),
    "partition, cursor": Kind(
        {
            "incremental": dlt.sources.incremental(
                "day", initial_value=datetime(2025, 1, 1, tzinfo=UTC)
            )
        },
        upstream_only,
        partitioned=True,
    ),
    "partition, nothing marked": Kind({}, upstream_only, partitioned=True),
    "partition, merge by key": Kind(
        {"write_disposition": "merge", "primary_key": "id"}, both, partitioned=True
    ),
}


class Table:
    """A table that is loaded from an upstream that changes."""

    def __init__(self, kind: Kind, seed: str) -> None:
        self.kind, self.random = kind, random.Random(seed)
        self.upstream: dict[int, Rows] = {9: {}, 10: {}} if kind.partitioned else {9: {}}
        self.expected: dict[int, Rows] = {number: {} for number in self.upstream}
        self._next_id = 0

    def change(self, number: int) -> None:
        """Add rows, revise one and, unless it is a cursor's or a merge's upstream, remove one."""
        rows = self.upstream[number]
        for _ in range(self.random.randint(1, 3)):
            self._next_id += 1
            rows[self._next_id] = self._next_id
        if self.random.random() < 0.5 and self.kind.expected is not new_ones:
            rows[self.random.choice(list(rows))] = -self._next_id
        if self.random.random() < 0.5 and len(rows) > 1:
            del rows[self.random.choice(list(rows)[:-1])]
        if self.kind.partitioned and self.random.random() < 0.2:
            rows.clear()

    def plan(self, number: int) -> warehouse.LoadPlan:
        at = datetime(2025, 3, number, 12, tzinfo=UTC)
        rows = [
            {"id": key, "v": value, "day": at, "lines": [{"n": key}]}
            for key, value in self.upstream[number].items()
        ]
        resource = dlt.resource(rows, name="orders", **self.kind.hints)
        source = DltSource(dlt.Schema("shop"), "shop", [resource])
        return warehouse.plan_load(SPEC, source, [day(number)] if self.kind.partitioned else None)

    def stored(self) -> Rows:
        """Return the rows that the table has, none of them twice, each with its nested row."""
        if not any(table.name == "orders" for table in warehouse.list_tables()):
            return {}  # the first load did not create it
        rows = warehouse.query(f"SELECT id, v FROM shop.orders WHERE {self.kind.active}")
        found = {row["id"]: row["v"] for row in rows}
        assert len(found) == len(rows)
        return found

    def nested(self) -> list[int]:
        if not any(table.name == "orders__lines" for table in warehouse.list_tables()):
            return []
        rows = warehouse.query(
            "SELECT n FROM shop.orders__lines JOIN shop.orders ON orders._dlt_id = _dlt_parent_id "
            f"WHERE {self.kind.active}"
        )
        return sorted(row["n"] for row in rows)

    def all_rows(self) -> Rows:
        return {key: value for rows in self.expected.values() for key, value in rows.items()}


def die_at(point: str) -> None:
    """Make the process die at a point of its load."""
    run_job, complete = RunnableLoadJob.run_managed, SqlJobClientBase.complete_load

    def run(self: RunnableLoadJob, *arguments: Any) -> None:
        if self.job_file_info().table_name == point:
            time.sleep(self.job_file_info().file_id.encode()[0] % 3 / 10)  # others commit, or not
            os.kill(os.getpid(), signal.SIGKILL)
        run_job(self, *arguments)

    def complete_load(self: Any, load_id: str) -> None:
        if point == "after complete":
            complete(self, load_id)
        os.kill(os.getpid(), signal.SIGKILL)

    RunnableLoadJob.run_managed = run  # type: ignore[method-assign]
    if point.endswith("complete"):
        SqlJobClientBase.complete_load = complete_load  # type: ignore[method-assign]


def load_in_a_process(plan: warehouse.LoadPlan, point: str) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()  # Python warns about threads; those that exist own no locks here
    if child == 0:
        try:
            signal.alarm(60)
            die_at(point)
            warehouse.load(plan)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("name", KINDS)
def test_killed_anywhere_and_in_any_order_a_table_has_what_the_contract_says(
    name: str, any_warehouse: str, tally: Tally
) -> None:
    """Any declaration, changed and killed in any order, has the rows of the contract."""
    tally.promise = f"{name}: changed and killed in any order, exact ({any_warehouse})"
    kind = KINDS[name]
    table = Table(kind, f"{name} {any_warehouse}")
    for step in range(max(MIN_STEPS, tally.requested)):
        number = table.random.choice(list(table.upstream))
        if table.random.random() < 0.8:  # otherwise a rerun
            table.change(number)
        before = table.all_rows()
        table.expected[number] = kind.expected(table.expected[number], dict(table.upstream[number]))
        if point := table.random.choice(POINTS):
            load_in_a_process(table.plan(number), point)
            tally.trial(table.stored() in (before, table.all_rows()), f"step {step}, at {point}")
        warehouse.load(table.plan(number))
        is_exact = table.stored() == table.all_rows()
        tally.trial(is_exact and table.nested() == sorted(table.all_rows()), f"step {step}")
