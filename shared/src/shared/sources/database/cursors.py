"""Which rows of a table are new since an earlier load, by the values of a cursor column.

A row can commit later than its cursor value says. So a load reads again from some time before the last
value, the overlap. The state has where that begins, and a hash of each row from there on, so that these are
not loaded again. A value in the future does not move the begin beyond the present: rows before it follow.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc
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
            DatabaseError: the table has no cursor, or one that has no order in Python; or rows were
                appended with other columns.
        """
        if table.cursor is None:
            raise DatabaseError(
                f"{table.full_name} of {snapshot.server} is a {info.kind} of {snapshot.dialect}, whose rows do "
                f'not say when they changed: declare a cursor, or mode="mirror".'
            )
        self._table, self._snapshot = table, snapshot
        self._column: Column = info.columns[table.cursor]
        self._kind = str(self._column.hints["data_type"])
        self._before = None if stored.get("start") is None else self._value(stored["start"])
        self._last = None if stored.get("cursor") is None else self._value(stored["cursor"])
        self._hashes = _RowHashes(table, info, stored)
        newest = self._read_newest(self._since_before())
        if newest is None and self._before is not None and self._read_newest():
            self._begin_again()
            newest = self._read_newest()
        self._newest = newest or stored.get("cursor")
        self._start = self._next_start(newest)

    def condition(self, more: Sequence[str]) -> str:
        """Return the condition of the rows to read; empty for all.

        Args:
            more: conditions of rows to load although an earlier load may have had them.
        """
        if self._before is None:
            return ""
        if more:
            self._hashes.forget()
        quoted = self._snapshot.quote(self._column.name)
        return f"({' OR '.join([self._at_least_before(), f'{quoted} IS NULL', *more])})"

    def unseen(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """Return the rows of a batch that no load before had, and remember those in the next overlap."""
        values = batch.column(self._column.name)
        is_null = pc.is_null(values)
        to_keep = pc.or_(is_null, self._compared(values, self._start))
        to_find = is_null if self._last is None else pc.or_(is_null, self._may_be_seen(values))
        return self._hashes.unseen(batch, to_find, to_keep)

    def state(self) -> dict[str, Any]:
        """Return the state after all rows were read; see `_RowHashes.state` for what it raises."""
        start = {} if self._start is None else {"start": self._text(self._start)}
        return {"cursor": self._newest, **start, **self._hashes.state()}

    @property
    def start_state(self) -> dict[str, Any]:
        """The state of a load that follows this snapshot and has read nothing from its overlap on."""
        return {
            "cursor": self._newest,
            "start": None if self._start is None else self._text(self._start),
        }

    def _read_newest(self, conditions: Sequence[str] = ()) -> str | None:
        """Return the greatest value of the rows that meet some conditions."""
        quoted = self._snapshot.quote(self._column.name)
        name = self._snapshot.quote(*filter(None, [self._table.schema, self._table.name]))
        where = " AND ".join([f"{quoted} IS NOT NULL", *conditions])
        newest = f"SELECT max({quoted}) AS {quoted} FROM {name} WHERE {where}"
        if self._snapshot.dialect == "postgresql":  # it has no max() of a uuid or a bool
            newest = f"SELECT {quoted} FROM {name} WHERE {where} ORDER BY 1 DESC LIMIT 1"
        found = self._snapshot.query(
            f"SELECT {self._snapshot.text_of(self._column)} FROM ({newest}) AS newest"
        )
        return None if not found or found[0][0] is None else str(found[0][0])

    def _begin_again(self) -> None:
        """Read all rows, because the ones from the stored begin on were deleted, and may have hidden others.

        Raises:
            DatabaseError: rows would be appended again.
        """
        if self._table.mode == "append":
            raise DatabaseError(
                f"{self._table.full_name} of {self._snapshot.server}: the rows with the greatest values of the "
                f"cursor {self._table.cursor} were deleted since the last load, so a load cannot know which of "
                "the others it has added. Nothing was loaded. Load all of them again: run once with the tag "
                "etl/full_refresh = true."
            )
        self._hashes.forget()
        self._before = self._last = None

    def _since_before(self) -> list[str]:
        return [] if self._before is None else [self._at_least_before()]

    def _at_least_before(self) -> str:
        start = self._snapshot.literal(self._text(self._before), self._column)
        return f"{self._snapshot.quote(self._column.name)} >= {start}"

    def _next_start(self, newest: str | None) -> Any:
        """Return where the next load begins: never before this one, and never after the present."""
        value = None if newest is None else self._value(newest)
        present = self._present(value)
        if value is not None and present is not None and value > present:
            text = self._snapshot.literal(self._text(present), self._column)
            until = f"{self._snapshot.quote(self._column.name)} <= {text}"
            past = self._read_newest([*self._since_before(), until])
            value = None if past is None else self._value(past)
        if value is None:
            return self._before
        start = self._lowered(value)
        return start if self._before is None or not self._is_ordered else max(start, self._before)

    def _present(self, value: Any) -> Any:
        """Return the present in the form of a value; None if it is not a time.

        A time without a zone counts as UTC. Where it is ahead of UTC, the overlap has more rows.
        """
        now = datetime.now(UTC)
        if self._kind == "date":
            return now.date()
        if self._kind != "timestamp" or value is None:
            return None
        return now if value.tzinfo else now.replace(tzinfo=None)

    @property
    def _is_ordered(self) -> bool:
        """Whether Python orders the values as the database does."""
        return self._kind in ("bigint", "decimal", "double", "date", "timestamp")

    def _compared(self, values: "pa.Array", start: Any) -> "pa.Array":
        """Return which values are in the overlap that begins at a value."""
        if start is None:
            return pa.array([False] * len(values))
        compare = pc.greater_equal if self._is_ordered else pc.equal
        return pc.fill_null(compare(values, pa.scalar(start).cast(values.type)), False)

    def _may_be_seen(self, values: "pa.Array") -> "pa.Array":
        """Return which values an earlier load can have had: those up to its greatest one."""
        if not self._is_ordered:
            return pc.is_valid(values)
        return pc.fill_null(pc.less_equal(values, pa.scalar(self._last).cast(values.type)), False)

    def _value(self, text: str) -> Any:
        try:
            match self._kind:
                case "bigint":
                    return int(text)
                case "decimal":
                    return Decimal(text)
                case "double":
                    return float(text)
                case "date":
                    return date.fromisoformat(text)
                case "timestamp":
                    return datetime.fromisoformat(text)
        except ValueError as error:
            raise self._unsuitable(f"its value {text}: {error}") from None
        return text

    def _lowered(self, value: Any) -> Any:
        """Return a value less the overlap."""
        overlap: Any = self._table.overlap
        try:
            if self._kind in ("date", "timestamp"):
                overlap = DEFAULT_OVERLAP if overlap is None else overlap
                return value - self._whole_days(overlap)
            if self._kind in ("bigint", "decimal", "double"):
                is_whole = not self._column.hints.get("scale") and self._kind != "double"
                default = DEFAULT_NUMBER_OVERLAP if is_whole else 0
                less = value - type(value)(default if overlap is None else overlap)
                # An unsigned number is a decimal, and its database has no negative ones.
                return max(less, Decimal(0)) if is_whole and self._kind == "decimal" else less
        except (TypeError, ValueError, OverflowError) as error:
            raise self._unsuitable(
                f"its value {value} less the overlap {overlap!r}: {error}"
            ) from None
        if not overlap:
            return value
        raise self._unsuitable(f"it is {self._column.database_type}")

    def _whole_days(self, overlap: timedelta) -> timedelta:
        """Return an overlap; for dates, rounded up to whole days."""
        return timedelta(days=-(-overlap // timedelta(days=1))) if self._kind == "date" else overlap

    def _unsuitable(self, why: str) -> DatabaseError:
        return DatabaseError(
            f"{self._table.full_name}: {self._table.cursor} cannot be the cursor: {why}. A cursor is a time, a "
            "date or a number; its overlap is a timedelta, or a number."
        )

    def _text(self, value: Any) -> str:
        return value.isoformat(" ") if isinstance(value, datetime) else str(value)


class _RowHashes:
    """How often each row in the overlap was loaded, by a hash of its values.

    Rows are compared in the columns that the earlier load had, so a new column makes no row new.
    """

    def __init__(self, table: Table, info: TableInfo, stored: Mapping[str, Any]) -> None:
        """Take what an earlier load stored.

        Raises:
            DatabaseError: rows were appended with columns that the table has not any more.
        """
        self._table = table
        now = {name: str(each.hints["data_type"]) for name, each in info.columns.items()}
        before: dict[str, str] = stored.get("columns", {})
        self._seen: Counter[str] = Counter(stored.get("hashes", {}))
        self._loaded: Counter[str] = Counter()
        if not before.items() <= now.items():
            if table.mode == "append":
                gone = sorted(name for name, kind in before.items() if now.get(name) != kind)
                raise DatabaseError(
                    f"{table.full_name}: {', '.join(gone)} was loaded, and is gone or has another type, so a "
                    "load cannot know which rows it has added. Nothing was loaded. Load all of them again: "
                    "run once with the tag etl/full_refresh = true."
                )
            self._seen.clear()  # they are upserted again
        self._before, self._columns = sorted(before), dict(sorted(now.items()))

    def unseen(
        self, batch: "pa.RecordBatch", to_find: "pa.Array", to_keep: "pa.Array"
    ) -> "pa.RecordBatch":
        """Return the rows of a batch that were not loaded.

        Args:
            batch: rows.
            to_find: which of them may have been loaded.
            to_keep: which of them the next load may find again.
        """
        positions = pc.indices_nonzero(pc.or_(to_find, to_keep))
        if not len(positions):
            return batch
        rows = batch.take(positions).to_pylist()
        is_new = [True] * batch.num_rows
        flags = zip(
            to_find.take(positions).to_pylist(), to_keep.take(positions).to_pylist(), strict=True
        )
        for at, row, (may_be_seen, is_kept) in zip(positions.to_pylist(), rows, flags, strict=True):
            if may_be_seen and self._seen:
                digest = _digest(row, self._before)
                is_new[at] = not self._seen[digest]
                self._seen[digest] -= not is_new[at]
            if is_kept:
                self._loaded[_digest(row, self._columns)] += 1
        return batch.filter(pa.array(is_new))

    def forget(self) -> None:
        """Forget what was loaded, so that it is loaded again."""
        self._seen.clear()

    def state(self) -> dict[str, Any]:
        """Return it for the state.

        Raises:
            DatabaseError: the overlap has too many rows for a table that is appended to.
        """
        if len(self._loaded) > MAX_HASHES:
            if self._table.mode == "append":
                raise DatabaseError(
                    f"{self._table.full_name}: more than {MAX_HASHES:,} rows are in the overlap of its cursor "
                    f"{self._table.cursor}, or have none, so a load cannot know which it has added. "
                    'Declare a smaller overlap, or a key and mode="incremental".'
                )
            self._loaded.clear()  # they are read and upserted again
        return {"columns": self._columns, "hashes": dict(sorted(self._loaded.items()))}


def _digest(row: Mapping[str, Any], columns: Any) -> str:
    values = repr([row[name] for name in columns])
    return hashlib.blake2b(values.encode(), digest_size=12).hexdigest()
