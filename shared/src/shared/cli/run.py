"""`etl run`: materializes assets and shows what landed where."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from difflib import get_close_matches
from multiprocessing.connection import wait
from shutil import which
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from shared import settings
from shared.cli.location_process import LOGS, SECONDS_TO_END, Channel, start
from shared.cli.locations import WorkspaceError, code_locations, interpreters, no_interpreter
from shared.cli.reports import AssetResult, Plan, RunSelection
from shared.cli.terminal import AsJson, console, notes, print_json, stop


def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    partition: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Run this partition instead of the sample's."),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="KEY", help="Run the partitions from this one on, …"),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="KEY", help="… to this one, in a single run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Materializes assets and shows what landed where.

    Without NAME everything runs; without a partition the bundled sample does, of a partitioned asset
    the partitions that the sample has.

    NAME is a code location (csv_etl), an asset (csv_data/share_prices_daily, or with a dot) or a
    selection in Dagster's syntax ('nasa_neo/near_earth_objects+' with what depends on it). An asset
    runs alone, except that what it loads is checked first where that check may stop it.

    Without NASA_API_KEY a NeoWs server is started here, which answers for the days it has recorded.
    """
    partitions = _partitions(partition, first, last)
    try:
        known = code_locations()
    except WorkspaceError as error:
        stop(str(error))
    asked = _asked(names or [], known, partitions)
    with _neows() if "api_etl" in asked else nullcontext(False) as bundled:
        reports = _run_locations(known, asked, bundled, as_json)
    failed = [report for report in reports if report.status == "failed"]
    if as_json:
        print_json([{**asdict(report), "seconds": round(report.seconds, 3)} for report in reports])
    else:
        _print_reports(reports)
    if failed:
        raise typer.Exit(1)


def _partitions(
    partition: str | None, first: str | None, last: str | None
) -> tuple[str, str] | None:
    """Returns the first and the last of the partitions that the options ask for, if they do."""
    if partition is not None and (first, last) != (None, None):
        stop("--partition names one partition, --from and --to a range; use one of the two.", 2)
    if (first is None) != (last is None):
        stop("--from and --to go together: the first and the last partition to run.", 2)
    if first is not None and last is not None:
        return first, last
    return (partition, partition) if partition is not None else None


def _asked(
    names: Sequence[str], known: Mapping[str, str], partitions: tuple[str, str] | None
) -> dict[str, RunSelection]:
    """Returns what each location is asked for; where an asset is, only the locations themselves know."""
    for name in names:
        if re.fullmatch(r"\w+", name) and name not in known:
            stop(f"No code location {name!r}; workspace.yaml has {', '.join(known)}.", 2)
    selections = tuple(_selection(name) for name in names if name not in known)
    return {
        location: RunSelection(selections if names and location not in names else None, partitions)
        for location in known
        if not names or selections or location in names
    }


def _selection(name: str) -> str:
    """Returns a name in Dagster's selection syntax: of `dataset.table` the asset's key."""
    return name.replace(".", "/") if re.fullmatch(r"\+*\w+\.\w+\+*", name) else name


@contextmanager
def _neows() -> Iterator[bool]:
    """Serves recorded NeoWs days where there is no key to ask NASA with; tells whether it does."""
    if not (settings.is_default("NASA_API_KEY") and settings.is_default("NASA_BASE_URL")):
        yield False
        return
    from shared.testing.neows_server import NeowsServer

    with NeowsServer() as server:
        os.environ["NASA_BASE_URL"] = server.url
        yield True


def _run_locations(
    modules: Mapping[str, str],
    asked: Mapping[str, RunSelection],
    bundled_neows: bool,
    as_json: bool,
) -> list[AssetResult]:
    """Runs each location in a process of its own, all at once, and shows progress meanwhile."""
    LOGS.mkdir(parents=True, exist_ok=True)
    reports = {(location, ""): AssetResult(location, "", "running") for location in asked}
    plans: dict[str, Plan] = {}
    out = notes if as_json else console
    careful = any(each.selections is not None or each.partitions for each in asked.values())
    gone = False
    with (
        _started(modules, asked, reports) as processes,
        Live(console=out, transient=True, refresh_per_second=8) as live,
    ):
        channels = [channel for _, channel in processes.values()]
        if not careful:  # nothing to be wrong with: each starts as soon as it has loaded
            _tell_neows(bundled_neows, out)
            gone = _go(channels)
        while True:
            alive = [name for name, (process, _) in processes.items() if process.poll() is None]
            for message in _received(channels):
                reports.pop((message.location, ""), None)
                if isinstance(message, Plan):
                    plans[message.location] = message
                else:
                    reports[message.location, message.asset] = message
            if not gone and plans.keys() >= set(alive):
                live.update("")
                _refuse(plans, asked, reports)
                used = "api_etl" in plans and bool(plans["api_etl"].assets)
                _tell_neows(bundled_neows and used, out)
                gone = _go(channels)
            live.update(_table(reports.values(), live=True))
            if not alive:
                break
    for location, (process, _) in processes.items():
        for key, report in reports.items():
            if report.location == location and report.status in ("waiting", "running"):
                words = f"its process ended with exit code {process.returncode}"
                reports[key] = AssetResult(location, report.asset, "failed", error=words)
    return list(reports.values())


def _go(channels: Iterable[Channel]) -> bool:
    """Lets the locations begin."""
    for channel in channels:
        with suppress(OSError):  # its process has ended
            channel.send("go")
    return True


def _received(channels: list[Channel]) -> Iterator[Plan | AssetResult]:
    """Yields what the locations tell until none has anything to tell for a moment."""
    while ready := wait(channels, timeout=0.1):
        for channel in channels[:]:
            if channel in ready:
                try:
                    yield channel.recv()
                except (EOFError, OSError):
                    channels.remove(channel)


@contextmanager
def _started(
    modules: Mapping[str, str],
    asked: Mapping[str, RunSelection],
    reports: dict[tuple[str, str], AssetResult],
) -> "Iterator[dict[str, tuple[subprocess.Popen[bytes], Channel]]]":
    """Starts the locations' processes, each with the Python that it has in workspace.yaml.

    Those that are left in the end are ended. One whose Python is not there is reported as failed.
    """
    own = interpreters()
    processes: dict[str, tuple[subprocess.Popen[bytes], Channel]] = {}
    try:
        for location, each in asked.items():
            python = own.get(location, sys.executable)
            try:
                processes[location] = start(location, modules[location], each, python)
            except OSError as error:
                words = "; ".join(no_interpreter(python, error))
                reports[location, ""] = AssetResult(location, "", "failed", error=words)
        yield processes
    finally:
        for _, channel in processes.values():
            channel.close()
        for process, _ in processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
            process.kill()


def _refuse(
    plans: Mapping[str, Plan],
    asked: Mapping[str, RunSelection],
    reports: dict[tuple[str, str], AssetResult],
) -> None:
    """Stops before anything runs where something asked for does not exist.

    A location that did not load is a failure if it was named, or if what is asked for may be in it.
    """
    for plan in plans.values():
        if plan.problem:
            stop(plan.problem, 2)
    selections = {name for each in asked.values() for name in each.selections or ()}
    found = {name for plan in plans.values() for name in selections - {*plan.unknown}}
    unknown = sorted(selections - found)
    broken = [report for report in reports.values() if not report.asset]
    if unknown and broken:
        stop(
            f"Nothing is called {unknown[0]!r}, and {broken[0].location} did not load: "
            f"{broken[0].error or 'its process ended'}"
        )
    if unknown:
        names = [name for plan in plans.values() for name in plan.all_assets]
        near = get_close_matches(unknown[0], names, 3) or names
        stop(f"No asset {unknown[0]!r}; there are {', '.join(near)}.", 2)
    for report in broken:
        if asked[report.location].selections is not None:
            notes.print(f"{report.location} did not load; what runs is not in it.", style="yellow")
            del reports[report.location, ""]


def _tell_neows(used: bool, out: Console) -> None:
    if used:
        out.print(
            f"NASA_API_KEY is not set: api_etl asks a NeoWs server at {os.environ['NASA_BASE_URL']}, "
            "which has recorded answers of NASA's. Set the key and the same code asks NASA."
        )


def _print_reports(reports: Sequence[AssetResult]) -> None:
    """Prints what landed where, why the rest did not, and what to try next."""
    console.print(_table(reports, live=False))
    kind = settings.get("WAREHOUSE_TYPE")
    where = settings.get("WAREHOUSE_PATH") if kind == "duckdb" else kind
    console.print(f"in {where}", style="dim", highlight=False)
    failed = [report for report in reports if report.status == "failed"]
    for report in failed:
        console.print(f"[red]failed[/] {report.asset or report.location}: ", end="")
        console.print(report.error, markup=False, highlight=False)
        console.print(f"       the whole log: {LOGS / report.location}.log")
    if failed:
        return
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


def _table(reports: Iterable[AssetResult], live: bool) -> Table:
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
