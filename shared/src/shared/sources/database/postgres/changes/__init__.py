"""Log-based change data capture: the changes of a table since the last load, from Postgres' log."""

from shared.sources.database.postgres.changes.load import read_changes
from shared.sources.database.postgres.changes.slot import SlotLag, slot_lag, slot_name

__all__ = ["SlotLag", "read_changes", "slot_lag", "slot_name"]
