"""Log-based change data capture: the changes of a table since the last load, from Postgres' log."""

from shared.sources.database.postgres.changes.load import Changes
from shared.sources.database.postgres.changes.slot import SlotLag, slot_lag, slot_name

__all__ = ["Changes", "SlotLag", "slot_lag", "slot_name"]
