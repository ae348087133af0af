"""What keeps the mode changes from being exact is refused, with the table and the next step."""

import re
from pathlib import Path
from typing import Any

import pytest

from shared.sources.database import Table
from shared.sources.database.connection import database_configuration, open_database
from shared.sources.database.postgres.changes import slot_lag, slot_name
from shared.testing.postgres_server import PostgresServer
from shared.testing.source_database import SourceDatabase, created_database
from support.changes import CHANGES, ORDERS, load, loaded, rows_of


def slot_of(shop: SourceDatabase) -> str:
    return slot_name("shop_pipeline", "shop_data", shop.name, "orders")


@pytest.fixture
def shop(shop: SourceDatabase) -> SourceDatabase:
    """Return the database with a table of one row."""
    shop.run(ORDERS)
    shop.run("INSERT INTO orders VALUES (1, 'a')")
    return shop


def refused(text: str, *tables: Table) -> None:
    with pytest.raises(Exception, match=re.escape(text)) as caught:
        load(*tables)
    assert "orders" in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def drop_slot(shop: SourceDatabase) -> None:
    shop.run(f"SELECT pg_drop_replication_slot('{slot_of(shop)}')")


def goes_on_after_a_full_refresh(shop: SourceDatabase) -> None:
    load(refresh=True)
    shop.run("INSERT INTO orders VALUES (50, 'after'); DELETE FROM orders WHERE id = 1")
    load()
    assert loaded() == rows_of(shop)


def test_a_dropped_slot_is_refused_until_a_full_refresh(shop: SourceDatabase) -> None:
    load()
    drop_slot(shop)
    shop.run("INSERT INTO orders VALUES (2, 'lost')")
    refused("its replication slot")
    refused("etl/full_refresh")
    goes_on_after_a_full_refresh(shop)


def test_a_slot_that_lost_changes_is_refused_until_a_full_refresh(shop: SourceDatabase) -> None:
    load()
    shop.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    shop.run("SELECT pg_reload_conf()")
    try:
        for _ in range(3):
            shop.run("INSERT INTO orders SELECT coalesce(max(id), 0) + 1 FROM orders")
            shop.run("SELECT pg_switch_wal()")
        shop.run("CHECKPOINT")
        with open_database(database_configuration("shop")) as database:
            lag: Any = slot_lag(database, slot_of(shop))  # type: ignore[arg-type]
        assert lag.wal_status == "lost"
    finally:
        shop.run("ALTER SYSTEM RESET max_slot_wal_keep_size")
        shop.run("SELECT pg_reload_conf()")
    refused("max_slot_wal_keep_size")
    goes_on_after_a_full_refresh(shop)


def test_a_slot_that_somebody_else_has_advanced_is_refused(shop: SourceDatabase) -> None:
    load()
    shop.run("INSERT INTO orders VALUES (2, 'lost')")
    shop.run(f"SELECT pg_replication_slot_advance('{slot_of(shop)}', pg_current_wal_lsn())")
    refused("another warehouse reads the same slot")
    goes_on_after_a_full_refresh(shop)


def test_a_publication_that_was_changed_is_refused_until_a_full_refresh(
    shop: SourceDatabase,
) -> None:
    load()
    for statement in (
        f'ALTER PUBLICATION "{slot_of(shop)}" DROP TABLE orders',
        f'ALTER PUBLICATION "{slot_of(shop)}" SET TABLE orders WHERE (id > 5)',
        f"ALTER PUBLICATION \"{slot_of(shop)}\" SET (publish = 'insert')",
        f'DROP PUBLICATION "{slot_of(shop)}"; CREATE PUBLICATION "{slot_of(shop)}" FOR TABLE orders',
    ):
        shop.run(statement)
        shop.run(
            "INSERT INTO orders VALUES (1, 'lost') ON CONFLICT DO NOTHING; DELETE FROM orders WHERE id = 50"
        )
        refused("its publication")
        goes_on_after_a_full_refresh(shop)


def test_a_table_that_was_created_anew_is_refused_until_a_full_refresh(
    shop: SourceDatabase,
) -> None:
    load()
    shop.run(f"DROP TABLE orders; {ORDERS}; INSERT INTO orders VALUES (7, 'new')")
    refused("the table was created again")
    goes_on_after_a_full_refresh(shop)


@pytest.mark.parametrize("identity", ["NOTHING", "USING INDEX by_name"])
def test_a_replica_identity_without_the_key_is_refused_before_it_stops_the_application(
    shop: SourceDatabase, identity: str
) -> None:
    shop.run(
        "ALTER TABLE orders ALTER name SET NOT NULL; CREATE UNIQUE INDEX by_name ON orders (name)"
    )
    shop.run(f"ALTER TABLE orders REPLICA IDENTITY {identity}")
    refused("REPLICA IDENTITY USING INDEX")
    shop.run("UPDATE orders SET name = 'still works'")
    assert shop.run("SELECT count(*) FROM pg_publication") == [(0,)]


def test_a_key_that_may_belong_to_several_rows_is_refused(shop: SourceDatabase) -> None:
    shop.run("ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id, name)")
    refused("no unique index")
    shop.run(
        "ALTER TABLE orders DROP CONSTRAINT orders_pkey; ALTER TABLE orders REPLICA IDENTITY FULL"
    )
    refused("CREATE UNIQUE INDEX")


def test_a_replica_identity_that_changed_is_refused_until_a_full_refresh(
    shop: SourceDatabase,
) -> None:
    shop.run(
        "ALTER TABLE orders ALTER name SET NOT NULL; CREATE UNIQUE INDEX by_name ON orders (name)"
    )
    load()
    shop.run("ALTER TABLE orders REPLICA IDENTITY USING INDEX by_name; DELETE FROM orders")
    shop.run("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
    refused("replica identity did not have the key id")
    load(refresh=True)
    assert loaded() == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("ALTER TABLE orders RENAME TO hidden; CREATE VIEW orders AS SELECT * FROM hidden", "mode"),
        ("ALTER TABLE orders SET UNLOGGED", "SET LOGGED"),
        ("CREATE TABLE part () INHERITS (orders)", "inherit"),
    ],
)
def test_a_table_whose_changes_are_not_in_the_log_is_refused(
    shop: SourceDatabase, statement: str, what: str
) -> None:
    shop.run(statement)
    refused(what)


def test_a_user_without_the_right_to_replicate_is_told_the_statement(
    shop: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"reader_{slot_of(shop)[-12:]}"
    shop.run(f"CREATE ROLE {role} LOGIN PASSWORD 'a-secret'; GRANT SELECT ON orders TO {role}")
    monkeypatch.setenv(
        "SOURCES__SHOP__CREDENTIALS", shop.url.replace("postgres@", f"{role}:a-secret@")
    )
    with pytest.raises(Exception, match="Let the owner of the table run") as caught:
        load()
    (statements,) = re.findall(r"table run: (.*;)", str(caught.value))
    assert "a-secret" not in str(caught.value)
    shop.run(statements)
    refused("ALTER ROLE name REPLICATION")
    shop.run(f"ALTER ROLE {role} REPLICATION")
    load()
    shop.run("INSERT INTO orders VALUES (2, 'b')")
    load()
    assert loaded() == rows_of(shop)
    shop.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_first_load_names_what_it_waits_for(
    shop: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__SHOP__STATEMENT_TIMEOUT_SECONDS", "0.2")
    other = shop.connect()
    shop.run("INSERT INTO orders VALUES (2, 'open')", other)
    refused("pg_stat_activity")
    other.commit()
    other.close()
    load()
    assert loaded() == rows_of(shop)


def test_a_slot_in_use_is_refused_and_the_next_run_goes_on(shop: SourceDatabase) -> None:
    import psycopg2.extras

    load()
    shop.run("INSERT INTO orders VALUES (2, 'b')")
    reader = psycopg2.connect(
        shop.url, connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    options = {"proto_version": "1", "publication_names": slot_of(shop)}
    cursor = reader.cursor()
    cursor.start_replication(slot_name=slot_of(shop), decode=False, options=options)
    refused("Another process reads the slot")
    cursor.close()
    reader.close()
    while shop.run(
        "SELECT active FROM pg_replication_slots WHERE active AND database = current_database()"
    ):
        pass
    load()
    assert loaded() == rows_of(shop)


def test_a_server_that_logs_no_changes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Path
) -> None:
    del tmp_warehouse
    folder = tmp_path / "server"
    folder.mkdir()
    with PostgresServer(folder, wal_level="replica") as server, created_database(server) as source:
        monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", source.url)
        source.run(ORDERS)
        refused("ALTER SYSTEM SET wal_level = logical")
        assert source.run("SELECT count(*) FROM pg_publication") == [(0,)]


def test_the_lag_of_a_slot_grows_with_the_log_and_a_load_ends_it(shop: SourceDatabase) -> None:
    with open_database(database_configuration("shop")) as opened:
        database: Any = opened
        assert slot_lag(database, slot_of(shop)) is None
        load()
        before: Any = slot_lag(database, slot_of(shop))
        shop.run(
            "INSERT INTO orders SELECT i, repeat('x', 1000) FROM generate_series(2, 2000) AS i"
        )
        behind: Any = slot_lag(database, slot_of(shop))
        assert behind.bytes_behind > before.bytes_behind + 1_000_000
        assert (behind.wal_status, behind.bytes_left) == ("reserved", None)
        load()
        after: Any = slot_lag(database, slot_of(shop))
        assert after.bytes_behind < 1_000_000


def test_names_of_slots_are_valid_and_differ() -> None:
    long = slot_name("p" * 80, "data", "orders")
    assert re.fullmatch("[a-z0-9_]{10,63}", long)
    assert re.fullmatch("[a-z0-9_]{10,63}", slot_name("Großes", 'da"ta', "Über.x"))
    names = {
        long,
        slot_name("p" * 80, "data", "order"),
        slot_name("a_b", "c"),
        slot_name("a", "b_c"),
    }
    assert len(names) == 4


PARTITIONED = """
    CREATE TABLE orders (id int, day date, name text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
    CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
    INSERT INTO orders VALUES (1, '2024-01-05', 'a'), (2, '2024-02-05', 'b')
"""


def test_a_partitioned_table_is_loaded_through_all_that_happens_to_partitions(
    shop: SourceDatabase,
) -> None:
    table = Table("orders", mode="changes", key=("id", "day"))

    def check() -> None:
        load(table)
        assert loaded("id, day, name") == shop.run("SELECT id, day, name FROM orders ORDER BY 1")

    shop.run(f"DROP TABLE orders; {PARTITIONED}")
    check()
    shop.run(
        "UPDATE orders SET day = '2024-02-01' WHERE id = 1; INSERT INTO orders_2 VALUES (3, '2024-02-09')"
    )
    check()
    shop.run(
        "CREATE TABLE more (id int NOT NULL, day date NOT NULL, name text, PRIMARY KEY (id, day))"
    )
    shop.run("INSERT INTO more VALUES (4, '2024-03-01', 'd')")
    shop.run(
        "ALTER TABLE orders ATTACH PARTITION more FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')"
    )
    shop.run("UPDATE orders SET name = 'x' WHERE id = 2")
    check()
    shop.run("TRUNCATE orders_2; INSERT INTO orders VALUES (5, '2024-02-02')")
    check()
    shop.run("ALTER TABLE orders DETACH PARTITION more; UPDATE more SET name = 'not of the table'")
    check()
    shop.run("DROP TABLE orders_2; INSERT INTO orders VALUES (9, '2024-01-02', 'z')")
    check()


def test_changes_of_another_table_with_the_same_key_do_not_matter(shop: SourceDatabase) -> None:
    shop.run("CREATE TABLE customers (id int PRIMARY KEY, name text)")
    tables = (CHANGES, Table("customers", mode="changes", key="id"))
    load(*tables)
    shop.run("INSERT INTO customers VALUES (1, 'c'); DELETE FROM orders")
    load(*tables)
    assert loaded() == []
    assert loaded("id, name", "customers") == [(1, "c")]
