"""This workspace: as many runs of one partition of 1,000 rows, started at once, each in its own process.

A run waits until all processes have imported what they need, so that only loads are measured. The bound is
the CPU time of all loads, divided by the cores.
"""

import json
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

many, folder = int(sys.argv[1]), sys.argv[2]
os.environ["WAREHOUSE_PATH"] = str(Path(folder) / "warehouse.duckdb")

import dlt as dlt_library
import pyarrow as pa

from shared import warehouse

ROWS = 1_000


@dlt_library.source(name="bench")
def bench(day: str) -> object:
    @dlt_library.resource(
        name="items",
        columns={"day": {"data_type": "text", "partition": True, "nullable": False}},
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def items() -> object:
        yield pa.table({"day": [day] * ROWS, "n": range(ROWS)})

    return items


def load(day: str) -> None:
    declared = warehouse.pipeline("bench", dataset_name="bench")
    warehouse.load(warehouse.plan_load(declared, bench(day), [day]))


def run(day: str, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    load(day)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    load("before")  # creates the file and its tables, and imports what a load imports
    context = multiprocessing.get_context("fork")
    start = context.Barrier(many + 1)
    runs = [context.Process(target=run, args=(f"day {n}", start)) for n in range(many)]
    for each in runs:
        each.start()
    before = cpu_seconds()
    start.wait()
    began = time.perf_counter()
    for each in runs:
        each.join()
    seconds = time.perf_counter() - began
    assert all(each.exitcode == 0 for each in runs)
    spent = cpu_seconds() - before
    sql = "SELECT count(*) AS n FROM bench.items WHERE day <> 'before'"
    ((rows,),) = (row.values() for row in warehouse.query(sql))
    assert rows == many * ROWS
    bound = spent / len(os.sched_getaffinity(0))
    print(
        json.dumps({"seconds": seconds, "cpu_seconds": spent, "rows": rows, "bound_seconds": bound})
    )


if __name__ == "__main__":
    main()
