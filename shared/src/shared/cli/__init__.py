"""`etl`: the workspace's command line, a thin layer over Dagster and dlt.

Commands import what they need when they run, so that help shows at once.
"""

import os
from importlib.metadata import version
from typing import Annotated

import typer

from shared import settings
from shared.cli.doctor import PACKAGES, doctor
from shared.cli.new import new
from shared.cli.query import query
from shared.cli.run import run
from shared.cli.show import show

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",  # joins the lines of a docstring's paragraph
)
app.command(epilog="Example: etl run csv_data/share_prices_daily --partition 2018-01-23")(run)
app.command(epilog="Example: etl show nasa_neo.near_earth_objects")(show)
app.command(epilog='Example: etl query "FROM nasa_neo.daily_summary LIMIT 3" --json')(query)
app.command(epilog="Example: etl new orders --from csv")(new)
app.command(epilog="Example: etl doctor --json")(doctor)


def _print_versions(asked: bool) -> None:
    if asked:
        print(" ".join(f"{name} {version(name)}" for name in ("shared", *PACKAGES)))
        raise typer.Exit


@app.callback(epilog="Example: etl run, then etl show, then etl show nasa_neo.daily_summary")
def main_options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_versions, is_eager=True, help="Print versions and exit."
        ),
    ] = False,
) -> None:
    """Runs and inspects the pipelines of this workspace."""
    root = settings.workspace_root()
    os.chdir(root)
    os.environ["PWD"] = str(root)  # which .env.example names
    settings.load_env_file()
    os.environ.setdefault("DAGSTER_HOME", str(root))


def main() -> None:
    """Runs the command line."""
    app()
