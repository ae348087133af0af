"""`etl prune`: delete old runs, and keep what Dagster needs to know what is loaded."""

import re
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from shared.cli.terminal import AsJson, console, fail, print_json, print_note

_UNITS = {"d": "days", "w": "weeks", "h": "hours"}
_MEGABYTE = 10**6


def prune(
    keep: Annotated[
        str, typer.Option(metavar="AGE", help="Keep runs that ended within it: 90d, 12w, 36h.")
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without a question.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old runs from Dagster's instance: their events, what their steps printed, and old ticks.

    Dagster still knows which partitions are loaded: the latest materialization of each asset and
    partition stays, and the latest result of each check. So do runs that have not ended, and failed runs
    that no later run has repaired. No table of the warehouse changes. Dagster may run meanwhile.
    """
    age = _age(keep)
    from shared.cli.instance import instance_or_fail
    from shared.orchestration import prune as pruning

    with instance_or_fail() as instance:
        plan = pruning.plan_pruning(instance, age)
        size_after = None
        if not as_json:
            _print_plan(len(plan.run_ids), len(plan.kept), f"{plan.before:%Y-%m-%d %H:%M} UTC")
        if not dry_run:
            if not yes:
                _ask(len(plan.run_ids))
            size_after = pruning.prune(instance, plan, _print_progress)
    if as_json:
        print_json({**asdict(plan), "size_after": size_after, "pruned": not dry_run})
        return
    if plan.size is not None:
        now = "" if size_after is None else f", now {_size(size_after)}"
        console.print(f"Files of the instance: {_size(plan.size)}{now}.", highlight=False)
    end = "Nothing was deleted (--dry-run)." if dry_run else "Done."
    console.print(end, markup=False, highlight=False)


def _age(text: str) -> timedelta:
    """Return an age such as `90d`; end the command if it is invalid."""
    match = re.fullmatch(r"(\d{1,4})([dwh])", text.strip(), re.ASCII)
    if not match:
        fail(f"--keep is {text!r}; write a number and d, w or h, such as 90d.", 2)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _ask(runs: int) -> None:
    """Ask whether to delete; without a terminal, end the command."""
    if not sys.stdin.isatty():
        fail(f"{runs:,} runs would be deleted: add --yes, or --dry-run to see what would go.", 2)
    typer.confirm(f"Delete {runs:,} runs?", abort=True)


def _print_plan(runs: int, kept: int, before: str) -> None:
    lines = [
        f"{runs:,} runs that ended before {before}, with their events and logs, and old ticks."
    ]
    if kept:
        lines.append(
            f"{kept:,} older runs stay, because what failed in them still fails: etl status."
        )
    console.print(*lines, sep="\n", markup=False, highlight=False, soft_wrap=True)


def _print_progress(done: int) -> None:
    print_note(f"{done:,} runs are deleted")


def _size(size: int) -> str:
    return f"{size / _MEGABYTE:,.1f} MB"
