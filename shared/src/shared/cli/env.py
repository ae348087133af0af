"""`etl env`: list, show and drop environments."""

import sys
from typing import Annotated

import typer
from rich.table import Table

from shared import environments
from shared.cli.confirm import current_environment
from shared.cli.instance_home import dagster_home, delete_home, only_user
from shared.cli.terminal import (
    AsJson,
    console,
    fail,
    notes,
    print_json,
    print_note,
    warehouse_errors,
)

app = typer.Typer(no_args_is_help=True, help="List, show and drop environments.")


@app.command("list", epilog="Example: etl env list --json")
def list_environments(as_json: AsJson = False) -> None:
    """List the environments of environments.toml, and those that have tables in the warehouse."""
    current = current_environment()
    with warehouse_errors():
        from shared import warehouse

        stored = {each.name: each.stored for each in warehouse.list_environments(log=print_note)}
    names = dict.fromkeys([*environments.declared(), *stored, current.name])
    names.pop(environments.PREVIEW, None)  # a profile, not an environment
    if as_json:
        print_json(
            [
                {"name": name, "current": name == current.name, "stored": stored.get(name, ())}
                for name in names
            ]
        )
        return
    table = Table("environment", "", "in the warehouse", box=None, header_style="bold")
    for name in names:
        mark = "current" if name == current.name else ""
        table.add_row(name, mark, ", ".join(stored.get(name, ())))
    console.print(table)


@app.command(epilog="Example: etl env show pr-123")
def show(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None, as_json: AsJson = False
) -> None:
    """Show what an environment changes: by default that of ETL_ENVIRONMENT."""
    environment = _named(name) if name else current_environment()
    with warehouse_errors():
        from shared import warehouse

        prefix = warehouse.dataset_prefix(environment)
        file = str(warehouse.duckdb_path_of(environment))
    is_file = warehouse.warehouse_type() == "duckdb"
    values = {
        "name": environment.name,
        "DAGSTER_HOME": str(dagster_home(environment)),
        "file" if is_file else "datasets": file if is_file else f"{prefix}*",
        **environment.model_dump(exclude={"name", "identifier"}),
    }
    if as_json:
        print_json(values)
        return
    table = Table(show_header=False, box=None)
    for key, value in values.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        table.add_row(key, "" if shown is None else str(shown))
    console.print(table)


@app.command(epilog="Example: etl env drop pr-123")
def drop(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop the tables of an environment; those of production are never dropped.

    A load that writes ends first. Only the DuckDB file, or the datasets, that loads of the environment
    have created are dropped. A name that is not in environments.toml, such as pr-123, needs no confirmation.
    """
    environment = _named(name)
    if not yes and not environment.is_production and name in environments.declared():
        if not sys.stdin.isatty():
            fail(f"{name} is in environments.toml, and others may use it; add --yes.", 2)
        typer.confirm(f"Drop all tables of {name}?", abort=True, err=True)
    with only_user(environment), warehouse_errors():
        from shared import warehouse

        dropped = warehouse.drop_environment(name, log=print_note)
        delete_home(environment)
    if as_json:
        print_json({"name": name, "dropped": dropped})
    elif dropped:
        console.print(f"Dropped {', '.join(dropped)}.", highlight=False, soft_wrap=True)
    else:
        notes.print(f"{name} has no tables.", highlight=False)


def _named(name: str) -> environments.Environment:
    try:
        return environments.named(name)
    except (environments.EnvironmentNameError, environments.EnvironmentFileError) as error:
        fail(str(error).replace("ETL_ENVIRONMENT is", "The environment is"), 2)
