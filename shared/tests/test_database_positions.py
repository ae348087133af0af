"""Keys and cursors of each type of Postgres; types and columns that change between loads."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg2
import pytest

from shared import warehouse
from shared.sources.database import DatabaseError, Table, database_source
from shared.testing.postgres_server import PostgresServer
from shared.warehouse.errors import find_cause

SPEC = warehouse.pipeline("shop_pipeline", "shop_data")


class Source:
    """A database of a server, as its application sees it."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture
def shop(
    warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Any
) -> Iterator[Source]:
    """Yield an empty database that the source `shop` reads; its sessions have an odd zone."""
    url = warehouse_server.database().replace("+psycopg2", "")
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
    source = Source(url)
    ((name,),) = source.run("SELECT current_database()")
    source.run(f"ALTER DATABASE {name} SET timezone = 'Asia/Kathmandu'")
    source.run(f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'")
    source.connection.close()
    source = Source(url)
    yield source
    source.connection.close()


def load(*tables: Table) -> dict[str, int]:
    """Load tables, and return how many rows each got."""
    source = database_source(tables, name="shop")
    plan = warehouse.plan_load(SPEC, source, (), warehouse.LoadOptions())
    rows = warehouse.load(plan).rows_loaded
    return {table.target: rows.get(table.target, 0) for table in tables}


def loaded(columns: str, table: str) -> list[tuple[Any, ...]]:
    rows = warehouse.query(f"SELECT {columns} FROM shop_data.{table} ORDER BY 1")
    return [tuple(row.values()) for row in rows]


KEYS = {
    "int2": "n",
    "int8": "9223372036854775000 + n",
    "numeric": "n / 7.0",
    "numeric(20,5)": "n / 7.0",
    "float8": "n / 7.0::float8",
    "text": "(ARRAY['a', 'B', 'ä', '', 'a b', 'A', 'it''s', 'z\\', 'ab', 'Z', '_', 'ß'])[n]",
    'text COLLATE "en-x-icu"': "(ARRAY['a', 'B', 'ä', '', 'a b', 'A', 'it''s', 'z\\', 'ab', 'Z', '_', 'ß'])[n]",
    "char(3)": "(ARRAY['a', 'B', 'ä', '', 'a b', 'A', 'i''s', 'z\\', 'ab', 'Z', '_', 'ß'])[n]",
    '"char"': 'chr(64 + n::int)::"char"',
    "uuid": "md5(n::text)::uuid",
    "timestamptz": "'2024-03-10 00:00+00'::timestamptz + n * interval '1.000001 second'",
    "timestamp": "'0001-01-01'::timestamp + n * interval '1 microsecond'",
    "date": "'9999-12-01'::date + n::int",
    "time": "'12:00'::time + n * interval '1 microsecond'",
    "interval": "n * interval '1 month 1 us'",
    "bytea": "decode(lpad(to_hex(n::int * 20), 4, '0'), 'hex')",
    "bool": "n % 2 = 0",
    "inet": "'10.0.0.0'::inet + n",
    "money": "n::int::money",
    "bit(8)": "n::int::bit(8)",
    "varbit": "n::int::bit(8)::varbit",
    "mood": "(ARRAY['c', 'a', 'b', 'e', 'd', 'f', 'h', 'g', 'j', 'i', 'k', 'l'])[n]::mood",
    "int[]": "ARRAY[n::int, NULL]",
    "int4range": "int4range(n::int, n::int + 5)",
    "price": "n / 4.0",
    "jsonb": "jsonb_build_object('a', n)",
    "oid": "4294967000::oid::bigint + n",
    "pg_lsn": "('0/' || to_hex(n::int))::pg_lsn",
}
"""An expression of twelve values of `n`, by the type of the key."""


def test_a_key_of_each_type_splits_a_first_load_into_ranges(
    any_warehouse: str, shop: Source
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
def test_a_cursor_of_each_type_reads_what_is_new(
    any_warehouse: str, shop: Source, mode: Any
) -> None:
    tables, values = [], {}
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
