"""`etl run`: materialize assets and print a load summary."""

import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from difflib import get_close_matches
from multiprocessing.connection import wait
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from shared import environments, settings
from shared.cli.confirm import Yes, confirm_production
from shared.cli.contract import listed_assets
from shared.cli.location_process import SHUTDOWN_SECONDS, Channel, start
from shared.cli.locations import WorkspaceError, code_locations, interpreters, no_interpreter
from shared.cli.reports import LOGS, AssetResult, Plan, RunSelection
from shared.cli.terminal import AsJson, console, fail, notes, print_json, print_next

Results = dict[tuple[str, str], AssetResult]
"""The latest result of each asset, by location and asset."""

Processes = dict[str, "tuple[subprocess.Popen[bytes], Channel]"]
"""The process of each location that was started, and the channel to it."""


def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    partition: Annotated[
        str | None, typer.Option(metavar="KEY", help="Run this partition instead of the sample's.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="KEY", help="Run the partitions from this one …")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="KEY", help="… to this one, in a single run.")
    ] = None,
    *,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A tag of the runs, such as etl/full_refresh=true."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Materialize assets and print a load summary.

    Without NAME, all locations run. Without a partition option, a partitioned asset runs the
    partitions that the environment names: by default those of the bundled sample.

    NAME is a code location (orders_etl), an asset (orders/orders or orders.orders) or a selection in
    Dagster's syntax ('orders/orders+' adds the assets that depend on it). An asset runs alone, with
    one exception: if a check can block it, the checked asset runs first.

    A location can declare a sample that it runs on while a setting such as an API key is missing.
    """
    partitions = _partitions(partition, first, last)
    confirm_production("loads", yes=yes)
    try:
        modules = code_locations()
    except WorkspaceError as error:
        fail(str(error))
    tags = _tags(tag or [])
    selected = _select(names or [], modules, partitions, tags)
    results = run_locations(modules, selected, as_json, first=_likely(selected))
    if as_json:
        print_json([{**asdict(result), "seconds": round(result.seconds, 3)} for result in results])
    else:
        _print_results(results)
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def _partitions(
    partition: str | None, first: str | None, last: str | None
) -> tuple[str, str] | None:
    """Return the first and the last partition of the options; None without options."""
    if partition is not None and (first, last) != (None, None):
        fail("--partition names one partition, --from and --to a range; use one of the two.", 2)
    if (first is None) != (last is None):
        fail("--from and --to go together: the first and the last partition to run.", 2)
    if first is not None and last is not None:
        return first, last
    return (partition, partition) if partition is not None else None


def _tags(options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the tags of the options."""
    pairs = [option.partition("=") for option in options]
    for key, equals, _ in pairs:
        if not key or not equals:
            fail(f"--tag is {key!r}; write KEY=VALUE, such as etl/full_refresh=true.", 2)
    return tuple((key, value) for key, _, value in pairs)


def _select(
    names: Sequence[str],
    modules: Mapping[str, str],
    partitions: tuple[str, str] | None,
    tags: tuple[tuple[str, str], ...],
) -> dict[str, RunSelection]:
    """Return what each location runs. Only the locations know which of them has an asset."""
    for name in names:
        if re.fullmatch(r"\w+", name) and name not in modules:
            fail(f"No code location {name!r}; workspace.yaml has {', '.join(modules)}.", 2)
    selections = tuple(_selection(name) for name in names if name not in modules)
    return {
        location: RunSelection(
            selections if names and location not in names else None, partitions, tags
        )
        for location in modules
        if not names or selections or location in names
    }


def _selection(name: str) -> str:
    """Return a name in Dagster's selection syntax: the asset key for `dataset.table`."""
    return name.replace(".", "/") if re.fullmatch(r"\+*\w+\.\w+\+*", name) else name


def _likely(selected: Mapping[str, RunSelection]) -> list[str]:
    """Return the locations to load first: those that have the selected assets by their contracts.

    A location without a valid contract may have any asset. All are returned if a selection is not the
    key of a listed asset, because an operator may select assets of other locations.
    """
    keys = {key for item in selected.values() for key in item.selections or ()}
    listed = listed_assets(settings.workspace_root())
    is_plain = all(re.fullmatch(r"[\w/]+", key) for key in keys)
    if not is_plain or not keys <= {key for assets in listed.values() for key in assets}:
        return list(selected)
    return [
        name
        for name, item in selected.items()
        if item.selections is None or name not in listed or listed[name] & keys
    ]


def run_locations(
    modules: Mapping[str, str],
    selected: Mapping[str, RunSelection],
    as_json: bool,
    first: Collection[str] = (),
) -> list[AssetResult]:
    """Run each location in its own process, all concurrently, and show the progress.

    Args:
        modules: the module of each location.
        selected: what each location runs.
        as_json: whether stdout is for a JSON document.
        first: the locations to load; by default all. The others are loaded too if these do not have
            all that is selected.

    Returns:
        The result of each asset, and of each location that did not load.
    """
    results: Results = {}
    processes: Processes = {}
    plans: dict[str, Plan] = {}
    notices: list[str] = []
    out = notes if as_json else console
    # A selection waits until every loaded location has checked it.
    is_checked = all(item.selections is None and not item.partitions for item in selected.values())
    with _ended(processes), Live(console=out, transient=True, refresh_per_second=8) as live:
        others = [name for name in selected if first and name not in first]
        channels = _start(selected.keys() - others, modules, selected, processes, results)
        waiting = set(processes)
        while True:
            alive = {name for name, (process, _) in processes.items() if process.poll() is None}
            for message in _received(channels):
                results.pop((message.location, ""), None)
                if isinstance(message, Plan):
                    plans[message.location] = message
                    notices += [message.notice] if message.notice and message.assets else []
                else:
                    results[message.location, message.asset] = message
            if not is_checked and plans.keys() >= alive:
                if others and _unknown(plans.values(), selected):
                    channels += _start(others, modules, selected, processes, results)
                    waiting, others = set(processes), []
                    continue
                live.update("")
                _validate(plans.values(), selected, results)
                is_checked = True
            for name in _ready(waiting, plans, results, alive) if is_checked else ():
                waiting.discard(name)
                with suppress(OSError):  # its process has ended
                    processes[name][1].send("start")
            while notices and is_checked:
                out.print(notices.pop(0))
            live.update(_table(results.values(), live=True))
            if not alive:
                break
    return [_final(result, processes) for result in results.values()]


def _final(result: AssetResult, processes: Processes) -> AssetResult:
    """Return the result of an asset after all processes: a failure if its process did not send one."""
    if result.status not in ("waiting", "running"):
        return result
    error = f"its process ended with exit code {processes[result.location][0].returncode}"
    return AssetResult(result.location, result.asset, "failed", error=error)


def _ready(
    waiting: Collection[str], plans: Mapping[str, Plan], results: Results, alive: Collection[str]
) -> list[str]:
    """Return the locations that can start: what they read of other locations is not being loaded.

    Args:
        waiting: the locations that have not started.
        plans: the plans that have arrived.
        results: the latest result of each asset.
        alive: the locations whose processes run.
    """
    planned = [name for name in waiting if name in plans]
    if not plans.keys() >= set(
        alive
    ):  # a plan that has not arrived may load what another one reads
        return [name for name in planned if not plans[name].upstream]
    pending = {
        asset
        for name in alive
        for asset in plans[name].assets
        if name in waiting
        or (result := results.get((name, asset))) is None
        or result.status in ("waiting", "running")
    }
    ready = [name for name in planned if pending.isdisjoint(plans[name].upstream)]
    is_circle = not ready and set(alive) <= set(waiting)
    return planned if is_circle else ready


def _received(channels: list[Channel]) -> Iterator[Plan | AssetResult]:
    """Yield the messages of the locations: those that are there, or arrive within 0.1 s."""
    timeout = 0.1
    while ready := wait(channels, timeout):
        timeout = 0
        for channel in channels[:]:
            if channel in ready:
                try:
                    yield channel.recv()
                except (EOFError, OSError):
                    channels.remove(channel)


def _start(
    names: Collection[str],
    modules: Mapping[str, str],
    selected: Mapping[str, RunSelection],
    processes: Processes,
    results: Results,
) -> list[Channel]:
    """Start the processes of some locations, each with the Python of workspace.yaml.

    They are added to `processes`, and their channels are returned. A location whose Python is missing has
    failed.
    """
    pythons = interpreters()
    for name in [name for name in selected if name in names]:
        results[name, ""] = AssetResult(name, "", "running")
        python = pythons.get(name, sys.executable)
        try:
            processes[name] = start(name, modules[name], selected[name], python)
        except OSError as error:
            message = "; ".join(no_interpreter(python, error))
            results[name, ""] = AssetResult(name, "", "failed", error=message)
    return [processes[name][1] for name in names if name in processes]


@contextmanager
def _ended(processes: Processes) -> Iterator[None]:
    """End the processes that still run at the end."""
    try:
        yield
    finally:
        for _, channel in processes.values():
            channel.close()
        for process, _ in processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(SHUTDOWN_SECONDS)
            process.kill()


def _unknown(plans: Collection[Plan], selected: Mapping[str, RunSelection]) -> list[str]:
    """Return the selections that match nothing in the locations that loaded."""
    selections = {name for item in selected.values() for name in item.selections or ()}
    known = {
        name
        for plan in plans
        for name in selections
        if _knows(plan, name, runs_all=selected[plan.location].selections is None)
    }
    return sorted(selections - known)


def _knows(plan: Plan, selection: str, *, runs_all: bool) -> bool:
    """Return whether a location has what is selected; one that runs all its assets did not look for it."""
    if runs_all and re.fullmatch(r"\+*[\w/]+\+*", selection):
        return selection.strip("+") in plan.all_assets
    return selection not in plan.unknown


def _validate(
    plans: Collection[Plan], selected: Mapping[str, RunSelection], results: Results
) -> None:
    """End the command before anything runs if a selection or a partition does not exist.

    A location that did not load is a failure if it is named, or if it may have what is selected.
    """
    for plan in plans:
        if plan.error:
            fail(plan.error, 2)
    unknown = _unknown(plans, selected)
    broken = [result for result in results.values() if not result.asset]
    if unknown and broken:
        fail(
            f"No asset {unknown[0]!r} in the locations that loaded. {broken[0].location} did not load: "
            f"{broken[0].error or 'its process ended'}"
        )
    if unknown:
        names = [name for plan in plans for name in plan.all_assets]
        similar = get_close_matches(unknown[0], names, 3) or names
        fail(f"No asset {unknown[0]!r}; there are {', '.join(similar)}.", 2)
    for result in broken:
        if selected[result.location].selections is not None:
            notes.print(f"{result.location} did not load; the selection does not need it.")
            del results[result.location, ""]


def _print_results(results: Sequence[AssetResult]) -> None:
    """Print the load summary, the failures, and the next commands to try."""
    console.print(_table(results, live=False))
    warehouse_type = settings.get("WAREHOUSE_TYPE")
    file = environments.current().file_of(Path(settings.get("WAREHOUSE_PATH")))
    where = file if warehouse_type == "duckdb" else warehouse_type
    console.print(f"in {where}", style="dim", highlight=False)
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        console.print(f"[red]failed[/] {result.asset or result.location}: ", end="")
        console.print(result.error, markup=False, highlight=False)
        console.print(f"       complete log: {LOGS / result.location}.log")
    if failed:
        return
    table = next((result.table for result in reversed(results) if result.table), "dataset.table")
    print_next(
        {
            "uv run dagster dev -w workspace.yaml": "open the UI: localhost:3000",
            f'uv run etl query "FROM {table}"': "query the warehouse",
            "cat docs/add-a-pipeline.md": "add a pipeline",
        }
    )


def _table(results: Iterable[AssetResult], live: bool) -> Table:
    table = Table("asset", "rows", "seconds", "table", box=None, header_style="bold")
    table.columns[0].overflow = table.columns[3].overflow = "fold"  # a cut name cannot be copied
    for column in table.columns[1:3]:
        column.justify = "right"
    for result in results:
        name = result.asset or result.location
        if result.status == "failed":
            table.add_row(name, "[red]failed[/]", "", "")
        elif result.status == "done":
            rows = "" if result.rows is None else f"{result.rows:,}"
            table.add_row(name, rows, f"{result.seconds:.1f}", result.table)
        elif result.status == "skipped":
            table.add_row(name, "", "", "skipped: the sample has none of its partitions")
        elif live:
            table.add_row(name, "", Spinner("dots") if result.status == "running" else "", "")
    return table
