"""A DuckLake with its catalog in Postgres and its files on S3: many writers, kills, other readers."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from shared import warehouse
from stress.harness import Launcher, Rows

DAYS = [f"2018-01-{day}" for day in range(22, 28)]
ROWS = 500
ADDRESS = "DESTINATION__WAREHOUSE__CREDENTIALS__"


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    """The process that forks the writers."""
    started = Launcher("simple_etl", "csv_etl")
    yield started
    started.close()


class Lake:
    """An empty lake, and the runs that load into it."""

    prices_sql = """
        SELECT file_name, count(DISTINCT amount), count(*), min(share_price), max(share_price)
        FROM csv_data.share_prices_daily GROUP BY ALL ORDER BY ALL
    """

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self.folder, self.launcher = folder, launcher
        self.home = folder / "home"
        self.home.mkdir()

    def drop(self, day: str, price: int = 1) -> tuple[Any, ...]:
        """Write the file of a day, and return its row of `prices_sql` after the load."""
        header = "date,share_price,amount,spend,shift,spread\n"
        rows = "".join(f"2018/01/02,{price},{n},3,4,5\n" for n in range(ROWS))
        (self.folder / "drop" / f"{day}.csv").write_text(header + rows)
        return f"{day}.csv", ROWS, ROWS, price, price

    def command(self, module: str, *keys: str, **more: Any) -> dict[str, Any]:
        """Return the command that runs assets of a location."""
        ours = ("WAREHOUSE_", "DESTINATION__", "DROP_FOLDER", "ETL_ENVIRONMENT")
        settings = {name: value for name, value in os.environ.items() if name.startswith(ours)}
        settings |= {"HOME": str(self.home), "WAREHOUSE_WAIT_SECONDS": "600"}
        log = str(self.folder / "log")
        return {"module": module, "keys": keys, "log": log, "environment": settings, **more}

    def daily(self, day: str, **more: Any) -> dict[str, Any]:
        """Return the command that loads the file of a day."""
        keys = ("csv_data/import_daily_file", "csv_data/share_prices_daily")
        return self.command("csv_etl", *keys, partition=day, **more)

    def run(self, *commands: dict[str, Any]) -> list[int]:
        """Run commands concurrently and return their exit codes."""
        return self.launcher.run(list(commands))

    def log(self) -> str:
        """Return the end of the runs' log."""
        return (self.folder / "log").read_text()[-5000:]

    def rows(self, sql: str) -> Rows:
        """Read with DuckDB alone, with the catalog's connection string and the credentials of the files."""
        set_to = {name.removeprefix(ADDRESS): value for name, value in os.environ.items()}
        secret = {
            "KEY_ID": set_to["STORAGE__CREDENTIALS__AWS_ACCESS_KEY_ID"],
            "SECRET": set_to["STORAGE__CREDENTIALS__AWS_SECRET_ACCESS_KEY"],
            "ENDPOINT": set_to["STORAGE__CREDENTIALS__ENDPOINT_URL"].removeprefix("http://"),
            "URL_STYLE": "path",
            "USE_SSL": "false",
        }
        folder = json.loads(set_to["GLOBAL_CONFIG"])["extension_directory"]
        with duckdb.connect(config={"extension_directory": folder}) as connection:
            listed = ", ".join(f"{name} '{value}'" for name, value in secret.items())
            connection.execute(f"CREATE SECRET (TYPE s3, {listed})")
            connection.execute(
                f"ATTACH 'ducklake:postgres:{set_to['CATALOG']}' AS lake "
                "(METADATA_SCHEMA ducklake, READ_ONLY)"
            )
            connection.execute("USE lake")
            return connection.execute(sql).fetchall()


@pytest.fixture
def lake(tmp_path: Path, launcher: Launcher, ducklake_warehouse: str) -> Lake:
    """A lake for this test."""
    assert ducklake_warehouse
    return Lake(tmp_path, launcher)


def test_eight_concurrent_writers_load_exactly_into_a_new_lake(
    lake: Lake, ducklake_warehouse: str
) -> None:
    prices = [lake.drop(day) for day in DAYS]
    config = {"ops": {"import_file": {"config": {"path": f"{DAYS[0]}.csv"}}}}
    writers = [
        *map(lake.daily, DAYS),
        lake.command("csv_etl", "csv_data/import_file", "csv_data/share_prices", config=config),
        lake.command("simple_etl", "simple/load_dict"),
    ]
    for _ in range(2):
        assert lake.run(*writers) == [0] * 8, lake.log()
        assert lake.rows(lake.prices_sql) == prices
        assert lake.rows("SELECT count(*) FROM csv_data.share_prices") == [(ROWS,)]
        assert lake.rows("SELECT name FROM simple.load_dict ORDER BY 1") == [("Alice",), ("Bob",)]
    files = lake.rows(
        "SELECT data_file FROM ducklake_list_files('lake', 'load_dict', schema => 'simple')"
    )
    assert files
    assert all(file.startswith(f"{ducklake_warehouse}/simple/load_dict/") for (file,) in files)
    assert not list(lake.home.iterdir()), "an extension went into the user's home"


def test_a_killed_writer_leaves_old_or_new_rows_and_the_next_run_is_exact(lake: Lake) -> None:
    killed, other = DAYS[:2]
    old, others = lake.drop(killed), lake.drop(other)
    assert lake.run(lake.daily(killed), lake.daily(other)) == [0, 0], lake.log()
    for price, point in enumerate(("inside merge", "after commit"), start=2):
        new = lake.drop(killed, price)
        assert lake.run(lake.daily(killed, die=point)) == [-9], lake.log()
        assert lake.rows(lake.prices_sql) == [new if point == "after commit" else old, others]
        assert lake.run(lake.daily(killed)) == [0], lake.log()
        assert lake.rows(lake.prices_sql) == [new, others]
        old = new


def test_a_reader_creates_no_lake(ducklake_warehouse: str) -> None:
    assert ducklake_warehouse
    with pytest.raises(warehouse.WarehouseConnectionError, match="does not exist"):
        warehouse.query("SELECT 1")
    with (
        psycopg2.connect(os.environ[f"{ADDRESS}CATALOG"]) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'ducklake'")
        assert cursor.fetchone() == (0,)


def test_the_error_names_an_extension_that_is_not_installed(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = {
        "extension_directory": str(tmp_path / "none"),
        "autoinstall_extension_repository": "http://127.0.0.1:9",  # nothing listens on this port
    }
    monkeypatch.setenv(f"{ADDRESS}GLOBAL_CONFIG", json.dumps(offline))
    assert lake.run(lake.command("simple_etl", "simple/load_dict")) == [1]
    assert 'Failed to download extension "ducklake"' in lake.log()
