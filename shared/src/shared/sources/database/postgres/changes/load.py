"""Mode `changes`: a load brings the rows that Postgres' log says have changed since the last load.

The log says which rows changed; their values are read from the table, in one snapshot. So after a run the
warehouse has the table as it was at one moment, with the values, types and masks of the other modes. No
column can be missing because the log leaves it out (TOAST), and it does not matter in which order a row was
changed, how often its key was, or whether a load reads a change again.

What makes that exact:

- A publication and a slot exist before the first snapshot, so the slot has every change after it.
- A snapshot comes before the log is read. Only changes of transactions that it sees are taken, and the stored
  position stays before the first one that it does not see: commits become visible in another order than
  they are logged.
- The position is stored with the rows. The slot is advanced only to a stored position.
- What changes rows without an entry in the log (TRUNCATE, ALTER TABLE, a partition that is attached or
  dropped, a new column with a default) shows in the catalog in the same snapshot, and the rows that it
  concerns are read again; see `ReplicatedTable`.

Each table has its own slot and publication. The server needs `wal_level = logical`, and one of
`max_replication_slots` for each table. It keeps its log until a load has stored the changes, so set
`max_slot_wal_keep_size`, run the table regularly, and watch `slot_lag`.
"""

import logging
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Protocol

import dlt
import pyarrow as pa

from shared.sources.database import ranges
from shared.sources.database.base import DatabaseError, Snapshot, TableInfo
from shared.sources.database.masking import Masking
from shared.sources.database.postgres.changes.keys import (
    ChangedKeys,
    Visibility,
    changed_rows_sql,
    deleted_column,
    with_deleted,
)
from shared.sources.database.postgres.changes.replicated import Reader, ReplicatedTable
from shared.sources.database.postgres.changes.session import PostgresSession
from shared.sources.database.postgres.changes.slot import (
    FULL_REFRESH,
    HasSessions,
    Slot,
    lsn_text,
    slot_name,
)
from shared.sources.database.table import Table
from shared.sources.hints import arrow_schema
from shared.sources.protocol import CurrentLoad
from shared.sources.quoting import quote

QUIET_BYTES = 16 << 20
"""A load without changes stores its position only if the log has grown by so much."""

_LOGGER = logging.getLogger(__name__)

State = MutableMapping[str, Any]


class PostgresSnapshot(Snapshot, Protocol):
    """A snapshot of Postgres."""

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing."""

    def read_from(
        self, relation: str, table: Table, info: TableInfo, where: str = "", order_by: str = ""
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a relation as `read` yields those of a table."""


class PostgresDatabase(HasSessions, Protocol):
    """A database of Postgres."""

    name: str
    """Its name on its server."""

    def snapshot(self) -> AbstractContextManager[PostgresSnapshot]:
        """Connect, and yield a snapshot."""


Connect = Callable[[], AbstractContextManager[PostgresDatabase]]


def read_changes(
    connect: Connect,
    table: Table,
    owner: Sequence[str],
    state: State,
    load: CurrentLoad | None,
    *,
    masking: Masking,
) -> Iterator[Any]:
    """Yield the items of one load: an empty table with the hints of the columns, and Arrow batches.

    Args:
        connect: opens the database; also after the load, to advance the slot.
        table: the table, with its key.
        owner: what names its slot and publication: the pipeline and the dataset.
        state: the position of the last load; empty before the first one and for a full refresh.
        load: the load that runs.
        masking: masks the columns.

    Raises:
        DatabaseError: changes are missing or cannot be read; the message says what to do.
    """
    with connect() as database, database.session() as session:
        slot = slot_name(*owner, database.name, table.full_name)
        reading = _Reading(session, table, slot, state, load, masking=masking)
        start = state.get("position")
        if start is None:
            reading.start()
        else:
            reading.resume()
        with database.snapshot() as snapshot:
            items = reading.items(snapshot)
            yield next(items)
            yield from map(masking.batch, items)
    position = state["position"]

    def confirm() -> None:
        try:
            with connect() as database, database.session() as session:
                Slot(session, slot, table.full_name).advance(position)
        except DatabaseError as error:  # the rows are loaded, and the next load does it
            _LOGGER.warning("%s The next load advances the slot.", error)

    if load is not None and position != start:
        load.after_commit(confirm)


class _Reading:
    """One load of the changes of a table."""

    def __init__(
        self,
        session: PostgresSession,
        table: Table,
        slot: str,
        state: State,
        load: CurrentLoad | None,
        *,
        masking: Masking,
    ) -> None:
        self._masking = masking
        self._session, self._table, self._state, self._load = session, table, state, load
        self._slot = Slot(session, slot, table.full_name)
        self._quoted = ".".join(map(quote, filter(None, [table.schema, table.name])))
        self._place = f"{table.full_name} of {session.server}"
        self._end = 0

    def start(self) -> None:
        """Prepare the slot to read all rows, because there is no earlier load."""
        replicated = self._replicated(self._session)
        position = self._slot.prepare(replicated.oid, self._quoted)
        publication = self._slot.publication(replicated.oid)
        self._state.update(position=lsn_text(position), publication=publication)

    def resume(self) -> None:
        """Check that the slot has all changes since the last load."""
        replicated = self._replicated(self._session)
        self._slot.resume(replicated.oid, self._state["publication"], self._position)
        self._end = self._slot.flushed()

    def items(self, snapshot: PostgresSnapshot) -> Iterator[Any]:
        """Yield what changed, or all rows if there is no earlier load or the log does not say it."""
        # A snapshot shows a table as empty that was rewritten after it; a locked one cannot be.
        snapshot.execute(f"LOCK TABLE {self._quoted} IN ACCESS SHARE MODE")
        info = snapshot.describe(self._table)
        now = self._replicated(snapshot)
        before = ReplicatedTable(**self._state["table"]) if "table" in self._state else None
        if before is not None:
            self._reject_renamed(before, now)
        replaces = before is None or before.needs_all_rows(now)
        read = with_deleted(info, self._table.key_columns)
        yield self._declaration(read, replaces=replaces)
        if replaces:
            self._remember(now.loading(info.columns), info)
        if before is None and ranges.splits(self._table, info, self._load):
            self._state["ranges"] = {}
        elif replaces:
            self._state.pop("ranges", None)
            yield from snapshot.read(self._table, read)
            return
        if "ranges" in self._state:
            yield from self._next_range(snapshot, read)
            return
        assert before is not None
        yield from self._unlogged_changes(snapshot, read, before, now)
        self._remember(now.loading(info.columns, before), info)
        yield from self._logged_changes(snapshot, info, now)

    def _remember(self, table: ReplicatedTable, info: TableInfo) -> None:
        self._state.update(table=asdict(table), loaded=sorted(info.columns))

    def _next_range(self, snapshot: PostgresSnapshot, read: TableInfo) -> Iterator[pa.RecordBatch]:
        progress = self._state["ranges"]
        yield from ranges.read_range(snapshot, self._table, read, progress)
        if progress["after"] is None:
            del self._state["ranges"]
        if self._load is not None:  # the next range, or what has changed meanwhile
            self._load.load_again()

    def _unlogged_changes(
        self,
        snapshot: PostgresSnapshot,
        read: TableInfo,
        before: ReplicatedTable,
        now: ReplicatedTable,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of new partitions, and those with a value in a new column."""
        columns = [
            name for name in read.columns if name in now.columns.keys() - self._state["loaded"]
        ]
        conditions = [f"{quote(name)} IS NOT NULL" for name in columns]
        if parts := before.new_parts(now):
            conditions.append(f"tableoid IN ({', '.join(parts)})")
        if conditions:
            yield from snapshot.read(self._table, read, " OR ".join(conditions))

    def _logged_changes(
        self, snapshot: PostgresSnapshot, info: TableInfo, now: ReplicatedTable
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that the log says have changed, and change the position."""
        key, limit, start = self._table.key_columns, self._table.rows_per_load, self._position
        ((visible,),) = snapshot.query("SELECT pg_current_snapshot()::text")
        changed = ChangedKeys(self._place, now.oid, key, Visibility.of(visible), start)
        read = with_deleted(info, key, quote(deleted_column(info.all_columns)))
        rows = 0
        for keys in changed.collect(self._slot.peek(limit)):
            relation = changed_rows_sql(snapshot, self._quoted, info, key, keys)
            for batch in snapshot.read_from(relation, self._table, read):
                rows += batch.num_rows
                yield batch
        has_more = changed.messages >= limit
        reached = changed.last_end if has_more else self._end
        position = max(start, min(reached, changed.first_unseen or reached))
        if rows or position - start >= QUIET_BYTES:
            self._state["position"] = lsn_text(position)
        if has_more and position > start and self._load is not None:
            self._load.load_again()

    def _declaration(self, read: TableInfo, *, replaces: bool) -> Any:
        """Return the item that declares the columns, and whether the load replaces the table."""
        hints: Any = self._masking.hints({name: each.hints for name, each in read.columns.items()})
        disposition: Any = "replace" if replaces else None
        return dlt.mark.with_hints(
            arrow_schema(hints).empty_table(),
            dlt.mark.make_hints(columns=hints, write_disposition=disposition),
        )

    def _replicated(self, reader: Reader) -> ReplicatedTable:
        """Return what the catalog says; `describe` names a table that is not there."""
        found = ReplicatedTable.of(reader, self._quoted, self._table.key_columns)
        if found is None:
            raise DatabaseError(
                f"{self._place} does not exist. Declare the schema and the name in the case that the "
                "database has."
            )
        return found

    def _reject_renamed(self, before: ReplicatedTable, now: ReplicatedTable) -> None:
        for name, other in before.renamed_columns(now):
            raise DatabaseError(
                f"{self._place}: the column {name} was renamed to {other}, and the rows that are loaded "
                f"have its values under the old name. {FULL_REFRESH}"
            )

    @property
    def _position(self) -> int:
        high, low = self._state["position"].split("/")
        return (int(high, 16) << 32) + int(low, 16)
