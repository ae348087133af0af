"""Messages of pgoutput are decoded, and others are refused."""

import struct
from collections.abc import Sequence

import pytest

from shared.sources.database.postgres.changes.keys import ChangedKeys, Visibility
from shared.sources.database.postgres.changes.messages import (
    Begin,
    Change,
    Commit,
    MessageError,
    Relation,
    Truncate,
    Unchanged,
    parse,
)

COLUMNS = (b"\1", "id"), (b"\0", "näme")


def relation(*columns: tuple[bytes, str], identity: bytes = b"d") -> bytes:
    parts = [flag + name.encode() + b"\0" + struct.pack(">Ii", 23, -1) for flag, name in columns]
    head = b"R" + struct.pack(">I", 7) + b"public\0orders\0" + identity
    return head + struct.pack(">H", len(parts)) + b"".join(parts)


def values(*texts: str | Unchanged | None) -> bytes:
    parts = [struct.pack(">H", len(texts))]
    for text in texts:
        if isinstance(text, str):
            parts.append(b"t" + struct.pack(">I", len(text.encode())) + text.encode())
        else:
            parts.append(b"n" if text is None else b"u")
    return b"".join(parts)


def change(kind: bytes, *tuples: bytes) -> bytes:
    return kind + struct.pack(">I", 7) + b"".join(tuples)


def begin(lsn: int, xid: int) -> bytes:
    return b"B" + struct.pack(">QQI", lsn, 0, xid)


def commit(lsn: int) -> bytes:
    return b"C\0" + struct.pack(">QQQ", lsn, lsn + 10, 0)


def test_messages_are_decoded() -> None:
    assert parse(begin(2**40 + 1, 2**32 - 1)) == Begin(2**40 + 1, 2**32 - 1)
    assert parse(commit(5)) == Commit(5, 15)
    assert parse(relation(*COLUMNS)) == Relation(
        7, "public.orders", "d", ["id", "näme"], frozenset({"id"})
    )
    assert parse(b"T" + struct.pack(">IBII", 2, 0, 7, 8)) == Truncate([7, 8])
    assert [parse(kind + b"rest") for kind in (b"Y", b"O", b"M")] == [None, None, None]


def test_changes_have_their_tuples() -> None:
    row, old = values("1", "ü", None, Unchanged.TOAST), values("2", None)
    assert parse(change(b"I", b"N", row)) == Change("I", 7, None, ["1", "ü", None, Unchanged.TOAST])
    assert parse(change(b"U", b"N", row)) == Change("U", 7, None, ["1", "ü", None, Unchanged.TOAST])
    for part in (b"K", b"O"):
        assert parse(change(b"U", part, old, b"N", row)) == Change(
            "U", 7, ["2", None], ["1", "ü", None, Unchanged.TOAST]
        )
        assert parse(change(b"D", part, old)) == Change("D", 7, ["2", None], None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Z",
        b"B\0\0",
        relation(*COLUMNS)[:-9],
        change(b"I", b"N", values("long"))[:-1],
        change(b"I", b"K", values("1")),
        change(b"D", b"N", values("1")),
        change(b"I", b"N", struct.pack(">H", 1) + b"b" + struct.pack(">I", 0)),  # binary
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        parse(data)


@pytest.mark.parametrize(
    ("snapshot", "xid", "visible"),
    [
        ("100:100:", 99, True),
        ("100:100:", 100, False),
        ("90:100:90,95", 90, False),
        ("90:100:90,95", 91, True),
        ("90:100:90,95", 95, False),
        ("90:100:90,95", 2**32 - 1, True),  # before the ids started again
        (f"{2**32 - 2}:{2**32 + 5}:{2**32 - 1},{2**32 + 3}", 2**32 - 1, False),
        (f"{2**32 - 2}:{2**32 + 5}:{2**32 - 1},{2**32 + 3}", 3, False),
        (f"{2**32 - 2}:{2**32 + 5}:{2**32 - 1},{2**32 + 3}", 4, True),
        (f"{2**32 - 2}:{2**32 + 5}:{2**32 - 1},{2**32 + 3}", 5, False),
    ],
)
def test_a_snapshot_sees_the_transactions_before_it(
    snapshot: str, xid: int, *, visible: bool
) -> None:
    assert Visibility.of(snapshot).sees(xid) is visible


def collected(messages: Sequence[bytes], position: int = 0) -> tuple[list[str], ChangedKeys]:
    keys = ChangedKeys("orders", 7, ["id"], Visibility.of("90:100:95"), position)
    return sorted(key for some in keys.collect(messages) for (key,) in some), keys


def insert(key: str) -> bytes:
    return change(b"I", b"N", values(key, None))


def test_the_position_stays_before_the_first_transaction_that_the_snapshot_does_not_see() -> None:
    found, keys = collected(
        [
            *(begin(10, 80), relation(*COLUMNS), insert("old"), commit(10)),
            *(begin(20, 85), insert("1"), commit(20)),
            *(begin(30, 95), insert("unseen"), commit(30)),
            *(begin(40, 99), insert("2"), commit(40)),
            *(begin(50, 101), insert("later"), commit(50)),
        ],
        position=15,
    )
    assert found == ["1", "2"]
    assert (keys.first_unseen, keys.last_end, keys.messages) == (30, 60, 16)


def test_both_keys_of_an_update_are_collected() -> None:
    update = change(b"U", b"K", values("1", None), b"N", values("2", "x"))
    assert collected([begin(1, 1), relation(*COLUMNS), update])[0] == ["1", "2"]
    toasted = change(b"U", b"O", values("1", "x"), b"N", values(Unchanged.TOAST, "y"))
    assert collected([begin(1, 1), relation(*COLUMNS), toasted])[0] == ["1"]


def test_a_change_without_the_key_is_refused() -> None:
    without = relation((b"\0", "id"), (b"\1", "näme"), identity=b"i")
    for messages, what in (
        ([without, change(b"D", b"K", values(None, "x"))], "replica identity did not have the key"),
        ([relation((b"\1", "other")), insert("1")], "no column id"),
        ([relation(*COLUMNS), change(b"I", b"N", values(None, "x"))], "no value in its key"),
    ):
        with pytest.raises(Exception, match=what):
            collected([begin(1, 1), *messages])
    assert collected([without, insert("1")])[0] == []  # of no transaction that counts
