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
    python_file: Annotated[
        list[Path] | None, typer.Option("--python-file", "-f", help="A file with definitions.")
    ] = None,
    working_directory: Annotated[
        Path | None,
        typer.Option("--working-directory", "-d", help="The folder of the code's imports."),
    ] = None,
) -> None:
    """Start Dagster with its UI, as `dagster dev` does, with less time and memory for each location.

    All other options are those of `dagster dev`, such as `-p 3001` for the port, or `-m orders_etl.definitions`
    for one location.
    """
    typed_in: Path = context.obj
    paths = {"-w": workspace, "-f": python_file, "-d": working_directory and [working_directory]}
    options = [
        part
        for name, given in paths.items()
        for path in given or ()
        for part in (name, str(typed_in / path))
    ]
    command = ["-m", "dagster", "dev", *options]
    python = _preloaded_python()
    if sys.stdout:  # it may be closed
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
