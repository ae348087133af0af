"""Tables of Postgres are loaded exactly, in each mode, while the source changes."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from shared import warehouse
from shared.sources.database import DatabaseError, Table, TableDeclarationError, database_source
from shared.sources.partitions import PartitionKey, TimeWindow
from shared.testing.source_database import SourceDatabase, load, loaded
from shared.warehouse.errors import find_cause

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, name text, updated_at timestamptz DEFAULT clock_timestamp())"


def test_a_full_load_replaces_the_table(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    load(Table("orders"))
    shop.run(
        "DELETE FROM orders WHERE id = 1; UPDATE orders SET name = 'c'; INSERT INTO orders VALUES (3, 'd')"
    )
    load(Table("orders"))
    assert loaded() == [(2, "c"), (3, "d")]


@pytest.mark.parametrize("overlap", [None, timedelta(minutes=1)])
def test_an_incremental_load_reads_only_new_and_changed_rows(
    any_warehouse: str, shop: SourceDatabase, overlap: timedelta | None
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    shop.run("INSERT INTO orders VALUES (3, 'n', NULL)")
    orders = Table("orders", mode="incremental", key="id", cursor="updated_at", overlap=overlap)
    assert load(orders).rows_loaded["orders"] == 3
    assert load(orders).rows_loaded.get("orders", 0) == 0
    shop.run("UPDATE orders SET name = 'c', updated_at = clock_timestamp() WHERE id = 2")
    shop.run("INSERT INTO orders VALUES (4, 'd')")
    assert load(orders).rows_loaded["orders"] == 2
    assert load(orders).rows_loaded.get("orders", 0) == 0
    assert loaded() == [(1, "a"), (2, "c"), (3, "n"), (4, "d")]


def test_a_table_of_postgres_needs_no_cursor_to_load_new_rows(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, name text)")
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    orders = Table("orders", mode="incremental", key="id")
    load(orders)
    shop.run("UPDATE orders SET name = 'z' WHERE id = 1")
    assert load(orders).rows_loaded["orders"] == 1
    assert loaded() == [(1, "z"), (2, "b")]


@pytest.mark.parametrize("mode", ["incremental", "append"])
@pytest.mark.parametrize("savepoint", ["", "SAVEPOINT s;"])
def test_a_row_that_commits_late_with_an_earlier_cursor_value_is_loaded_once(
    shop: SourceDatabase, mode: Any, savepoint: str
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    orders = Table("orders", mode=mode, key="id", cursor="updated_at")
    load(orders)
    late, early = shop.connect(), shop.connect()
    shop.run(savepoint + "INSERT INTO orders VALUES (2, 'late', '2020-01-01')", late)
    shop.run("SELECT 1", early)  # it has begun, without a number
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    assert load(orders).rows_loaded["orders"] == 1
    shop.run("INSERT INTO orders VALUES (4, 'early', '2019-01-01')", early)
    early.commit()
    assert load(orders).rows_loaded["orders"] == 1
    late.commit()
    assert load(orders).rows_loaded["orders"] == 1
    assert load(orders).rows_loaded.get("orders", 0) == 0
    late.close()
    early.close()
    assert loaded() == [(1, "a"), (2, "late"), (3, "c"), (4, "early")]


@pytest.mark.parametrize("overlap", [None, timedelta(minutes=1)])
def test_an_append_adds_each_row_once(
    any_warehouse: str, shop: SourceDatabase, overlap: timedelta | None
) -> None:
    shop.run("CREATE TABLE orders (id int, name text, at timestamptz DEFAULT clock_timestamp())")
    shop.run("INSERT INTO orders VALUES (1, 'a'), (1, 'a'), (2, 'b')")
    orders = Table("orders", mode="append", cursor="at", overlap=overlap)
    load(orders)
    load(orders)
    shop.run("INSERT INTO orders VALUES (3, 'c'), (3, 'c')")
    load(orders)
    load(orders)
    assert loaded() == [(1, "a"), (1, "a"), (2, "b"), (3, "c"), (3, "c")]


def test_a_mirror_deletes_what_is_gone(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    orders = Table("orders", mode="mirror", key="id")
    load(orders)
    shop.run("DELETE FROM orders WHERE id = 1; UPDATE orders SET name = 'z' WHERE id = 2")
    load(orders)
    assert loaded() == [(2, "z"), (3, "c")]


def test_a_history_closes_old_versions(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, name text)")
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b'), (3, NULL)")
    orders = Table("orders", mode="history", key="id")
    load(orders)
    load(orders)
    shop.run("DELETE FROM orders WHERE id = 1; UPDATE orders SET name = 'z' WHERE id = 2")
    load(orders)
    rows = loaded("id, name, _dlt_valid_to IS NULL AS is_current")
    assert sorted(rows, key=str) == [
        (1, "a", False), (2, "b", False), (2, "z", True), (3, None, True),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_a_window_replaces_the_rows_of_its_partition(
    any_warehouse: str, shop: SourceDatabase, kind: str
) -> None:
    shop.run(f'CREATE TABLE orders (id int PRIMARY KEY, name text, "At" {kind})')
    shop.run(
        "INSERT INTO orders VALUES (1, 'a', '2025-03-10'), (2, 'b', '2025-03-11'), (3, 'c', '2025-03-12')"
    )
    orders = Table("orders", mode="window", cursor="At")

    def day(number: int) -> PartitionKey:
        start, end = (f"2025-03-{n} 00:00:00+00:00" for n in (number, number + 1))
        return PartitionKey(
            f"2025-03-{number}",
            window=TimeWindow(datetime.fromisoformat(start), datetime.fromisoformat(end)),
        )

    for number in (10, 11):
        load(orders, partitions=[day(number)])
    assert loaded() == [(1, "a"), (2, "b")]
    shop.run("DELETE FROM orders WHERE id = 1; UPDATE orders SET name = 'z'")
    load(orders, partitions=[day(10)])
    assert loaded() == [(2, "b")]


def test_a_large_first_load_commits_in_key_ranges(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (tenant text, id int, name text, PRIMARY KEY (tenant, id))")
    shop.run(
        "INSERT INTO orders SELECT 't' || n % 3, n, 'x' FROM generate_series(1, 25) AS n; ANALYZE orders"
    )
    for mode in ("incremental", "append"):
        orders = Table(
            "orders", mode=mode, key=("tenant", "id"), rows_per_load=10, table=f"orders_{mode}"
        )
        result = load(orders)
        assert result.rows_loaded[orders.target] == 25
        ids = {
            row["_dlt_load_id"]
            for row in warehouse.query(f"SELECT _dlt_load_id FROM shop_data.{orders.target}")
        }
        assert len(ids) == 3
        shop.run(
            "INSERT INTO orders VALUES ('t0', 0, 'new')"
            if mode == "append"
            else "UPDATE orders SET name = 'y' WHERE id = 3"
        )
        assert load(orders).rows_loaded[orders.target] == 1
    assert sorted(loaded("id, name", "orders_append"))[:1] == [(0, "new")]


@pytest.mark.parametrize("mode", ["incremental", "append"])
def test_a_full_refresh_loads_all_rows_anew_and_the_next_run_goes_on(
    any_warehouse: str, shop: SourceDatabase, mode: Any
) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
    orders = Table("orders", mode=mode, key="id")
    load(orders)
    shop.run("DELETE FROM orders WHERE id = 1")
    load(orders)
    assert loaded() == [(1, "a"), (2, "b")]
    load(orders, refresh=["orders"])
    assert loaded() == [(2, "b")]
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    assert load(orders).rows_loaded["orders"] == 1
    assert loaded() == [(2, "b"), (3, "c")]


def test_a_key_that_is_not_unique_is_refused(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE orders (id int, name text)")
    shop.run("INSERT INTO orders VALUES (1, 'a'), (1, 'b')")
    with pytest.raises(Exception, match=r"orders of .*: 1 values of the key id are NULL or belong"):
        load(Table("orders", mode="mirror", key="id"))


def test_a_declaration_that_cannot_be_exact_is_refused() -> None:
    for wrong in (
        {"mode": "window"},
        {"mode": "full", "cursor": "at"},
        {"overlap": timedelta(1)},
        {"mode": "other"},
        {"key": "id", "exclude": ["id"]},
        {"rows_per_load": 0},
    ):
        with pytest.raises(TableDeclarationError, match=r"^Table orders: "):
            Table("orders", **wrong)
    with pytest.raises(TableDeclarationError, match="declare key="):
        database_source([Table("orders", mode="incremental")], name="shop")
    with pytest.raises(TableDeclarationError, match="is the name of two tables"):
        database_source([Table("orders"), Table("orders", schema="old")], name="shop")


def test_a_missing_table_or_column_is_named(shop: SourceDatabase) -> None:
    shop.run(ORDERS)
    for table, text in (
        (Table("order"), "has no table order; it has public.orders"),
        (
            Table("orders", exclude=["nam"]),
            "has no column nam, which is declared. Did you mean name",
        ),
    ):
        with pytest.raises(Exception, match=text) as caught:
            load(table)
        assert find_cause(caught.value, DatabaseError)
