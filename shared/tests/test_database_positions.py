"""Keys and cursors of each type of Postgres; types and columns that change between loads."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from shared import warehouse
from shared.sources.database import Table
from shared.testing import source_database
from shared.testing.source_database import SourceDatabase, loaded, refused


@pytest.fixture
def shop(shop: SourceDatabase) -> Iterator[SourceDatabase]:
    """Yield the database with sessions in an odd zone, also those of its application."""
    shop.configure(timezone="'Asia/Kathmandu'", datestyle="'SQL, DMY'")
    with closing((odd := SourceDatabase(shop.url)).connection):
        yield odd


def load(*tables: Table) -> dict[str, int]:
    """Load tables, and return how many rows each got."""
    rows = source_database.load(*tables).rows_loaded
    return {table.target: rows.get(table.target, 0) for table in tables}


KEYS = {
    "int8": "9223372036854775000 + n",
    "numeric": "n / 7.0",
    "numeric(20,5)": "n / 7.0",
    "float8": "n / 7.0::float8",
    "text": "(ARRAY['a', 'B', 'ä', '', 'a b', 'A', 'it''s', 'z\\', 'ab', 'Z', '_', 'ß'])[n]",
    'text COLLATE "pg_unicode_fast"': "(ARRAY['a', 'B', 'ä', '', 'a b', 'A', 'it''s', 'z\\', 'ab', 'Z', '_', 'ß'])[n]",
    "char(3)": "(ARRAY['a', 'B', 'ä', '', 'a b', 'A', 'i''s', 'z\\', 'ab', 'Z', '_', 'ß'])[n]",
    "uuid": "md5(n::text)::uuid",
    "timestamptz": "'2024-03-10 00:00+00'::timestamptz + n * interval '1.000001 second'",
    "timestamp": "'0001-01-01'::timestamp + n * interval '1 microsecond'",
    "date": "'9999-12-01'::date + n::int",
    "bytea": "decode(lpad(to_hex(n::int * 20), 4, '0'), 'hex')",
    "bool": "n % 2 = 0",
    "money": "n::int::money",
    "varbit": "n::int::bit(8)::varbit",
    "mood": "(ARRAY['c', 'a', 'b', 'e', 'd', 'f', 'h', 'g', 'j', 'i', 'k', 'l'])[n]::mood",
    "int[]": "ARRAY[n::int, NULL]",
    "int4range": "int4range(n::int, n::int + 5)",
    "price": "n / 4.0",
    "jsonb": "jsonb_build_object('a', n)",
}
"""An expression of twelve values of `n`, by the type of the key."""


def test_a_key_of_each_type_splits_a_first_load_into_ranges(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run(
        "CREATE TYPE mood AS ENUM ('c', 'a', 'b', 'e', 'd', 'f', 'h', 'g', 'j', 'i', 'k', 'l'); "
        "CREATE DOMAIN price AS numeric(10,2)"
    )
    tables = []
    for number, (kind, value) in enumerate(KEYS.items()):
        name = f"t{number}"
        shop.run(f"CREATE TABLE {name} (key {kind}, part int, n int, PRIMARY KEY (key, part))")
        shop.run(f"INSERT INTO {name} SELECT ({value}), n, n FROM generate_series(1, 12) AS n")
        shop.run(f"ANALYZE {name}")
        tables.append(Table(name, mode="incremental", key=("key", "part"), rows_per_load=5))
    assert load(*tables) == {table.name: 12 for table in tables}
    for number, kind in enumerate(KEYS):
        assert loaded("n, part", f"t{number}") == [(n, n) for n in range(1, 13)], kind
    for table in tables:
        shop.run(f"UPDATE {table.name} SET n = 100 WHERE n = 3")
    assert load(*tables) == {table.name: 1 for table in tables}
    for number, kind in enumerate(KEYS):
        expected = [*(n for n in range(1, 13) if n != 3), 100]
        assert [n for n, _ in loaded("n, part", f"t{number}")] == expected, kind


CURSORS = {
    "int4": ("n", 3),
    "int8": ("9223372036854775000 + n", 3),
    "date": ("'2024-01-01'::date + n::int", timedelta(days=3)),
    "timestamp": (
        "'2024-01-01'::timestamp + n * interval '1 microsecond'",
        timedelta(microseconds=3),
    ),
    "timestamptz": (
        "'2024-01-01'::timestamptz + n * interval '1 microsecond'",
        timedelta(microseconds=3),
    ),
}
OTHER_CURSORS = {
    "numeric": "1.0 / (20 - n)",
    "numeric(10,4)": "n / 16.0",
    "float8": "n / 7.0::float8",
    "text": "'01HX' || lpad(n::text, 8, '0')",
    "uuid": "lpad(to_hex(n::int), 32, '0')::uuid",
    "timetz": "'12:00+05'::timetz + n * interval '1 s'",
}


@pytest.mark.parametrize("mode", ["incremental", "append"])
def test_a_cursor_of_each_type_reads_what_is_new(shop: SourceDatabase, mode: Any) -> None:
    tables: list[tuple[str, str, str, Any]] = []
    for kind, (value, overlap) in CURSORS.items():
        tables.append((f"t{len(tables)}", kind, value, overlap))
    for kind, value in OTHER_CURSORS.items():
        tables.append((f"t{len(tables)}", kind, value, None))
        tables.append((f"t{len(tables)}", kind, value, 0))
    declared = []
    for name, kind, value, overlap in tables:
        shop.run(f"CREATE TABLE {name} (id int PRIMARY KEY, at {kind})")
        shop.run(f"INSERT INTO {name} SELECT n, ({value}) FROM generate_series(1, 5) AS n")
        shop.run(f"INSERT INTO {name} VALUES (-1, NULL)")
        declared.append(Table(name, mode=mode, key="id", cursor="at", overlap=overlap))
    assert load(*declared) == {table.name: 6 for table in declared}
    assert load(*declared) == {table.name: 0 for table in declared}
    for name, _, value, _ in tables:
        # One has the last value of before, one is new, one is late within the overlap.
        shop.run(f"INSERT INTO {name} SELECT n + 100, ({value}) FROM generate_series(5, 6) AS n")
    assert load(*declared) == {table.name: 2 for table in declared}
    assert load(*declared) == {table.name: 0 for table in declared}
    for table in declared:
        assert [n for (n,) in loaded("id", table.name)] == [-1, 1, 2, 3, 4, 5, 105, 106], table


HASHED = (
    "int[]",
    "numeric(10,2)",
    "float8",
    "timestamptz",
    "bytea",
    "text",
    "jsonb",
    "bool",
    "date",
    "interval",
)
VALUES = (
    "{1,2}",
    "1.50",
    "0.1",
    "2024-01-01 00:00+00",
    r"\x00",
    "a",
    '{"a": 1}',
    "t",
    "2024-01-01",
    "1 day",
)
OTHER = (
    "{1,3}",
    "1.51",
    "0.2",
    "2024-01-01 00:00:00.000001+00",
    r"\x01",
    "b",
    '{"a": 2}',
    "f",
    "2024-01-02",
    "1 day 1 us",
)


def test_a_history_has_a_version_for_each_change_of_each_type(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(HASHED))
    shop.run(f"CREATE TABLE shop (id int PRIMARY KEY, {columns}, x text, y text)")
    for number in range(len(HASHED) + 1):
        values = ", ".join(f"'{value}'" for value in VALUES)
        shop.run(f"INSERT INTO shop VALUES ({number}, {values}, 'a', 'bc')")
    table = Table("shop", mode="history", key="id")
    load(table)
    shop.run("ALTER TABLE shop ADD COLUMN added text")
    load(table)
    assert warehouse.query("SELECT count(*) AS n FROM shop_data.shop")[0]["n"] == len(HASHED) + 1
    for number, value in enumerate(OTHER):
        shop.run(f"UPDATE shop SET c{number} = '{value}' WHERE id = {number}")
    shop.run(f"UPDATE shop SET x = 'ab', y = 'c' WHERE id = {len(HASHED)}")
    load(table)
    load(table)
    versions = warehouse.query(
        "SELECT id, count(*) AS n FROM shop_data.shop GROUP BY id ORDER BY id"
    )
    assert [row["n"] for row in versions] == [2] * (len(HASHED) + 1)


def test_an_integer_may_grow_and_another_change_of_type_is_refused(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run("CREATE TABLE shop (id int PRIMARY KEY, price int); INSERT INTO shop VALUES (1, 2)")
    table = Table("shop", mode="mirror", key="id")
    load(table)
    shop.run(
        "ALTER TABLE shop ALTER price TYPE bigint; UPDATE shop SET price = 9223372036854775807"
    )
    load(table)
    assert loaded("id, price", "shop") == [(1, 2**63 - 1)]
    shop.run("ALTER TABLE shop ALTER price TYPE text USING 'free'")
    error = refused(table)
    assert "shop.price is bigint and" in error
    assert loaded("id, price", "shop") == [(1, 2**63 - 1)]


def test_columns_that_are_added_renamed_or_gone_have_a_stated_outcome(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run("CREATE TABLE shop (id int PRIMARY KEY, a text); INSERT INTO shop VALUES (1, 'x')")
    table = Table("shop", mode="mirror", key="id")
    declared = Table("shop", mode="mirror", key="id", columns=["id", "a"], table="declared")
    load(table, declared)
    shop.run("ALTER TABLE shop ADD b int DEFAULT 5; ALTER TABLE shop RENAME a TO c")
    load(table)
    assert loaded("id, a, b, c", "shop") == [(1, None, 5, "x")]
    assert "shop of 127.0.0.1" in (error := refused(declared))
    assert "has no column a, which is declared" in error
    assert loaded("id, a", "declared") == [(1, "x")]
