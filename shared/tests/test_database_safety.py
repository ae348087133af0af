"""A load does a database no harm, and an error says where it is and what to do, without a secret."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import psycopg2
import pytest

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.sources.database import DatabaseError, Table
from shared.sources.database.connection import database_configuration, open_database
from shared.testing.postgres_server import PostgresServer
from shared.testing.source_database import SourceDatabase, load, shop_assets
from shared.warehouse.errors import find_cause

PASSWORD = "the/Password of#shop"
WRONG = "another/Password of#shop"


class Shop:
    """A database on a server that asks for passwords, as its owner sees it.

    Loads log in as the user `etl`, who may open two connections: one may still end while the next begins.
    """

    def __init__(self, server: PostgresServer) -> None:
        self.port = server.port
        self.owner = SourceDatabase(server.database())
        self.name = self.owner.name
        self.server = f"127.0.0.1:{self.port}/{self.name}"
        self.run = self.owner.run

    def url(self, **parts: Any) -> str:
        given: dict[str, Any] = {
            "user": "etl",
            "password": PASSWORD,
            "host": "127.0.0.1",
            "port": self.port,
        }
        given |= {"name": self.name} | parts
        return "postgresql://{user}:{secret}@{host}:{port}/{name}".format(
            secret=quote(given["password"], safe=""), **given
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Start a server that asks all users but its owner for a password."""
    with PostgresServer(tmp_path_factory.mktemp("source")) as started:
        started.stop()
        allowed = started.data / "pg_hba.conf"
        allowed.write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        started.start()
        owner = psycopg2.connect(host="127.0.0.1", port=started.port, user="postgres")
        with owner, owner.cursor() as cursor:
            cursor.execute("CREATE ROLE etl LOGIN CONNECTION LIMIT 2 PASSWORD %s", [PASSWORD])
        owner.close()
        yield started


@pytest.fixture
def shop(
    server: PostgresServer, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    """Yield a database with the table `orders`, which the source `shop` reads."""
    assert tmp_warehouse
    source = Shop(server)
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", source.url())
    source.run("CREATE TABLE orders (id int PRIMARY KEY, name text, card text)")
    source.run("INSERT INTO orders VALUES (1, 'a', 'x'), (2, 'b', 'y')")
    source.run("GRANT SELECT ON orders TO etl")
    yield source
    source.owner.connection.close()


def failure(*tables: Table) -> str:
    """Load, and return the message of the error; no text of its chain has a password."""
    with pytest.raises(Exception) as error:  # noqa: PT011 - its cause is checked
        load(*tables)
    cause = find_cause(error.value, DatabaseError)
    assert cause, error.value
    shown = "".join(traceback.format_exception(error.value))
    for secret in (PASSWORD, WRONG):
        for form in (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1]):
            assert form not in shown
    return str(cause)


def loaded_tables() -> set[str]:
    return {table.name for table in warehouse.list_tables()}


def test_a_write_by_the_session_of_a_load_is_refused(shop: Shop) -> None:
    shop.run("GRANT ALL ON orders TO etl")
    with (
        open_database(database_configuration("shop")) as database,
        database.snapshot() as snapshot,
        pytest.raises(DatabaseError, match=rf"{shop.server}: .*read-only transaction"),
    ):
        snapshot.query("DELETE FROM orders RETURNING id")
    assert shop.run("SELECT count(*) FROM orders") == [(2,)]


def test_a_view_that_writes_is_refused(shop: Shop) -> None:
    shop.run(
        "CREATE FUNCTION log_read() RETURNS int LANGUAGE sql SECURITY DEFINER AS "
        "'INSERT INTO orders VALUES (3) RETURNING id';"
        "CREATE VIEW logged AS SELECT log_read() AS id; GRANT SELECT ON logged TO etl"
    )
    assert "logged" in (message := failure(Table("logged")))
    assert "read-only transaction" in message
    assert shop.run("SELECT count(*) FROM orders") == [(2,)]


def test_a_query_over_the_timeout_is_stopped(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__SHOP__STATEMENT_TIMEOUT_SECONDS", "0.2")
    shop.run("CREATE VIEW slow AS SELECT pg_sleep(60)::text AS id; GRANT SELECT ON slow TO etl")
    message = failure(Table("slow"))
    assert f"slow of {shop.server}" in message
    assert "statement_timeout_seconds" in message
    assert shop.run("SELECT count(*) FROM pg_stat_activity WHERE usename = 'etl'") == [(0,)]


@pytest.mark.parametrize(
    "orders", [Table("orders"), Table("orders", mode="incremental", key="id")], ids=lambda t: t.mode
)
def test_a_table_that_somebody_has_locked_is_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, orders: Table
) -> None:
    monkeypatch.setenv("SOURCES__SHOP__LOCK_TIMEOUT_SECONDS", "0.2")
    other = shop.owner.connect()
    shop.run("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE", other)
    message = failure(orders)
    other.close()
    assert f"orders of {shop.server}" in message
    assert "lock_timeout_seconds" in message
    assert "orders" not in loaded_tables()
    assert load(orders).rows_loaded["orders"] == 2


def test_a_load_opens_one_connection_at_a_time(shop: Shop) -> None:
    shop.run("CREATE TABLE lines AS SELECT * FROM orders; GRANT SELECT ON lines TO etl")
    tables = [
        Table("orders"),
        Table("lines"),
        Table("orders", "incremental", key="id", table="new"),
        Table("orders", "mirror", key="id", table="same"),
    ]
    for _ in range(2):
        load(*tables)
    assert loaded_tables() == {"orders", "lines", "new", "same"}


@pytest.mark.parametrize(
    ("parts", "named", "steps"),
    [
        ({"password": WRONG}, "", "user and password in the credentials"),
        ({"user": "nobody"}, "", "user and password in the credentials"),
        ({"name": "no_such"}, "127.0.0.1:{port}/no_such", "name of the database"),
        ({"port": 1}, "127.0.0.1:1/{name}", "host and port"),
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid:{port}/{name}", "host and port"),
    ],
    ids=["password", "user", "database", "port", "host"],
)
def test_a_database_that_cannot_be_reached_is_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, parts: Any, named: str, steps: str
) -> None:
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", shop.url(**parts))
    message = failure(Table("orders"))
    assert (named.format(port=shop.port, name=shop.name) or shop.server) in message
    assert steps in message
    assert "orders" not in loaded_tables()


def test_no_right_to_read_a_table_is_named(shop: Shop) -> None:
    shop.run("REVOKE SELECT ON orders FROM etl")
    message = failure(Table("orders"))
    assert f"orders of {shop.server}" in message
    assert "GRANT SELECT ON" in message
    assert "orders" not in loaded_tables()


def test_no_right_to_read_a_column_is_named(shop: Shop) -> None:
    shop.run("REVOKE SELECT ON orders FROM etl; GRANT SELECT (id, name) ON orders TO etl")
    message = failure(Table("orders"))
    assert f"orders of {shop.server}" in message
    assert "card" in message
    assert "GRANT SELECT" in message
    assert "orders" not in loaded_tables()
    assert load(Table("orders", exclude=["card"])).rows_loaded["orders"] == 2


def test_a_declared_column_that_vanished_is_named_and_the_rows_before_stay(shop: Shop) -> None:
    orders = Table("orders", types={"card": {"data_type": "text"}})
    load(orders)
    shop.run("ALTER TABLE orders DROP COLUMN card")
    message = failure(orders)
    assert f"orders of {shop.server} has no column card" in message
    assert "id, name" in message
    assert warehouse.query("SELECT count(card) AS n FROM shop_data.orders") == [{"n": 2}]


def test_a_table_that_vanished_is_named_and_nothing_of_the_others_is_loaded(shop: Shop) -> None:
    load(Table("orders"))
    shop.run("INSERT INTO orders VALUES (3, 'c', 'z')")
    message = failure(Table("orders"), Table("lines"))
    assert f"{shop.server} has no table lines" in message
    assert warehouse.query("SELECT count(*) AS n FROM shop_data.orders") == [{"n": 2}]


def test_a_failed_run_of_dagster_has_no_password(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", shop.url(password=WRONG))

    result = dg.materialize(
        [shop_assets(Table("orders"))],
        resources={"dlt": WarehouseDltResource()},
        instance=instance,
        raise_on_error=False,
    )
    assert not result.success
    events = "".join(map(repr, instance.all_logs(result.run_id)))
    assert shop.server in events
    for form in (WRONG, quote(WRONG), quote(WRONG, safe="")):
        assert form not in events
