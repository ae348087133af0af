"""`etl query`: run a SQL query."""

from typing import Annotated

import typer

from shared.cli.terminal import AsJson, console, print_json, print_note, warehouse_errors


def query(sql: Annotated[str, typer.Argument(metavar="SQL")], as_json: AsJson = False) -> None:
    """Run a read-only SQL query and print the rows.

    SQL is DuckDB's dialect for every type of warehouse. Table names are dataset.table, as etl show
    lists them. In JSON, decimals are strings, so no digit is lost, and dates and times use ISO 8601.
    """
    with warehouse_errors():
        from shared import warehouse

        if as_json:
            print_json(warehouse.query(sql, log=print_note))
        else:
            warehouse.print_query(sql, console.width, log=print_note)
