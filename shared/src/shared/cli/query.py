"""`etl query`: asks the warehouse."""

from typing import Annotated

import typer
from rich.console import Console

from shared.cli.terminal import console


def query(sql: Annotated[str, typer.Argument(help="SQL in DuckDB's dialect.")]) -> None:
    """Runs a query on the warehouse, read-only, and prints its rows."""
    import duckdb

    from shared import warehouse

    try:
        warehouse.show(sql, console.width, log=Console(stderr=True).print)
    except (
        duckdb.Error,
        FileNotFoundError,
        ValueError,
        warehouse.QueryError,
        warehouse.WarehouseBusyError,
        warehouse.WarehouseSettingError,
        warehouse.WarehouseUnreachableError,
    ) as error:
        console.print(str(error), markup=False, style="red")
        raise typer.Exit(1) from None
