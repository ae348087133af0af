"""What the catalog says of a table whose changes are read, and what must be so."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from shared.sources.database.base import DatabaseError
from shared.sources.database.postgres.changes.slot import FULL_REFRESH
from shared.sources.quoting import literal, quote

_SQL = """
    WITH parts AS (
        SELECT c.* FROM pg_class AS c WHERE c.oid = to_regclass({name}) AND c.relkind <> 'p'
        UNION ALL
        SELECT c.* FROM pg_partition_tree(to_regclass({name})) AS tree JOIN pg_class AS c
        ON c.oid = tree.relid WHERE tree.isleaf AND c.oid <> to_regclass({name})
    )
    SELECT pg_is_in_recovery(), current_setting('wal_level'),
        CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
        root.oid::bigint, root.relkind::text,
        (SELECT bool_and(relpersistence = 'p') FROM parts),
        EXISTS (SELECT FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhparent
            WHERE i.inhparent = root.oid AND c.relkind <> 'p'),
        (SELECT json_object_agg(parts.oid, parts.relfilenode)::text FROM parts),
        (SELECT json_object_agg(attname, attnum)::text FROM pg_attribute
            WHERE attrelid = root.oid AND attnum > 0 AND NOT attisdropped),
        (SELECT json_agg(json_build_array(parts.oid::regclass::text, parts.relkind, parts.relreplident, (
            SELECT json_agg(a.attname) FROM pg_index AS i
            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
            WHERE i.indrelid = parts.oid AND CASE parts.relreplident
                WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE FALSE END
        )))::text FROM parts)
    FROM pg_class AS root WHERE root.oid = to_regclass({name})
"""


class Reader(Protocol):
    """A connection that runs queries."""

    server: str

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query that has few."""


@dataclass(frozen=True)
class ReplicatedTable:
    """What changes if rows change without an entry in the log, or the log's entries mean something else.

    Attributes:
        timeline: of the server's log. It is another one after a replica became the primary, which may have
            lost transactions that a load has read.
        oid: the id of the table.
        files: the number of the file of each partition, or of the table. TRUNCATE, VACUUM FULL and an ALTER
            TABLE that rewrites rows give it a new one.
        columns: the number of each column. No other column of the table ever has it.
    """

    timeline: str
    oid: int
    files: Mapping[str, int]
    columns: Mapping[str, int]

    @classmethod
    def of(cls, reader: Reader, table: str, key: Sequence[str]) -> "ReplicatedTable | None":
        """Return a table as a connection sees it; None if it does not.

        Args:
            reader: the connection; in a snapshot, all is of its point in time.
            table: the quoted name of the table.
            key: the columns of its key.

        Raises:
            DatabaseError: the log of the server has not the changes of the table, or a publication would
                keep its users from writing to it.
        """
        rows = reader.query(_SQL.format(name=literal(table)))
        if not rows:
            return None
        (
            (
                recovery,
                wal_level,
                timeline,
                oid,
                kind,
                persistent,
                inherited,
                files,
                columns,
                parts,
            ),
        ) = rows
        objections = {
            "the server is a replica, which has no publications; read the changes from its primary.": (
                recovery
            ),
            f"wal_level of the server is {wal_level}, and its log has changes for others with logical "
            "only: ALTER SYSTEM SET wal_level = logical, and restart the server.": (
                wal_level != "logical"
            ),
            'it is not a table that has rows; declare another mode, such as mode="full".': (
                kind not in ("r", "p")
            ),
            "it is temporary or unlogged, so its changes are not in the log: ALTER TABLE … SET LOGGED.": (
                persistent is False
            ),
            "other tables inherit from it, and their rows have no common key. Declare them, or "
            'mode="mirror".': inherited,
        }
        for objection, applies in objections.items():
            if applies:
                raise DatabaseError(f"{table} of {reader.server}: {objection}")
        for part in json.loads(parts or "[]"):
            _require_identity(f"{table} of {reader.server}", key, part)
        return cls(str(timeline), int(oid), json.loads(files or "{}"), json.loads(columns))

    def loading(
        self, columns: Iterable[str], before: "ReplicatedTable | None" = None
    ) -> "ReplicatedTable":
        """Return it with those columns only that a load reads, or that an earlier one has read."""
        earlier = before.columns if before else {}
        return replace(self, columns={**earlier, **{name: self.columns[name] for name in columns}})

    def renamed_columns(self, now: "ReplicatedTable") -> list[tuple[str, str]]:
        """Return the columns that have other names now, with these."""
        names = {number: name for name, number in now.columns.items()}
        return [
            (name, names[number])
            for name, number in self.columns.items()
            if names.get(number, name) != name
        ]

    def needs_all_rows(self, now: "ReplicatedTable") -> bool:
        """Return whether rows may differ without an entry in the log.

        A part of the table is gone or has another file, or a column was dropped and created again.
        """
        return (
            (self.timeline, self.oid) != (now.timeline, now.oid)
            or any(now.files.get(part) != file for part, file in self.files.items())
            or any(now.columns.get(name, number) != number for name, number in self.columns.items())
        )

    def new_parts(self, now: "ReplicatedTable") -> list[str]:
        """Return the ids of partitions that were attached or created."""
        return [part for part in now.files if part not in self.files]


def _require_identity(
    place: str, key: Sequence[str], of_part: tuple[str, str, str, Sequence[str] | None]
) -> None:
    """Check that the log identifies rows by the key; otherwise a publication makes updates fail.

    Raises:
        DatabaseError: it does not.
    """
    part, kind, identity, columns = of_part
    if kind == "f":
        raise DatabaseError(
            f"{place}: its partition {part} is a foreign table, whose changes are not in the "
            'log. Declare another mode, such as mode="mirror".'
        )
    if identity == "f" or {*key} <= {*(columns or ())}:
        return
    has = f"has {', '.join(columns)}" if columns else "has no columns"
    raise DatabaseError(
        f"{place}: the replica identity of {part} {has}, and the key is {', '.join(key)}, so "
        f"its log does not say which rows are updated or deleted. Declare the primary key as key, or ALTER "
        f"TABLE {part} REPLICA IDENTITY USING INDEX with a unique index of {', '.join(map(quote, key))}, or "
        f"REPLICA IDENTITY FULL. {FULL_REFRESH}"
    )
