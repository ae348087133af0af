"""`etl`: the command line of the workspace, a thin layer over Dagster and dlt.

Commands import what they need when they run, so `--help` is fast.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from shared import settings
from shared.cli.check import check
from shared.cli.confirm import current_environment
from shared.cli.contract import contract
from shared.cli.dev import dev
from shared.cli.doctor import PACKAGES, doctor
from shared.cli.env import app as env_app
from shared.cli.instance_home import dagster_home
from shared.cli.metrics import metrics
from shared.cli.migrate import migrate
from shared.cli.new import new
from shared.cli.preview import preview
from shared.cli.prune import prune
from shared.cli.query import query
from shared.cli.run import run
from shared.cli.show import show
from shared.cli.status import status

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",  # joins the lines of a docstring's paragraph
)
app.command(epilog="Example: etl run orders/orders --partition 2025-03-10")(run)
app.command(
    epilog="Example: etl dev -p 3001",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(dev)
app.command(epilog="Example: etl show orders.orders")(show)
app.command(epilog="Example: etl status --json")(status)
app.command(epilog='Example: etl query "FROM orders.orders LIMIT 3" --json')(query)
app.command(epilog="Example: etl new orders --from csv")(new)
app.command(epilog="Example: etl check csv_etl data/drop/2018-01-22.csv")(check)
app.command(epilog="Example: etl migrate orders.orders --column price --type double --dry-run")(
    migrate
)
app.command(epilog="Example: etl prune --keep 90d --dry-run")(prune)
app.command(epilog="Example: etl metrics --port 9464")(metrics)
app.command(epilog="Example: etl contract --update")(contract)
app.command(epilog="Example: etl preview --base main")(preview)
app.command(epilog="Example: etl doctor --json")(doctor)
app.add_typer(env_app, name="env")


def _print_versions(requested: bool) -> None:
    if requested:
        print(" ".join(f"{name} {version(name)}" for name in ("shared", *PACKAGES)))
        raise typer.Exit


@app.callback(epilog="Example: etl run, then etl show, then etl show orders.orders")
def main_options(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_versions, is_eager=True, help="Print versions and exit."
        ),
    ] = False,
) -> None:
    """Run and inspect the pipelines of this workspace."""
    root = settings.workspace_root()
    context.obj = Path.cwd()  # for paths that the user typed
    os.chdir(root)
    os.environ["PWD"] = str(root)  # .env.example uses it
    settings.load_env_file()
    if os.environ.get("DAGSTER_HOME", str(root)) == str(root):
        os.environ["DAGSTER_HOME"] = str(dagster_home(current_environment()))


def main() -> None:
    """Run the command line."""
    app()
