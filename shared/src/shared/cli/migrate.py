"""`etl migrate`: change a table that has rows."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.confirm import confirm_production
from shared.cli.terminal import AsJson, console, fail, print_json, print_note, warehouse_errors

if TYPE_CHECKING:  # importing dlt takes a second
    from shared.warehouse import Migration


def migrate(
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    *,
    column: Annotated[str | None, typer.Option(help="The column to change.")] = None,
    data_type: Annotated[
        str | None, typer.Option("--type", help="Its new type: double, decimal(18,4), text, ….")
    ] = None,
    rename_to: Annotated[
        str | None, typer.Option(help="The new name of the column, or of the table.")
    ] = None,
    nullable: Annotated[
        bool | None, typer.Option("--nullable/--not-null", help="Whether it may be NULL.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the column with its values.")] = False,
    reuse_name: Annotated[
        str | None, typer.Option(help="Allow a new column or table with a former name.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL and the schema's difference only.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change a table that has rows: a column's type, its name, whether it may be NULL, or the table's name.

    TABLE is dataset.table. The table and dlt's stored schema change in one transaction, so the next load
    finds the new table. Nested tables follow a rename of their root. A change that would alter a value
    is refused. Loads of the dataset wait meanwhile. Change the code as well.
    """
    dataset, _, name = table.partition(".")
    changes = [data_type, rename_to, nullable, drop or None, reuse_name]
    if not name or sum(change is not None for change in changes) != 1:
        fail(
            "Name dataset.table and one of --type, --rename-to, --nullable, --not-null, --drop.", 2
        )
    if column is None and rename_to is None:
        fail("Name the column: --column.", 2)
    if not dry_run:
        confirm_production("changes", yes=yes)
    with warehouse_errors():
        from shared import warehouse

        change = warehouse.TableChange(
            dataset, name, column, rename_to, data_type, nullable, drop, reuse_name
        )
        migration = warehouse.plan_migration(change, log=print_note)
        if not as_json:
            _print(migration)
        if drop and not (dry_run or yes):
            _ask(f"{table}.{column}")
        if not dry_run:
            warehouse.migrate(migration, log=print_note)
    if as_json:
        print_json({**asdict(migration), "migrated": not dry_run})
    else:
        end = "Nothing was changed (--dry-run)." if dry_run else "Done. Change the code as well."
        console.print(end, markup=False, highlight=False)


def _ask(column: str) -> None:
    """Ask whether to drop a column; without a terminal, end the command."""
    if not sys.stdin.isatty():
        fail(f"{column} would be dropped with its values: add --yes.", 2)
    typer.confirm(f"Drop {column} with its values?", abort=True)


def _print(migration: "Migration") -> None:
    """Print the SQL and the difference of the schema."""
    statements = [f"{statement};" for statement in migration.statements]
    lines = ["BEGIN;", *statements, "COMMIT;", "", *migration.schema_diff, ""]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
