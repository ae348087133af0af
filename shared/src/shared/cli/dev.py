"""`etl dev`: `dagster dev`, with processes that start fast and share memory."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.cli.preloaded import SUPPORTED, PreloadedPython


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
    python = sys.executable
    if SUPPORTED:
        preloaded = PreloadedPython()
        python = str(preloaded.start())
        os.set_inheritable(preloaded.lifeline, True)  # the server ends with `dagster dev`
    else:
        print("etl dev: processes do not fork on this system, so this is plain `dagster dev`.")
    sys.stdout.flush()
    os.execv(python, [python, *command, *context.args])  # noqa: S606 - no shell
