"""A table whose mode was changed in its declaration."""

from typing import Any

import dlt

from shared.sources.database.base import DatabaseError
from shared.sources.database.table import Table
from shared.sources.protocol import current_load


def take_over(table: Table, state: dict[str, Any]) -> None:
    """Note the mode of a table, and forget the position that another mode has stored.

    Args:
        table: the table.
        state: what its resource remembers.

    Raises:
        DatabaseError: the rows of the other mode would stay beside those of this one, or come twice.
    """
    modes = dlt.current.source_state().setdefault("modes", {})
    before, load = modes.get(table.target, table.mode), current_load()
    modes[table.target] = table.mode
    if before == table.mode:
        return
    place = f"{table.full_name}: the mode was {before} and is {table.mode} now"
    if "history" in (before, table.mode):
        raise DatabaseError(
            f"{place}, and the rows of one have no meaning in the other. Nothing was loaded. Load into "
            f'another table: Table(..., table="{table.target}_{table.mode}").'
        )
    if table.mode == "full" or (load is not None and load.is_full_refresh(table.target)):
        return  # the table is replaced
    if table.mode == "append":
        raise DatabaseError(
            f"{place}, so the rows that are there would come again. Nothing was loaded. Load all of them "
            "again: run once with the tag etl/full_refresh = true."
        )
    state.clear()
