"""`etl dev`: `dagster dev`, with processes that start fast and share memory."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.cli.preloaded import PreloadedPython


def dev(
    context: typer.Context,
    workspace: Annotated[
        list[Path] | None,
        typer.Option("--workspace", "-w", help="The workspace file. [default: workspace.yaml]"),
    ] = None,
) -> None:
    """Start Dagster with its UI, as `dagster dev` does, with less time and memory for each location.

    All other options are those of `dagster dev`, such as `-p 3001` for the port, or `-m orders_etl.definitions`
    for one location.
    """
    typed_in: Path = context.obj
    files = [str(typed_in / file) for file in workspace or []]
    command = ["-m", "dagster", "dev", *(part for file in files for part in ("-w", file))]
    python = _preloaded_python()
    sys.stdout.flush()
    os.execv(python, [python, *command, *context.args])  # noqa: S606 - no shell


def _preloaded_python() -> str:
    """Return the Python for Dagster's processes; where it cannot fork, this one, and say why."""
    preloaded = PreloadedPython()
    try:
        python = preloaded.start()
    except (OSError, NotImplementedError) as problem:
        print(f"etl dev: this is plain `dagster dev`, because {problem}.")
        return sys.executable
    os.set_inheritable(preloaded.lifeline, True)  # the server ends with `dagster dev`
    return str(python)
