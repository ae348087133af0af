"""The catalog of a database proposes how each table is loaded, and leaves out what sounds personal."""

import sqlite3
import stat
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import psycopg2
import pytest

from shared import warehouse
from shared.cli.database_code import FromDatabase, database_summary
from shared.cli.proposals import ScaffoldError, scaffold_errors
from shared.sources.database.base import DatabaseError
from shared.sources.proposals import database_url
from shared.sources.proposals.database import DatabaseProposal, TableProposal, propose_database
from shared.sources.proposals.made_up_tables import made_up_sql
from shared.sources.proposals.personal import is_sensitive
from shared.testing.mariadb_server import MariaDbServer
from shared.testing.postgres_server import PostgresServer

LoadMadeUp = Callable[[DatabaseProposal, str], dict[str, int | None]]

PASSWORD = "hunter22-hunter22"

SHOP = """
CREATE TABLE customers (
    customer_id integer PRIMARY KEY, name text, email text, city text, updated_at timestamp NOT NULL
);
CREATE TABLE orders (
    order_id integer PRIMARY KEY, customer_id integer NOT NULL, amount numeric(10, 2),
    created_at timestamp NOT NULL, updated_at timestamp NOT NULL
);
CREATE TABLE order_lines (order_id integer, line integer, sku text, PRIMARY KEY (order_id, line));
CREATE TABLE payments (payment_id integer PRIMARY KEY, amount numeric(10, 2));
CREATE TABLE visits (page text, seconds integer);
CREATE TABLE stock (sku varchar(20) NOT NULL UNIQUE, on_hand integer, modified timestamp);
CREATE VIEW open_orders AS SELECT order_id FROM orders;
CREATE INDEX orders_updated ON orders (updated_at);
"""
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
LARGE = f"""
INSERT INTO orders {NUMBERS} SELECT i, 1, 1, '2025-03-10', '2025-03-10' FROM n;
INSERT INTO order_lines {NUMBERS} SELECT i, 1, 'a' FROM n;
INSERT INTO payments {NUMBERS} SELECT i, 1 FROM n;
INSERT INTO visits {NUMBERS} SELECT 'a', i FROM n;
INSERT INTO stock {NUMBERS} SELECT 'a' || i, 1, NULL FROM n;
"""


def sqlite(file: Path, script: str) -> str:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)
    return f"sqlite:///{file}"


def postgres(server: PostgresServer, script: str) -> str:
    url = server.warehouse()
    execute(url, script)
    return url


def execute(url: str, script: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(script)


def by_name(proposal: DatabaseProposal) -> dict[str, TableProposal]:
    return {table.relation.full_name: table for table in proposal.tables}


def source(proposal: DatabaseProposal, folder: Path) -> str:
    """Return the module that is written for a proposal."""
    package = folder / "project" / "src" / "shop_etl"
    package.mkdir(parents=True)
    (folder / "project" / "tests").mkdir()
    FromDatabase(proposal).write(folder / "project", "shop")
    return (package / "source.py").read_text("utf-8")


@pytest.fixture
def load_made_up(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> LoadMadeUp:
    """Return a function that loads the made-up tables of a proposal, and returns their row counts."""

    def load(proposal: DatabaseProposal, url: str) -> dict[str, int | None]:
        monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
        module = ModuleType("source")
        exec(source(proposal, tmp_warehouse), module.__dict__)
        plan = warehouse.plan_load(
            warehouse.pipeline("shop_pipeline", "shop"), module.shop_source()
        )
        return {name: stats.row_count for name, stats in warehouse.load(plan).tables.items()}

    return load


def test_a_table_of_sqlite_gets_the_mode_that_its_rows_key_and_cursor_allow(tmp_path: Path) -> None:
    tables = by_name(propose_database(sqlite(tmp_path / "shop.db", SHOP + LARGE), tmp_path))
    modes = {name: (table.mode, table.key, table.cursor) for name, table in tables.items()}
    assert modes == {
        "customers": ("full", ("customer_id",), ""),
        "open_orders": ("full", (), ""),
        "order_lines": ("mirror", ("order_id", "line"), ""),
        "orders": ("incremental", ("order_id",), "updated_at"),
        "payments": ("mirror", ("payment_id",), ""),
        "stock": ("incremental", ("sku",), "modified"),
        "visits": ("full", (), ""),
    }
    notes = {name: " ".join(table.notes) for name, table in tables.items()}
    assert not notes["orders"]
    assert "CREATE INDEX stock_modified ON stock (modified)" in notes["stock"]
    assert "Rows whose modified is NULL" in notes["stock"]
    assert 'mode="append", cursor="payment_id"' in notes["payments"]
    assert "no key" in notes["visits"]


def test_a_large_table_of_postgres_with_a_key_needs_no_cursor(
    warehouse_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres(warehouse_server, SHOP + LARGE + "ANALYZE orders;")
    tables = by_name(propose_database(url, tmp_path))
    modes = {name: (table.mode, table.key, table.cursor) for name, table in tables.items()}
    assert modes == {
        "customers": ("full", ("customer_id",), ""),
        "open_orders": ("full", (), ""),
        "order_lines": ("incremental", ("order_id", "line"), ""),
        "orders": ("incremental", ("order_id",), ""),
        "payments": ("incremental", ("payment_id",), ""),
        "stock": ("incremental", ("sku",), ""),
        "visits": ("full", (), ""),
    }
    assert tables["orders"].relation.rows == 10_000, "the statistics say so"
    assert tables["payments"].relation.rows == -1, "it has no statistics"
    assert 'cursor="updated_at", overlap=' in " ".join(tables["orders"].notes)


def test_the_written_source_declares_what_is_proposed(tmp_path: Path) -> None:
    proposal = propose_database(sqlite(tmp_path / "shop.db", SHOP + LARGE), tmp_path)
    module = ModuleType("source")
    exec(source(proposal, tmp_path), module.__dict__)
    assert [
        (table.name, table.mode, table.key_columns, table.cursor, [*table.exclude])
        for table in module.TABLES
    ] == [
        ("customers", "full", (), None, ["name", "email"]),
        ("open_orders", "full", (), None, []),
        ("order_lines", "mirror", ("order_id", "line"), None, []),
        ("orders", "incremental", ("order_id",), "updated_at", []),
        ("payments", "mirror", ("payment_id",), None, []),
        ("stock", "incremental", ("sku",), "modified", []),
        ("visits", "full", (), None, []),
    ]
    assert [*module.shop_source().resources] == [table.name for table in module.TABLES]


def test_no_text_of_a_project_has_the_password_except_the_secrets_for_this_user_alone(
    strict_server: str, tmp_path: Path
) -> None:
    proposal = propose_database(strict_server.replace("postgresql:", "postgres:"), tmp_path)
    text = source(proposal, tmp_path)
    secrets = tmp_path / "project" / ".dlt" / "secrets.toml"
    others = [file for file in (tmp_path / "project").rglob("*.*") if file.is_file()]
    texts = [file.read_text("utf-8") for file in others if file != secrets]
    new = FromDatabase(proposal)
    texts += [text, repr(new), new.summary("shop"), str(new.answers()), str(new.commands("shop"))]
    assert not [text for text in texts if "hunter" in text]
    assert tomllib.loads(secrets.read_text())["sources"]["shop"]["credentials"] == strict_server
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert "projects/shop_etl/.dlt/secrets.toml" in new.summary("shop")
    assert "SOURCES__SHOP__CREDENTIALS" in new.summary("shop")


def test_a_url_without_a_password_takes_that_of_the_password_file(
    strict_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_made_up: LoadMadeUp
) -> None:
    (tmp_path / "passwords").write_text(f"*:*:*:reader:{PASSWORD}\n")
    (tmp_path / "passwords").chmod(0o600)
    url = strict_server.replace(f":{PASSWORD}", "")
    with pytest.raises(DatabaseError, match="no password supplied"):
        propose_database(url, tmp_path)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))
    proposal = propose_database(url, tmp_path)
    assert proposal.credentials == url
    assert load_made_up(proposal, url) == {"orders": 0}


def test_the_path_of_a_sqlite_file_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite(tmp_path / "a b.db", SHOP)
    monkeypatch.chdir("/")
    proposal = propose_database("sqlite:///a b.db", tmp_path)
    assert proposal.credentials == f"sqlite:///{tmp_path}/a b.db"


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("customers", name) for name in ("email", "E-Mail", "eMail", "phone_number", "name")),
        *(("staff", name) for name in ("birth_date", "dateOfBirth", "IBAN", "national_id")),
        *(
            ("users", name)
            for name in ("password_hash", "api_key", "reset_tokens", "last_login_ip")
        ),
        *(("orders", name) for name in ("shipping_address", "billing_addresses", "first_name")),
    ],
)
def test_a_column_that_sounds_secret_or_personal_is_left_out(table: str, column: str) -> None:
    assert is_sensitive(table, column)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("products", name) for name in ("name", "ship_date", "description", "recipe")),
        *(("customers", name) for name in ("address_id", "email_verified_at", "has_phone", "city")),
        *(("addresses", name) for name in ("address_id", "address_type", "country")),
        *(
            ("x", name)
            for name in ("tokenizer", "hashtag", "mailing_list_id", "saltwater", "opinion")
        ),
    ],
)
def test_a_column_that_only_describes_something_is_loaded(table: str, column: str) -> None:
    assert not is_sensitive(table, column)


def test_a_personal_key_is_left_out_and_so_the_table_has_none(tmp_path: Path) -> None:
    script = f"CREATE TABLE lists (email text PRIMARY KEY, n integer); INSERT INTO lists {NUMBERS} SELECT 'a' || i, i FROM n;"
    (table,) = propose_database(sqlite(tmp_path / "x.db", script), tmp_path).tables
    assert (table.mode, table.key, table.left_out) == ("full", (), ["email"])
    assert "Its key, email, sounds secret or personal" in table.notes[0]


def test_the_summary_names_what_is_left_out_and_how_to_load_it(tmp_path: Path) -> None:
    script = (
        f"{SHOP} CREATE TABLE _dlt_loads (load_id text); CREATE VIEW gone AS SELECT x FROM missing;"
    )
    summary = database_summary(
        "shop", propose_database(sqlite(tmp_path / "x.db", script), tmp_path)
    )
    assert "customers: name, email." in summary
    assert "exclude" in summary
    assert "masks=" in summary
    assert "Left out: _dlt_loads, a table of dlt." in summary
    assert "Left out: gone, which cannot be read: no such table: main.missing." in summary


def test_tables_of_all_schemas_have_names_that_differ(
    warehouse_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres(
        warehouse_server,
        """
        CREATE TABLE orders (a integer); CREATE TABLE "Order Details" (a integer);
        CREATE TABLE "order details" (a integer); CREATE TABLE "größe" (a integer);
        CREATE TABLE "__2" (a integer); CREATE TABLE "订单" (a integer);
        CREATE SCHEMA archive; CREATE TABLE archive.orders (a integer);
        """,
    )
    proposal = propose_database(url, tmp_path)
    targets = {table.relation.full_name: table.target for table in proposal.tables}
    assert targets["archive.orders"] == "archive_orders"
    assert targets["public.orders"] == "public_orders"
    assert targets["public.größe"] == "grosse"
    assert len({*targets.values()}) == 7
    module = ModuleType("source")
    exec(source(proposal, tmp_path), module.__dict__)
    assert {table.full_name: table.target for table in module.TABLES} == targets


def test_a_partition_is_no_table_of_its_own_and_a_system_table_is_none(
    warehouse_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres(
        warehouse_server,
        """
        CREATE TABLE days (day date PRIMARY KEY) PARTITION BY RANGE (day);
        CREATE TABLE days_2025 PARTITION OF days FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        CREATE MATERIALIZED VIEW today AS SELECT day FROM days;
        """,
    )
    tables = by_name(propose_database(url, tmp_path))
    assert {name: table.relation.is_view for name, table in tables.items()} == {
        "days": False,
        "today": True,
    }


MARIADB = """
CREATE TABLE types (
    a tinyint(1), b bigint unsigned, c float, d double, e decimal(65, 30), f bit(3), g date, h datetime(6),
    i timestamp(3) NULL, j time, k year, l char(1), m varchar(1) CHARACTER SET latin1, n longtext, o blob,
    p binary(2), q enum('x'), r set('x', 'y'), s json, t uuid, u inet6, v point, `w ``x"` integer
);
"""

TYPES = """
CREATE TYPE mood AS ENUM ('happy'); CREATE DOMAIN percent AS integer CHECK (value < 0);
CREATE TABLE types (
    a bigint, b smallint, c real, d double precision, e numeric, f numeric(2, 2), g boolean, h "char",
    i char(1), j varchar(1), k date, l timestamp, m timestamptz(3), n time, o timetz, p interval,
    q uuid, r json, s jsonb, t bytea, u inet, v cidr, w macaddr, x money, y bit(3), z varbit,
    aa xml, ab tsvector, ac int4range, ad point, ae integer[], af mood, ag percent, ah mood[],
    ai text[][], aj oid, ak name, al text COLLATE "C", am hstore_like, "a B" integer, "a""c" text,
    PRIMARY KEY (i, a)
);
""".replace("am hstore_like", "am regclass")


def test_made_up_tables_have_two_rows_of_each_type_and_load(
    warehouse_server: PostgresServer, tmp_path: Path, load_made_up: LoadMadeUp
) -> None:
    proposal = propose_database(postgres(warehouse_server, TYPES), tmp_path)
    url = postgres(warehouse_server, made_up_sql(proposal))
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM types")
        rows = cursor.fetchall()
        assert [column.name for column in cursor.description or ()] == [
            *proposal.tables[0].relation.columns
        ]
    assert len(rows) == 2
    assert None not in rows[0]
    assert load_made_up(proposal, url) == {"types": 2}


def test_made_up_tables_of_sqlite_have_two_rows_of_each_type_and_load(
    tmp_path: Path, load_made_up: LoadMadeUp
) -> None:
    script = """
    CREATE TABLE types (
        a integer PRIMARY KEY, b, c real, d numeric, e decimal(10, 2), f boolean, g datetime, h date,
        i time, j blob, k json, l varchar(20), m "unknown type", "n ""o" text
    ) STRICT;
    """.replace(" STRICT", "")
    proposal = propose_database(sqlite(tmp_path / "x.db", script), tmp_path)
    sqlite(tmp_path / "made_up.db", made_up_sql(proposal))
    with closing(sqlite3.connect(tmp_path / "made_up.db")) as connection:
        rows = connection.execute("SELECT * FROM types").fetchall()
    assert len(rows) == 2
    assert len(rows[0]) == 14
    assert None not in rows[0]
    assert load_made_up(proposal, f"sqlite:///{tmp_path}/made_up.db") == {"types": 2}


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database on a server that asks for passwords: the URL of the user `reader`."""
    with PostgresServer(tmp_path_factory.mktemp("strict")) as server:
        url = server.warehouse().replace(":postgres@", "@")
        execute(
            url,
            f"""
            CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
            CREATE TABLE orders (order_id integer PRIMARY KEY); CREATE TABLE salaries (amount integer);
            GRANT SELECT ON orders TO reader;
            """,
        )
        allowed = server.data / "pg_hba.conf"
        allowed.write_text("host all reader all scram-sha-256\n" + allowed.read_text())
        server.stop()
        server.start()
        yield url.replace("postgres@", f"reader:{PASSWORD}@")


def test_a_table_that_may_not_be_read_is_named_and_left_out(
    strict_server: str, tmp_path: Path
) -> None:
    proposal = propose_database(strict_server, tmp_path)
    assert [*by_name(proposal)] == ["orders"]
    assert "permission denied for table salaries" in proposal.remarks[0]


def test_a_table_that_somebody_has_locked_is_named_and_left_out(
    warehouse_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres(warehouse_server, SHOP)
    monkeypatch.setattr(database_url, "_LOCK_SECONDS", 0.1)
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE payments")
        proposal = propose_database(url, tmp_path)
    assert "payments" not in by_name(proposal)
    assert "stock" in by_name(proposal)
    assert "payments, which cannot be read: canceling statement due to lock" in proposal.remarks[0]


def test_a_database_without_a_readable_table_proposes_nothing(
    strict_server: str, tmp_path: Path
) -> None:
    owner = strict_server.replace(f"reader:{PASSWORD}@", "postgres@")
    execute(owner, "CREATE SCHEMA hidden; CREATE TABLE hidden.x (a integer);")
    execute(owner, "REVOKE SELECT ON orders FROM reader")
    try:
        with pytest.raises(DatabaseError, match=r"salaries.*whether the user may read its tables"):
            propose_database(strict_server, tmp_path)
    finally:
        execute(owner, "GRANT SELECT ON orders TO reader; DROP SCHEMA hidden CASCADE")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f":{PASSWORD}", ":wrong-hunter22", "password authentication failed.* Check the user"),
        ("/test_", "/gone_", 'database "gone_.*" does not exist. Check the name of the database'),
        ("127.0.0.1", "no-host.invalid", "Check the name of the host"),
        ("127.0.0.1:", "127.0.0.1:1", "port"),
        (f":{PASSWORD}", ":x/hunter22@hunter22", "in the user and the password, @ is %40"),
        (f":{PASSWORD}", ":x@hunter22/hunter22", "in the user and the password, @ is %40"),
        ("postgresql:", "oracle:", "oracle:// is not the URL of a database .* postgresql://user"),
        ("/test_", "?test=", "names no database"),
    ],
)
def test_a_url_that_does_not_work_is_one_clear_line_without_the_password(
    strict_server: str, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in strict_server
    with pytest.raises(ScaffoldError, match=message) as error, scaffold_errors():
        propose_database(strict_server.replace(old, new), tmp_path)
    assert "hunter" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).endswith("Nothing was changed.")


def test_a_missing_driver_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)  # as if it were not installed
    with pytest.raises(DatabaseError, match=r"needs pymysql: uv add --dev 'shared\[mysql\]'"):
        propose_database(f"mysql://reader:{PASSWORD}@localhost/shop", tmp_path)


def test_a_missing_file_of_sqlite_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"There is no file .*gone\.db"):
        propose_database("sqlite:///gone.db", tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_database_without_tables_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    sqlite(tmp_path / "empty.db", "")
    (tmp_path / "text.db").write_text("not a database" * 100)
    with pytest.raises(DatabaseError, match="has no tables"):
        propose_database("sqlite:///empty.db", tmp_path)
    with pytest.raises(DatabaseError, match="file is not a database"):
        propose_database("sqlite:///text.db", tmp_path)


def test_a_table_of_mariadb_gets_the_mode_that_its_rows_key_and_cursor_allow(
    mariadb_server: MariaDbServer, tmp_path: Path, load_made_up: LoadMadeUp
) -> None:
    url = mariadb_server.database()
    connected = closing(mariadb_server.connect(url.rpartition("/")[2]))
    with connected as connection, connection.cursor() as cursor:
        cursor.execute("SET max_recursive_iterations = 20000")
        for statement in filter(str.strip, (SHOP + MARIADB + LARGE).split(";")):
            cursor.execute(statement.replace("'a' || i", "concat('a', i)"))
    proposal = propose_database(url, tmp_path)
    modes = {
        table.target: (table.mode, table.key, table.cursor)
        for table in proposal.tables
        if table.mode != "full"
    }
    assert modes == {
        "order_lines": ("mirror", ("order_id", "line"), ""),
        "orders": ("incremental", ("order_id",), "updated_at"),
        "payments": ("mirror", ("payment_id",), ""),
        "stock": ("incremental", ("sku",), "modified"),
    }
    sqlite(tmp_path / "made_up.db", made_up_sql(proposal))
    with closing(sqlite3.connect(tmp_path / "made_up.db")) as made_up:
        assert None not in made_up.execute("SELECT * FROM types").fetchall()[1]
    counts = load_made_up(proposal, f"sqlite:///{tmp_path}/made_up.db")
    assert counts == dict.fromkeys(by_name(proposal), 2)
    with pytest.raises(DatabaseError, match=r"Access denied.*Check the user and the password"):
        propose_database(url.replace("root@", f"nobody:{PASSWORD}@"), tmp_path)
    with pytest.raises(DatabaseError, match=r"Unknown database.*Check the name of the database"):
        propose_database(f"{url}x", tmp_path)
