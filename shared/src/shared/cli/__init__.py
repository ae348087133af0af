"""`etl`: the workspace's command line, a thin layer over Dagster and dlt.

Commands import what they need when they run, so that help shows at once.
"""

import os

import typer

from shared import environment
from shared.cli.new import new
from shared.cli.query import query
from shared.cli.run import run

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
app.command()(run)
app.command()(query)
app.command()(new)


@app.callback()
def main_options() -> None:
    """Runs and inspects the pipelines of this workspace."""
    root = environment.workspace_root()
    os.chdir(root)
    os.environ["PWD"] = str(root)  # which .env.example names
    environment.load_env_file()
    os.environ.setdefault("DAGSTER_HOME", str(root))


def main() -> None:
    """Runs the command line."""
    app()
