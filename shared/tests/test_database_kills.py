"""Loads of a database that changes all the while are exact, wherever they are killed."""

import random
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg2
import pytest

from shared import warehouse
from shared.sources.database import Table
from shared.testing import source_database
from shared.testing.killed_loads import RECORDED, killed_load
from shared.testing.postgres_server import PostgresServer
from shared.testing.source_database import SourceDatabase

SLOW_ON_SERVERS = True

KEYED = ("full", "incremental", "mirror", "history")
TABLES = [
    *(Table(mode, mode=mode, key="id") for mode in KEYED),  # type: ignore[arg-type]
    Table("append", mode="append"),
]


class Application:
    """Changes a database by transactions that overlap, are undone in part, and write old times."""

    def __init__(self, url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.connections = [psycopg2.connect(url) for _ in range(3)]
        self.observer = psycopg2.connect(url)
        self.observer.autocommit = True
        self.number = 0
        columns = "id int, name text, at timestamptz DEFAULT clock_timestamp()"
        for table in (*KEYED, "append"):
            key = "" if table == "append" else ", PRIMARY KEY (id)"
            self.rows(f'CREATE TABLE "{table}" ({columns}{key})')

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.observer.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def change(self, steps: int) -> None:
        for _ in range(steps):
            connection = self.random.choice(self.connections)
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1ms'")
                try:
                    self._step(cursor)
                except psycopg2.errors.LockNotAvailable:
                    connection.rollback()
            if self.random.random() < 0.4:
                (connection.commit if self.random.random() < 0.8 else connection.rollback)()

    def settle(self) -> None:
        for connection in self.connections:
            connection.commit()

    def close(self) -> None:
        for connection in (*self.connections, self.observer):
            connection.close()

    def _step(self, cursor: Any) -> None:
        self.number += 1
        undone = self.random.random() < 0.1
        if undone or self.random.random() < 0.2:
            cursor.execute("SAVEPOINT part")
        at = self.random.choice(["clock_timestamp()", "'2020-01-01'", "NULL"])
        for table in (*KEYED, "append"):
            values = f"({self.number}, 'new', {at})"
            cursor.execute(f'INSERT INTO "{table}" VALUES {values}')
            other = self.random.randint(1, self.number)
            if table != "append":
                cursor.execute(
                    f"UPDATE \"{table}\" SET name = 'u{self.number}', at = {at} WHERE id = {other}"
                )
            if table not in ("append", "incremental"):
                cursor.execute(f'DELETE FROM "{table}" WHERE id = {other - 1}')
        if undone:
            cursor.execute("ROLLBACK TO SAVEPOINT part")


@pytest.fixture
def application(shop: SourceDatabase) -> Iterator[Application]:
    """Yield an application of the source's database."""
    running = Application(shop.url, seed=1)
    yield running
    running.close()


def load(refresh: tuple[str, ...] = ()) -> warehouse.LoadResult:
    return source_database.load(*TABLES, refresh=refresh)


def differences(application: Application) -> dict[str, Any]:
    """Return, by table, the rows that only the source has, and those that only the warehouse has."""
    found = {}
    for table in (*KEYED, "append"):
        expected = application.rows(f'SELECT id, name FROM "{table}" ORDER BY 1, 2')
        current = " WHERE _dlt_valid_to IS NULL" if table == "history" else ""
        loaded = [
            (row["id"], row["name"])
            for row in warehouse.query(
                f'SELECT id, name FROM shop_data."{table}"{current} ORDER BY 1, 2'
            )
        ]
        if expected != loaded:
            found[table] = ([*{*expected} - {*loaded}], [*{*loaded} - {*expected}], len(loaded))
    return found


POINTS = [*KEYED, "append", "_dlt_pipeline_state", *RECORDED]


def test_a_killed_load_of_a_changing_database_is_exact(
    any_warehouse: str, application: Application
) -> None:
    for point in random.Random(2).sample(POINTS, len(POINTS)):
        application.change(12)
        killed = killed_load(point, load)
        assert killed in (-signal.SIGKILL, 1), point
        application.change(6)
        load()
        assert differences(application) == {}, point
    application.settle()
    load()
    assert differences(application) == {}


def test_a_killed_full_refresh_is_done_by_the_next_load(
    any_warehouse: str, application: Application
) -> None:
    refreshed = ("incremental", "append")
    for times, point in (
        (1, "_dlt_pipeline_state"),
        *((n, p) for p in RECORDED for n in (1, 2)),
        (1, "append"),
    ):
        application.change(10)
        load()
        application.settle()
        application.rows(
            'DELETE FROM "append" WHERE id % 2 = 0; DELETE FROM incremental WHERE id % 2 = 0'
        )
        assert killed_load(point, partial(load, refreshed), times) == -signal.SIGKILL, point
        load()
        if (times, point) != (1, "_dlt_pipeline_state") and (times, point) != (1, "complete"):
            assert differences(application) == {}, (point, times)
        load(refreshed)
        assert differences(application) == {}, (point, times)


def test_a_source_that_crashes_is_read_exactly_afterwards(
    tmp_path_factory: pytest.TempPathFactory, tmp_warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PostgresServer(tmp_path_factory.mktemp("source")) as server:
        url = server.database().replace("+psycopg2", "")
        monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
        application = Application(url, seed=3)
        for _ in range(4):
            application.change(10)
            load()
            assert differences(application) == {}
            application.change(5)
            server.stop("immediate")  # what is not committed is gone
            with pytest.raises(Exception, match=f"127.0.0.1:{server.port}"):
                load()
            server.start()
            application.connections = [psycopg2.connect(url) for _ in range(3)]
            application.observer = psycopg2.connect(url)
            application.observer.autocommit = True
        load()
        assert differences(application) == {}
        application.close()
