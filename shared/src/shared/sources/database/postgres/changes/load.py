"""Mode `changes`: a load brings the rows that Postgres' log says have changed since the last load.

The log says which rows changed; their values are read from the table, in one snapshot. So after a run the
warehouse has the table as it was at one point in time, with the values, types and masks of the other modes. No
column can be missing because the log leaves it out (TOAST), and it does not matter in which order a row was
changed, how often its key was, or whether a load reads a change again.

What makes that exact:

- A publication and a slot exist before the first snapshot, so the slot has every change after it.
- A snapshot comes before the log is read, and the log is on the server's disk up to that point, so that a
  crash of the server takes back nothing that was read.
- Only changes of transactions that the snapshot sees are taken, and the stored position stays before the
  first one that it does not see: commits become visible in another order than they are logged.
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
from functools import partial
from typing import Any, Protocol

from shared.lazy_modules import pyarrow as pa
from shared.sources.database import ranges
from shared.sources.database.base import DatabaseError, Snapshot, TableInfo
from shared.sources.database.postgres.changes.keys import (
    ChangedKeys,
    Visibility,
    changed_rows_sql,
    deleted_column,
    with_deleted,
)
from shared.sources.database.postgres.changes.replicated import Reader, ReplicatedTable
from shared.sources.database.postgres.changes.slot import (
    FULL_REFRESH,
    HasSessions,
    Slot,
    lsn,
    lsn_text,
    slot_name,
)
from shared.sources.database.table import Table
from shared.sources.protocol import CurrentLoad
from shared.sources.quoting import quote

QUIET_BYTES = 16 << 20
"""A load without changes stores its position only if the log has grown by so much."""

_LOGGER = logging.getLogger(__name__)

State = MutableMapping[str, Any]


class PostgresSnapshot(Snapshot, Protocol):
    """A snapshot of Postgres."""

    def read_from(
        self, relation: str, table: Table, info: TableInfo, where: str = "", order_by: str = ""
    ) -> "Iterator[pa.RecordBatch]":
        """Yield rows of a relation as `read` yields those of a table."""


class PostgresDatabase(HasSessions, Protocol):
    """A database of Postgres."""

    name: str
    """Its name on its server."""

    def snapshot(self, table: Table | None = None) -> AbstractContextManager[PostgresSnapshot]:
        """Connect, and yield a snapshot; nobody can rewrite the table while it is open."""


Connect = Callable[[], AbstractContextManager[PostgresDatabase]]


class Changes:
    """One load of the changes of a table.

    Attributes:
        replaces: whether the rows of this load replace those of the warehouse; known with the first item.
    """

    def __init__(
        self,
        connect: Connect,
        table: Table,
        owner: Sequence[str],
        state: State,
        load: CurrentLoad | None,
    ) -> None:
        """Remember what to load. Nothing connects yet.

        Args:
            connect: opens the database; also after the load, to advance the slot.
            table: the table, with its key.
            owner: what names its slot and publication: the pipeline and the dataset.
            state: the position of the last load; it has none before the first load and in a full refresh.
            load: the load that runs.
        """
        self._connect, self._table, self._owner = connect, table, owner
        self._state, self._load = state, load
        self._quoted = ".".join(map(quote, filter(None, [table.schema, table.name])))
        self.replaces = False

    def items(self) -> "Iterator[TableInfo | pa.RecordBatch]":
        """Yield the columns of the load, then its rows in batches, and change the state.

        Raises:
            DatabaseError: changes are missing or cannot be read; the message says what to do.
        """
        start = self._state.get("position")
        with self._connect() as database, database.session() as session:
            name = slot_name(*self._owner, database.name, self._table.full_name)
            slot = Slot(session, name, self._table.full_name)
            replicated = self._replicated(session)
            if start is None:
                position = slot.prepare(replicated.oid, self._quoted)
                self._state["position"] = lsn_text(position)
                self._state["publication"] = slot.publication(replicated.oid)
            else:
                slot.resume(replicated.oid, self._state["publication"], lsn(start))
            end = slot.flushed()
            with database.snapshot(self._table) as snapshot:
                slot.wait_until_durable()
                yield from self._read(snapshot, slot, end)
        if self._load is not None and self._state["position"] != start:
            self._load.after_commit(partial(self._confirm, name, self._state["position"]))

    def _confirm(self, slot: str, position: str) -> None:
        """Advance the slot. If that fails, the next load does it."""
        try:
            with self._connect() as database, database.session() as session:
                Slot(session, slot, self._table.full_name).advance(position)
        except DatabaseError as error:
            _LOGGER.warning("%s The rows are loaded, and the next load advances the slot.", error)

    def _read(
        self, snapshot: PostgresSnapshot, slot: Slot, end: int
    ) -> "Iterator[TableInfo | pa.RecordBatch]":
        """Yield what changed, or all rows if there is no earlier load or the log does not say it."""
        info = snapshot.describe(self._table)
        self._require_unique_index(snapshot, info)
        now = self._replicated(snapshot)
        before = ReplicatedTable(**self._state["table"]) if "table" in self._state else None
        if before is not None:
            self._reject_renamed(snapshot, before, now)
        self.replaces = before is None or before.needs_all_rows(now)
        read = with_deleted(info, self._table.key_columns, deletes=not self.replaces)
        yield read
        if before is None or self.replaces:
            self._remember(now.loading(info.columns), info)
            self._state.pop("ranges", None)
            if before is None and ranges.splits(self._table, info, self._load):
                self._state["ranges"] = {}
            else:
                yield from snapshot.read(self._table, read)
                return
        if "ranges" in self._state:
            yield from self._next_range(snapshot, read)
            return
        assert before is not None
        yield from self._unlogged_changes(snapshot, read, before, now)
        self._remember(now.loading(info.columns, before), info)
        yield from self._logged_changes(snapshot, slot, info, now.oid, end)

    def _remember(self, table: ReplicatedTable, info: TableInfo) -> None:
        self._state.update(table=asdict(table), loaded=sorted(info.columns))

    def _next_range(
        self, snapshot: PostgresSnapshot, read: TableInfo
    ) -> "Iterator[pa.RecordBatch]":
        progress = self._state["ranges"]
        yield from ranges.read_range(snapshot, self._table, read, progress)
        if progress["after"] is None:
            del self._state["ranges"]
        if self._load is not None:  # the next range, or what has changed meanwhile
            self._load.load_again(self._table.target)

    def _unlogged_changes(
        self,
        snapshot: PostgresSnapshot,
        read: TableInfo,
        before: ReplicatedTable,
        now: ReplicatedTable,
    ) -> "Iterator[pa.RecordBatch]":
        """Yield the rows of new partitions, and those with a value in a new column."""
        columns = sorted(now.columns.keys() & read.columns.keys() - {*self._state["loaded"]})
        conditions = [f"{quote(name)} IS NOT NULL" for name in columns]
        if parts := before.new_parts(now):
            conditions.append(f"tableoid IN ({', '.join(parts)})")
        if conditions:
            yield from snapshot.read(self._table, read, " OR ".join(conditions))

    def _logged_changes(
        self, snapshot: PostgresSnapshot, slot: Slot, info: TableInfo, oid: int, end: int
    ) -> "Iterator[pa.RecordBatch]":
        """Yield the rows that the log says have changed, and change the position.

        Args:
            snapshot: the snapshot.
            slot: the slot.
            info: the table in the snapshot.
            oid: its id.
            end: the end of the log before the snapshot.
        """
        key, limit, start = self._table.key_columns, self._table.rows_per_load, self._position
        ((visible,),) = snapshot.query("SELECT pg_current_snapshot()::text")
        place = f"{self._table.full_name} of {snapshot.server}"
        changed = ChangedKeys(place, oid, key, Visibility.of(visible), start)
        read = with_deleted(info, key, quote(deleted_column(info.all_columns)))
        rows = 0
        for keys in changed.collect(slot.peek(limit)):
            relation = changed_rows_sql(snapshot, self._quoted, info, key, keys)
            for batch in snapshot.read_from(relation, self._table, read):
                rows += batch.num_rows
                yield batch
        has_more = changed.messages >= limit
        reached = changed.last_end if has_more else end
        position = max(start, min(reached, changed.first_unseen or reached))
        if rows or position - start >= QUIET_BYTES:
            self._state["position"] = lsn_text(position)
        if has_more and position > start and self._load is not None:
            self._load.load_again(self._table.target)

    def _replicated(self, reader: Reader) -> ReplicatedTable:
        found = ReplicatedTable.of(reader, self._quoted, self._table.key_columns)
        if found is None:
            raise DatabaseError(
                f"{reader.server} has no table {self._table.full_name}. Declare the schema and the name in "
                "the case that the database has."
            )
        return found

    def _require_unique_index(self, snapshot: PostgresSnapshot, info: TableInfo) -> None:
        key = self._table.key_columns
        if not any(columns <= {*key} for columns in info.unique_keys):
            names = ", ".join(map(quote, key))
            raise DatabaseError(
                f"{self._table.full_name} of {snapshot.server}: no unique index says that the key "
                f"{', '.join(key)} identifies a row, and finds it. Declare the columns of the primary key, "
                f"or CREATE UNIQUE INDEX ON {self._quoted} ({names}), with columns that are NOT NULL."
            )

    def _reject_renamed(
        self, snapshot: PostgresSnapshot, before: ReplicatedTable, now: ReplicatedTable
    ) -> None:
        for name, other in before.renamed_columns(now):
            raise DatabaseError(
                f"{self._table.full_name} of {snapshot.server}: the column {name} was renamed to {other}, and "
                f"the rows that are loaded have its values under the old name. {FULL_REFRESH}"
            )

    @property
    def _position(self) -> int:
        return lsn(self._state["position"])
