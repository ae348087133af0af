"""What an environment with `max_database_rows` loads of a table: its first rows, without a position.

So a preview neither reads a large table nor moves a replication slot, and a later load without the limit
begins with all rows.
"""

from dataclasses import replace

from shared import environments
from shared.sources.database.base import Snapshot, TableInfo
from shared.sources.database.table import Table


def limited(table: Table) -> Table:
    """Return a table as the environment loads it: in full if there is a limit.

    A table that is loaded by time windows keeps them; each run reads the first rows of its windows.
    """
    if environments.current().max_database_rows is None or table.mode == "window":
        return table
    return replace(table, mode="full", cursor=None, overlap=None)


def first_rows(snapshot: Snapshot, table: Table, info: TableInfo) -> str:
    """Return what follows ORDER BY to read the rows that the environment allows; empty for all."""
    limit = environments.current().max_database_rows
    if limit is None:
        return ""
    key = table.key_columns or info.primary_key
    order = ", ".join(map(snapshot.quote, key)) or "(SELECT NULL)"
    if snapshot.dialect == "mssql":
        return f"{order} OFFSET 0 ROWS FETCH NEXT {limit} ROWS ONLY"
    return f"{order} LIMIT {limit}"
