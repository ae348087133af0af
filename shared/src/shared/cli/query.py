"""`etl query`: asks the warehouse."""

from typing import Annotated

import typer

from shared.cli.terminal import AsJson, console, print_json, tell, warehouse_errors


def query(sql: Annotated[str, typer.Argument(metavar="SQL")], as_json: AsJson = False) -> None:
    """Asks the warehouse, read-only, and prints the rows.

    SQL is DuckDB's, whatever the warehouse is; tables are named dataset.table, as etl show lists
    them. In JSON a decimal is a string, so that no digit is lost, and dates and times are written as
    ISO 8601 does.
    """
    with warehouse_errors():
        from shared import warehouse

        if as_json:
            print_json(warehouse.query(sql, log=tell))
        else:
            warehouse.print_query(sql, console.width, log=tell)
