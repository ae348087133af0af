"""Rows are loaded once, whatever happens to their table, its columns and its cursor between loads."""

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared import warehouse
from shared.sources.database import DatabaseError, Table
from shared.sources.database.postgres.snapshot import PostgresDatabase
from shared.sources.database.postgres.transactions import Transactions
from shared.testing.killed_loads import killed_load
from shared.testing.postgres_server import PostgresServer
from shared.testing.source_database import SourceDatabase, load, loaded

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, name text, updated_at timestamptz DEFAULT clock_timestamp())"


def test_a_server_that_is_behind_the_last_load_is_refused(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    with PostgresDatabase(shop.url).snapshot() as snapshot:
        here = Transactions(snapshot, Table("orders"))
        assert not here.is_other_table(here.position)
        assert here.is_other_table(replace(here.position, timeline="000000FF"))
        with pytest.raises(DatabaseError, match="is behind what the last load of"):
            here.is_other_table(replace(here.position, next=here.position.next + 1))


def test_a_table_on_another_server_is_read_anew_and_not_appended_again(
    shop: SourceDatabase, warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Table("orders", mode="incremental", key="id")
    added = Table("orders", mode="append", table="added")
    moved = SourceDatabase(warehouse_server.database())
    for source in (shop, moved):
        source.run(ORDERS)
        source.run("INSERT INTO orders VALUES (1, 'a')")
    load(orders, added)
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", moved.url)
    moved.run("INSERT INTO orders VALUES (2, 'b')")
    moved.connection.close()
    assert load(orders).rows_loaded["orders"] == 2
    with pytest.raises(Exception, match=r"is on another server.*etl/full_refresh"):
        load(added)
    assert loaded(table="added") == [(1, "a")]
    load(added, refresh=["added"])
    assert loaded(table="added") == loaded() == [(1, "a"), (2, "b")]


def test_a_rewritten_table_is_not_appended_again(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int, name text)")
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    orders = Table("orders", mode="append")
    load(orders)
    shop.run("ALTER TABLE orders ALTER id TYPE bigint")
    with pytest.raises(Exception, match=r"was rewritten or replaced.*etl/full_refresh"):
        load(orders)
    assert loaded() == [(1, "a")]


def appended(shop: SourceDatabase, *changes: str, cursor: str = "at", **options: Any) -> list[Any]:
    """Load a table that is appended to by its cursor, after each change, and return its ids."""
    entries = Table(
        "entries", mode="append", cursor=cursor, **{"overlap": timedelta(hours=1), **options}
    )
    for change in changes:
        shop.run(change)
        load(entries)
        load(entries)
    return [row["id"] for row in warehouse.query("SELECT id FROM shop_data.entries ORDER BY id")]


ENTRIES = "CREATE TABLE entries (id int, at timestamp); INSERT INTO entries VALUES (1, '2024-01-01 10:00'), (2, NULL)"


def test_a_new_column_adds_no_row_again(shop: SourceDatabase) -> None:
    more = (
        "ALTER TABLE entries ADD note text; INSERT INTO entries VALUES (3, '2024-01-01 10:00', 'n')"
    )
    assert appended(shop, ENTRIES, more) == [1, 2, 3]
    with pytest.raises(Exception, match=r"note was loaded, and is gone.*etl/full_refresh"):
        appended(shop, "ALTER TABLE entries DROP note")


def test_rows_that_are_equal_are_each_added(shop: SourceDatabase) -> None:
    again = "INSERT INTO entries VALUES (1, '2024-01-01 10:00'), (2, NULL)"
    assert appended(shop, ENTRIES, again) == [1, 1, 2, 2]


def test_rows_that_follow_deleted_ones_are_loaded(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (999999, 'typo')")
    orders = Table("orders", mode="incremental", key="id", cursor="id", overlap=10)
    load(orders)
    shop.run("INSERT INTO orders SELECT n, 'b' FROM generate_series(2, 50) AS n")
    load(orders)
    shop.run("DELETE FROM orders WHERE id = 999999")
    load(orders)
    shop.run("INSERT INTO orders VALUES (51, 'c')")
    load(orders)
    assert [row[0] for row in loaded()] == [*range(1, 52), 999999]


def test_a_column_that_is_created_anew_is_loaded_for_all_rows(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'old')")
    orders = Table("orders", mode="incremental", key="id")
    load(orders)
    shop.run("ALTER TABLE orders DROP name; ALTER TABLE orders ADD name text DEFAULT 'new'")
    load(orders)
    assert loaded() == [(1, "new")]


def test_rows_are_not_added_again_when_the_newest_are_deleted(shop: SourceDatabase) -> None:
    numbers = "CREATE TABLE entries (id int); INSERT INTO entries SELECT generate_series(1, 40)"
    some = "DELETE FROM entries WHERE id > 35"
    assert appended(shop, numbers, some, cursor="id", overlap=10) == [*range(1, 41)]
    with pytest.raises(Exception, match=r"greatest values of the cursor id were deleted"):
        appended(shop, "DELETE FROM entries WHERE id > 20", cursor="id", overlap=10)


def test_a_larger_overlap_adds_no_row_again(shop: SourceDatabase) -> None:
    numbers = "CREATE TABLE entries (id int); INSERT INTO entries SELECT generate_series(1, 40)"
    appended(shop, numbers, cursor="id", overlap=10)
    assert appended(shop, "SELECT 1", cursor="id", overlap=30) == [*range(1, 41)]


def test_a_row_with_a_time_in_the_future_does_not_hide_later_rows(shop: SourceDatabase) -> None:
    future = "INSERT INTO entries VALUES (3, '2999-01-01')"
    local = "INSERT INTO entries VALUES (4, timezone('UTC', now()) - interval '5 hours')"
    corrected = "INSERT INTO entries VALUES (5, timezone('UTC', now()) - interval '4 hours')"
    assert appended(shop, ENTRIES, future, local, corrected) == [1, 2, 3, 4, 5]


def test_an_overlap_of_dates_has_whole_days(shop: SourceDatabase) -> None:
    first = "CREATE TABLE entries (id int, at date); INSERT INTO entries VALUES (1, '2024-01-02')"
    late = "INSERT INTO entries VALUES (2, '2024-01-01')"
    assert appended(shop, first, late) == [1, 2]


@pytest.mark.parametrize("overlap", [None, timedelta(minutes=1)])
def test_a_new_column_is_loaded_for_all_rows(
    shop: SourceDatabase, overlap: timedelta | None
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    cursor = {"cursor": "updated_at", "overlap": overlap} if overlap else {}
    orders = Table("orders", mode="incremental", key="id", **cursor)  # type: ignore[arg-type]
    load(orders)
    shop.run("ALTER TABLE orders ADD n int DEFAULT 5; ALTER TABLE orders RENAME name TO title")
    load(orders)
    assert loaded("id, title, n") == [(1, "a", 5), (2, "b", 5)]
    assert load(orders).rows_loaded.get("orders", 0) == 0


def test_rows_of_another_mode_are_not_appended_again(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    append = Table("orders", mode="append")
    load(append)
    for other in (Table("orders"), Table("orders", mode="mirror", key="id")):
        load(other)
        with pytest.raises(Exception, match=r"the mode was .* and is append now.*etl/full_refresh"):
            load(append)
    load(append, refresh=["orders"])
    assert loaded() == [(1, "a")]
    with pytest.raises(Exception, match="Load into another table"):
        load(Table("orders", mode="history", key="id"))


def test_a_detached_partition_that_returns_is_not_appended_again(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int, name text) PARTITION BY LIST (id)")
    shop.run("CREATE TABLE one PARTITION OF orders FOR VALUES IN (1)")
    shop.run("CREATE TABLE two PARTITION OF orders FOR VALUES IN (2)")
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    orders = Table("orders", mode="append")
    load(orders)
    shop.run("ALTER TABLE orders DETACH PARTITION two")
    load(orders)
    shop.run("ALTER TABLE orders ATTACH PARTITION two FOR VALUES IN (2)")
    with pytest.raises(Exception, match="was rewritten or replaced"):
        load(orders)
    assert loaded() == [(1, "a"), (2, "b")]


def test_a_key_of_a_table_with_heirs_is_checked(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("CREATE TABLE old_orders () INHERITS (orders)")
    shop.run("INSERT INTO orders VALUES (1, 'a'); INSERT INTO old_orders VALUES (1, 'b')")
    with pytest.raises(Exception, match="1 values of the key id are NULL or belong"):
        load(Table("orders", mode="incremental", key="id"))


def test_a_first_load_goes_on_by_the_key_with_which_it_began(
    shop: SourceDatabase,
) -> None:
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, name text, code int UNIQUE NOT NULL)")
    shop.run(
        "INSERT INTO orders SELECT n, 'x', 100 - n FROM generate_series(1, 25) AS n; ANALYZE orders"
    )
    orders = Table("orders", mode="incremental", key="id", rows_per_load=10)
    assert killed_load("completed", lambda: load(orders)) == -signal.SIGKILL
    load(Table("orders", mode="incremental", key="code", rows_per_load=10))
    assert [row[0] for row in loaded()] == [*range(1, 26)]


def test_a_table_that_is_rewritten_while_a_load_waits_for_it_is_not_empty(
    shop: SourceDatabase,
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    other = shop.connect()
    shop.run("TRUNCATE orders; INSERT INTO orders VALUES (3, 'c')", other)
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load, Table("orders"))
        while not shop.run("SELECT 1 FROM pg_locks WHERE NOT granted") and not loading.done():
            pass
        other.commit()
        loading.result()
    other.close()
    assert loaded() == [(3, "c")]


@pytest.mark.parametrize("change", ["VACUUM FULL orders", "CLUSTER orders USING orders_pkey"])
def test_rows_are_appended_after_their_table_was_copied(shop: SourceDatabase, change: str) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    orders = Table("orders", mode="append")
    load(orders)
    shop.run(change)
    shop.run("INSERT INTO orders VALUES (2, 'b')")
    load(orders)
    assert loaded() == [(1, "a"), (2, "b")]


def test_a_table_that_was_created_anew_is_not_appended_again(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int, name text)")
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    orders = Table("orders", mode="append")
    load(orders)
    shop.run(
        "CREATE TABLE copied AS TABLE orders; DROP TABLE orders; ALTER TABLE copied RENAME TO orders"
    )
    with pytest.raises(Exception, match="was rewritten or replaced"):
        load(orders)
    assert loaded() == [(1, "a")]


def test_a_new_partition_is_appended_while_an_old_one_is_dropped(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int, name text) PARTITION BY LIST (id)")
    shop.run("CREATE TABLE one PARTITION OF orders FOR VALUES IN (1)")
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    orders = Table("orders", mode="append")
    load(orders)
    shop.run("DROP TABLE one; CREATE TABLE two PARTITION OF orders FOR VALUES IN (2)")
    shop.run("INSERT INTO orders VALUES (2, 'b')")
    load(orders)
    assert loaded() == [(1, "a"), (2, "b")]
    shop.run(
        "CREATE TABLE again PARTITION OF orders FOR VALUES IN (1); INSERT INTO orders VALUES (1, 'a')"
    )
    with pytest.raises(Exception, match="was rewritten or replaced"):
        load(orders)


def test_a_cursor_is_not_continued_on_another_server(
    shop: SourceDatabase, warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Table(
        "orders", mode="incremental", key="id", cursor="updated_at", overlap=timedelta(0)
    )
    moved = SourceDatabase(warehouse_server.database())
    for source, at in ((shop, "2025-01-01"), (moved, "2024-01-01")):
        source.run(ORDERS)
        source.run(f"INSERT INTO orders VALUES (1, '{at}', '{at}')")
    load(orders)
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", moved.url)
    load(orders)
    moved.connection.close()
    assert loaded() == [(1, "2024-01-01")]


def test_key_ranges_of_a_table_load_no_other_table_again(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE large (id int PRIMARY KEY); CREATE TABLE orders (id int)")
    shop.run("INSERT INTO large SELECT generate_series(1, 25); INSERT INTO orders VALUES (1)")
    shop.run("ANALYZE")
    large = Table("large", mode="incremental", key="id", rows_per_load=10)
    result = load(large, Table("orders"))
    assert (result.rows_loaded["large"], result.rows_loaded["orders"]) == (25, 1)
    assert result.tables.keys() == {"large", "orders"}


def test_ranges_of_a_table_whose_cursor_is_null_are_loaded(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, name text, c int)")
    shop.run("INSERT INTO orders SELECT generate_series(1, 25), 'x'; ANALYZE orders")
    orders = Table("orders", mode="incremental", key="id", cursor="c", overlap=1, rows_per_load=10)
    load(orders)
    load(orders)
    assert len(loaded()) == 25


def test_a_table_that_is_rewritten_without_a_lock_is_refused(
    shop: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(
        "CREATE TABLE orders (id int, name text, secret text); INSERT INTO orders VALUES (1, 'a')"
    )
    shop.run("CREATE ROLE limited LOGIN; GRANT SELECT (id, name) ON orders TO limited")
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", shop.url.replace("postgres@", "limited@"))
    other = shop.connect()
    shop.run("TRUNCATE orders; INSERT INTO orders VALUES (1, 'a')", other)
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load, Table("orders", exclude=["secret"]))
        while not shop.run("SELECT 1 FROM pg_locks WHERE NOT granted") and not loading.done():
            pass
        other.commit()
        with pytest.raises(Exception, match=r"was truncated or rewritten while it was read"):
            loading.result()
    other.close()
    shop.run("DROP OWNED BY limited; DROP ROLE limited")


def test_rows_that_move_from_the_default_partition_are_not_appended_again(
    shop: SourceDatabase,
) -> None:
    shop.run("CREATE TABLE orders (id int, name text) PARTITION BY LIST (name)")
    shop.run("CREATE TABLE other PARTITION OF orders DEFAULT")
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    orders = Table("orders", mode="append")
    load(orders)
    shop.run("CREATE TABLE c PARTITION OF orders FOR VALUES IN ('c')")
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    load(orders)
    shop.run("CREATE TABLE b (LIKE orders)")
    moved = "WITH moved AS (DELETE FROM other WHERE id = 2 RETURNING *) INSERT INTO b SELECT * FROM moved"
    shop.run(f"{moved}; ALTER TABLE orders ATTACH PARTITION b FOR VALUES IN ('b')")
    with pytest.raises(Exception, match="was rewritten or replaced"):
        load(orders)
    assert loaded() == [(1, "a"), (2, "b"), (3, "c")]
