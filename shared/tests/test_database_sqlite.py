"""Tables of SQLite are read exactly, or an error names the column and the row."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shared import warehouse
from shared.sources.database import DatabaseError, Table, database_source
from shared.sources.database.masks import Constant
from shared.sources.database.sqlalchemy import SqlAlchemyDatabase
from shared.sources.partitions import PartitionKey, TimeWindow
from shared.testing.other_databases import SqliteDatabase, rows_of

SPEC = warehouse.pipeline("shop_pipeline", "shop_data")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteDatabase]:
    """Yield an empty file; its name has characters that a URI escapes."""
    with closing(SqliteDatabase(tmp_path / "a shop?%41#.db")) as opened:
        yield opened


at = datetime.fromisoformat
NAIVE = {"data_type": "timestamp", "timezone": False}


@pytest.mark.parametrize(
    ("declared", "stored", "hints", "value"),
    [
        ("INTEGER", "9223372036854775807", {"data_type": "bigint"}, 2**63 - 1),
        ("BIGINT UNSIGNED", "9007199254740993", {"data_type": "bigint"}, 2**53 + 1),
        ("REAL", "0.1", {"data_type": "double"}, 0.1),
        ("DOUBLE", "9e999", {"data_type": "double"}, float("inf")),
        ("VARCHAR(3)", "'longer: %s'", {"data_type": "text"}, "longer: %s"),
        ("TEXT", "char(97, 0, 98)", {"data_type": "text"}, "a\0b"),
        ("BLOB", "x'00ff'", {"data_type": "binary"}, b"\0\xff"),
        ("BOOLEAN", "1", {"data_type": "bool"}, True),
        ("DATE", "'0001-01-01'", {"data_type": "date"}, date(1, 1, 1)),
        ("DATETIME", "'9999-12-31 23:59:59.999999'", NAIVE, at("9999-12-31 23:59:59.999999")),
        ("DATETIME", "'2024-01-01T10:00'", NAIVE, at("2024-01-01 10:00")),
        (
            "DATETIME",
            "'2024-01-01 10:00:00.123456000'",
            NAIVE,
            at("2024-01-01 10:00:00.123456"),
        ),
        (
            "TIMESTAMPTZ",
            "'2024-01-01T10:00:00.5+02:00'",
            {"data_type": "timestamp", "timezone": True},
            datetime(2024, 1, 1, 8, 0, 0, 500000, UTC),
        ),
        ("TIME", "'23:59:59.5'", {"data_type": "time"}, time(23, 59, 59, 500000)),
        (
            "DECIMAL(10, 2)",
            "1.1",
            {"data_type": "decimal", "precision": 10, "scale": 2},
            Decimal("1.10"),
        ),
        ("NUMERIC", "7", {"data_type": "decimal", "precision": 38, "scale": 9}, Decimal(7)),
        ("DECIMAL(50, 2)", "7", {"data_type": "text"}, "7"),
        ("JSON", """'{"a": [1]}'""", {"data_type": "json"}, '{"a": [1]}'),
        ("", "0.1", {"data_type": "text"}, "0.1"),
        ("", "9007199254740993", {"data_type": "text"}, "9007199254740993"),
        ("SOMETHING", "'x'", {"data_type": "text"}, "x"),
    ],
)
def test_a_value_comes_exactly_in_the_type_of_its_column(
    file: SqliteDatabase, declared: str, stored: str, hints: dict[str, Any], value: Any
) -> None:
    file.run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared})")
    file.run(f"INSERT INTO t VALUES (1, {stored}), (2, NULL)")
    with file.open().snapshot() as snapshot:
        column = snapshot.describe(Table("t")).columns["v"]
        assert column.hints == {"name": "v", "nullable": True, **hints}
        assert rows_of(snapshot, Table("t")) == [{"id": 1, "v": value}, {"id": 2, "v": None}]


@pytest.mark.parametrize(
    ("declared", "stored", "message"),
    [
        ("INTEGER", "'x'", r"the value 'x' does not fit the type bigint\. Write types=\{\"v\": \{\"data_type\": \"text\""),
        ("INTEGER", "1.5", r"the value 1\.5 does not fit the type bigint"),
        ("INTEGER", "x'00'", r'the value b.* does not fit the type bigint\. .*"data_type": "binary"'),
        ("TEXT", "x'00'", r'does not fit the type text\. .*"data_type": "binary"'),
        ("TEXT", "CAST(x'61ff62' AS TEXT)", r"does not fit the type text"),
        ("BLOB", "'x'", r'does not fit the type binary\. .*"data_type": "text"'),
        ("BOOLEAN", "2", r"the value 2 does not fit the type bool"),
        ("DATE", "'2024-02-30'", r"does not fit the type date"),
        ("DATE", "'2024-01-01 00:00:00'", r"does not fit the type date"),
        ("DATETIME", "1700000000", r'It is a number\. Write types=\{"v": \{"data_type": "bigint"\}\}'),
        ("DATETIME", "2460000.5", r'It is a number\. Write types=\{"v": \{"data_type": "double"\}\}'),
        ("DATETIME", "'2024-01-01 10:00:00Z'", r'Write types=\{"v": \{"timezone": True\}\}'),
        ("DATETIME", "'2024-01-01 10:00:00.1234567'", r"does not fit the type timestamp"),
        ("TIME", "'25:00:00'", r"does not fit the type time"),
        ("DECIMAL(10,2)", "0.1 + 0.2", r"does not fit the type decimal\(10,2\)"),
        ("DECIMAL(4,2)", "100", r"does not fit the type decimal\(4,2\)"),
        ("JSON", "'{'", r"does not fit the type json"),
        ("REAL", "'x'", r"does not fit the type double"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_an_error_with_its_place_and_the_next_step(
    file: SqliteDatabase, declared: str, stored: str, message: str
) -> None:
    file.run(f"CREATE TABLE t (a INT, b INT, v {declared}, PRIMARY KEY (a, b))")
    file.run(f"INSERT INTO t VALUES (1, 1, NULL), (1, 2, {stored})")
    with pytest.raises(DatabaseError, match=rf"shop.*table t, column v \(.*a=1, b=2: .*{message}"):
        file.read(Table("t"))


def test_a_declared_type_replaces_that_of_the_column_and_its_values_must_fit(
    file: SqliteDatabase,
) -> None:
    file.run("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT, c DATETIME, d REAL)")
    file.run("INSERT INTO t VALUES (1, 'x', '12.50', 1700000000, 3.0), (2, 5, '1e1', NULL, NULL)")
    types: dict[str, Any] = {
        "a": {"data_type": "text"},
        "b": {"data_type": "decimal", "precision": 9, "scale": 2},
        "c": {"data_type": "bigint"},
        "d": {"data_type": "bigint"},
    }
    assert file.read(Table("t", types=types)) == [
        {"id": 1, "a": "x", "b": Decimal("12.50"), "c": 1700000000, "d": 3},
        {"id": 2, "a": "5", "b": Decimal("10.00"), "c": None, "d": None},
    ]
    types["b"] = {"data_type": "bigint"}
    with pytest.raises(DatabaseError, match=r"column b \(TEXT\), id=1: the value '12.50'"):
        file.read(Table("t", types=types))


def test_an_integer_that_a_double_does_not_hold_is_an_error(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)")
    file.run("INSERT INTO t VALUES (1, 9007199254740992), (2, 9007199254740993)")
    with pytest.raises(DatabaseError, match=r"id=2: the value 9007199254740993 does not fit"):
        file.read(Table("t", types={"v": {"data_type": "double"}}))


def test_a_row_without_a_key_is_named_by_its_rowid(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE t (ROWID TEXT, v INTEGER)")
    file.run("INSERT INTO t (_rowid_, v) VALUES (7, 1), (8, 'x')")
    with pytest.raises(DatabaseError, match="rowid=8: the value 'x'"):
        file.read(Table("t"))


def test_an_error_has_no_value_of_a_masked_column(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE t (v INTEGER PRIMARY KEY, w INTEGER)")
    file.run("INSERT INTO t VALUES (77, 'secret')")
    masks: dict[str, Any] = {"v": Constant(), "w": Constant()}
    table = Table("t", masks=masks)
    with pytest.raises(DatabaseError, match=r"column w .*: a masked value does not fit") as caught:
        file.read(table)
    assert "secret" not in str(caught.value)
    assert "v=77" not in str(caught.value)


def test_names_with_any_characters_are_read(file: SqliteDatabase) -> None:
    odd = 'A "b" %s :c ?d [e] `f`'
    quoted = '"' + odd.replace('"', '""') + '"'
    file.run(f"CREATE TABLE {quoted} ({quoted} INTEGER, b INTEGER)")
    file.run(f"INSERT INTO {quoted} VALUES (1, 2)")
    assert file.read(Table(odd)) == [{odd: 1, "b": 2}]


@pytest.mark.parametrize("count", [1600, 2000])
def test_a_table_with_very_many_columns_is_read(file: SqliteDatabase, count: int) -> None:
    names = [f"c{number}" for number in range(count)]
    file.run(f"CREATE TABLE t ({', '.join(f'{name} INTEGER' for name in names)})")
    file.run(f"INSERT INTO t VALUES ({', '.join(map(str, range(count)))})")
    assert file.read(Table("t")) == [dict(zip(names, range(count), strict=True))]


def test_keys_indexes_and_sizes_are_described(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE a (id INTEGER PRIMARY KEY, x INT)")
    file.run("INSERT INTO a VALUES (5, 1)")
    file.run("CREATE INDEX ax ON a (x)")
    file.run("CREATE TABLE b (x INT NOT NULL, y INT NOT NULL, z INT, UNIQUE (x, y), UNIQUE (z))")
    file.run("CREATE UNIQUE INDEX part ON b (y) WHERE z > 0")
    file.run("CREATE TABLE c (k TEXT PRIMARY KEY, v INT) WITHOUT ROWID, STRICT")
    file.run("INSERT INTO c VALUES ('k', 1)")
    file.run("CREATE VIEW d AS SELECT *, x + 1 AS sum FROM a")
    file.run("CREATE TABLE e (x INT, y INT AS (x * 2) STORED, z INT AS (x * 3))")
    file.run("INSERT INTO e VALUES (1)")
    with file.open().snapshot() as snapshot:
        info = {name: snapshot.describe(Table(name)) for name in "abcde"}
        found = {
            name: (list(each.primary_key), set(each.indexed), each.estimated_rows, each.kind)
            for name, each in info.items()
        }
        assert found == {
            "a": (["id"], {"id", "x"}, 5, "table"),
            "b": (["x", "y"], {"x", "z"}, 0, "table"),
            "c": (["k"], {"k"}, -1, "table"),
            "d": ([], set(), -1, "view"),
            "e": ([], set(), 1, "table"),
        }
        assert info["b"].unique_keys == [frozenset({"x", "y"})]
        assert not info["c"].columns["k"].hints["nullable"]
        assert rows_of(snapshot, Table("b")) == []
        assert rows_of(snapshot, Table("c")) == [{"k": "k", "v": 1}]
        assert rows_of(snapshot, Table("d")) == [{"id": 5, "x": 1, "sum": "2"}]
        assert rows_of(snapshot, Table("e")) == [{"x": 1, "y": 2, "z": 3}]


def test_a_null_in_a_primary_key_is_an_error(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE t (k TEXT PRIMARY KEY, v INT)")
    file.run("INSERT INTO t VALUES (NULL, 1)")
    with pytest.raises(DatabaseError, match=r"column k .*: NULL in a column that is not nullable"):
        file.read(Table("t"))


def test_a_missing_table_or_column_is_named_with_close_ones(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE orders (id INT, updated_at TEXT)")
    for table, message in (
        (Table("Order"), "shop.*table Order: there is no .* Did you mean orders"),
        (Table("ORDERS"), "table ORDERS: there is no .* Did you mean orders"),
        (Table("orders", schema="x"), "table x.orders: there is no"),
        (Table("orders", columns=["Id"]), r"there is no column Id\. Did you mean id"),
        (Table("orders", exclude=["updated"]), "no column updated. Did you mean updated_at"),
        (Table("orders", exclude=["id", "updated_at"]), "no column is left"),
    ):
        with pytest.raises(DatabaseError, match=message):
            file.read(table)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_all_of_a_snapshot_is_of_one_moment(file: SqliteDatabase, mode: str) -> None:
    file.run(f"PRAGMA journal_mode={mode}")
    file.run("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    file.run("INSERT INTO t VALUES (1)")
    file.run("PRAGMA busy_timeout = 0")
    with file.open().snapshot() as snapshot:
        if mode == "WAL":
            file.run("INSERT INTO t VALUES (2)")
        else:  # a writer waits
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                file.run("INSERT INTO t VALUES (2)")
        assert rows_of(snapshot, Table("t")) == [{"id": 1}]
    file.run("INSERT OR REPLACE INTO t VALUES (2)")
    assert file.read(Table("t")) == [{"id": 1}, {"id": 2}]


def test_a_file_in_wal_mode_that_nobody_has_open_is_read(file: SqliteDatabase) -> None:
    file.run("PRAGMA journal_mode=WAL")
    file.run("CREATE TABLE t (id INT)")
    file.run("INSERT INTO t VALUES (1)")
    file.connection.close()
    assert not file.path.with_name(f"{file.path.name}-wal").exists()
    assert file.read(Table("t")) == [{"id": 1}]


def test_a_load_cannot_write_and_creates_no_file(file: SqliteDatabase, tmp_path: Path) -> None:
    file.run("CREATE TABLE t (id INT)")
    with file.open().snapshot() as snapshot, pytest.raises(DatabaseError, match="readonly"):
        snapshot.query("INSERT INTO t VALUES (1)")
    missing = tmp_path / "missing.db"
    with (
        pytest.raises(DatabaseError, match=r"missing\.db.*Check that the file exists"),
        SqlAlchemyDatabase(f"sqlite:///{missing}").snapshot(),
    ):
        pass
    assert not missing.exists()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///a.db?timeout=1", "x"]
)
def test_a_url_that_is_not_a_file_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"The URL of (an SQLite|the) database is"):
        SqlAlchemyDatabase(url)


def test_a_file_that_is_not_a_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_bytes(b"a text, " * 200)
    with (
        pytest.raises(DatabaseError, match=r"shop\.db.*The file is not one of SQLite"),
        SqlAlchemyDatabase(f"sqlite:///{tmp_path / 'shop.db'}").snapshot(),
    ):
        pass


def test_a_search_index_is_read_as_a_table(file: SqliteDatabase) -> None:
    file.run("CREATE VIRTUAL TABLE t USING fts5(title, body)")
    file.run("INSERT INTO t VALUES ('a', 'b')")
    assert file.read(Table("t")) == [{"title": "a", "body": "b"}]


def test_a_file_that_somebody_has_locked_is_an_error_with_the_next_step(
    file: SqliteDatabase,
) -> None:
    file.run("CREATE TABLE t (id INT)")
    file.run("BEGIN EXCLUSIVE")
    with (
        pytest.raises(DatabaseError, match=r"locked the file for more than 0\.1 s.*WAL"),
        file.open(lock_timeout=0.1).snapshot(),
    ):
        pass


@pytest.mark.parametrize(
    ("declared", "stored"),
    [
        ("INTEGER", "9007199254740993"),
        ("REAL", "0.1"),
        ("REAL", "1e-300"),
        ("DECIMAL(10,2)", "1.1"),
        ("DECIMAL(10,2)", "3"),
        ("BOOLEAN", "1"),
        ("TEXT", "'it''s \\ %s'"),
        ("TEXT", "char(97, 0, 98)"),
        ("BLOB", "x'00ff'"),
        ("DATE", "'2024-01-01'"),
        ("DATETIME", "'2024-01-01 00:00:00'"),
        ("DATETIME", "'2024-01-01T10:00:00.5'"),
        ("DATETIME", "'2024-01-01 10:00:00.123456'"),
        ("TIME", "'10:00'"),
    ],
)
def test_the_text_of_a_value_finds_its_rows_by_the_index(
    file: SqliteDatabase, declared: str, stored: str
) -> None:
    file.run(f"CREATE TABLE t (v {declared})")
    file.run(f"INSERT INTO t VALUES ({stored}), (NULL)")
    file.run("CREATE INDEX tv ON t (v)")
    table = Table("t", mode="incremental", key="v", cursor="v")
    with file.open().snapshot() as snapshot:
        column = snapshot.describe(table).columns["v"]
        ((text,),) = snapshot.query(f"SELECT {snapshot.text_of(column)} FROM t WHERE v IS NOT NULL")
        assert isinstance(text, str)
        where = f"{snapshot.quote('v')} >= {snapshot.literal(text, column)}"
        assert len(rows_of(snapshot, table, where)) == 1
        assert rows_of(snapshot, table, where.replace(">=", "<")) == []
        ((*_, plan),) = snapshot.query(f"EXPLAIN QUERY PLAN SELECT * FROM t WHERE {where}")
        assert "SEARCH t USING" in plan


@pytest.mark.parametrize(
    "values",
    [
        ["2024-01-01 10:00:00", "2024-01-01T09:00:00"],
        ["2024-01-01T10:00:00+02:00", "2024-01-01T09:00:00+02:00"],
        ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00"],
    ],
)
def test_times_whose_texts_are_not_in_the_order_of_time_are_no_cursor(
    file: SqliteDatabase, values: list[str]
) -> None:
    file.run("CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMPTZ)")
    for value in values:
        file.run("INSERT INTO t (at) VALUES (?)", value)
    with pytest.raises(DatabaseError, match=r"column at .* cannot be a cursor, because its times"):
        file.read(Table("t", mode="incremental", key="id", cursor="at"))


def test_numbers_that_are_stored_as_texts_are_no_cursor(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w)")
    table = Table("t", types={"v": {"data_type": "bigint"}})
    with file.open().snapshot() as snapshot:
        for name in ("v", "w"):
            column = snapshot.describe(table).columns[name]
            with pytest.raises(DatabaseError, match=f"column {name} .* cannot be a cursor"):
                snapshot.text_of(column)


def test_batches_of_wide_rows_have_few_rows(file: SqliteDatabase) -> None:
    file.run("CREATE TABLE t (v BLOB)")
    file.run(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
        "SELECT zeroblob(iif(i > 100, 50000, 1)) FROM n"
    )
    with file.open().snapshot() as snapshot:
        table = Table("t")
        batches = list(snapshot.read(table, snapshot.describe(table)))
    assert sum(batch.num_rows for batch in batches) == 3000
    assert max(batch.num_rows for batch in batches) <= 1000
    assert all(isinstance(batch, pa.RecordBatch) for batch in batches)


@pytest.fixture
def shop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Path
) -> Iterator[SqliteDatabase]:
    """Yield an empty file that the source `shop` reads."""
    del tmp_warehouse  # sets the warehouse
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", f"sqlite:///{tmp_path / 'shop.db'}")
    with closing(SqliteDatabase(tmp_path / "shop.db")) as opened:
        yield opened


def load(*tables: Table, partitions: Sequence[PartitionKey] = ()) -> Mapping[str, int]:
    source = database_source(tables, name="shop")
    return warehouse.load(warehouse.plan_load(SPEC, source, partitions)).rows_loaded


def loaded(columns: str = "id, name") -> list[tuple[Any, ...]]:
    rows = warehouse.query(f"SELECT {columns} FROM shop_data.orders ORDER BY 1, 2")
    return [tuple(row.values()) for row in rows]


ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, updated_at DATETIME)"


def test_a_full_load_and_a_mirror_have_the_rows_of_the_source(shop: SqliteDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', '2024-01-01')")
    for orders in (Table("orders"), Table("orders", mode="mirror", key="id")):
        load(orders)
        load(orders)
        assert loaded("id, name") == shop.run("SELECT id, name FROM orders")
        shop.run("DELETE FROM orders WHERE id = 1")
        shop.run("UPDATE orders SET name = name || 'z'")
        shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
        load(orders)
        assert loaded("id, name") == shop.run("SELECT id, name FROM orders")


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"])
@pytest.mark.parametrize("mode", ["incremental", "append"])
def test_new_rows_are_loaded_once_also_if_they_commit_late(
    shop: SqliteDatabase, mode: Any, form: str
) -> None:
    shop.run(ORDERS)

    def add(number: int, minutes: int) -> None:
        time = at("2024-01-01 12:00") + timedelta(minutes=minutes)
        shop.run("INSERT INTO orders VALUES (?, 'x', ?)", number, time.strftime(form))

    for number, minutes in enumerate((-300, 0, 30, 60)):
        add(number, minutes)
    overlap = timedelta(minutes=20)
    orders = Table("orders", mode=mode, key="id", cursor="updated_at", overlap=overlap)
    assert load(orders)["orders"] == 4
    assert load(orders).get("orders", 0) == 0
    add(4, 45)  # within the overlap
    add(5, 60)  # the same time as the newest
    assert load(orders)["orders"] == 2
    assert load(orders).get("orders", 0) == 0
    assert [row for row, _ in loaded()] == list(range(6))


def test_a_first_load_in_key_ranges_has_each_row_once(shop: SqliteDatabase) -> None:
    shop.run("CREATE TABLE orders (k TEXT, id INT, name TEXT, at INT, PRIMARY KEY (k, id))")
    for number in range(25):
        shop.run("INSERT INTO orders VALUES (?, ?, 'x', ?)", f"it's {number % 3}", number, number)
    orders = Table(
        "orders", mode="incremental", key=("k", "id"), cursor="at", overlap=0, rows_per_load=10
    )
    assert load(orders)["orders"] == 25 + 1  # the load after the ranges reads the newest time again
    assert load(orders).get("orders", 0) == 0
    loads = warehouse.query("SELECT DISTINCT _dlt_load_id FROM shop_data.orders")
    assert len(list(loads)) == 4
    assert [row for row, _ in loaded()] == list(range(25))


@pytest.mark.parametrize("separator", [" ", "T"])
def test_a_window_replaces_the_rows_of_its_partition(shop: SqliteDatabase, separator: str) -> None:
    shop.run(ORDERS)
    for number, at in enumerate(
        ("2024-01-01 23:00:00", "2024-01-02 00:00:00", "2024-01-02 00:30:00", "2024-01-02 01:00:00")
    ):
        shop.run("INSERT INTO orders VALUES (?, 'x', ?)", number, at.replace(" ", separator))
    start = datetime(2024, 1, 2, tzinfo=UTC)
    hour = PartitionKey("2024-01-02-00:00", window=TimeWindow(start, start + timedelta(hours=1)))
    orders = Table("orders", mode="window", cursor="updated_at")
    load(orders, partitions=[hour])
    load(orders, partitions=[hour])
    assert loaded() == [(1, "x"), (2, "x")]
