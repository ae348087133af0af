"""`etl status`: what failed and is still failing, what is missing, what is stuck."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.locations import WorkspaceError, code_locations, interpreters, no_interpreter
from shared.cli.terminal import AsJson, console, fail, print_json, print_note
from shared.redaction import redact

if TYPE_CHECKING:  # importing Dagster takes seconds
    from shared.orchestration.health import Problem

MAX_LOCATION_SECONDS = 120
"""How long a location may take to load."""

_BODY = "import sys; from shared.cli.location_status import main; main(sys.argv[1])"
_COLORS = {True: "red", False: "yellow"}
_Process = subprocess.Popen[str]


def status(
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Do not load the locations: no missing and no stale tables."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what failed and is still failing, what is missing, stale or stuck, and the next command.

    The Dagster instance of DAGSTER_HOME is the source. Each location loads in its own process, because
    its code says which partitions exist. Exits with 1 if something failed, is stale or stuck; missing
    partitions and warnings alone do not change the exit code.
    """
    try:
        locations = {} if quick else code_locations()
        pythons = {} if quick else interpreters()
    except WorkspaceError as error:
        fail(f"{error} Where locations run as servers, use --quick.")
    with ExitStack() as stack:
        processes = {
            location: _start(stack, module, pythons.get(location, sys.executable))
            for location, module in locations.items()
        }
        problems = sorted(_problems(processes), key=lambda problem: not problem.is_failure)
    if as_json:
        print_json([asdict(problem) for problem in problems])
    else:
        _print(problems, quick)
    if any(problem.is_failure for problem in problems):
        raise typer.Exit(1)


def _start(stack: ExitStack, module: str, python: str) -> "_Process | str":
    """Start a location's process, which is killed when the stack closes; or return why it does not start."""
    try:
        process = subprocess.Popen(  # noqa: S603 - a Python of the workspace
            [python, "-P", "-c", _BODY, module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError as error:
        return no_interpreter(python, error)[0]
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def _problems(processes: "Mapping[str, _Process | str]") -> "Iterator[Problem]":
    """Yield the problems of the instance, and those of the locations when they have loaded."""
    from shared.cli.instance import instance_or_fail
    from shared.orchestration.health import (
        Problem,
        daemon_problems,
        failed_ticks,
        stuck_runs,
        unknown_asset_problems,
    )

    with instance_or_fail() as instance:
        yield from stuck_runs(instance)
        yield from daemon_problems(instance)
        ticks = failed_ticks(instance)
        assets: list[str] = []
        all_load = bool(processes)
        for location, process in processes.items():
            report = _report(process)
            if isinstance(report, str):
                all_load = False
                fix = f"fix it; uv run etl run {location} keeps the log"
                yield Problem("location", location, f"does not load: {report}", fix)
                continue
            assets += report["assets"]
            for problem in report["problems"]:
                yield Problem(**{**problem, "location": location})
            # One that was removed from the code still has its last tick in the instance.
            names = report["instigators"]
            ticks = [
                tick
                for tick in ticks
                if tick.location != location or tick.subject.split()[1] in names
            ]
        yield from ticks
        if not all_load:
            yield from unknown_asset_problems(instance, assets)


def _report(process: "_Process | str") -> dict[str, Any] | str:
    """Return what a location's process has printed, or why it failed."""
    if isinstance(process, str):
        return process
    try:
        output = process.communicate(timeout=MAX_LOCATION_SECONDS)[0].strip()
    except subprocess.TimeoutExpired:
        return f"it took more than {MAX_LOCATION_SECONDS} s"
    if process.returncode:
        return output or f"its process ended with exit code {process.returncode}"
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def _print(problems: "list[Problem]", quick: bool) -> None:
    for problem in problems:
        console.print(f"[{_COLORS[problem.is_failure]}]{problem.kind:<9}[/]", end="")
        lines = [f"{problem.subject}: {problem.message}", f"{'':<9}-> {problem.fix}"]
        text = redact("\n".join(lines))
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not problems:
        console.print(
            "Nothing failed, is missing or is stuck."
            if not quick
            else "Nothing failed or is stuck."
        )
    if quick:
        print_note("Locations were not loaded: missing and stale tables are not listed.")
