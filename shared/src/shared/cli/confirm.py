"""The question before a command changes what others use."""

import sys
from typing import Annotated

import typer

from shared import environments
from shared.cli.terminal import fail, notes

Yes = Annotated[
    bool, typer.Option("--yes", help="Do not ask before the environment production is changed.")
]
"""The option of commands that change the warehouse."""


def current_environment() -> environments.Environment:
    """Return the environment of this process, or end the command if its name is not valid."""
    try:
        return environments.current()
    except (environments.EnvironmentNameError, environments.EnvironmentFileError) as error:
        fail(str(error), 2)


def confirm_production(what: str, *, yes: bool) -> None:
    """Ask before a command changes production; end the command if nobody can answer, or says no.

    Args:
        what: what the command does, such as `loads`.
        yes: the option `--yes`.
    """
    environment = current_environment()
    if not environment.is_production or yes:
        return
    question = f"ETL_ENVIRONMENT is {environment.name}: this {what} the tables that others use."
    if not sys.stdin.isatty():
        fail(f"{question} There is no terminal to confirm it; add --yes.", 2)
    notes.print(question, highlight=False)
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(1)
