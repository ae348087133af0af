"""The rows of a table that are new or changed since the last load: modes `incremental` and `append`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from shared.lazy_modules import pyarrow as pa
from shared.sources.database import ranges
from shared.sources.database.base import DatabaseError, Snapshot, TableInfo
from shared.sources.database.cursors import CursorRange
from shared.sources.database.postgres.transactions import (
    GONE,
    MAX_AGE,
    TransactionPosition,
    Transactions,
    transactions_of,
)
from shared.sources.database.table import Table
from shared.sources.protocol import CurrentLoad

_CURSOR = ("cursor", "start", "columns", "hashes")

_REFRESH = (
    "Load all of them again: run once with the tag etl/full_refresh = true. It also removes the rows that the "
    'source has deleted since; to keep them, load into another table: Table(..., table="name").'
)


@dataclass(frozen=True)
class NewRows:
    """What a load reads of a table that it does not replace.

    Attributes:
        snapshot: the snapshot.
        table: the table.
        info: the table in this snapshot.
        state: the position of the last load; empty before the first one. Reading changes it to what this
            snapshot has.
        load: the load that runs, if there is one.
        masking: masks a batch.
    """

    snapshot: Snapshot
    table: Table
    info: TableInfo
    state: dict[str, Any]
    load: CurrentLoad | None
    masking: "Callable[[pa.RecordBatch], pa.RecordBatch]"

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """Yield the rows, masked.

        Raises:
            DatabaseError: the position does not belong to the table any more, and rows would be added
                again; or the table does not say which rows are new.
        """
        transactions = None
        if self.table.overlap is None:
            transactions = transactions_of(self.snapshot, self.table, self.info)
        if transactions is None:
            self._reject_other_position("cursor")
            yield from self._by_cursor()
        else:
            self._reject_other_position("transactions")
            yield from self._by_transaction(transactions)

    def _by_cursor(self) -> "Iterator[pa.RecordBatch]":
        self._reject_other_server()
        cursor = CursorRange(self.snapshot, self.table, self.info, self.state)
        self._warn_without_index()
        has_limit = self.snapshot.dialect != "mssql"
        may_split = self.table.mode == "incremental" and has_limit
        if may_split and self._starts_ranges("cursor"):
            self.state["ranges"] = {"since": cursor.start_state}
        if "ranges" in self.state:
            yield from self._next_range()
            return
        where = cursor.condition(self._new_values())
        for batch in self.snapshot.read(self.table, self.info, where):
            unseen = cursor.unseen(self.masking(batch))
            if unseen.num_rows:
                yield unseen
        self.state.update(cursor.state(), loaded=self._columns)

    def _by_transaction(self, transactions: Transactions) -> "Iterator[pa.RecordBatch]":
        since = self.state.get("ranges", {}).get("since", self.state).get("transactions")
        position = TransactionPosition.of(since) if since else None
        if position and self._is_lost(transactions, position):
            self._forget()
            position = None
        here = transactions.position
        if self._starts_ranges("transactions"):
            position = here
            transactions.wait_until_durable()
            self.state["ranges"] = {"since": {"transactions": here.stored()}}
        if position and "ranges" in self.state:
            # What is newer follows the last range.
            yield from self._next_range(transactions.before(position))
            return
        rows = 0
        where = ""
        if position:
            where = " OR ".join([f"({transactions.since(position)})", *self._new_values()])
        if self.table.mode == "append":
            here = _after_append(transactions, position)
        for batch in self.snapshot.read(self.table, self.info, where):
            rows += batch.num_rows
            if batch.num_rows:
                yield self.masking(batch)
        is_old = position is not None and here.next - position.next > MAX_AGE
        columns = self._columns
        changed = (
            position is None or here.files != position.files or self.state.get("loaded") != columns
        )
        if changed or rows or is_old:
            # Otherwise the stored position is still right, and there is nothing to store.
            transactions.wait_until_durable()
            self.state["transactions"] = {**here.stored(), "seen": list(transactions.seen())}
            self.state["loaded"] = columns

    def _starts_ranges(self, kind: str) -> bool:
        is_first = kind not in self.state and "ranges" not in self.state
        starts = is_first and ranges.splits(self.table, self.info, self.load)
        if starts:
            self.state["loaded"] = self._columns
        return starts

    def _new_values(self) -> list[str]:
        """Return the conditions of the rows with a value in a column that no load had before.

        Rows that were appended stay as they are.
        """
        loaded = self.state.get("loaded", self._columns)
        new = [name for name, number in self._columns.items() if loaded.get(name) != number]
        if new and self.table.mode == "append" and self.load is not None:
            self.load.warn(
                f"{self.table.full_name}: {', '.join(new)} is new, and is NULL in the rows that were appended "
                "before. A run with the tag etl/full_refresh = true loads it for all rows."
            )
        if self.table.mode == "append":
            return []
        return [f"{self.snapshot.quote(name)} IS NOT NULL" for name in new]

    @property
    def _columns(self) -> dict[str, int]:
        """The numbers of the columns, by name: a column that was dropped and created again has another."""
        return {name: self.info.columns[name].number for name in sorted(self.info.columns)}

    def _next_range(self, condition: str = "") -> "Iterator[pa.RecordBatch]":
        """Yield the next range, and ask for the load after it."""
        progress = self.state["ranges"]
        for batch in ranges.read_range(self.snapshot, self.table, self.info, progress, condition):
            yield self.masking(batch)
        if progress["after"] is None:
            del self.state["ranges"]
            self.state.update(progress["since"])
        if self.load is not None:
            self.load.load_again(self.table.target)

    def _is_lost(self, transactions: Transactions, position: TransactionPosition) -> bool:
        """Return whether all rows are to be read again.

        Raises:
            DatabaseError: a table that is appended to would have rows twice.
        """
        other = transactions.is_other_table(position)
        if self.table.mode == "append" and (other or transactions.rewritten(position)):
            what = "is on another server, or was restored" if other else "was rewritten or replaced"
            raise DatabaseError(
                f"{self.table.full_name} of {self.snapshot.server} {what} since the last load, so its rows "
                f"do not say which were added. Nothing was loaded. {_REFRESH}"
            )
        return other

    def _warn_without_index(self) -> None:
        cursor = self.table.cursor
        if (
            self.load is None
            or cursor is None
            or cursor in self.info.indexed
            or self.info.kind == "view"
        ):
            return
        name = self.snapshot.quote(*filter(None, [self.table.schema, self.table.name]))
        self.load.warn(
            f"{self.table.full_name} of {self.snapshot.server}: each load reads the whole table, because the "
            f"cursor has no index. It helps to run: CREATE INDEX ON {name} ({self.snapshot.quote(cursor)})"
        )

    def _forget(self) -> None:
        """Remove the position, so that all rows are read."""
        for name in (*_CURSOR, "server", "transactions", "ranges", "loaded"):
            self.state.pop(name, None)

    def _reject_other_server(self) -> None:
        """Read all rows if the stored cursor is that of another database; reject to append them."""
        server = self.state.setdefault("server", self.snapshot.server)
        if server == self.snapshot.server:
            return
        if self.table.mode == "append":
            raise DatabaseError(
                f"{self.table.full_name} is read from {self.snapshot.server} now, and its position is that of "
                f"{server}, so rows would be added again or left out. Nothing was loaded. {_REFRESH}"
            )
        self._forget()
        self.state["server"] = self.snapshot.server

    def _reject_other_position(self, kind: str) -> None:
        """Reject to append from a position that another declaration stored."""
        stored = [name for name in ("cursor", "transactions") if name in self.state]
        if not stored or kind in stored:
            return
        if self.table.mode == "append":
            raise DatabaseError(
                f"{self.table.full_name} is now read by its {kind}, and its position was stored by its "
                f"{stored[0]}, so rows would be added again. Nothing was loaded. Declare the overlap as "
                "before, or run once with the tag etl/full_refresh = true."
            )
        self._forget()


def _after_append(
    transactions: Transactions, position: TransactionPosition | None
) -> TransactionPosition:
    """Return the position after a load that appends, with what shows later that rows have moved."""
    here = replace(transactions.position, default_rows=transactions.default_rows())
    if position is None:
        return here
    # A detached part may return, and nobody knows what was written to it meanwhile.
    return replace(
        here,
        files={**dict.fromkeys(position.files, GONE), **here.files},
        bounds={**position.bounds, **here.bounds},
    )
