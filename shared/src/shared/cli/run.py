"""`etl run`: materialises assets and shows what landed where."""

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from filelock import FileLock
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from shared import environment
from shared.cli.locations import code_locations
from shared.cli.terminal import console

if TYPE_CHECKING:  # importing Dagster takes seconds, and only the child processes need it
    from multiprocessing.queues import Queue

    import dagster as dg

LOGS = Path(".dagster/etl_run")


@dataclass(frozen=True)
class Report:
    """What became of an asset (or, with an empty name, of a location that did not load)."""

    location: str
    asset: str
    status: Literal["waiting", "running", "done", "skipped", "failed"]
    rows: int | None = None
    seconds: float = 0.0
    table: str = ""
    error: str = ""


def run(
    locations: Annotated[
        list[str] | None, typer.Argument(help="Code locations to run; all if none is named.")
    ] = None,
) -> None:
    """Materialises every asset on the bundled sample input, and shows what landed where.

    A partitioned asset runs the partitions the sample has. Without NASA_API_KEY a NeoWs server is
    started here, which answers for the days it has recorded.
    """
    known = code_locations()
    for location in locations or []:
        if location not in known:
            console.print(f"No code location {location!r}; workspace.yaml has {', '.join(known)}.")
            raise typer.Exit(2)
    chosen = {name: module for name, module in known.items() if name in (locations or known)}
    with _neows() if "api_etl" in chosen else nullcontext():
        reports = _run_locations(chosen)
    failed = [report for report in reports if report.status == "failed"]
    console.print(_table(reports, live=False))
    kind = environment.value("WAREHOUSE_TYPE")
    where = environment.value("WAREHOUSE_PATH") if kind == "duckdb" else kind
    console.print(f"in {where}", style="dim", highlight=False)
    for report in failed:
        console.print(f"[red]failed[/] {report.asset or report.location}: ", end="")
        console.print(report.error, markup=False, highlight=False)
        console.print(f"       the whole log: {LOGS / report.location}.log")
    if failed:
        raise typer.Exit(1)
    # A uv that `make run` put into .uv/ is not on the PATH, and uv tells its programs where it is.
    uv = "uv" if which("uv") else os.path.relpath(os.environ.get("UV", "uv"))
    console.print(
        "\nNext:\n"
        f"  {uv} run dagster dev -w workspace.yaml             the UI: localhost:3000\n"
        f'  {uv} run etl query "FROM nasa_neo.daily_summary"   ask the warehouse\n'
        f"  cat docs/add-a-pipeline.md{' ' * (21 + len(uv))}add a pipeline",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _neows() -> Iterator[None]:
    """Serves recorded NeoWs days where there is no key to ask NASA with."""
    if not (environment.is_default("NASA_API_KEY") and environment.is_default("NASA_BASE_URL")):
        yield
        return
    from shared.testing.neows_server import NeowsServer

    with NeowsServer() as server:
        console.print(
            f"NASA_API_KEY is not set: api_etl asks a NeoWs server at {server.url}, which has "
            "recorded answers of NASA's. Set the key and the same code asks NASA."
        )
        os.environ["NASA_BASE_URL"] = server.url
        yield


def _run_locations(modules: dict[str, str]) -> list[Report]:
    """Runs each location in a process of its own, all at once, and shows progress meanwhile."""
    LOGS.mkdir(parents=True, exist_ok=True)
    spawn = get_context("spawn")
    queue: Queue[Report] = spawn.Queue()
    processes = {
        location: spawn.Process(target=_materialise, args=(location, module, queue))
        for location, module in modules.items()
    }
    reports = {(location, ""): Report(location, "", "running") for location in modules}
    for process in processes.values():
        process.start()
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        while True:
            over = not any(process.is_alive() for process in processes.values())
            try:
                while True:
                    report = queue.get(timeout=0.1)
                    reports.pop((report.location, ""), None)
                    reports[report.location, report.asset] = report
            except Empty:
                pass
            live.update(_table(reports.values(), live=True))
            if over:
                break
    for location, process in processes.items():
        for key, report in reports.items():
            if report.location == location and report.status in ("waiting", "running"):
                words = f"its process ended with exit code {process.exitcode}"
                reports[key] = Report(location, report.asset, "failed", error=words)
    return list(reports.values())


def _table(reports: Iterable[Report], live: bool) -> Table:
    table = Table("asset", "rows", "seconds", "where it landed", box=None, header_style="bold")
    for column in table.columns[1:3]:
        column.justify = "right"
    for report in reports:
        name = report.asset or report.location
        if report.status == "failed":
            table.add_row(name, "[red]failed[/]", "", "")
        elif report.status == "done":
            rows = "" if report.rows is None else f"{report.rows:,}"
            table.add_row(name, rows, f"{report.seconds:.1f}", report.table)
        elif report.status == "skipped":
            table.add_row(name, "", "", "skipped: the sample has none of its partitions")
        elif live:
            table.add_row(name, "", Spinner("dots") if report.status == "running" else "", "")
    return table


def _materialise(location: str, module: str, queue: "Queue[Report]") -> None:
    """Materialises all assets of a location; the body of its process, which logs to a file."""
    log = (LOGS / f"{location}.log").open("w")
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    try:
        import dagster as dg

        defs: dg.Definitions = importlib.import_module(module).defs
        with FileLock(LOGS / "instance.lock"):  # two processes must not create its tables at once
            instance = dg.DagsterInstance.get()
        for report in _materialise_all(location, defs, instance):
            queue.put(report)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this location's failure
        traceback.print_exc()
        queue.put(Report(location, "", "failed", error=f"{type(error).__name__}: {error}"))


def _materialise_all(
    location: str, defs: "dg.Definitions", instance: "dg.DagsterInstance"
) -> Iterator[Report]:
    """Runs the location's assets, those with the same partitions together, and reports each."""
    import dagster as dg

    graph = defs.resolve_asset_graph()
    groups: dict[dg.PartitionsDefinition[Any] | None, list[dg.AssetKey]] = {}
    for key in graph.toposorted_asset_keys:
        if key in graph.materializable_asset_keys:
            groups.setdefault(graph.get(key).partitions_def, []).append(key)
            yield Report(location, key.to_user_string(), "waiting")
    job = defs.resolve_implicit_global_asset_job_def()
    for partitions, keys in groups.items():
        for key in keys:
            yield Report(location, key.to_user_string(), "running")
        results = [
            job.execute_in_process(
                asset_selection=keys, instance=instance, tags=tags, raise_on_error=False
            )
            for tags in _bundled_runs(
                partitions, [graph.get(key).metadata for key in keys], instance
            )
        ]
        yield from _reports(location, keys, results)


def _bundled_runs(
    partitions: "dg.PartitionsDefinition[Any] | None",
    metadata: Sequence[Any],
    instance: "dg.DagsterInstance",
) -> list[dict[str, str]]:
    """Returns the tags of the runs that cover the sample's partitions; one without, if unpartitioned."""
    import dagster as dg

    from shared.translator import BUNDLED_PARTITIONS

    if partitions is None:
        return [{}]
    bundled = {key for entries in metadata for key in entries.get(BUNDLED_PARTITIONS, [])}
    if isinstance(partitions, dg.DynamicPartitionsDefinition) and partitions.name:
        instance.add_dynamic_partitions(partitions.name, sorted(bundled))
    runs = []
    for entry in sorted(bundled):
        first, _, last = entry.partition("...")
        runs.append(
            {
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last or first,
            }
        )
    return runs


def _reports(
    location: str, keys: "Sequence[dg.AssetKey]", results: "Sequence[dg.ExecuteInProcessResult]"
) -> Iterator[Report]:
    """Returns what became of each asset over one or more runs."""
    for key in keys:
        name = key.to_user_string()
        if not results:
            yield Report(location, name, "skipped")
        elif error := next(filter(None, (_error(result, key) for result in results)), None):
            yield Report(location, name, "failed", error=error)
        else:
            metadata = _events(results[-1], key)[-1].materialization.metadata
            rows, table = metadata.get("dagster/row_count"), metadata.get("dagster/table_name")
            yield Report(
                location,
                name,
                "done",
                rows=int(str(rows.value)) if rows else None,
                seconds=sum(_seconds(result, key) for result in results),
                table=".".join(str(table.value).rsplit(".", 2)[1:]) if table else "",
            )


def _events(result: "dg.ExecuteInProcessResult", key: "dg.AssetKey") -> "list[dg.DagsterEvent]":
    """Returns a run's materialisations of an asset."""
    return [event for event in result.get_asset_materialization_events() if event.asset_key == key]


def _error(result: "dg.ExecuteInProcessResult", key: "dg.AssetKey") -> str | None:
    """Returns why an asset did not materialise in a run: the innermost error, or a failed check."""
    for check in result.get_asset_check_evaluations():
        failed = not check.passed and check.severity.value == "ERROR"
        if check.asset_key == key and failed:
            return f"check {check.check_name}: {check.description}"
    if _events(result, key):
        return None
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            while error.cause:
                error = error.cause
            return f"{event.step_key} failed: {error.message.strip()}"
    return "its run did not reach it"


def _seconds(result: "dg.ExecuteInProcessResult", key: "dg.AssetKey") -> float:
    """Returns how long the step that materialised an asset took."""
    steps = {event.step_key for event in _events(result, key)}
    return sum(
        event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.is_step_success and event.step_key in steps
    )
