"""Runs assets concurrently in separate processes, and kills some of them at a given point.

The import of Dagster and dlt takes seconds, so one process imports them and forks a child for each
run. Each line of stdin is a JSON list of runs; the response is a JSON line with the list of exit
codes, negative if a signal ended the run.

A run is {"module", "keys", "log", "environment"} and may have "partition", "first" and "last" (a
range), "tags", "config" (run config), "stored" (keeps the run in the instance of DAGSTER_HOME),
"clock" (seconds by which its clock is shifted), "pushed_down_from" (bytes, see sources/csv),
"days_per_load" (of api_etl), "die" (a point of `POINTS` at which it kills itself) and "die_after"
(seconds).
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import dlt
from dlt.destinations.impl.duckdb.duck import DuckDbClient, DuckDbCopyJob
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.impl.postgres.postgres import PostgresClient
from dlt.destinations.job_client_impl import SqlLoadJob

from shared import warehouse
from shared.sources.files import source as files
from shared.warehouse.destinations.direct import DirectJob
from shared.warehouse.destinations.duckdb import PushdownLoadJob
from shared.warehouse.destinations.postgres import CopyJob

_EVERYWHERE: dict[str, tuple[type, str]] = {
    "extract": (dlt.Pipeline, "extract"),
    "normalize": (dlt.Pipeline, "normalize"),
    "load": (dlt.Pipeline, "load"),
}
_DUCKDB: dict[str, tuple[type, str]] = {
    **_EVERYWHERE,
    "schema": (DuckDbClient, "update_stored_schema"),
    "commit": (DuckDbSqlClient, "commit_transaction"),
    "complete": (DuckDbClient, "complete_load"),
}
POINTS: dict[str, dict[str, tuple[type, str]]] = {
    "duckdb": {
        **_DUCKDB,
        "copy": (DirectJob, "run"),
        "insert": (DirectJob, "_files"),  # the old rows are deleted, in this transaction
        "pushdown": (PushdownLoadJob, "run"),
    },
    "ducklake": {**_DUCKDB, "merge": (SqlLoadJob, "run"), "copy": (DuckDbCopyJob, "run")},
    "postgres": {
        **_EVERYWHERE,
        "schema": (PostgresClient, "update_stored_schema"),
        "copy": (DirectJob, "run"),
        "insert": (CopyJob, "_copy"),  # the old rows are deleted, in this transaction
        "complete": (PostgresClient, "complete_load"),
    },
}
"""Methods of a load, by warehouse type; a run is killed "before" or "after" one: "before merge"."""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Make this process kill itself at a point; "inside merge" is between its delete and its insert."""
    when, _, name = point.partition(" ")
    if when == "inside":
        die_inside_merge()
        return
    owner, method = POINTS[warehouse.warehouse_type()][name]
    original: Callable[..., Any] = getattr(owner, method)

    def dying(*arguments: Any, **named: Any) -> Any:
        if when == "before":
            die()
        original(*arguments, **named)
        die()

    setattr(owner, method, dying)


def die_inside_merge() -> None:
    original = DuckDbSqlClient.execute_many

    def dying(self: DuckDbSqlClient, statements: list[str], *rest: Any, **named: Any) -> Any:
        inserts = [n for n, text in enumerate(statements) if text.startswith("INSERT INTO")]
        if inserts and any(text.startswith("DELETE FROM") for text in statements):
            original(self, statements[: inserts[0]], *rest, **named)
            die()
        return original(self, statements, *rest, **named)

    DuckDbSqlClient.execute_many = dying  # type: ignore[assignment,method-assign]


def shift_clock(seconds: float) -> None:
    """Shift the clock of this process, as `time.time` shows it."""
    original = time.time
    time.time = lambda: original() + seconds


def run(command: dict[str, Any]) -> bool:
    """Materialize the assets of the command in this process."""
    import dagster as dg

    if "die" in command:
        arm(command["die"])
    if "pushed_down_from" in command:
        vars(files)["_PUSHDOWN_MIN_BYTES"] = command["pushed_down_from"]
    if "clock" in command:
        shift_clock(command["clock"])
    if command.get("days_per_load"):
        vars(importlib.import_module("api_etl.assets"))["DAYS_PER_LOAD"] = command["days_per_load"]
    tags = command.get("tags", {})
    if "first" in command:
        tags["dagster/asset_partition_range_start"] = command["first"]
        tags["dagster/asset_partition_range_end"] = command["last"]
    result = JOBS[command["module"]].execute_in_process(
        asset_selection=[dg.AssetKey(key.split("/")) for key in command["keys"]],
        partition_key=command.get("partition"),
        run_config=command.get("config"),
        tags=tags,
        instance=dg.DagsterInstance.get() if command.get("stored") else None,
        raise_on_error=False,
    )
    return bool(result.success)


def start(command: dict[str, Any], gate: int) -> int:
    """Fork a child that runs the command once the pipe `gate` has a byte for it; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(command["environment"])
        os.read(gate, 1)
        code = 0 if run(command) else 1
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def start_all(commands: list[dict[str, Any]]) -> list[int]:
    """Run the commands concurrently and return their exit codes."""
    gate, opener = os.pipe()
    pids = [start(command, gate) for command in commands]
    os.close(gate)
    # A byte for each child starts it; a closed pipe would not, because children have copies of it.
    os.write(opener, b"." * len(commands))
    os.close(opener)
    for pid, command in zip(pids, commands, strict=True):
        if "die_after" in command:
            time.sleep(command["die_after"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    JOBS = {
        module: importlib.import_module(
            f"{module}.definitions"
        ).defs.resolve_implicit_global_asset_job_def()
        for module in sys.argv[1:]
    }
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(start_all(json.loads(line))), flush=True)
