"""Which rows of a table are new since an earlier load, by the values of a cursor column.

A row can commit later than its cursor value says. So a load reads again from some time before the last
value, the overlap. The state has the hashes of the rows in it, so that they are not loaded again.
"""

import hashlib
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shared.sources.database.base import Column, DatabaseError, Snapshot, TableInfo
from shared.sources.database.table import Table

DEFAULT_OVERLAP = timedelta(minutes=10)
"""How much later than its time a row may commit, where a declaration does not say it."""

DEFAULT_NUMBER_OVERLAP = 1000
"""The same for a cursor that is a number."""

MAX_HASHES = 100_000
"""How many rows of the overlap the state remembers."""


class CursorRange:
    """The rows of a snapshot that a load reads by a cursor, and the state after it.

    Rows without a cursor value are read in each load, and count as rows in the overlap.
    """

    def __init__(
        self, snapshot: Snapshot, table: Table, info: TableInfo, stored: Mapping[str, Any]
    ) -> None:
        """Read the greatest value of the snapshot.

        Raises:
            DatabaseError: the table has no cursor, or one that has no order in Python.
        """
        if table.cursor is None:
            raise DatabaseError(
                f"{table.full_name} of {snapshot.server} is a {info.kind} of {snapshot.dialect}, whose rows do "
                f'not say when they changed: declare a cursor, or mode="mirror".'
            )
        self._table, self._snapshot = table, snapshot
        self._column: Column = info.columns[table.cursor]
        self._stored = stored
        quoted = snapshot.quote(table.cursor)
        name = snapshot.quote(*filter(None, [table.schema, table.name]))
        newest_row = f"SELECT max({quoted}) AS {quoted} FROM {name}"
        if snapshot.dialect == "postgresql":  # it has no max() of a uuid or a bool
            newest_row = (
                f"SELECT {quoted} FROM {name} WHERE {quoted} IS NOT NULL ORDER BY 1 DESC LIMIT 1"
            )
        found = snapshot.query(
            f"SELECT {snapshot.text_of(self._column)} FROM ({newest_row}) AS newest"
        )
        newest = found[0][0] if found else None
        before = stored.get("cursor")
        self._before = before
        self._newest = before if newest is None else str(newest)
        self._start = None if self._newest is None else self._lowered(self._newest)
        self._seen = set(stored.get("hashes", ()))
        self._hashes: set[str] = set()

    def condition(self) -> str:
        """Return the condition of the rows to read; empty for all."""
        if self._before is None:
            return ""
        quoted = self._snapshot.quote(self._column.name)
        start = self._snapshot.literal(self._text(self._lowered(self._before)), self._column)
        return f"({quoted} >= {start} OR {quoted} IS NULL)"

    def unseen(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a batch that no load before had, and remember those in the overlap."""
        values = batch.column(self._column.name)
        late = self._late(values)
        if not late:
            return batch
        keep = [True] * batch.num_rows
        for index, row in zip(late, batch.take(pa.array(late)).to_pylist(), strict=True):
            digest = hashlib.blake2b(repr(row).encode(), digest_size=12).hexdigest()
            keep[index] = digest not in self._seen
            self._hashes.add(digest)
        return batch.filter(pa.array(keep))

    def state(self) -> dict[str, Any]:
        """Return the state after all rows were read.

        Raises:
            DatabaseError: the overlap has too many rows for a table that is appended to.
        """
        hashes = sorted(self._hashes)
        if len(hashes) > MAX_HASHES:
            if self._table.mode == "append":
                raise DatabaseError(
                    f"{self._table.full_name}: more than {MAX_HASHES:,} rows are in the overlap of its cursor "
                    f"{self._table.cursor}, or have none, so a load cannot know which it has added. "
                    'Declare a smaller overlap, or a key and mode="incremental".'
                )
            hashes = []  # they are read and upserted again
        return {"cursor": self._newest, "hashes": hashes}

    def _late(self, values: pa.Array) -> list[int]:
        """Return the positions of the rows in the overlap, before or after this load."""
        missing = pc.is_null(values)
        starts = [start for start in (self._start, self._lowered_before()) if start is not None]
        if starts:
            first = pa.scalar(min(starts)).cast(values.type)
            missing = pc.or_(missing, pc.fill_null(pc.greater_equal(values, first), False))
        return list(pc.indices_nonzero(missing).to_pylist())

    def _lowered_before(self) -> Any:
        return None if self._before is None else self._lowered(self._before)

    def _lowered(self, text: str) -> Any:
        """Return the value of a text, less the overlap."""
        kind, overlap = self._column.hints["data_type"], self._table.overlap
        try:
            is_whole = kind == "decimal" and not self._column.hints.get("scale")
            if kind == "bigint" or is_whole:
                less = int(DEFAULT_NUMBER_OVERLAP if overlap is None else overlap)  # type: ignore[arg-type]
                # An unsigned number is a decimal, and its database has no negative ones.
                return Decimal(max(int(text) - less, 0)) if is_whole else int(text) - less
            if kind in ("decimal", "double"):
                number: Any = Decimal if kind == "decimal" else float
                return number(text) - number(overlap or 0)
            if kind in ("date", "timestamp"):
                at = (date if kind == "date" else datetime).fromisoformat(text)
                return at - (DEFAULT_OVERLAP if overlap is None else overlap)  # type: ignore[operator]
        except (TypeError, ValueError, OverflowError) as error:
            raise self._unsuitable(
                f"its value {text} less the overlap {overlap!r}: {error}"
            ) from None
        if not overlap:
            return text
        raise self._unsuitable(f"it is {self._column.database_type}")

    def _unsuitable(self, why: str) -> DatabaseError:
        return DatabaseError(
            f"{self._table.full_name}: {self._table.cursor} cannot be the cursor: {why}. A cursor is a time, a "
            "date or an integer; its overlap is a timedelta, or a number."
        )

    def _text(self, value: Any) -> str:
        return value.isoformat(" ") if isinstance(value, datetime) else str(value)
