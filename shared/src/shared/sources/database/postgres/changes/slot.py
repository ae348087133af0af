"""A replication slot and its publication: where Postgres keeps the changes that no load has stored yet."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from shared import environments
from shared.sources.database.base import DatabaseError
from shared.sources.database.postgres.changes.session import (
    NO_RIGHT,
    TIMED_OUT,
    PostgresSession,
    ReplicationError,
)
from shared.sources.quoting import literal, quote

FULL_REFRESH = "Run the table once with the tag etl/full_refresh, which reads all of its rows."
"""What to do if changes are lost."""

_MAX_NAME_BYTES = 63
_POLL_SECONDS = 0.02
_FLUSH_ROUNDS = 3

_STATUS_SQL = """
    SELECT s.wal_status::text, (s.confirmed_flush_lsn - '0/0')::bigint, s.active_pid::bigint,
        (pg_current_wal_lsn() - s.confirmed_flush_lsn)::bigint, s.safe_wal_size::bigint,
        s.plugin::text, s.database = current_database(), to_jsonb(s) ->> 'invalidation_reason'
    FROM pg_replication_slots AS s WHERE s.slot_name = {name}
"""

_PUBLICATION_SQL = """
    SELECT p.oid::bigint, r.oid::bigint, p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubviaroot
        AND to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL
    FROM pg_publication AS p
    LEFT JOIN pg_publication_rel AS r ON r.prpubid = p.oid AND r.prrelid = {oid}
    WHERE p.pubname = {name}
"""
"""A publication with a condition or a list of columns leaves out changes."""


class HasSessions(Protocol):
    """A database of Postgres that opens sessions."""

    def session(self) -> AbstractContextManager[PostgresSession]:
        """Connect, and yield a session."""


@dataclass(frozen=True)
class SlotLag:
    """How far a slot is behind the log of its server.

    Attributes:
        slot: its name.
        bytes_behind: how much of the log was written since the changes that the last load stored. The
            server keeps that much on its disk.
        wal_status: `reserved`, `extended`, `unreserved` or `lost`, as in `pg_replication_slots`.
        bytes_left: how much may still be written before the slot is lost; None if there is no limit.
    """

    slot: str
    bytes_behind: int
    wal_status: str
    bytes_left: int | None


@dataclass(frozen=True)
class _Status:
    wal_status: str
    confirmed: int
    active_pid: int | None
    behind: int
    bytes_left: int | None
    reason: str


def slot_name(*parts: str) -> str:
    """Return the name of a slot and of its publication: stable, and different for different parts.

    A slot's name may have lower case letters, digits and underscores, and 63 bytes.

    Args:
        parts: what the slot belongs to: the pipeline, the dataset, the database and the table with its
            declared schema. Databases of one server share the names of slots, and each environment
            has slots of its own.
    """
    environment = environments.current()
    if environment.has_own_file:
        parts = (*parts, environment.identifier)
    digest = blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()
    readable = "_".join(parts).lower()
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in readable)
    return f"etl_{plain[: _MAX_NAME_BYTES - len(digest) - 5]}_{digest}"


def lsn_text(lsn: int) -> str:
    """Return a position of the log as Postgres writes it, such as `0/16B3748`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn(text: str) -> int:
    """Return a position of the log from its text."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def slot_lag(database: HasSessions, name: str) -> SlotLag | None:
    """Return how far a slot is behind; None if there is no such slot, or it has no changes yet.

    Raises:
        DatabaseError: the server does not answer.
    """
    with database.session() as session:
        status = Slot(session, name, "").status()
    if status is None:
        return None
    return SlotLag(name, status.behind, status.wal_status, status.bytes_left)


class Slot:
    """A slot with its publication, which have the same name, over a session."""

    def __init__(self, session: PostgresSession, name: str, table: str) -> None:
        """Remember the names. Nothing is sent yet.

        Args:
            session: a connection without a transaction.
            name: the name of both.
            table: the table, for messages.
        """
        self._session, self.name, self._table = session, name, table

    def status(self) -> _Status | None:
        """Return what the server says of the slot; None if there is none.

        Raises:
            DatabaseError: a slot with this name has another plugin or database.
        """
        rows = self._session.query(_STATUS_SQL.format(name=literal(self.name)))
        if not rows:
            return None
        ((wal, confirmed, pid, behind, left, plugin, is_here, reason),) = rows
        if plugin != "pgoutput" or not is_here:
            raise self._error(
                f"the replication slot {self.name} is one of another plugin or database. Drop it: "
                f"SELECT pg_drop_replication_slot('{self.name}')."
            )
        return _Status(
            str(wal), int(confirmed or 0), pid, int(behind or 0), left, str(reason or "")
        )

    def publication(self, oid: int) -> str:
        """Return the id of the publication of a table; empty if it leaves out changes, or is not there."""
        rows = self._session.query(_PUBLICATION_SQL.format(oid=oid, name=literal(self.name)))
        if not rows or rows[0][1] is None or not rows[0][2]:
            return ""
        return f"{rows[0][0]}/{rows[0][1]}"

    def prepare(self, oid: int, table: str) -> int:
        """Create what is missing, and return a position that is before the next snapshot.

        The slot has all changes after it, and each snapshot that is taken later sees those before it. A
        slot that is there is read on, because a load was killed after it had created it, or all rows
        are read again. One that lost changes is created again.

        Args:
            oid: the id of the table.
            table: its quoted name.
        """
        status = self.status()
        has_publication = bool(self.publication(oid))
        if status is not None and (status.wal_status == "lost" or not has_publication):
            self._session.query(f"SELECT pg_drop_replication_slot({literal(self.name)})::text")
            status = None
        if not has_publication:
            self._create_publication(table)
        if status is None:
            self._create()
            status = self.status()
        assert status is not None
        end = self.flushed()
        self._wait_for_transactions()
        return max(end, status.confirmed)

    def resume(self, oid: int, publication: str, position: int) -> None:
        """Check that the slot has all changes since a position, and let the server forget older ones.

        Args:
            oid: the id of the table.
            publication: the id of the publication that the last load read.
            position: what the last load stored.

        Raises:
            DatabaseError: changes since then may be missing.
        """
        status = self.status()
        if status is None:
            raise self._error(
                f"its replication slot {self.name} is gone: it was dropped, or the server was replaced by "
                f"a backup or a replica. {FULL_REFRESH}"
            )
        if status.wal_status == "lost":
            reason = f" ({status.reason})" if status.reason else ""
            raise self._error(
                f"its replication slot {self.name} lost changes{reason}: the server removed its log, "
                "because max_slot_wal_keep_size or idle_replication_slot_timeout was exceeded. Run the "
                f"table more often, or raise the limit. {FULL_REFRESH}"
            )
        if self.publication(oid) != publication:
            raise self._error(
                f"its publication {self.name} was changed or dropped, or the table was created again, so "
                f"changes are missing. {FULL_REFRESH}"
            )
        if status.confirmed > position:
            raise self._error(
                f"its replication slot {self.name} was read up to {lsn_text(status.confirmed)}, and the "
                f"warehouse has the changes up to {lsn_text(position)} only: another warehouse reads the "
                "same slot, or this one was restored from a backup. Give each warehouse its own pipeline "
                f"or dataset name. {FULL_REFRESH}"
            )
        if position > self.flushed():
            raise self._error(
                f"its log ends before {lsn_text(position)}, which the warehouse has: this is another "
                f"server, or one from a backup. {FULL_REFRESH}"
            )
        self.advance(lsn_text(position))

    def flushed(self) -> int:
        """Return the end of the log on the server's disk."""
        ((end,),) = self._session.query("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
        return int(end)

    def wait_until_durable(self) -> None:
        """Wait until the transactions that are visible now are on the server's disk.

        The server promises that for three rounds of its writer; the end of its log can be an empty page.
        """
        ((end, delay),) = self._session.query(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, setting::bigint FROM pg_settings "
            "WHERE name = 'wal_writer_delay'"
        )
        deadline = time.monotonic() + _FLUSH_ROUNDS * delay / 1000
        while self.flushed() < end and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def peek(self, limit: int) -> Iterator[bytes]:
        """Yield the messages of committed transactions, oldest first. The slot keeps them.

        Args:
            limit: the transaction in which so many messages are reached is the last one.
        """
        sql = (
            f"SELECT data FROM pg_logical_slot_peek_binary_changes({literal(self.name)}, NULL, {limit}, "
            f"'proto_version', '1', 'publication_names', {literal(quote(self.name))})"
        )
        for batch in self._session.stream(sql):
            yield from batch.column(0).to_pylist()

    def advance(self, position: str) -> None:
        """Let the server forget the changes up to a position, if it has not yet."""
        self._session.query(
            f"SELECT (pg_replication_slot_advance(slot_name, '{position}')).end_lsn::text "
            f"FROM pg_replication_slots WHERE slot_name = {literal(self.name)} "
            f"AND confirmed_flush_lsn < '{position}'"
        )

    def _create_publication(self, table: str) -> None:
        drop = f"DROP PUBLICATION IF EXISTS {quote(self.name)}"
        create = (
            f"CREATE PUBLICATION {quote(self.name)} FOR TABLE {table} WITH (publish = 'insert, update, "
            "delete', publish_via_partition_root = true)"
        )
        try:
            self._session.execute(drop)
            self._session.execute(create)
        except ReplicationError as error:
            if error.sqlstate != NO_RIGHT:
                raise
            raise self._error(
                f"the user of the source may not create its publication. Let the owner of the table run: "
                f"{drop}; {create};"
            ) from None

    def _create(self) -> None:
        try:
            self._session.query(
                "SELECT slot_name::text FROM pg_create_logical_replication_slot("
                f"{literal(self.name)}, 'pgoutput')"
            )
        except ReplicationError as error:
            if error.sqlstate in TIMED_OUT:
                raise self._waited() from None
            raise

    def _waited(self) -> DatabaseError:
        return self._error(
            "a first load waits until the transactions are over that write when it begins, and one took "
            "longer than the timeouts of the source. Find it: SELECT pid, xact_start, query "
            "FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start; or in "
            "pg_prepared_xacts."
        )

    def _wait_for_transactions(self) -> None:
        """Wait until the transactions that run now are over.

        One whose commit is in the log already may not be visible to snapshots yet, such as one that waits
        for a synchronous replica.
        """
        ((running, milliseconds),) = self._session.query(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, setting::bigint "
            "FROM pg_settings WHERE name = 'statement_timeout'"
        )
        end = time.monotonic() + milliseconds / 1000
        while True:
            ((oldest,),) = self._session.query(
                "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            )
            if oldest >= running:
                return
            if time.monotonic() > end:
                raise self._waited()
            time.sleep(_POLL_SECONDS)

    def _error(self, text: str) -> DatabaseError:
        place = f"{self._table} of {self._session.server}" if self._table else self._session.server
        return DatabaseError(f"{place}: {text}")
