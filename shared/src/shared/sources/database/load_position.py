"""What a load notes about its snapshot, so that a check knows which rows the warehouse must have."""

from shared.sources.database.base import Snapshot, TableInfo
from shared.sources.database.postgres.transactions import Transactions, transactions_of
from shared.sources.database.table import Table

SOURCE_POSITION = "source_position"
"""The metric of a load, and the metadata of the materialization, that has its `source_position`."""


def source_position(snapshot: Snapshot, table: Table, info: TableInfo) -> str | None:
    """Return the oldest transaction that runs, and the server: a snapshot sees all older ones."""
    transactions = transactions_of(snapshot, table, info)
    if transactions is None:
        return None
    here = transactions.position
    return f"{here.oldest}@{here.database}/{here.timeline}"


def oldest_unseen(position: str, transactions: Transactions) -> int | None:
    """Return the first transaction that a load may not have seen.

    Args:
        position: what the load noted.
        transactions: those of a later snapshot. If it is of another server, or of a restored one, the
            numbers cannot be compared, and the result is None.
    """
    oldest, _, server = position.partition("@")
    here = transactions.position
    is_same = server == f"{here.database}/{here.timeline}" and int(oldest) <= here.next
    return int(oldest) if is_same else None
