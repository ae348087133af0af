"""`etl show`: what the pipelines have loaded."""

from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shared.cli.terminal import AsJson, console, notes, print_json, stop, tell, warehouse_errors

if TYPE_CHECKING:  # importing dlt takes a second
    from shared.warehouse import LoadRecord, TableInfo

PREVIEW_ROW_COUNT = 5


def show(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]")] = None,
    as_json: AsJson = False,
) -> None:
    """Shows what the pipelines have loaded.

    Without TABLE: every table with its rows and the last load that brought any, nested tables below
    their parents. Times are in UTC.

    With TABLE, as dataset.table or by a name that only one dataset has: its columns, its last load,
    where it is, and its first rows.
    """
    with warehouse_errors():
        from shared import warehouse

        try:
            tables = warehouse.list_tables(log=tell)
        except FileNotFoundError:  # the file that the first load makes
            tables = []
        if not tables and table is None:
            (notes if as_json else console).print(
                f"Nothing has been loaded into {warehouse.describe_location()} yet: uv run etl run does.",
                highlight=False,
                soft_wrap=True,
            )
        if table is None:
            if as_json:
                print_json([_summary(each) for each in tables])
            elif tables:
                console.print(_list(tables))
                console.print(f"in {warehouse.describe_location()}", style="dim", highlight=False)
            return
        _show_table(_named(table, tables), as_json)


def _named(name: str, tables: "list[TableInfo]") -> "TableInfo":
    """Returns the table of a name; stops where there is none, or several."""
    found = [each for each in tables if name in (_name(each), each.name)]
    if not tables:
        stop(f"No table {name}: nothing has been loaded yet; uv run etl run does.")
    if not found:
        names = {each: _name(table) for table in tables for each in (_name(table), table.name)}
        near = dict.fromkeys(names[each] for each in get_close_matches(name, names, 4))
        stop(f"No table {name}; " + (f"near it: {', '.join(near)}." if near else "see etl show."))
    if len(found) > 1:
        stop(f"Several tables are called {name}: {', '.join(map(_name, found))}.")
    return found[0]


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
    shown = Table("table", "rows", "last load (UTC)", "load id", box=None, header_style="bold")
    shown.columns[1].justify = "right"
    nesting: dict[str, int] = {}
    for table in tables:
        parent = f"{table.dataset}.{table.parent}"
        depth = nesting[_name(table)] = nesting[parent] + 1 if table.parent else 0
        load = table.last_load
        name = "  " * depth + _name(table)
        shown.add_row(name, f"{table.rows:,}", _time(load), load.load_id if load else "")
    return shown


def _time(load: "LoadRecord | None") -> str:
    if load is None:
        return ""
    return f"{load.loaded_at:%Y-%m-%d %H:%M:%S}" if load.loaded_at else load.status


def _show_table(table: "TableInfo", as_json: bool) -> None:
    from shared import warehouse

    names = [column.name for column in table.columns]
    first = (
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
                "preview": warehouse.query(first),
            }
        )
        return
    console.print(f"[bold]{_name(table)}[/]: {table.rows:,} rows", highlight=False)
    for line in filter(None, (table.description, f"in {warehouse.describe_location()}")):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if load := table.last_load:
        told = f"last load {_time(load)} UTC, {load.status}, load id {load.load_id}"
        console.print(told, highlight=False, soft_wrap=True)
    columns = Table("column", "type", "description", box=None, header_style="bold")
    for column in table.columns:
        columns.add_row(column.name, column.type, column.description)
    console.print()
    console.print(columns, markup=False)
    console.print()
    warehouse.print_query(first, console.width, log=tell)
