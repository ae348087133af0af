"""The masks of one table, with their key."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import pyarrow as pa
from shared.sources.database import masks
from shared.sources.database.base import DatabaseError
from shared.sources.database.table import Table


class Masking:
    """Masks the batches of a table."""

    def __init__(self, table: Table, name: str, key: str | None) -> None:
        """Check that there is a key if a mask needs one.

        Args:
            table: the table.
            name: the name of the source, whose settings have the key.
            key: the key.

        Raises:
            MaskError: there is none, or it is too short.
        """
        self._masks, self._place = table.masks, f"{name}.{table.full_name}"
        self._is_history = table.mode == "history"
        self._key = masks.mask_key(table.masks, key, f"sources.{name}.mask_key", self._place)

    def hints(self, columns: Mapping[str, TColumnSchema]) -> dict[str, TColumnSchema]:
        """Return the hints of the columns as they are loaded."""
        return masks.masked_hints(columns, self._masks, self._place)

    def batch(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """Return a batch with its masked columns."""
        return masks.apply_masks(batch, self._masks, self._key, self._place)

    def require_same(self, state: MutableMapping[str, Any]) -> None:
        """Reject to add rows to those of other masks: equal values would not be equal there.

        Args:
            state: what the resource remembers; empty before the first load.

        Raises:
            DatabaseError: the masks or their key have changed since the table was loaded.
        """
        before = state.get("masks", "" if state else None)
        now = masks.fingerprint(self._masks, self._key) if self._masks else ""
        if before is not None and before != now:
            advice = (
                "Load into another table, Table(..., table=...)"
                if self._is_history
                else "Load all of them again: run once with the tag etl/full_refresh = true"
            )
            raise DatabaseError(
                f"{self._place}: the masks or their key have changed, and the table has rows of the earlier "
                f"ones. Nothing was loaded. {advice}."
            )
        if now:
            state["masks"] = now
