"""The mode changes is exact wherever a load is killed, and whatever changes concurrently."""

import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from dlt.destinations.job_client_impl import SqlJobClientBase

from shared.sources.database import Table
from shared.sources.database.postgres.changes.load import Changes
from shared.sources.database.postgres.changes.slot import Slot
from shared.testing.killed_loads import in_forked_process, kill
from shared.testing.source_database import SourceDatabase
from shared.warehouse import LoadRun
from support.changes import CHANGES, ORDERS, load, loaded, rows_of

SLOW_ON_SERVERS = True


def dying(original: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """Return a function whose first call kills the process, before or after it did its work."""

    def function(*arguments: Any, **named: Any) -> Any:
        if after:
            original(*arguments, **named)
        kill()

    return function


def dying_iterator(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def iterator(*arguments: Any, **named: Any) -> Iterator[Any]:
        yield from original(*arguments, **named)
        kill()

    return iterator


POINTS: dict[str, tuple[Any, str, Any]] = {
    "slot created": (Slot, "prepare", lambda o: dying(o, after=True)),
    "rows extracted": (Changes, "items", dying_iterator),
    "before the load": (LoadRun, "load", lambda o: dying(o, after=False)),
    "rows committed": (SqlJobClientBase, "complete_load", lambda o: dying(o, after=False)),
    "load complete": (SqlJobClientBase, "complete_load", lambda o: dying(o, after=True)),
    "before the advance": (Slot, "advance", lambda o: dying(o, after=False)),
    "after the advance": (Slot, "advance", lambda o: dying(o, after=True)),
}


def killed_load(point: str, table: Table = CHANGES, *, refresh: bool = False) -> int:
    """Load in a process that is killed at a point, and return the signal that ended it."""

    def run() -> None:
        owner, name, change = POINTS[point]
        setattr(owner, name, change(getattr(owner, name)))
        load(table, refresh=refresh)

    return in_forked_process(run)


@pytest.mark.parametrize("point", [point for point in POINTS if "advance" not in point])
def test_a_killed_first_load_is_exact(any_warehouse: str, shop: SourceDatabase, point: str) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    assert killed_load(point) == -signal.SIGKILL
    shop.run("DELETE FROM orders WHERE id = 1; INSERT INTO orders VALUES (3, 'c')")
    load()
    assert loaded() == rows_of(shop)
    shop.run("UPDATE orders SET name = 'x'")
    load()
    assert loaded() == rows_of(shop)


@pytest.mark.parametrize("point", [point for point in POINTS if point != "slot created"])
def test_a_killed_load_of_changes_is_exact(
    any_warehouse: str, shop: SourceDatabase, point: str
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load()
    shop.run("DELETE FROM orders WHERE id = 1; INSERT INTO orders VALUES (3, 'c')")
    assert killed_load(point) == -signal.SIGKILL
    if point != "slot created":
        shop.run(
            "UPDATE orders SET id = 4, name = 'x' WHERE id = 3; INSERT INTO orders VALUES (1, 'y')"
        )
    load()
    assert loaded() == rows_of(shop)
    load()
    assert loaded() == rows_of(shop)


@pytest.mark.parametrize("point", ["rows extracted", "rows committed", "load complete"])
def test_a_killed_full_refresh_and_a_killed_reading_of_a_truncated_table_are_exact(
    shop: SourceDatabase, point: str
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load()
    shop.run("DELETE FROM orders WHERE id = 1")
    assert killed_load(point, refresh=True) == -signal.SIGKILL
    shop.run("INSERT INTO orders VALUES (3, 'c'); DELETE FROM orders WHERE id = 2")
    load()
    assert loaded() == rows_of(shop)
    shop.run("TRUNCATE orders; INSERT INTO orders VALUES (9, 'z')")
    assert killed_load(point) == -signal.SIGKILL
    shop.run("INSERT INTO orders VALUES (8, 'y'); DELETE FROM orders WHERE id = 9")
    load()
    assert loaded() == rows_of(shop)


@pytest.mark.parametrize("point", ["rows extracted", "rows committed", "load complete"])
def test_a_killed_range_of_a_first_load_is_exact(shop: SourceDatabase, point: str) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders SELECT i, 'n' FROM generate_series(1, 50) AS i; ANALYZE orders")
    table = Table("orders", mode="changes", key="id", rows_per_load=20)
    for _ in range(2):
        assert killed_load(point, table) == -signal.SIGKILL
        shop.run("UPDATE orders SET id = id - 100 WHERE id = (SELECT max(id) FROM orders)")
        shop.run("UPDATE orders SET name = 'x' WHERE id % 5 = 0; DELETE FROM orders WHERE id = 7")
    load(table)
    assert loaded() == rows_of(shop)


class Generator:
    """Changes a table at random over several connections, of which some have open transactions."""

    def __init__(self, shop: SourceDatabase, seed: int, names: list[str]) -> None:
        self.random, self.shop, self.names = random.Random(seed), shop, names
        self.writers = [shop.connect() for _ in range(3)]
        for writer in self.writers:
            shop.run("SET lock_timeout = '20ms'", writer)
            writer.commit()

    def step(self) -> None:
        """Do one thing over one connection; a conflict with another one's rows rolls back."""
        writer = self.random.choice(self.writers)
        try:
            self.shop.run(self.statement(), writer)
            end = self.random.random()
            if end < 0.5:
                writer.commit()
            elif end < 0.6:
                writer.rollback()
        except psycopg2.Error:
            writer.rollback()

    def statement(self) -> str:
        key, other = self.random.randint(1, 40), self.random.randint(1, 40)
        name = self.random.choice(self.names)
        large = f"repeat('{self.random.randint(0, 9)}', {self.random.choice([10, 9000])})"
        insert = f"INSERT INTO orders VALUES ({key}, '{name}', {large})"
        return self.random.choices(
            [
                insert + " ON CONFLICT (id) DO UPDATE SET note = excluded.note",
                f"UPDATE orders SET name = '{name}' WHERE id = {key}",
                f"UPDATE orders SET name = '{name}' WHERE id > {key}",
                f"UPDATE orders SET note = {large} WHERE id = {key}",
                f"DELETE FROM orders WHERE id = {key}",
                f"UPDATE orders SET id = {other} WHERE id = {key}",
                f"UPDATE orders SET id = {other}, note = NULL WHERE id = {key}",
                f"SAVEPOINT s; DELETE FROM orders WHERE id < {key}; ROLLBACK TO s; {insert}",
                f"SAVEPOINT s; {insert}; RELEASE s",
                f"{insert}; DELETE FROM orders WHERE id = {key}",
                "TRUNCATE orders",
                "VACUUM orders",
                f"ALTER TABLE orders ADD extra{key} int DEFAULT {other}",
            ],
            [30, 20, 5, 20, 10, 10, 5, 3, 5, 3, 1, 1, 0.5],
        )[0]

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


@pytest.mark.parametrize(
    ("identity", "seed"),
    [
        ("DEFAULT", 0),
        *(
            pytest.param(identity, seed, marks=pytest.mark.slow)
            for identity in ("DEFAULT", "FULL")
            for seed in range(1, 4)
        ),
    ],
)
def test_after_each_run_the_warehouse_has_the_table(
    shop: SourceDatabase, identity: str, seed: int
) -> None:
    shop.run(ORDERS)
    shop.run(f"ALTER TABLE orders REPLICA IDENTITY {identity}")
    load()
    generator = Generator(shop, seed, ["a", "b", "it''s", "ü"])
    for _ in range(12 if seed else 5):
        for _ in range(generator.random.randint(1, 40)):
            generator.step()
        if generator.random.random() < 0.3:
            killed_load(generator.random.choice(list(POINTS)))
        load()
        assert loaded() == rows_of(shop)
    generator.close()
    load()
    columns = [
        name
        for (name,) in shop.run(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 "
            "AND NOT attisdropped ORDER BY attnum"
        )
    ]
    selected = ", ".join(columns)
    assert loaded(selected) == shop.run(f"SELECT {selected} FROM orders ORDER BY id")
