"""Messages of Postgres' output plugin `pgoutput`, version 1, with values as texts.

The format is in "Logical Replication Message Formats" of Postgres' documentation. Only what a load needs is
decoded: transactions, relations, and the tuples of changed rows.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_LONG, _INT, _SHORT = struct.Struct(">Q"), struct.Struct(">I"), struct.Struct(">H")


class Unchanged(Enum):
    """The value of a column that the log leaves out, because it is stored outside of the row (TOAST)."""

    TOAST = "unchanged"


Value = str | None | Unchanged
"""A value of a column: its text, NULL, or one that a change left as it was."""


class MessageError(ValueError):
    """Bytes are not a message of pgoutput, or one that is not expected in version 1."""


@dataclass(frozen=True)
class Begin:
    """The start of a committed transaction.

    Attributes:
        commit_lsn: the position of its commit record.
        xid: the id of the transaction, without its epoch. A row that a subtransaction changed has it too.
    """

    commit_lsn: int
    xid: int


@dataclass(frozen=True)
class Commit:
    """The end of a transaction.

    Attributes:
        commit_lsn: the position of its commit record.
        end_lsn: the position behind it. A slot that is advanced to it has consumed the transaction.
    """

    commit_lsn: int
    end_lsn: int


@dataclass(frozen=True)
class Relation:
    """A table, as it was when the following rows were changed.

    Attributes:
        oid: its id, by which changes refer to it.
        name: its name, with its schema.
        replica_identity: `d` for the primary key, `i` for an index, `f` for all columns, `n` for none.
        columns: the names of its columns, in the order of tuples.
        identity: those that are in the replica identity.
    """

    oid: int
    name: str
    replica_identity: str
    columns: Sequence[str]
    identity: frozenset[str]


@dataclass(frozen=True)
class Change:
    """A row that was inserted, updated or deleted.

    Attributes:
        kind: `I`, `U` or `D`.
        relation: the id of its table.
        old: the tuple before: None for an insert, and for an update that left the replica identity as it
            was. Columns outside of the identity are NULL in it.
        new: the tuple after; None for a delete.
    """

    kind: str
    relation: int
    old: Sequence[Value] | None
    new: Sequence[Value] | None


@dataclass(frozen=True)
class Truncate:
    """Tables that were truncated."""

    relations: Sequence[int]


Message = Begin | Commit | Relation | Change | Truncate


def parse(data: bytes) -> Message | None:
    """Return a message; None for one that says nothing of rows: a type, an origin, a user's message.

    Raises:
        MessageError: it is not a message of version 1, or it is incomplete.
    """
    reader = _Reader(data)
    kind = reader.character()
    try:
        if kind in "IUD":
            return _change(kind, reader)
        if kind == "B":
            commit_lsn, _, xid = reader.long(), reader.long(), reader.integer()
            return Begin(commit_lsn, xid)
        if kind == "C":
            reader.skip(1)
            return Commit(reader.long(), reader.long())
        if kind == "R":
            return _relation(reader)
        if kind == "T":
            count = reader.integer()
            reader.skip(1)
            return Truncate([reader.integer() for _ in range(count)])
    except MessageError:
        raise
    except (struct.error, IndexError, ValueError) as error:
        raise MessageError(
            f"Message {kind!r} of {len(data)} bytes is incomplete: {error}"
        ) from None
    if kind in "YOM":
        return None
    raise MessageError(f"{kind!r} is not a message of pgoutput's version 1.")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def skip(self, count: int) -> None:
        self.at += count

    def character(self) -> str:
        self.at += 1
        return chr(self.data[self.at - 1]) if self.at <= len(self.data) else ""

    def long(self) -> int:
        self.at += 8
        return int(_LONG.unpack_from(self.data, self.at - 8)[0])

    def integer(self) -> int:
        self.at += 4
        return int(_INT.unpack_from(self.data, self.at - 4)[0])

    def short(self) -> int:
        self.at += 2
        return int(_SHORT.unpack_from(self.data, self.at - 2)[0])

    def name(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def text(self) -> str:
        length = self.integer()
        self.at += length
        if self.at > len(self.data):
            raise IndexError(f"a value of {length} bytes")
        return self.data[self.at - length : self.at].decode()

    def values(self) -> list[Value]:
        return [self._value() for _ in range(self.short())]

    def _value(self) -> Value:
        kind = self.character()
        if kind == "t":
            return self.text()
        if kind == "n":
            return None
        if kind == "u":
            return Unchanged.TOAST
        raise MessageError(f"A value has the kind {kind!r}; only texts are expected.")


def _relation(reader: _Reader) -> Relation:
    oid, schema, name = reader.integer(), reader.name(), reader.name()
    replica_identity = reader.character()
    columns, identity = [], set()
    for _ in range(reader.short()):
        in_identity = reader.character() == "\1"
        column = reader.name()
        reader.skip(8)  # the type and its modifier
        columns.append(column)
        if in_identity:
            identity.add(column)
    return Relation(
        oid, f"{schema or 'pg_catalog'}.{name}", replica_identity, columns, frozenset(identity)
    )


def _change(kind: str, reader: _Reader) -> Change:
    relation = reader.integer()
    part = reader.character()
    old = new = None
    if part in ("K", "O"):
        old = reader.values()
        part = reader.character() if kind == "U" else ""
    if part == "N":
        new = reader.values()
    if (new is None) != (kind == "D") or (old is None and kind == "D"):
        raise MessageError(f"A change {kind!r} has not the tuples that it must have.")
    return Change(kind, relation, old, new)
