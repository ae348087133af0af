"""`etl show`: list the loaded tables."""

from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shared.cli.terminal import (
    AsJson,
    console,
    fail,
    notes,
    print_json,
    print_note,
    warehouse_errors,
)

if TYPE_CHECKING:  # importing dlt takes a second
    from shared.warehouse import LoadRecord, TableInfo

PREVIEW_ROW_COUNT = 5


def show(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]")] = None, as_json: AsJson = False
) -> None:
    """List the loaded tables, or show one.

    Without TABLE: every table with its row count and the last load that added rows. Nested tables
    are below their parents. Times are in UTC.

    With TABLE (dataset.table, or a name that only one dataset has): its columns, its last load, its
    location, and its first rows.
    """
    with warehouse_errors():
        from shared import warehouse

        try:
            tables = warehouse.list_tables(log=print_note)
        except FileNotFoundError:  # the first load creates the file
            tables = []
        if not tables and table is None:
            (notes if as_json else console).print(
                f"{warehouse.describe_location()} has no tables yet. Load the sample: uv run etl run.",
                highlight=False,
                soft_wrap=True,
            )
        if table is None:
            if as_json:
                print_json([_summary(info) for info in tables])
            elif tables:
                console.print(_list(tables))
                console.print(f"in {warehouse.describe_location()}", style="dim", highlight=False)
            return
        _show_table(_named(table, tables), as_json)


def _named(name: str, tables: "list[TableInfo]") -> "TableInfo":
    """Return the table with a name; end the command if there is none, or several."""
    matches = [table for table in tables if name in (_name(table), table.name)]
    if not tables:
        fail(f"No table {name}: nothing is loaded yet. Load the sample: uv run etl run.")
    if not matches:
        names = {key: _name(table) for table in tables for key in (_name(table), table.name)}
        similar = dict.fromkeys(names[key] for key in get_close_matches(name, names, 4))
        hint = f"similar names: {', '.join(similar)}." if similar else "etl show lists all."
        fail(f"No table {name}; {hint}")
    if len(matches) > 1:
        fail(f"Several tables have the name {name}: {', '.join(map(_name, matches))}.")
    return matches[0]


def _name(table: "TableInfo") -> str:
    return f"{table.dataset}.{table.name}"


def _summary(table: "TableInfo") -> dict[str, object]:
    return {
        "table": _name(table),
        "parent": f"{table.dataset}.{table.parent}" if table.parent else None,
        "rows": table.rows,
        "last_load": asdict(table.last_load) if table.last_load else None,
    }


def _list(tables: "list[TableInfo]") -> Table:
    listing = Table("table", "rows", "last load (UTC)", "load id", box=None, header_style="bold")
    listing.columns[1].justify = "right"
    nesting: dict[str, int] = {}
    for table in tables:
        parent = f"{table.dataset}.{table.parent}"
        depth = nesting[_name(table)] = nesting[parent] + 1 if table.parent else 0
        load = table.last_load
        name = "  " * depth + _name(table)
        listing.add_row(name, f"{table.rows:,}", _time(load), load.load_id if load else "")
    return listing


def _time(load: "LoadRecord | None") -> str:
    if load is None:
        return ""
    return f"{load.loaded_at:%Y-%m-%d %H:%M:%S}" if load.loaded_at else load.status


def _show_table(table: "TableInfo", as_json: bool) -> None:
    from shared import warehouse

    names = [column.name for column in table.columns]
    preview_sql = (
        f"SELECT {', '.join(map(warehouse.quote_identifier, names)) or '*'} "
        f"FROM {warehouse.quote_identifier(table.dataset, table.name)} LIMIT {PREVIEW_ROW_COUNT}"
    )
    if as_json:
        print_json(
            {
                **_summary(table),
                "description": table.description,
                "where": warehouse.describe_location(),
                "columns": [asdict(column) for column in table.columns],
                "preview": warehouse.query(preview_sql),
            }
        )
        return
    console.print(f"[bold]{_name(table)}[/]: {table.rows:,} rows", highlight=False)
    for line in filter(None, (table.description, f"in {warehouse.describe_location()}")):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if load := table.last_load:
        text = f"last load {_time(load)} UTC, {load.status}, load id {load.load_id}"
        console.print(text, highlight=False, soft_wrap=True)
    columns = Table("column", "type", "description", box=None, header_style="bold")
    for column in table.columns:
        columns.add_row(column.name, column.type, column.description)
    console.print()
    console.print(columns, markup=False)
    console.print()
    warehouse.print_query(preview_sql, console.width, log=print_note)
