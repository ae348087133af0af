"""Which rows of a Postgres table are new since an earlier snapshot, by the transactions that wrote them.

Each version of a row has the number of its transaction in `xmin`. A snapshot sees exactly the transactions
that were complete when it was taken. So the rows that it did not see are found whatever their cursor says
and however late they commit (dlt#2269): their transaction is not below the oldest one that was running, and
is not one of the later ones whose rows the snapshot had. Subtransactions have numbers of their own, above
that of their transaction, so the same holds for them.

`xmin` has 32 bits and starts again at 0. The numbers here have 64 bits, counted back from the snapshot's.
A row that is older than 2^32 transactions can seem new; it is then read again.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from shared.sources.database.base import DatabaseError, Snapshot, TableInfo
from shared.sources.database.table import Table

MAX_SEEN = 100_000
"""How many transactions after the oldest running one a position remembers."""

MAX_AGE = 2**28
"""How many transactions old a position may become without new rows, before it is stored again."""

GONE = -1
"""The file of a part of a table that was detached."""

_WITH_XMIN = ("table", "partitioned table", "materialized view")

_PARTS_SQL = """
    WITH RECURSIVE parts AS (
        SELECT {name}::regclass::oid AS oid
        UNION ALL SELECT i.inhrelid FROM pg_inherits AS i JOIN parts ON i.inhparent = parts.oid
    )
    SELECT c.oid::bigint, pg_relation_filenode(c.oid)::bigint, c.relkind = 'f',
        coalesce(pg_get_expr(c.relpartbound, c.oid), '')
    FROM parts JOIN pg_class AS c USING (oid) WHERE c.relkind <> 'p' ORDER BY 1
"""

_SNAPSHOT_SQL = """
    SELECT pg_current_snapshot()::text, (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
        CASE WHEN has_function_privilege('pg_control_system()', 'execute')
            THEN (SELECT system_identifier::text FROM pg_control_system()) ELSE '' END
"""

_LOG_SQL = """
    SELECT CASE WHEN has_no_log THEN NULL ELSE pg_current_wal_insert_lsn()::text END,
        CASE WHEN has_no_log THEN '' ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END,
        (SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'wal_writer_delay')
    FROM (SELECT pg_is_in_recovery() OR EXISTS (
        SELECT FROM pg_proc WHERE proname = 'aurora_version'
    ) AS has_no_log) AS server
"""
"""The end of the server's log, its timeline, and how often the server flushes it. A replica shows only what
its primary has flushed."""

_FLUSHED_SQL = "SELECT pg_current_wal_flush_lsn() >= {end}::pg_lsn"

_FLUSH_ROUNDS = 3
"""Complete transactions are flushed within so many rounds (documentation of `synchronous_commit`)."""

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class TransactionPosition:
    """What a load has read of a table, as the state stores it.

    Attributes:
        oldest: the oldest transaction that was running: all before it were seen.
        next: the first transaction that had not begun.
        seen: transactions from `oldest` on whose rows were seen.
        files: the file of each part of the table, by the part's number. A new part is read as a whole.
        bounds: the bounds of each part, which are empty for a table without partitions.
        database: the server and the database.
        default_rows: how many rows the default partition has, of a table that is appended to: rows that move
            from there to a new partition seem new.
        timeline: the timeline of the server, which a failover to a replica changes; empty if unknown.
    """

    oldest: int
    next: int
    seen: tuple[int, ...] = ()
    files: dict[str, int] = field(default_factory=dict)
    bounds: dict[str, str] = field(default_factory=dict)
    database: str = ""
    timeline: str = ""
    default_rows: int = 0

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "TransactionPosition":
        """Return a position from the state."""
        return cls(**{**stored, "seen": tuple(stored["seen"])})

    def stored(self) -> dict[str, Any]:
        """Return it for the state."""
        return {**asdict(self), "seen": list(self.seen)}


class Transactions:
    """The transactions that a snapshot sees in a table."""

    def __init__(self, snapshot: Snapshot, table: Table) -> None:
        """Read the snapshot's numbers and the parts of the table."""
        self._snapshot = snapshot
        self._name = snapshot.quote(*filter(None, [table.schema, table.name]))
        ((numbers, database, system),) = snapshot.query(_SNAPSHOT_SQL)
        oldest, following, _ = str(numbers).split(":")
        parts = snapshot.query(
            _PARTS_SQL.format(name=f"'{self._name.replace(chr(39), chr(39) * 2)}'")
        )
        began = time.monotonic()
        ((self._end_of_log, timeline, delay),) = snapshot.query(_LOG_SQL)
        self._flushed_at = began + _FLUSH_ROUNDS * delay
        self.has_foreign_parts = any(foreign for _, _, foreign, _ in parts)
        self.position = TransactionPosition(
            int(oldest),
            int(following),
            files={str(oid): int(file or 0) for oid, file, _, _ in parts},
            bounds={str(oid): str(bounds) for oid, _, _, bounds in parts},
            database=f"{system}/{database}",
            timeline=str(timeline),
        )

    @property
    def number(self) -> str:
        """The SQL of the number of a row's transaction, with 64 bits."""
        following = self.position.next
        return f"({following} - (({following} - xmin::text::bigint) & 4294967295))"

    def before(self, position: TransactionPosition) -> str:
        """Return the condition of the rows whose transactions were complete before a position's oldest."""
        return f"{self.number} < {position.oldest}"

    def since(self, position: TransactionPosition) -> str:
        """Return the condition of the rows that a position has not seen."""
        condition = f"{self.number} >= {position.oldest}"
        if position.seen:
            condition += f" AND {self.number} NOT IN ({', '.join(map(str, position.seen))})"
        new = [part for part in self.position.files if part not in position.files]
        return f"({condition}) OR tableoid IN ({', '.join(new)})" if new else condition

    def seen(self) -> tuple[int, ...]:
        """Return the transactions from the oldest running one on whose rows the snapshot has.

        Raises:
            DatabaseError: there are too many to remember, because a transaction runs for long.
        """
        oldest, following = self.position.oldest, self.position.next
        if oldest == following:  # none was running
            return ()
        found = self._snapshot.query(
            f"SELECT DISTINCT {self.number} FROM {self._name} WHERE {self.number} >= {oldest} LIMIT {MAX_SEEN + 1}"
        )
        if len(found) > MAX_SEEN:
            raise DatabaseError(
                f"{self._snapshot.server}: transaction {oldest} has been running while more than "
                f"{MAX_SEEN:,} others wrote to {self._name}. End it: SELECT pid, xact_start, query FROM "
                "pg_stat_activity ORDER BY xact_start; or look into pg_prepared_xacts."
            )
        return tuple(sorted(int(number) for (number,) in found))

    def is_other_table(self, position: TransactionPosition) -> bool:
        """Return whether a position is of another server, or of one that was restored.

        Raises:
            DatabaseError: the server has not yet what the last load has read.
        """
        here = self.position
        if position.database != here.database or (
            "" not in (position.timeline, here.timeline) and position.timeline != here.timeline
        ):
            return True
        if here.next < position.next:
            raise DatabaseError(
                f"{self._snapshot.server} is behind what the last load of {self._name} has read. If it is a "
                "replica that lags, run again later, or always read the same server. If it was restored from "
                "a backup, run once with the tag etl/full_refresh = true."
            )
        return False

    def default_rows(self) -> int:
        """Return how many rows the default partition has."""
        parts = [part for part, bounds in self.position.bounds.items() if bounds == "DEFAULT"]
        if not parts:
            return 0
        count = f"SELECT count(*) FROM {self._name} WHERE tableoid IN ({', '.join(parts)})"
        return int(self._snapshot.query(count)[0][0])

    def wait_until_durable(self) -> None:
        """Wait until the server has flushed the transactions that the snapshot sees as complete.

        A server that crashes before that gives their numbers again, and a row of the second one would
        count as seen. It flushes several times a second, and a commit flushes at once by default.
        """
        if self._end_of_log is None:
            return
        sql = _FLUSHED_SQL.format(end=f"'{self._end_of_log}'")
        while time.monotonic() < self._flushed_at and self._snapshot.query(sql) != [(True,)]:
            time.sleep(_POLL_SECONDS)

    def rewritten(self, position: TransactionPosition) -> bool:
        """Return whether rows that a position has seen may have new numbers.

        A part with another file was copied, rewritten or truncated. VACUUM FULL and CLUSTER keep the numbers
        of old rows. So does no row of a part that took the place of one that is gone.
        """
        here = self.position
        gone = position.files.keys() - here.files.keys()
        new = here.files.keys() - position.files.keys()
        replaced = {position.bounds.get(part, "") for part in gone}
        moved = any(
            bounds != here.bounds[part]
            for part, bounds in position.bounds.items()
            if part in here.bounds
        )
        if moved or any(here.bounds.get(part, "") in replaced for part in new):
            return True
        if new and position.default_rows > self.default_rows():
            return True
        changed = [
            part
            for part, file in position.files.items()
            if part in here.files and here.files[part] != file
        ]
        if any(position.files[part] == GONE for part in changed):
            return True
        if not changed:
            return False
        kept = self._snapshot.query(
            f"SELECT bool_or({self.number} < {position.oldest}) FROM {self._name} "
            f"WHERE tableoid IN ({', '.join(changed)}) GROUP BY tableoid"
        )
        return not all(has_old_rows for (has_old_rows,) in kept)


def transactions_of(snapshot: Snapshot, table: Table, info: TableInfo) -> Transactions | None:
    """Return the transactions of a table; None if its rows do not say which has written them."""
    if snapshot.dialect != "postgresql" or info.kind not in _WITH_XMIN:
        return None
    transactions = Transactions(snapshot, table)
    return None if transactions.has_foreign_parts else transactions
