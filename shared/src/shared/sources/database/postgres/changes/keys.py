"""The keys of the rows that transactions changed, and the query that reads these rows as they are now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from shared.sources.database.base import Column, DatabaseError, Snapshot, TableInfo
from shared.sources.database.postgres.changes.messages import (
    Begin,
    Change,
    Commit,
    Relation,
    Unchanged,
    Value,
    parse,
)
from shared.sources.database.postgres.changes.slot import FULL_REFRESH
from shared.sources.quoting import literal

MAX_KEYS = 10_000
"""How many rows one query reads."""

Key = tuple[str, ...]
"""The texts of a key, in the order of its columns."""


@dataclass(frozen=True)
class Visibility:
    """Which transactions a snapshot sees.

    Attributes:
        oldest: the oldest transaction that was running; all before it are visible.
        following: the first transaction that had not begun.
        running: the transactions between them that were running.
    """

    oldest: int
    following: int
    running: frozenset[int]

    @classmethod
    def of(cls, text: str) -> "Visibility":
        """Return what `pg_current_snapshot()` says as a text."""
        oldest, following, running = text.split(":")
        return cls(
            int(oldest), int(following), frozenset(map(int, filter(None, running.split(","))))
        )

    def sees(self, xid: int) -> bool:
        """Return whether the rows of a committed transaction are visible.

        Args:
            xid: its id in 32 bits; ids start again at 0. It is one of about 2^31 around the snapshot.
        """
        distance = (xid - self.following) & 0xFFFFFFFF
        if distance < 1 << 31:  # at or after the first one that had not begun
            return False
        full = self.following + distance - (1 << 32)
        return full < self.oldest or full not in self.running


class ChangedKeys:
    """Collects the keys of the rows that the transactions of a slot changed.

    Attributes:
        messages: how many messages were read.
        last_end: the position behind the last transaction; 0 if there was none.
        first_unseen: the position of the first transaction that the snapshot does not see; None if it sees
            all. Commits become visible in another order than the log has them.
    """

    def __init__(
        self, table: str, oid: int, key: Sequence[str], visibility: Visibility, position: int
    ) -> None:
        """Remember what to collect.

        Args:
            table: the table with its server, for messages.
            oid: the id of the table; changes of others are ignored.
            key: the columns of its key.
            visibility: the transactions whose changes count.
            position: where the log continues; the warehouse has what was committed before it.
        """
        self._table, self._oid, self._key = table, oid, key
        self._visibility, self._position = visibility, position
        self._relation: Relation | None = None
        self._positions: list[int] = []
        self.messages = 0
        self.last_end = 0
        self.first_unseen: int | None = None

    def collect(self, messages: Iterable[bytes]) -> Iterator[set[Key]]:
        """Yield the keys in sets of about `MAX_KEYS`. A key may be in several sets.

        Raises:
            DatabaseError: a change does not have the key.
        """
        keys: set[Key] = set()
        visible = False
        for data in messages:
            self.messages += 1
            message = parse(data)
            if isinstance(message, Change):
                if visible and message.relation == self._oid:
                    keys.update(self._keys_of(message))
            elif isinstance(message, Begin):
                is_new = message.commit_lsn >= self._position
                visible = is_new and self._visibility.sees(message.xid)
                if is_new and not visible and self.first_unseen is None:
                    self.first_unseen = message.commit_lsn
            elif isinstance(message, Commit):
                self.last_end = message.end_lsn
            elif isinstance(message, Relation) and message.oid == self._oid:
                self._relation, self._positions = message, []
            if len(keys) >= MAX_KEYS:
                yield keys
                keys = set()
        if keys:
            yield keys

    def _find_key(self, relation: Relation) -> list[int]:
        columns = list(relation.columns)
        missing = [name for name in self._key if name not in columns]
        if missing:
            raise DatabaseError(
                f"{self._table}: rows were changed while it had no column {', '.join(missing)}, which is "
                f"in the key. {FULL_REFRESH}"
            )
        return [columns.index(name) for name in self._key]

    def _keys_of(self, change: Change) -> Iterator[Key]:
        assert self._relation is not None  # pgoutput sends it before its first change
        relation = self._relation
        positions = self._positions = self._positions or self._find_key(relation)
        if change.kind != "I" and not relation.identity.issuperset(self._key):
            raise DatabaseError(
                f"{self._table}: rows were changed while its replica identity did not have the key "
                f"{', '.join(self._key)}. {FULL_REFRESH}"
            )
        if change.old is not None:
            yield self._texts([change.old[at] for at in positions])
        if change.new is not None:
            yield self._texts(
                [
                    change.old[at]
                    if change.new[at] is Unchanged.TOAST and change.old is not None
                    else change.new[at]
                    for at in positions
                ]
            )

    def _texts(self, values: Sequence[Value]) -> Key:
        if any(not isinstance(value, str) for value in values):
            raise DatabaseError(
                f"{self._table}: a changed row has no value in its key {', '.join(self._key)}. Declare a "
                f"key whose columns are not NULL. {FULL_REFRESH}"
            )
        return cast(Key, tuple(values))


def deleted_column(columns: Mapping[str, Column]) -> str:
    """Return the name of the column that says that a row is gone; no column of the table has it."""
    name = "_deleted"
    while name in columns:
        name += "_"
    return name


def with_deleted(
    info: TableInfo,
    key: Sequence[str],
    expression: str = "NULL::boolean",
    *,
    deletes: bool = True,
) -> TableInfo:
    """Return a table with the column that says whether a row is gone; such a row has its key only.

    Args:
        info: the table.
        key: the columns of its key.
        expression: the SQL that reads the column.
        deletes: whether the load deletes rows by it; one that replaces the table does not.
    """
    name = deleted_column(info.all_columns)
    hints: Any = {"name": name, "data_type": "bool", "nullable": True}
    if deletes:
        hints["hard_delete"] = True
    flag = Column(name, hints, expression, "boolean")
    columns = {
        each.name: replace(each, hints={**each.hints, "nullable": each.name not in key})
        for each in info.columns.values()
    }
    return replace(info, columns={**columns, name: flag})


def changed_rows_sql(
    snapshot: Snapshot, table: str, info: TableInfo, key: Sequence[str], keys: Iterable[Key]
) -> str:
    """Return the SQL of a relation: the rows with some keys as they are now, and the keys that are gone.

    Keys that are equal in the database and different in the warehouse, such as texts in a collation without
    case, are different here as well.

    Args:
        snapshot: the snapshot in which it is read.
        table: the quoted name of the table.
        info: the table, with the column for deleted rows.
        key: the columns of its key.
        keys: the keys.
    """
    quote = snapshot.quote
    arrays = ", ".join(f"{literal(_array(texts))}::text[]" for texts in zip(*keys, strict=True))
    names = ", ".join(f"k{number}" for number in range(len(key)))
    typed, conditions = [], []
    for number, name in enumerate(key):
        column = info.all_columns[name]
        typed.append(f"k{number}::{column.database_type} AS {quote(name)}")
        conditions.append(f"t.{quote(name)} = k.{quote(name)}")
        if column.hints["data_type"] in ("text", "json"):
            conditions.append(f't.{quote(name)}::text = k.{quote(name)}::text COLLATE "C"')
    selected = [
        f"{'k' if name in key else 't'}.{quote(name)} AS {quote(name)}" for name in info.all_columns
    ]
    deleted = quote(deleted_column(info.all_columns))
    return (
        f"(SELECT {', '.join(selected)}, NULLIF(t.tableoid IS NULL, FALSE) AS {deleted} "
        f"FROM (SELECT {', '.join(typed)} FROM unnest({arrays}) AS texts ({names})) AS k "
        f"LEFT JOIN {table} AS t ON {' AND '.join(conditions)}) AS changed"
    )


def _array(texts: Iterable[str]) -> str:
    """Return texts as the literal of an array."""
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"
