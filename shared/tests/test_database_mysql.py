"""Tables of MariaDB are read exactly, or an error names the column and the row."""

import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from time import monotonic
from typing import Any

import pymysql
import pytest
import sqlalchemy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared import warehouse
from shared.sources.database import DatabaseError, Table, database_source
from shared.sources.database.sqlalchemy import SqlAlchemyDatabase
from shared.sources.database.sqlalchemy.dialect import Timeouts
from shared.sources.database.sqlalchemy.mysql import MySql
from shared.sources.partitions import PartitionKey, TimeWindow
from shared.testing.mariadb_server import MariaDbServer
from shared.testing.other_databases import MariaDbDatabase, rows_of

SPEC = warehouse.pipeline("shop_pipeline", "shop_data")
at = datetime.fromisoformat


@pytest.fixture
def shop(mariadb_shop: MariaDbDatabase) -> MariaDbDatabase:
    """Return an empty database that the source `shop` reads."""
    return mariadb_shop


BIGINT, TEXT, BINARY, BOOL = ({"data_type": kind} for kind in ("bigint", "text", "binary", "bool"))
DOUBLE, DATE, TIME = ({"data_type": kind} for kind in ("double", "date", "time"))
NAIVE = {"data_type": "timestamp", "timezone": False}
ZONED = {"data_type": "timestamp", "timezone": True}
UINT64: dict[str, Any] = {"data_type": "decimal", "precision": 20, "scale": 0}
WIDE = "12345678901234567890123456789012345.123456789012345678901234567890"
POINT = b"\x01\x01\0\0\0\0\0\0\0\0\0\xf0?\0\0\0\0\0\0\0@"

VALUES = [
    ("bigint", "-9223372036854775808", BIGINT, -(2**63)),
    ("bigint unsigned", "18446744073709551615", UINT64, Decimal(2**64 - 1)),
    ("int(3) zerofill", "7", BIGINT, 7),
    ("mediumint", "-8388608", BIGINT, -8388608),
    ("tinyint(1)", "1", BOOL, True),
    ("tinyint(4)", "1", BIGINT, 1),
    ("bit(1)", "b'0'", BOOL, False),
    ("bit(12)", "b'101'", BIGINT, 5),
    ("bit(64)", "18446744073709551615", UINT64, Decimal(2**64 - 1)),
    ("year", "2024", BIGINT, 2024),
    ("float", "0.1", DOUBLE, 0.10000000149011612),
    ("float", "16777217", DOUBLE, 16777216.0),
    ("double", "0.1", DOUBLE, 0.1),
    ("double", "1.7976931348623157e308", DOUBLE, 1.7976931348623157e308),
    ("decimal(38,10)", "1.5", {"data_type": "decimal", "precision": 38, "scale": 10}, Decimal("1.5")),
    ("decimal(65,30)", WIDE, TEXT, WIDE),
    ("date", "'9999-12-31'", DATE, date(9999, 12, 31)),
    ("datetime(6)", "'0001-01-01 00:00:00.000001'", NAIVE, at("0001-01-01 00:00:00.000001")),
    ("datetime", "'2024-03-31 02:30:00'", NAIVE, at("2024-03-31 02:30:00")),
    ("timestamp(6) NULL", "'2024-07-01 12:00:00.123456'", ZONED, at("2024-07-01 10:00:00.123456+00:00")),
    ("time(3)", "'23:59:59.5'", TIME, time(23, 59, 59, 500000)),
    ("enum('b','a','it''s')", "'it''s'", TEXT, "it's"),
    ("set('x','y')", "'y,x'", TEXT, "x,y"),
    ("json", """'{"a": [1]}'""", TEXT, '{"a": [1]}'),
    ("uuid", "'123e4567-e89b-12d3-a456-426655440000'", TEXT, "123e4567-e89b-12d3-a456-426655440000"),
    ("inet6", "'::1'", TEXT, "::1"),
    ("point", "ST_GeomFromText('POINT(1 2)', 4326)", BINARY, POINT),
    ("binary(4)", "x'00ff'", BINARY, b"\0\xff\0\0"),
    ("varbinary(9)", "'ab'", BINARY, b"ab"),
    ("longblob", "x'00ff80'", BINARY, b"\0\xff\x80"),
    ("varchar(9) CHARACTER SET latin1", "'é'", TEXT, "é"),
    ("varchar(9) COLLATE utf8mb4_bin", "'ü\\\\%s:😀'", TEXT, "ü\\%s:😀"),
]  # fmt: skip


def test_a_value_comes_exactly_in_the_type_of_its_column(shop: MariaDbDatabase) -> None:
    shop.run("SET time_zone = '+02:00'")
    columns = ", ".join(f"c{number} {kind}" for number, (kind, *_) in enumerate(VALUES))
    shop.run(f"CREATE TABLE t (id INT PRIMARY KEY, {columns})")
    values = ", ".join(value for _, value, *_ in VALUES)
    nulls = ", ".join("NULL" for _ in VALUES)
    shop.run(f"INSERT INTO t VALUES (1, {values}), (2, {nulls})")
    with SqlAlchemyDatabase(shop.url).snapshot() as snapshot:
        info = snapshot.describe(Table("t"))
        first, second = rows_of(snapshot, Table("t"))
    for number, (kind, _, hints, value) in enumerate(VALUES):
        name = f"c{number}"
        assert info.columns[name].hints == {"name": name, "nullable": True, **hints}, kind
        assert first[name] == value, kind
        assert second[name] is None


@pytest.mark.parametrize(
    ("declared", "stored", "message"),
    [
        ("datetime", "'0000-00-00'", r'the value .0000-00-00 00:00:00. does not fit .*\{"v": \{"nullable": True\}\}'),
        ("datetime NOT NULL", "'0000-00-00'", r"does not fit the type timestamp"),
        ("date", "'2024-00-10'", r'the value .2024-00-10. does not fit .*"nullable": True'),
        ("tinyint(1)", "2", r'the value .2. does not fit the type bool\. .*"data_type": "bigint"'),
        ("time", "'838:59:59'", r'does not fit the type time\. .*"data_type": "text"'),
        ("time", "'-01:00:00'", r"does not fit the type time"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_an_error_with_its_place_and_the_next_step(
    shop: MariaDbDatabase, declared: str, stored: str, message: str
) -> None:
    shop.run(f"CREATE TABLE t (a INT, b INT, v {declared}, PRIMARY KEY (a, b))")
    shop.run(f"INSERT INTO t VALUES (1, 2, {stored})")
    with pytest.raises(
        DatabaseError, match=rf"{shop.name}: table t, column v \(.*a='1', b='2': .*{message}"
    ):
        shop.read(Table("t"))


def test_a_declared_type_replaces_that_of_the_column_and_its_values_must_fit(
    shop: MariaDbDatabase,
) -> None:
    shop.run(
        "CREATE TABLE t (id INT PRIMARY KEY, a TINYINT(1), b TIME, c DATETIME NOT NULL, d LONGTEXT, e POINT)"
    )
    shop.run(
        "INSERT INTO t VALUES (1, 2, '-100:00:00', '0000-00-00', '{}', POINT(1, 2)), (2, 1, NULL, '2024-01-01', '[', NULL)"
    )
    types: dict[str, Any] = {
        "a": {"data_type": "bigint"},
        "b": {"data_type": "text"},
        "c": {"nullable": True},
        "e": {"data_type": "text"},
    }
    assert shop.read(Table("t", types=types)) == [
        {"id": 1, "a": 2, "b": "-100:00:00", "c": None, "d": "{}", "e": "POINT(1 2)"},
        {"id": 2, "a": 1, "b": None, "c": at("2024-01-01"), "d": "[", "e": None},
    ]
    types["d"] = {"data_type": "json"}
    with pytest.raises(DatabaseError, match=r"column d \(longtext\), id='2': the value '\['"):
        shop.read(Table("t", types=types))


@pytest.mark.parametrize(
    ("kind", "value"),
    [pytest.param(kind, value, id=kind) for kind, value, *_ in VALUES if "point" not in kind],
)
def test_the_text_of_a_value_finds_its_rows_by_the_index(
    shop: MariaDbDatabase, kind: str, value: str
) -> None:
    shop.run("SET time_zone = '+02:00'")
    prefix = "(9)" if kind in {"json", "longblob"} else ""
    shop.run(f"CREATE TABLE t (id INT PRIMARY KEY, v {kind}, KEY tv (v{prefix}))")
    shop.run(f"INSERT INTO t VALUES (0, {value}), (-1, NULL)")
    shop.run("INSERT INTO t SELECT seq, NULL FROM seq_1_to_500")
    table = Table("t")
    with SqlAlchemyDatabase(shop.url).snapshot() as snapshot:
        column = snapshot.describe(table).columns["v"]
        ((text,),) = snapshot.query(f"SELECT {snapshot.text_of(column)} FROM t WHERE v IS NOT NULL")
        assert isinstance(text, str)
        where = f"{snapshot.quote('v')} >= {snapshot.literal(text, column)}"
        assert len(rows_of(snapshot, table, where)) == 1
        assert rows_of(snapshot, table, where.replace(">=", "<")) == []
        plan = snapshot.query(f"EXPLAIN SELECT * FROM t WHERE {where}")
        if not kind.startswith(("enum", "set")):  # their order is that of a number
            assert plan[0][3:6:2] == ("range", "tv"), plan


def test_names_with_any_characters_are_read(shop: MariaDbDatabase) -> None:
    odd = 'A "b" `c` %s :d \\ ?'
    quoted = "`" + odd.replace("`", "``") + "`"
    shop.run(f"CREATE TABLE {quoted} ({quoted} INT PRIMARY KEY, b INT)")
    shop.run(f"INSERT INTO {quoted} VALUES (1, 2)")
    assert shop.read(Table(odd)) == [{odd: 1, "b": 2}]


def test_a_table_with_very_many_columns_is_read(shop: MariaDbDatabase) -> None:
    names = [f"c{number}" for number in range(1000)]
    shop.run(f"CREATE TABLE t ({', '.join(f'{name} INT' for name in names)})")
    shop.run(f"INSERT INTO t VALUES ({', '.join(map(str, range(1000)))})")
    assert shop.read(Table("t")) == [dict(zip(names, range(1000), strict=True))]


def test_keys_indexes_and_kinds_are_described(shop: MariaDbDatabase) -> None:
    shop.run(
        "CREATE TABLE a (id INT PRIMARY KEY, x INT, y INT INVISIBLE DEFAULT 5, z INT AS (x * 2), KEY (x, y))"
    )
    shop.run("INSERT INTO a (id, x) SELECT seq, 1 FROM seq_1_to_100")
    shop.run(
        "CREATE TABLE b (x INT NOT NULL, y INT NOT NULL, z INT, w TEXT NOT NULL, UNIQUE (x, y), UNIQUE (z), UNIQUE (w(3)))"
    )
    shop.run("CREATE VIEW d AS SELECT count(*) AS n FROM a")
    shop.run("ANALYZE TABLE a")
    with SqlAlchemyDatabase(shop.url).snapshot() as snapshot:
        info = {name: snapshot.describe(Table(name)) for name in "abd"}
        found = {
            name: (list(each.primary_key), set(each.indexed), each.estimated_rows, each.kind)
            for name, each in info.items()
        }
        assert found == {
            "a": (["id"], {"id", "x"}, 100, "table"),
            "b": (["x", "y"], {"x", "z"}, 0, "table"),
            "d": ([], set(), -1, "view"),
        }
        assert info["b"].unique_keys == [frozenset({"x", "y"})]
        assert rows_of(snapshot, Table("a"))[0] == {"id": 1, "x": 1, "y": 5, "z": 2}
        assert rows_of(snapshot, Table("b")) == []
        assert rows_of(snapshot, Table("d", schema=shop.name)) == [{"n": 100}]


def test_all_of_a_snapshot_is_of_one_moment_and_nothing_can_be_written(
    shop: MariaDbDatabase,
) -> None:
    shop.run("CREATE TABLE t (id INT PRIMARY KEY)")
    shop.run("CREATE TABLE other (id INT PRIMARY KEY)")
    with SqlAlchemyDatabase(shop.url).snapshot() as snapshot:
        shop.run("INSERT INTO t VALUES (1)")
        shop.run("INSERT INTO other VALUES (1)")
        assert rows_of(snapshot, Table("t")) == rows_of(snapshot, Table("other")) == []
        with pytest.raises(DatabaseError, match="READ ONLY"):
            snapshot.query("INSERT INTO t VALUES (2)")
    assert shop.read(Table("t")) == [{"id": 1}]


def test_a_missing_table_or_column_is_named_with_close_ones(shop: MariaDbDatabase) -> None:
    shop.run("CREATE TABLE orders (id INT, updated_at DATETIME)")
    for table, message in (
        (Table("Orders"), f"{shop.name}: table Orders: there is no .* Did you mean orders"),
        (Table("orders", schema="x"), r"table x\.orders: there is no"),
        (Table("orders", columns=["Id"]), r"there is no column Id\. Did you mean id"),
    ):
        with pytest.raises(DatabaseError, match=message):
            shop.read(table)


def test_a_missing_right_is_named_with_the_statement_that_grants_it(shop: MariaDbDatabase) -> None:
    shop.run("CREATE TABLE orders (id INT, secret INT)")
    url = shop.as_user()
    user = str(sqlalchemy.make_url(url).username)
    with (
        pytest.raises(DatabaseError, match=r"Access denied .* GRANT SELECT ON database\.\*"),
        SqlAlchemyDatabase(url).snapshot(),
    ):
        pass
    shop.run(f"GRANT INSERT ON {shop.name}.orders TO {user}")
    with (
        SqlAlchemyDatabase(url).snapshot() as snapshot,
        pytest.raises(
            DatabaseError, match=r"table orders: .*denied.* GRANT SELECT ON database\.table"
        ),
    ):
        rows_of(snapshot, Table("orders"))
    shop.run(f"GRANT SELECT (id) ON {shop.name}.orders TO {user}")
    with SqlAlchemyDatabase(url).snapshot() as snapshot:
        assert rows_of(snapshot, Table("orders", columns=["id"])) == []
        with pytest.raises(
            DatabaseError, match=r"secret.* grant SELECT on the column, or exclude it"
        ):
            rows_of(snapshot, Table("orders"))


def test_a_wrong_password_or_host_is_an_error_without_the_password(shop: MariaDbDatabase) -> None:
    for url, message in (
        (shop.as_user("wrong-password"), "Check the user and the password"),
        ("mysql://root:wrong-password@127.0.0.1:1/shop", "Check the host and the port"),
        (f"{shop.url}x", "Check the database"),
    ):
        with (
            pytest.raises(DatabaseError, match=message) as caught,
            SqlAlchemyDatabase(url).snapshot(),
        ):
            pass
        assert "wrong-password" not in str(caught.value)


def test_a_locked_table_is_an_error_with_the_next_step(shop: MariaDbDatabase) -> None:
    shop.run("CREATE TABLE t (id INT)")
    shop.run("LOCK TABLES t WRITE")
    database = SqlAlchemyDatabase(shop.url, lock_timeout_seconds=0.1)
    with (
        database.snapshot() as snapshot,
        pytest.raises(
            DatabaseError, match=r"Lock wait timeout.*Another session has locked the table"
        ),
    ):
        rows_of(snapshot, Table("t"))


def test_a_statement_that_takes_too_long_is_an_error_with_the_next_step(
    shop: MariaDbDatabase,
) -> None:
    database = SqlAlchemyDatabase(shop.url, statement_timeout_seconds=0.05)
    with (
        database.snapshot() as snapshot,
        pytest.raises(DatabaseError, match=r"max_statement_time.*the statement timeout\. Raise it"),
    ):
        snapshot.query("SELECT max(seq * 2) FROM seq_1_to_1000000000")


def test_a_connection_that_ends_while_rows_are_read_is_an_error(shop: MariaDbDatabase) -> None:
    shop.run("CREATE TABLE t AS SELECT seq AS id, repeat('x', 1000) AS v FROM seq_1_to_20000")
    with SqlAlchemyDatabase(shop.url).snapshot() as snapshot:
        ((number,),) = snapshot.query("SELECT connection_id()")
        batches = snapshot.read(Table("t"), snapshot.describe(Table("t")))
        next(batches)
        shop.run(f"KILL {number}")
        with pytest.raises(DatabaseError, match=r"table t: .*The server closed the connection"):
            list(batches)


def test_an_error_ends_the_query_on_the_server(shop: MariaDbDatabase) -> None:
    shop.run("CREATE TABLE t (id INT PRIMARY KEY)")
    shop.run("INSERT INTO t VALUES (0)")
    shop.run("CREATE VIEW v AS SELECT if(seq = 3, 2, 1) AS b FROM t JOIN seq_1_to_1000000000")
    table = Table("v", types={"b": {"data_type": "bool"}})
    with SqlAlchemyDatabase(shop.url, statement_timeout_seconds=60).snapshot() as snapshot:
        ((number,),) = snapshot.query("SELECT connection_id()")
        with pytest.raises(DatabaseError, match="the value '2' does not fit"):
            rows_of(snapshot, table)
    deadline = monotonic() + 30
    while shop.run(f"SELECT 1 FROM information_schema.processlist WHERE id = {number}"):
        assert monotonic() < deadline


@pytest.mark.parametrize(
    ("url", "mode", "checks_name"),
    [
        ("mysql://u:p@db.example.com/shop", ssl.CERT_REQUIRED, True),
        ("mariadb://u:p@db.example.com/shop?ssl_mode=verify_identity", ssl.CERT_REQUIRED, True),
        ("mysql://u:p@db.example.com/shop?ssl_mode=required", ssl.CERT_NONE, False),
        ("mysql://u:p@db.example.com/shop?ssl_mode=disabled", None, None),
        ("mysql://u:p@127.0.0.1/shop", None, None),
        ("mysql://u:p@localhost/shop?ssl_mode=verify_identity", ssl.CERT_REQUIRED, True),
    ],
)
def test_tls_is_verified_unless_the_server_is_on_loopback_or_the_url_says_otherwise(
    url: str, mode: ssl.VerifyMode | None, checks_name: bool | None
) -> None:
    arguments = MySql(sqlalchemy.make_url(url), Timeouts(1, 1))._tls()
    context = arguments.get("ssl")
    assert (context.verify_mode if context else None) == mode
    assert (context.check_hostname if context else None) == checks_name
    assert bool(context) != bool(arguments.get("ssl_disabled"))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("ssl_mode=prefer", "ssl_mode must be one of"),
        ("ssl_ca=/missing.pem", "a file of ssl_ca"),
        ("ssl-mode=disabled", "the URL has the option ssl-mode; it may have ssl_mode"),
    ],
)
def test_options_of_the_url_that_are_wrong_are_refused(query: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message):
        SqlAlchemyDatabase(f"mysql://u:p@db.example.com/shop?{query}")


def certificates(folder: Path) -> None:
    """Write ca.pem, and cert.pem and key.pem of a server on 127.0.0.1."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(UTC)

    def certificate(name: str, of: ec.EllipticCurvePrivateKey, is_authority: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
                critical=False,
            )
        )
        signed = builder.sign(authority, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    (folder / "ca.pem").write_bytes(certificate("authority", authority, is_authority=True))
    (folder / "cert.pem").write_bytes(certificate("server", key, is_authority=False))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def test_a_server_is_read_over_tls_only_if_its_certificate_is_known(
    mariadb_server: MariaDbServer, tmp_path: Path
) -> None:
    del mariadb_server  # skips the test if there is none
    certificates(tmp_path)
    files = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    options = [f"--ssl-{name}={tmp_path / file}" for name, file in files.items()]
    with MariaDbServer(tmp_path, *options) as server:
        url = server.database()

        def cipher(query: str) -> str:
            with SqlAlchemyDatabase(f"{url}?{query}").snapshot() as snapshot:
                return str(snapshot.query("SHOW STATUS LIKE 'Ssl_cipher'")[0][1])

        assert cipher(f"ssl_ca={tmp_path / 'ca.pem'}")
        assert cipher("ssl_mode=required")
        assert not cipher("ssl_mode=disabled")
        with pytest.raises(DatabaseError, match=r"TLS failed\. Give .*ssl_ca=file"):
            cipher("ssl_mode=verify_identity")


def test_a_server_without_tls_is_not_read_where_tls_is_required(shop: MariaDbDatabase) -> None:
    with (
        pytest.raises(DatabaseError, match=r"SSL is required.*ssl_mode=disabled"),
        SqlAlchemyDatabase(f"{shop.url}?ssl_mode=required").snapshot(),
    ):
        pass


def load(*tables: Table, partitions: Sequence[PartitionKey] = ()) -> Mapping[str, int]:
    source = database_source(tables, name="shop")
    return warehouse.load(warehouse.plan_load(SPEC, source, partitions)).rows_loaded


def loaded(columns: str = "id, name") -> list[tuple[Any, ...]]:
    rows = warehouse.query(f"SELECT {columns} FROM shop_data.orders ORDER BY 1, 2")
    return [tuple(row.values()) for row in rows]


ORDERS = (
    "CREATE TABLE orders (id INT PRIMARY KEY, name TEXT, updated_at DATETIME(6), KEY (updated_at))"
)


def test_a_full_load_and_a_mirror_have_the_rows_of_the_source(shop: MariaDbDatabase) -> None:
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', '2024-01-01')")
    for orders in (Table("orders"), Table("orders", mode="mirror", key="id")):
        load(orders)
        load(orders)
        assert loaded() == shop.run("SELECT id, name FROM orders")
        shop.run("DELETE FROM orders WHERE id = 1")
        shop.run("UPDATE orders SET name = concat(name, 'z')")
        shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
        load(orders)
        assert loaded() == shop.run("SELECT id, name FROM orders")


@pytest.mark.parametrize("kind", ["DATETIME(6)", "TIMESTAMP(6)"])
@pytest.mark.parametrize("mode", ["incremental", "append"])
def test_new_rows_are_loaded_once_also_if_they_commit_late(
    shop: MariaDbDatabase, mode: Any, kind: str
) -> None:
    shop.run(ORDERS.replace("DATETIME(6)", kind))
    orders = Table(
        "orders", mode=mode, key="id", cursor="updated_at", overlap=timedelta(minutes=20)
    )
    for number, minute in enumerate((0, 30, 59)):
        shop.run(f"INSERT INTO orders VALUES ({number}, 'x', '2024-01-01 12:{minute}:00.000001')")
    late = shop.connect()
    late.begin()
    shop.run("INSERT INTO orders VALUES (3, 'x', '2024-01-01 12:45:00')", late)
    assert load(orders)["orders"] == 3
    assert load(orders).get("orders", 0) == 0
    late.commit()
    late.close()
    shop.run("INSERT INTO orders VALUES (4, 'x', '2024-01-01 12:59:00.000001')")  # the newest time
    assert load(orders)["orders"] == 2
    assert load(orders).get("orders", 0) == 0
    assert [row for row, _ in loaded()] == list(range(5))


@pytest.mark.parametrize("kind", ["BIGINT UNSIGNED", "DECIMAL(9,2)", "DOUBLE"])
def test_a_number_of_any_type_is_a_cursor(shop: MariaDbDatabase, kind: str) -> None:
    shop.run(f"CREATE TABLE orders (id {kind} PRIMARY KEY, name TEXT)")
    shop.run("INSERT INTO orders SELECT seq, 'x' FROM seq_1_to_9")
    orders = Table("orders", mode="append", cursor="id", overlap=2)
    assert load(orders)["orders"] == 9
    shop.run("INSERT INTO orders VALUES (10, 'x'), (11, 'x')")
    assert load(orders)["orders"] == 2
    assert load(orders).get("orders", 0) == 0
    assert [row for row, _ in loaded()] == list(range(1, 12))


def test_a_table_without_transactions_is_read_with_a_warning(shop: MariaDbDatabase) -> None:
    shop.run("CREATE TABLE orders (id INT PRIMARY KEY, name TEXT) ENGINE=MyISAM")
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    source = database_source([Table("orders")], name="shop")
    result = warehouse.load(warehouse.plan_load(SPEC, source))
    assert "table orders has the engine MyISAM, which has no transactions" in "".join(
        result.warnings
    )
    assert loaded() == [(1, "a")]


def test_a_first_load_in_key_ranges_has_each_row_once(shop: MariaDbDatabase) -> None:
    shop.run(
        "CREATE TABLE orders (k VARCHAR(9), e ENUM('z', 'a'), id INT, name TEXT, at BIGINT, PRIMARY KEY (k, e, id))"
    )
    shop.run(
        "INSERT INTO orders SELECT concat('it''s ', seq MOD 3), 1 + seq MOD 2, seq, 'x', seq FROM seq_1_to_25"
    )
    shop.run("ANALYZE TABLE orders")
    key = ("k", "e", "id")
    orders = Table("orders", mode="incremental", key=key, cursor="at", overlap=0, rows_per_load=10)
    assert (
        load(orders)["orders"] == 25 + 1
    )  # the load after the ranges reads the newest value again
    assert load(orders).get("orders", 0) == 0
    loads = warehouse.query("SELECT DISTINCT _dlt_load_id FROM shop_data.orders")
    assert len(list(loads)) == 4
    assert [row for row, _ in loaded()] == list(range(1, 26))


@pytest.mark.parametrize("kind", ["DATETIME(6)", "TIMESTAMP(6)"])
def test_a_window_replaces_the_rows_of_its_partition(shop: MariaDbDatabase, kind: str) -> None:
    shop.run("SET time_zone = '+00:00'")
    shop.run(ORDERS.replace("DATETIME(6)", kind))
    for number, time_of_row in enumerate(
        ("01 23:59:59.999999", "02 00:00:00", "02 00:59:59.999999", "02 01:00:00")
    ):
        shop.run(f"INSERT INTO orders VALUES ({number}, 'x', '2024-01-{time_of_row}')")
    start = datetime(2024, 1, 2, tzinfo=UTC)
    hour = PartitionKey("2024-01-02-00:00", window=TimeWindow(start, start + timedelta(hours=1)))
    orders = Table("orders", mode="window", cursor="updated_at")
    load(orders, partitions=[hour])
    load(orders, partitions=[hour])
    assert loaded() == [(1, "x"), (2, "x")]


def test_the_server_of_tests_starts_again_with_its_data(
    mariadb_server: MariaDbServer, tmp_path: Path
) -> None:
    del mariadb_server  # skips the test if there is none
    with MariaDbServer(tmp_path) as server:
        source = MariaDbDatabase(server)
        source.run("CREATE TABLE t AS SELECT 1 AS id")
        server.stop("kill")
        with pytest.raises(pymysql.OperationalError):
            server.connect()
        server.start()
        assert source.read(Table("t")) == [{"id": 1}]
