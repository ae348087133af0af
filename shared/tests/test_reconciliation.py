"""The reconciliation names each row that differs from the source, and no row that only changed since."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg
import duckdb
import psycopg2
import pytest

from shared import warehouse
from shared.orchestration.reconciliation import build_reconciliation_check
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import asset_key
from shared.sources.database import Table
from shared.sources.database.checksums import Comparison
from shared.sources.database.connection import database_configuration, open_database
from shared.sources.database.masks import Constant
from shared.testing.other_databases import SqliteDatabase
from shared.testing.source_database import SourceDatabase, shop_assets

KEY = asset_key("shop_data", "orders")


class Shop:
    """A source database, a warehouse, and the runs of a location."""

    def __init__(self, instance: dg.DagsterInstance, url: str, stored_url: str) -> None:
        self.instance, self.url, self.stored_url = instance, url, stored_url

    def run(self, *statements: str) -> None:
        """Change the source."""
        execute(self.url, *statements)

    def by_hand(self, sql: str) -> None:
        """Change the warehouse."""
        execute(self.stored_url, sql)

    def locate(self, table: Table, **check: Any) -> None:
        """Make a location of a table and its check."""
        agree = build_reconciliation_check(KEY, table, "shop", **check)
        defs = dg.Definitions(
            [shop_assets(table)],
            asset_checks=[agree],
            jobs=[
                dg.define_asset_job("load", dg.AssetSelection.assets(KEY).without_checks()),
                dg.define_asset_job("reconcile", dg.AssetSelection.checks(agree)),
            ],
            resources={"dlt": WarehouseDltResource()},
        )
        self._jobs = {name: defs.resolve_job_def(name) for name in ("load", "reconcile")}

    def load(self) -> None:
        assert self._jobs["load"].execute_in_process(instance=self.instance).success

    def check(self) -> dg.AssetCheckEvaluation:
        result = self._jobs["reconcile"].execute_in_process(instance=self.instance)
        assert result.success
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation


def execute(url: str, *statements: str) -> None:
    """Run statements in a file of DuckDB or SQLite, or on a server."""
    if url.endswith(".duckdb"):
        with duckdb.connect(url) as file:
            for sql in statements:
                file.execute(sql)
        return
    connect = sqlite3.connect if url.endswith(".db") else psycopg2.connect
    with closing(connect(url)) as connection:
        for sql in statements:
            with closing(connection.cursor()) as cursor:
                cursor.execute(sql)
        connection.commit()


@pytest.fixture
def stored_url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return where the warehouse is."""
    if "any_warehouse" in request.fixturenames:
        kind = request.getfixturevalue("any_warehouse")
        if kind == "postgres":
            return str(request.getfixturevalue("postgres_warehouse"))
    return str(tmp_path / "warehouse.duckdb")


@pytest.fixture
def shop(shop: SourceDatabase, instance: dg.DagsterInstance, stored_url: str) -> Shop:
    return Shop(instance, shop.url, stored_url)


@pytest.fixture
def lite(sqlite_shop: SqliteDatabase, instance: dg.DagsterInstance, stored_url: str) -> Shop:
    return Shop(instance, str(sqlite_shop.path), stored_url)


ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, name text, secret text)"
ROWS = "INSERT INTO orders SELECT n, 'name ' || n, 'x' FROM generate_series(1, 25) AS n"


def test_a_row_that_was_changed_by_hand_is_named_with_its_range_and_column(
    any_warehouse: str, shop: Shop
) -> None:
    shop.run(ORDERS, ROWS)
    shop.locate(
        Table("orders", mode="incremental", key="id", masks={"secret": Constant()}),
        rows_per_range=10,
    )
    shop.load()
    passed = shop.check()
    assert (passed.passed, passed.description) == (True, "25 rows agree")
    shop.by_hand("UPDATE shop_data.orders SET name = 'other' WHERE id = 12")
    shop.by_hand("DELETE FROM shop_data.orders WHERE id = 25")
    failed = shop.check()
    assert not failed.passed
    assert failed.severity == dg.AssetCheckSeverity.ERROR
    assert failed.description == "id=12 is different in name; id=25 is missing in the warehouse"
    ranges: Any = failed.metadata["ranges"]
    found = [record.data for record in ranges.records]
    assert [(row["range"], row["rows_in_source"], row["rows_in_warehouse"]) for row in found] == [
        ("id after 10 to 20", 10, 10),
        ("id after 20", 5, 4),
    ]
    assert all(row["checksum_of_source"] != row["checksum_of_warehouse"] for row in found)


@pytest.mark.parametrize("mode", ["full", "mirror", "history", "append"])
def test_each_mode_is_compared(any_warehouse: str, shop: Shop, mode: Any) -> None:
    shop.run(ORDERS, ROWS)
    shop.locate(Table("orders", mode=mode, key="id"), rows_per_range=10)
    shop.load()
    shop.run("UPDATE orders SET name = 'new' WHERE id = 3", "INSERT INTO orders VALUES (26)")
    shop.load()
    assert shop.check().description == "26 rows agree"
    shop.by_hand("UPDATE shop_data.orders SET name = 'other' WHERE id = 4")
    assert shop.check().description == "id=4 is different in name"


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_a_row_that_is_there_twice_is_named(shop: Shop, mode: Any) -> None:
    shop.run(ORDERS, ROWS)
    shop.locate(Table("orders", mode=mode, key="id"))
    shop.load()
    shop.by_hand("INSERT INTO shop_data.orders SELECT * FROM shop_data.orders WHERE id = 7")
    failed = shop.check()
    assert failed.description == "id=7 is several times in the warehouse"
    assert failed.severity == dg.AssetCheckSeverity.ERROR


def test_what_the_source_deleted_is_counted_or_an_error_as_declared(shop: Shop) -> None:
    shop.run(ORDERS, ROWS)
    orders = Table("orders", mode="incremental", key="id")
    shop.locate(orders)
    shop.load()
    shop.run("DELETE FROM orders WHERE id = 3")
    passed = shop.check()
    assert passed.passed
    assert passed.description == "24 rows agree. 1 rows are only in the warehouse"
    shop.locate(orders, allow_extra=False)
    assert shop.check().description == "id=3 is only in the warehouse"
    shop.locate(orders, allow_extra=False, warehouse_condition="id <> 3")
    assert shop.check().description == "24 rows agree"


def test_what_changed_since_the_load_is_no_difference(shop: Shop) -> None:
    shop.run(ORDERS, ROWS)
    shop.locate(Table("orders", mode="mirror", key="id"))
    shop.load()
    shop.run(
        "UPDATE orders SET name = 'new' WHERE id = 3",
        "INSERT INTO orders VALUES (26)",
        "DELETE FROM orders WHERE id = 5",
    )
    passed = shop.check()
    assert passed.passed
    assert passed.description == (
        "23 rows agree. 2 rows are newer than the last load. 1 rows are only in the warehouse. 1 keys differ "
        "and may have changed since the load; the check after the next load decides"
    )
    assert passed.metadata["rows_compared"].value == 23


def test_a_row_that_only_the_warehouse_has_is_confirmed_after_the_next_load(shop: Shop) -> None:
    shop.run(ORDERS, ROWS)
    shop.locate(Table("orders", mode="mirror", key="id"))
    shop.load()
    insert = "INSERT INTO shop_data.orders SELECT * REPLACE (99 AS id, 'x' AS _dlt_load_id) FROM shop_data.orders WHERE id = 1"
    shop.by_hand(insert)
    assert shop.check().passed  # the source may have deleted it since the load
    assert shop.check().passed
    shop.load()  # deletes it
    assert shop.check().description == "25 rows agree"
    shop.by_hand(insert)
    assert shop.check().passed
    shop.load()
    shop.by_hand(insert)
    failed = shop.check()
    assert failed.severity == dg.AssetCheckSeverity.WARN
    assert failed.description == "id=99 is only in the warehouse"


def test_a_load_during_the_check_is_no_difference(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders VALUES (1, 'a')"
    )
    orders = Table("orders", mode="incremental", key="id")
    shop.locate(orders)
    shop.load()
    event = shop.instance.get_latest_materialization_event(KEY)
    assert event
    assert event.asset_materialization
    position = str(event.asset_materialization.metadata["source_position"].value)

    def stored(*_: Any) -> list[dict[str, Any]]:
        shop.run("UPDATE orders SET name = 'b'")
        shop.load()
        return warehouse.query(
            "SELECT id AS c0, name AS c1, _dlt_load_id AS load_id FROM shop_data.orders"
        )

    with open_database(database_configuration("shop")) as database:
        (result,) = Comparison(database, orders, position=position).results(stored)
    assert result.findings == []
    assert (result.source_rows, result.newer_rows) == (0, 1)


def test_a_check_while_the_source_changes_fails_only_for_what_was_changed_by_hand(
    shop: Shop,
) -> None:
    shop.run(ORDERS, "INSERT INTO orders SELECT n, 'name ' || n FROM generate_series(1, 400) AS n")
    stop = Event()
    with closing(psycopg2.connect(shop.url)) as one, closing(psycopg2.connect(shop.url)) as two:
        writer = Thread(target=write, args=(one, two, stop))
        writer.start()
        try:
            for mode in ("incremental", "mirror", "full"):
                table: Any = Table("orders", mode=mode, key="id", table="orders")
                shop.locate(table, rows_per_range=100)
                if mode != "incremental":
                    shop.by_hand("DROP SCHEMA IF EXISTS shop_data CASCADE")
                    shop.by_hand("DROP SCHEMA IF EXISTS shop_data_staging CASCADE")
                for _ in range(3):
                    shop.load()
                    for _ in range(2):
                        evaluation = shop.check()
                        assert evaluation.passed, evaluation.description
                shop.by_hand("UPDATE shop_data.orders SET name = 'other' WHERE id = 7")
                shop.by_hand("DELETE FROM shop_data.orders WHERE id = 8")
                failed = shop.check()
                assert str(failed.description).startswith(
                    "id=7 is different in name; id=8 is missing in the warehouse"
                )
                assert failed.metadata["different"].value == 1
                assert failed.metadata["missing_in_the_warehouse"].value == 1
        finally:
            stop.set()
            writer.join()


def write(one: Any, two: Any, stop: Event) -> None:
    """Change rows with ids from 10 on in two transactions that overlap, until the event."""
    rng = random.Random(1)
    while not stop.is_set():
        for connection in rng.choice([(one, two), (two, one)]):
            key = rng.randrange(10, 600)
            with connection.cursor() as cursor:
                kind = rng.choice(["insert", "update", "delete"])
                key = key // 2 * 2 + (connection is two)  # no deadlock
                if kind == "insert":
                    cursor.execute(
                        "INSERT INTO orders VALUES (%s, %s) ON CONFLICT DO NOTHING",
                        [key, str(rng.random())],
                    )
                elif kind == "update":
                    cursor.execute(
                        "UPDATE orders SET name = %s WHERE id = %s", [str(rng.random()), key]
                    )
                else:
                    cursor.execute("DELETE FROM orders WHERE id = %s", [key])
            if rng.random() < 0.5:
                connection.commit()
    one.rollback()
    two.rollback()


TYPES = """
    CREATE TABLE orders (
        "Key" text, "a b" int, j jsonb, k json, d date, t timestamp, z timestamptz, n numeric(20, 4), u uuid,
        b bytea, f float8, r real, x numeric, a int[], o bool, i time, e interval,
        PRIMARY KEY ("Key", "a b")
    )
"""
VALUES = """
    INSERT INTO orders VALUES
    ('ä', 1, '{"b": [1.50, 2e3], "a": null}', '{"b" : 1,"a":"\\u00e4"}', '0001-01-01', '9999-12-31 23:59:59.999999',
     '2020-02-29 23:59:59.123456+05', -1234.5, gen_random_uuid(), '\\x00ff', 'NaN', 0.1, 1e30, '{1,NULL}', true,
     '23:59:59.999999', '1 day'),
    ('B', 1), ('a', 1), ('a', 2), ('Z', 3), ('', 4), ('it''s', 5)
"""


def test_equal_values_of_all_types_agree_and_keys_may_be_texts(
    any_warehouse: str, shop: Shop
) -> None:
    values, _, keys = VALUES.rpartition("),\n    ('B'")
    shop.run(TYPES, f"{values})", f"""INSERT INTO orders ("Key", "a b") VALUES ('B'{keys}""")
    shop.locate(Table("orders", mode="incremental", key=("Key", "a b")), rows_per_range=2)
    shop.load()
    assert shop.check().description == "7 rows agree"
    shop.by_hand("UPDATE shop_data.orders SET d = '0001-01-02' WHERE d IS NOT NULL")
    failed = shop.check()
    assert failed.description == "Key=ä, a b=1 is different in d"


def test_a_column_that_the_warehouse_does_not_have_yet_is_no_difference(shop: Shop) -> None:
    shop.run(ORDERS, ROWS)
    shop.locate(Table("orders", mode="incremental", key="id"))
    shop.load()
    shop.run("ALTER TABLE orders ADD more int DEFAULT 1")
    assert shop.check().description == "25 rows agree"


def test_a_table_of_another_database_is_compared_and_a_difference_confirmed_after_a_load(
    lite: Shop,
) -> None:
    lite.run("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, at TIMESTAMP)")
    lite.run(
        *(f"INSERT INTO orders VALUES ({n}, 'n', '2020-01-01 00:00:0{n}')" for n in range(1, 9))
    )
    lite.locate(Table("orders", mode="incremental", key="id", cursor="at"), rows_per_range=3)
    lite.load()
    assert lite.check().description == "8 rows agree"
    lite.by_hand("UPDATE shop_data.orders SET name = 'other' WHERE id = 5")
    lite.run("UPDATE orders SET name = 'later', at = '2020-01-02 00:00:00' WHERE id = 6")
    first = lite.check()
    assert first.passed
    assert "2 keys differ and may have changed since the load" in str(first.description)
    lite.load()
    failed = lite.check()
    assert failed.severity == dg.AssetCheckSeverity.WARN
    assert failed.description == "id=5 is different in name"


def test_a_table_without_a_key_and_one_of_partitions_are_refused(shop: Shop) -> None:
    shop.run("CREATE TABLE orders (id int, name text)")
    shop.locate(Table("orders"))
    shop.load()
    with pytest.raises(dg.Failure, match=r"orders of .* has no key whose values are loaded"):
        shop.check()
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="mode window"):
        build_reconciliation_check(KEY, Table("orders", mode="window", cursor="at"), "shop")
