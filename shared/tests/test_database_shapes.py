"""Names, kinds of tables and encodings of Postgres, into each warehouse."""

from typing import Any

import pytest

from shared import warehouse
from shared.sources.database import Table
from shared.sources.database.postgres.snapshot import PostgresDatabase
from shared.testing.postgres_server import PostgresServer
from shared.testing.source_database import SourceDatabase, load, loaded, refused

NAMES = [
    "Capital", "with space", 'dou"ble', "sin'gle", "per%cent %s %(x)s", "semi;colon", "{brace} {0}",
    "new\nline", "größe", "名前", "select", "user", "x" * 63, "ü" * 31, "back\\slash", "1st", "dot.ted",
    "$1", "?", ":name", "tab\t", "_under", "createdAt",
]  # fmt: skip


@pytest.mark.parametrize("mode", ["full", "incremental", "history"])
def test_a_column_of_any_name_is_loaded(
    any_warehouse: str, shop: SourceDatabase, mode: Any
) -> None:
    columns = ", ".join(f"{shop.quote(name)} int" for name in NAMES)
    numbers = ", ".join(map(str, range(len(NAMES))))
    shop.run(f"CREATE TABLE shop (id int PRIMARY KEY, {columns})")
    shop.run(f"INSERT INTO shop VALUES (1, {numbers})")
    shop.run("INSERT INTO shop VALUES (2)")
    load(Table("shop", mode=mode, key="id"))
    rows = warehouse.query("SELECT * FROM shop_data.shop ORDER BY id")
    values = [[v for k, v in row.items() if not k.startswith(("_dlt", "_row"))] for row in rows]
    assert sorted(values[0], key=str) == sorted([1, *range(len(NAMES))], key=str)
    assert len(values[0]) == len(NAMES) + 1
    assert rows[0]["capital"] == 0
    assert rows[0]["名前"] == NAMES.index("名前")


def test_a_schema_table_and_key_of_any_name_are_loaded(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    tables = []
    for number, name in enumerate(NAMES):
        quoted = shop.quote(name)
        shop.run(f"CREATE SCHEMA {quoted}")
        shop.run(f"CREATE TABLE {quoted}.{quoted} ({quoted} text PRIMARY KEY)")
        shop.run(f"INSERT INTO {quoted}.{quoted} VALUES ('a'), ('b')")
        target = f"shop_{number}"
        tables.append(Table(name, schema=name, mode="incremental", key=name, table=target))
    expected = {table.target: 2 for table in tables}
    assert {k: v for k, v in load(*tables).rows_loaded.items() if k in expected} == expected


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("_dlt_load_id", "full"),
        ("_DLT_id", "append"),
        ("_dlt_valid_to", "history"),
        ("_row_hash", "history"),
    ],
)
def test_a_column_with_a_name_of_the_engine_is_refused(
    shop: SourceDatabase, name: str, mode: Any
) -> None:
    shop.run(f"CREATE TABLE shop (id int PRIMARY KEY, {shop.quote(name)} text)")
    error = refused(Table("shop", mode=mode, key="id"))
    assert f"has {name}, a name of a column that the load adds" in error
    load(Table("shop", mode=mode, key="id", exclude=[name]))
    assert loaded("id", "shop") == []


def test_other_reserved_names_are_loaded(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run(
        "CREATE TABLE shop (id int PRIMARY KEY, file_name text, _partition text, _row_hash text)"
    )
    shop.run("INSERT INTO shop VALUES (1, 'a', 'b', 'c')")
    load(Table("shop", mode="mirror", key="id"))
    assert loaded("id, file_name, _partition, _row_hash", "shop") == [(1, "a", "b", "c")]


def test_two_columns_that_become_one_are_refused(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run('CREATE TABLE shop (id int, "userId" text, user_id text)')
    shop.run("INSERT INTO shop VALUES (1, 'a', 'b')")
    error = refused(Table("shop"))
    assert "userId" in error
    assert "user_id" in error
    load(Table("shop", exclude=["user_id"]))
    assert loaded("id, user_id", "shop") == [(1, "a")]


def test_a_table_of_1600_columns_is_loaded(any_warehouse: str, shop: SourceDatabase) -> None:
    """Postgres has rows of 8 kB at most, so as a warehouse it has 1,000 of these numbers."""
    count = 1598 if any_warehouse == "duckdb" else 900
    shop.run(f"CREATE TABLE shop ({', '.join(f'c{n} int' for n in range(1598))})")
    shop.run(f"INSERT INTO shop VALUES ({', '.join(map(str, range(count)))})")
    load(Table("shop"))
    (row,) = warehouse.query("SELECT * FROM shop_data.shop")
    assert list(row.values())[:1598] == [*range(count), *[None] * (1598 - count)]


def test_a_table_without_columns_is_refused(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE shop ()")
    assert "shop of 127.0.0.1" in refused(Table("shop"))


def test_a_table_without_rows_has_its_columns(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE shop (id int, price numeric(10,2), at timestamp, tags text[])")
    load(Table("shop"))
    assert loaded('id, price, "at", tags', "shop") == []


KINDS = {
    "view": "CREATE VIEW shop AS SELECT * FROM data",
    "materialized view": "CREATE MATERIALIZED VIEW shop AS SELECT * FROM data",
    "unlogged": "CREATE UNLOGGED TABLE shop AS SELECT * FROM data",
    "partitioned": "CREATE TABLE shop (id int, name text) PARTITION BY RANGE (id); "
    "CREATE TABLE low PARTITION OF shop FOR VALUES FROM (0) TO (2); "
    "CREATE TABLE rest PARTITION OF shop DEFAULT; INSERT INTO shop SELECT * FROM data",
    "inheritance": "CREATE TABLE shop (id int, name text); INSERT INTO shop VALUES (1, 'a'); "
    "CREATE TABLE child (more int) INHERITS (shop); INSERT INTO child VALUES (2, 'b', 3)",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_table_is_loaded(any_warehouse: str, shop: SourceDatabase, kind: str) -> None:
    shop.run("CREATE TABLE data (id int, name text); INSERT INTO data VALUES (1, 'a'), (2, 'b')")
    shop.run(KINDS[kind])
    load(Table("shop"))
    assert loaded("id, name", "shop") == [(1, "a"), (2, "b")]


def test_a_foreign_table_is_loaded(shop: SourceDatabase, tmp_path: Any) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1,a\n2,b\n")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    shop.run("CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw")
    shop.run(
        "CREATE FOREIGN TABLE shop (id int, name text) SERVER files "
        f"OPTIONS (filename '{file}', format 'csv')"
    )
    load(Table("shop"))
    assert loaded("id, name", "shop") == [(1, "a"), (2, "b")]


def test_an_attached_partition_with_old_rows_is_read(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run("CREATE TABLE old (id int PRIMARY KEY, name text); INSERT INTO old VALUES (-1, 'old')")
    shop.run("CREATE TABLE shop (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
    shop.run("CREATE TABLE new PARTITION OF shop FOR VALUES FROM (0) TO (10)")
    shop.run("INSERT INTO shop VALUES (1, 'a')")
    table = Table("shop", mode="incremental", key="id")
    assert load(table).rows_loaded["shop"] == 1
    shop.run("ALTER TABLE shop ATTACH PARTITION old FOR VALUES FROM (-10) TO (0)")
    assert load(table).rows_loaded["shop"] == 1
    assert load(table).rows_loaded.get("shop", 0) == 0
    assert loaded("id, name", "shop") == [(-1, "old"), (1, "a")]


def test_generated_and_identity_columns_are_loaded(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run(
        "CREATE TABLE shop (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, "
        "stored int GENERATED ALWAYS AS (a * 2) STORED, virt int GENERATED ALWAYS AS (a * 3) VIRTUAL)"
    )
    shop.run("INSERT INTO shop (a) VALUES (1), (NULL)")
    load(Table("shop", mode="incremental", key="id"))
    assert loaded("id, a, stored, virt", "shop") == [(1, 1, 2, 3), (2, None, None, None)]


def database_with(shop: SourceDatabase, encoding: str) -> str:
    """Create a database with an encoding, and return its name."""
    ((name,),) = shop.run("SELECT current_database() || '_encoded'")
    shop.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
    return str(name)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252", "EUC_JP"])
def test_texts_of_another_encoding_are_unicode(
    any_warehouse: str,
    shop: SourceDatabase,
    warehouse_server: PostgresServer,
    monkeypatch: Any,
    encoding: str,
) -> None:
    text = "日本" if encoding == "EUC_JP" else "größe"
    url = f"postgresql://postgres@127.0.0.1:{warehouse_server.port}/{database_with(shop, encoding)}"
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
    source = SourceDatabase(url)
    source.connection.set_client_encoding("UTF8")
    source.run(f'CREATE TABLE shop (id int, name text, "{text}" jsonb)')
    source.run(f"""INSERT INTO shop VALUES (1, '{text}', '{{"a": "{text}"}}')""")
    source.connection.close()
    load(Table("shop"))
    assert loaded("id, name", "shop") == [(1, text)]


def test_bytes_that_are_no_text_are_refused_and_can_be_loaded_as_bytes(
    any_warehouse: str, shop: SourceDatabase, warehouse_server: PostgresServer, monkeypatch: Any
) -> None:
    url = f"postgresql://postgres@127.0.0.1:{warehouse_server.port}/{database_with(shop, 'SQL_ASCII')}"
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
    source = SourceDatabase(url)
    source.run("CREATE TABLE shop (id int, name text)")
    source.run("INSERT INTO shop VALUES (1, E'gr\\xf6\\\\n')")
    source.connection.close()
    error = refused(Table("shop"))
    assert "shop of 127.0.0.1" in error
    assert '"binary"' in error
    load(Table("shop", types={"name": {"data_type": "binary"}}))
    assert [bytes(value) for _, value in loaded("id, name", "shop")] == [b"gr\xf6\\n"]


def test_batches_of_wide_rows_are_bounded(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE shop (id int, name text)")
    shop.run("INSERT INTO shop SELECT n, repeat('x', 1000000) FROM generate_series(1, 40) AS n")
    shop.run("INSERT INTO shop VALUES (41, repeat('é', 20000000))")
    table = Table("shop")
    with PostgresDatabase(shop.url).snapshot() as snapshot:
        batches = [
            (batch.num_rows, batch.nbytes)
            for batch in snapshot.read(table, snapshot.describe(table))
        ]
    assert sum(rows for rows, _ in batches) == 41
    sizes = sorted(size for _, size in batches)
    assert sizes[-1] < 52_000_000
    assert sizes[-2] < 10_000_000


def test_a_server_that_hides_its_types_is_refused(shop: SourceDatabase) -> None:
    ((name,),) = shop.run("SELECT current_database()")
    shop.run(f"CREATE TABLE shop (id int); ALTER DATABASE {name} SET quote_all_identifiers = on")
    assert "ALTER ROLE ... SET quote_all_identifiers = off" in refused(Table("shop"))
