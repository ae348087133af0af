"""The mode changes: the warehouse has the table as it was at one point in time, from Postgres' log."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from shared import warehouse
from shared.sources.database import Table, ranges
from shared.sources.database.masks import Constant
from shared.sources.database.postgres.changes.slot import Slot
from shared.testing.postgres_server import PostgresServer
from shared.testing.source_database import SourceDatabase, created_database
from support.changes import ORDERS, load, loaded, rows_of


def test_inserts_updates_and_deletes_are_loaded(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load()
    assert loaded() == rows_of(shop) == [(1, "a", None), (2, "b", None)]
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    shop.run("UPDATE orders SET name = 'x' WHERE id = 1; DELETE FROM orders WHERE id = 2")
    result = load()
    assert result.rows_loaded["orders"] == 3
    assert loaded() == rows_of(shop) == [(1, "x", None), (3, "c", None)]
    assert load().rows_loaded.get("orders", 0) == 0


def test_a_run_without_changes_stores_nothing(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    load()
    load()
    states = warehouse.query("SELECT count(*) AS n FROM shop_data._dlt_pipeline_state")
    load()
    assert warehouse.query("SELECT count(*) AS n FROM shop_data._dlt_pipeline_state") == states


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX orders_by_id"])
def test_a_large_value_that_is_not_in_the_log_keeps_its_value(
    identity: str, shop: SourceDatabase
) -> None:
    shop.run(ORDERS)
    shop.run("CREATE UNIQUE INDEX orders_by_id ON orders (id)")
    shop.run(f"ALTER TABLE orders REPLICA IDENTITY {identity}")
    shop.run("ALTER TABLE orders ALTER note SET STORAGE EXTERNAL")
    shop.run("INSERT INTO orders VALUES (1, 'a', repeat('long', 5000))")
    load()
    shop.run("UPDATE orders SET name = 'b'")
    shop.run("INSERT INTO orders VALUES (2, 'c', repeat('other', 5000))")
    shop.run("UPDATE orders SET name = 'd' WHERE id = 2")
    shop.run("UPDATE orders SET id = 3 WHERE id = 1")
    load()
    assert loaded() == rows_of(shop) == [(2, "d", "other" * 5000), (3, "b", "long" * 5000)]


def test_a_key_that_is_too_large_for_the_log_is_found(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id text PRIMARY KEY, name text, note text)")
    shop.run("ALTER TABLE orders ALTER id SET STORAGE EXTERNAL")
    shop.run("INSERT INTO orders VALUES (repeat('k', 2500), 'a', NULL)")
    load()
    shop.run("UPDATE orders SET name = 'b'")
    load()
    assert loaded() == rows_of(shop) == [("k" * 2500, "b", None)]
    shop.run("DELETE FROM orders")
    load()
    assert loaded() == []


def test_keys_change_in_chains_and_swap(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    load()
    shop.run("UPDATE orders SET id = 10 WHERE id = 1; UPDATE orders SET id = 20 WHERE id = 10")
    shop.run("UPDATE orders SET id = -id WHERE id IN (2, 3)")
    shop.run("UPDATE orders SET id = CASE id WHEN -2 THEN 3 ELSE 2 END WHERE id < 0")
    load()
    assert loaded() == rows_of(shop) == [(2, "c", None), (3, "b", None), (20, "a", None)]


def test_a_truncated_table_has_its_new_rows_only(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load()
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    shop.run("TRUNCATE orders")
    load()
    assert loaded() == []
    shop.run("INSERT INTO orders VALUES (1, 'new'); BEGIN; TRUNCATE orders; ROLLBACK")
    load()
    shop.run("TRUNCATE orders; INSERT INTO orders VALUES (2, 'newer')")
    load()
    assert loaded() == rows_of(shop) == [(2, "newer", None)]


@pytest.mark.parametrize("statement", ["VACUUM FULL orders", "CLUSTER orders USING orders_pkey"])
def test_a_rewritten_table_stays_the_same(statement: str, shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load()
    shop.run("DELETE FROM orders WHERE id = 1")
    shop.run(statement)
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    load()
    assert loaded() == rows_of(shop) == [(2, "b", None), (3, "c", None)]


def test_a_rolled_back_or_open_transaction_is_not_loaded_and_a_late_one_is(
    shop: SourceDatabase,
) -> None:
    shop.run(ORDERS)
    load()
    other = shop.connect()
    shop.run("INSERT INTO orders VALUES (1, 'late'); SAVEPOINT s", other)
    shop.run("INSERT INTO orders VALUES (2, 'undone'); ROLLBACK TO s", other)
    shop.run("SAVEPOINT t; INSERT INTO orders VALUES (3, 'kept'); RELEASE t", other)
    shop.run("INSERT INTO orders VALUES (4, 'early')")
    shop.run("BEGIN; INSERT INTO orders VALUES (5, 'x'); ROLLBACK")
    load()
    assert loaded() == [(4, "early", None)]
    other.commit()
    other.close()
    load()
    assert loaded() == rows_of(shop) == [(1, "late", None), (3, "kept", None), (4, "early", None)]


def test_a_new_column_is_loaded_also_for_the_rows_that_its_default_filled(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load()
    shop.run("ALTER TABLE orders ADD empty int")
    shop.run(
        "ALTER TABLE orders ADD filled int DEFAULT 7; ALTER TABLE orders ALTER filled DROP DEFAULT"
    )
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    load()
    assert loaded("id, filled, empty") == [(1, 7, None), (2, 7, None), (3, None, None)]
    shop.run("ALTER TABLE orders ADD made uuid DEFAULT gen_random_uuid()")  # rewrites the table
    load()
    assert loaded("id, made") == shop.run("SELECT id, made::text FROM orders ORDER BY id")


def test_a_dropped_column_stays_without_new_values(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a', 'kept')")
    load()
    shop.run("ALTER TABLE orders DROP note")
    shop.run("INSERT INTO orders VALUES (2, 'b')")
    load()
    assert loaded() == [(1, "a", "kept"), (2, "b", None)]
    shop.run("ALTER TABLE orders ADD note text")  # another column, so the old values are gone
    load()
    assert loaded() == rows_of(shop) == [(1, "a", None), (2, "b", None)]


def test_a_column_that_was_excluded_is_loaded_for_all_rows(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a', 'x'), (2, 'b', NULL)")
    load(Table("orders", mode="changes", key="id", exclude=["note"]))
    load()
    assert loaded() == rows_of(shop)


def test_a_renamed_column_is_refused_until_a_full_refresh(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    load()
    shop.run("ALTER TABLE orders RENAME note TO remark; UPDATE orders SET remark = 'r'")
    with pytest.raises(Exception, match=r"orders of .*: the column note was renamed to remark"):
        load()
    load(refresh=True)
    assert loaded("id, name, remark") == [(1, "a", "r")]


def test_a_column_of_another_type_is_refused(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a', '12')")
    load()
    shop.run("ALTER TABLE orders ALTER note TYPE int USING note::int")
    with pytest.raises(Exception, match="note"):
        load()
    assert loaded() == [(1, "a", "12")]


def test_a_full_refresh_replaces_the_rows_and_goes_on_with_the_log(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    load()
    shop.run("INSERT INTO orders VALUES (2, 'b'); DELETE FROM orders WHERE id = 1")
    load(refresh=True)
    assert loaded() == rows_of(shop) == [(2, "b", None)]
    shop.run("INSERT INTO orders VALUES (3, 'c'); DELETE FROM orders WHERE id = 2")
    load()
    assert loaded() == rows_of(shop) == [(3, "c", None)]


def test_a_large_first_load_is_read_in_ranges_and_joins_the_log(
    any_warehouse: str, shop: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(ORDERS)
    shop.run(
        "INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 100) AS i; ANALYZE orders"
    )
    table = Table("orders", mode="changes", key="id", rows_per_load=30)
    original = ranges.read_range

    def read_range(*arguments: Any) -> Iterator[Any]:
        yield from original(*arguments)  # what was read changes, and rows move to ranges that were
        shop.run("UPDATE orders SET id = id - 1000 WHERE id = (SELECT max(id) FROM orders)")
        shop.run(
            "UPDATE orders SET name = 'x' WHERE id % 10 = 1; DELETE FROM orders WHERE id % 50 = 3"
        )

    monkeypatch.setattr(ranges, "read_range", read_range)
    assert load(table).rows_loaded["orders"] >= 100
    assert loaded() == rows_of(shop)


def test_a_large_backlog_is_loaded_in_parts(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    table = Table("orders", mode="changes", key="id", rows_per_load=10)
    load(table)
    for number in range(25):
        shop.run(f"INSERT INTO orders VALUES ({number}, 'n'), ({number + 100}, 'm')")
    load(table)
    assert loaded() == rows_of(shop)
    assert len(loaded()) == 50


def test_a_row_that_changes_often_is_read_once_for_each_query(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    load()
    shop.run("INSERT INTO orders VALUES (1, '0')")
    for number in range(20):
        shop.run(f"UPDATE orders SET name = '{number}'")
    assert load().rows_loaded["orders"] == 1
    assert loaded() == [(1, "19", None)]


def test_keys_of_many_types_and_names_are_found(any_warehouse: str, shop: SourceDatabase) -> None:
    columns = {
        "Day": "date",
        'at"time': "timestamptz",
        "exact": "numeric(10,2)",
        "code": "char(5)",
        "who": "uuid",
        "say": "text",
        "raw": "bytea",
        "flag": "boolean",
    }
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in columns}
    names = ", ".join(quoted.values())
    declared = ", ".join(f"{quoted[name]} {kind}" for name, kind in columns.items())
    shop.run(f"CREATE TABLE orders ({declared}, name text, PRIMARY KEY ({names}))")
    table = Table("orders", mode="changes", key=tuple(columns))
    load(table)
    key = r"""'2024-02-29', '2024-01-01 00:00:00.123456+05:30', 1.50, 'ab',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', E'it''s {"a\\b",}', '\xDEADBEEF', true"""
    shop.run(f"INSERT INTO orders VALUES ({key}, 'first')")
    load(table)
    shop.run("UPDATE orders SET name = 'second'")
    load(table)
    assert loaded("name, exact") == [("second", 1.5)]
    shop.run("UPDATE orders SET exact = 1.51")
    load(table)
    assert [str(value) for _, value in loaded("name, exact")] == ["1.51"]
    shop.run("DELETE FROM orders")
    load(table)
    assert loaded("name, exact") == []


def test_keys_that_are_equal_only_in_the_database_are_different_rows(shop: SourceDatabase) -> None:
    shop.run(
        "CREATE EXTENSION citext; CREATE TABLE orders (id citext PRIMARY KEY, name text, note text)"
    )
    shop.run("INSERT INTO orders VALUES ('ABC', 'a')")
    load()
    shop.run("UPDATE orders SET id = 'abc'")
    load()
    assert loaded() == rows_of(shop) == [("abc", "a", None)]


def test_a_commit_between_the_snapshot_and_the_log_is_loaded_by_the_next_run(
    shop: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(ORDERS)
    load()
    other = shop.connect()
    shop.run("INSERT INTO orders VALUES (1, 'late')", other)
    shop.run("INSERT INTO orders VALUES (2, 'early')")
    original = Slot.peek

    def peek(self: Slot, limit: int) -> Iterator[bytes]:
        other.commit()
        shop.run("INSERT INTO orders VALUES (3, 'later')")
        return original(self, limit)

    with monkeypatch.context() as patched:
        patched.setattr(Slot, "peek", peek)
        load()
    assert loaded() == [(2, "early", None)]
    load()
    assert loaded() == rows_of(shop)
    assert len(loaded()) == 3
    other.close()


def test_a_commit_that_is_in_the_log_before_others_see_it_is_loaded_once_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Path
) -> None:
    del tmp_warehouse
    folder = tmp_path / "server"
    folder.mkdir()
    server = PostgresServer(folder, synchronous_standby_names="nobody", synchronous_commit="local")
    with server, created_database(server) as source:
        monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", source.url)
        source.run(ORDERS)
        load()
        waiting = source.connect()
        source.run("SET synchronous_commit = on; INSERT INTO orders VALUES (1, 'waits')", waiting)
        pid = waiting.info.backend_pid
        commit = threading.Thread(target=waiting.commit)
        commit.start()  # it waits for a replica that does not exist
        while not source.run(
            f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'"
        ):
            pass
        source.run("INSERT INTO orders VALUES (2, 'visible')")
        for _ in range(2):
            load()
            assert loaded() == rows_of(source) == [(2, "visible", None)]
        source.run(f"SELECT pg_cancel_backend({pid})")
        commit.join()
        waiting.close()
        load()
        assert loaded() == rows_of(source) == [(1, "waits", None), (2, "visible", None)]


def test_nobody_truncates_a_table_while_its_changes_are_read(
    shop: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    load()
    shop.run("UPDATE orders SET name = 'b'; SET lock_timeout = '50ms'")
    errors: list[str] = []

    def truncate(self: Slot) -> None:
        del self
        with pytest.raises(psycopg2.errors.LockNotAvailable) as error:
            shop.run("TRUNCATE orders")
        errors.append(str(error.value))

    monkeypatch.setattr(Slot, "wait_until_durable", truncate)
    load()
    assert errors
    assert loaded() == rows_of(shop) == [(1, "b", None)]


def test_masked_values_are_masked_in_the_first_load_and_in_changes(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'secret-1', 'x'), (2, 'secret-2', NULL)")
    table = Table("orders", mode="changes", key="id", masks={"name": Constant("***")})
    load(table)
    shop.run("INSERT INTO orders VALUES (3, 'secret-3'); DELETE FROM orders WHERE id = 1")
    load(table)
    assert loaded() == [(2, "***", None), (3, "***", None)]
    with pytest.raises(Exception, match="masks or their key have changed"):
        load()


def test_tables_of_one_source_are_loaded_together(shop: SourceDatabase) -> None:
    shop.run(f"{ORDERS}; CREATE TABLE customers (id int PRIMARY KEY, name text)")
    tables = (
        Table("orders", mode="changes", key="id"),
        Table("customers", mode="changes", key="id"),
    )
    for number in range(2):
        shop.run(
            f"INSERT INTO orders VALUES ({number}, 'o'); INSERT INTO customers VALUES ({number}, 'c')"
        )
        load(*tables)
        assert len(loaded()) == len(loaded("id, name", "customers")) == number + 1
