"""The sensor of a database loads each table after it has changed, and loses no change."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from shared.orchestration.database_sensor import (
    CHANGED_TABLES,
    build_changed_tables_sensor,
)
from shared.orchestration.resource import WarehouseDltResource
from shared.sources.database import DatabaseError, Table
from shared.sources.database.probe import probe_tables
from shared.testing.source_database import SourceDatabase, loaded, shop_assets

ORDERS = Table("orders", mode="incremental", key="id")
ITEMS = Table("items", mode="mirror", key="id")


class Shop:
    """The source database, and a location with the sensor of its tables."""

    def __init__(self, database: SourceDatabase, instance: dg.DagsterInstance) -> None:
        self.database, self.connection = database, database.connection
        self.instance = instance
        self.cursor: str | None = None
        self.run_keys: set[str] = set()
        self.created: dict[str, dg.DagsterRun] = {}
        for table in ("orders", "items"):
            self.run(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)")
            self.run(f"INSERT INTO {table} VALUES (1, 'a')")
        self.locate(ORDERS, ITEMS)

    def locate(self, *tables: Table) -> None:
        """Make a location of some tables."""
        self.sensor = build_changed_tables_sensor(tables, "shop", "shop_data", retry_minutes=0)
        self.defs = dg.Definitions(
            [shop_assets(*tables)], sensors=[self.sensor], resources={"dlt": WarehouseDltResource()}
        )

    def run(self, sql: str) -> None:
        self.database.run(sql)
        self.database.run("SELECT pg_stat_force_next_flush()")

    def tick(self, *, keep_cursor: bool = True) -> list[dg.RunRequest]:
        """Do what Dagster's daemon does: keep the cursor, ignore known run keys, and create runs."""
        context = dg.build_sensor_context(self.instance, self.cursor, definitions=self.defs)
        result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        if keep_cursor:
            self.cursor = result.cursor
        requests = [r for r in result.run_requests or [] if r.run_key not in self.run_keys]
        self.run_keys |= {str(request.run_key) for request in requests}
        job = self.defs.resolve_implicit_global_asset_job_def()
        for request in requests:
            self.created[str(request.run_key)] = self.instance.create_run_for_job(
                job, tags=dict(request.tags), status=dg.DagsterRunStatus.STARTING
            )
        return requests

    def load(self, requests: Sequence[dg.RunRequest]) -> list[dg.ExecuteInProcessResult]:
        """Execute the runs of some requests."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        for request in requests:
            self.instance.delete_run(self.created.pop(str(request.run_key)).run_id)
        return [
            job.execute_in_process(
                instance=self.instance,
                asset_selection=request.asset_selection,
                tags=dict(request.tags),
                raise_on_error=False,
            )
            for request in requests
        ]

    def changed(self) -> dict[str, str]:
        """Tick, load what is requested, and return why, by table."""
        requests = self.tick()
        assert len(requests) <= 1
        assert all(result.success for result in self.load(requests))
        if not requests:
            return {}
        why = requests[0].tags[CHANGED_TABLES]
        named = dict(part.split(": ", 1) for part in why.split("; "))
        assert [key.path for key in requests[0].asset_selection or ()] == [
            ["shop_data", table] for table in named
        ]
        return named


@pytest.fixture
def shop(shop: SourceDatabase, instance: dg.DagsterInstance) -> Shop:
    return Shop(shop, instance)


def test_only_tables_that_changed_are_loaded_and_the_tag_says_why(shop: Shop) -> None:
    assert shop.changed() == {"orders": "not loaded yet", "items": "not loaded yet"}
    assert shop.changed() == {}
    shop.run("INSERT INTO orders VALUES (2, 'b'), (3, 'c')")
    assert shop.changed() == {"orders": "inserted 1 -> 3"}
    assert loaded() == [(1, "a"), (2, "b"), (3, "c")]
    assert shop.changed() == {}


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ("UPDATE items SET name = 'z'", [(1, "z")]),
        ("DELETE FROM items; INSERT INTO items VALUES (1, 'y')", [(1, "y")]),
        ("TRUNCATE items; INSERT INTO items VALUES (2, 'b')", [(2, "b")]),
    ],
)
def test_every_change_is_seen_also_without_a_cursor(
    shop: Shop, change: str, rows: list[tuple[Any, ...]]
) -> None:
    shop.changed()
    shop.run(change)
    assert shop.changed().keys() == {"items"}
    assert loaded(table="items") == rows
    assert shop.changed() == {}


def test_a_change_after_the_probe_is_found_by_the_next_tick(shop: Shop) -> None:
    requests = shop.tick()
    shop.run("INSERT INTO orders VALUES (2, 'b')")
    assert shop.tick() == []  # the run is requested
    shop.load(requests)
    shop.run("INSERT INTO orders VALUES (3, 'c')")
    assert shop.changed() == {"orders": "inserted 1 -> 3"}
    assert loaded() == [(1, "a"), (2, "b"), (3, "c")]
    assert shop.changed() == {}


def test_a_change_whose_counts_arrive_after_the_probe_is_found_once_they_do(shop: Shop) -> None:
    shop.changed()
    with shop.connection.cursor() as cursor:  # a session adds its counts once a second
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("INSERT INTO orders VALUES (8, 'x')")
        cursor.execute("INSERT INTO orders VALUES (9, 'y')")
    shop.changed()
    shop.run("SELECT 1")  # flushes
    shop.changed()
    assert loaded() == [(1, "a"), (8, "x"), (9, "y")]


def test_a_failed_run_is_requested_again_and_a_canceled_one_too(shop: Shop) -> None:
    shop.run(
        "ALTER TABLE items RENAME TO gone; CREATE VIEW items AS SELECT 1 / (id - 1) AS id FROM gone"
    )
    shop.locate(ORDERS, Table("items", mode="full"))
    with pytest.raises(DatabaseError, match=r'Pass cursors=\{"items": "updated_at"\}'):
        shop.tick()
    shop.run("DROP VIEW items; ALTER TABLE gone RENAME TO items")
    shop.locate(ORDERS, Table("items", mode="mirror", key="id"))
    requests = shop.tick()
    shop.run(
        "REVOKE ALL ON items FROM public; ALTER TABLE items ALTER name TYPE date USING '2020-01-01'"
    )
    shop.run("UPDATE items SET name = 'infinity'")
    (result,) = shop.load(requests)
    assert not result.success
    again = shop.tick()
    assert [key.path[-1] for key in again[0].asset_selection or ()] == ["orders", "items"]
    assert shop.tick() == []  # it is about to start
    shop.instance.report_run_canceled(shop.created[str(again[0].run_key)])
    shop.run("UPDATE items SET name = '2020-01-02'")
    assert shop.changed().keys() == {"orders", "items"}
    assert shop.changed() == {}


def test_a_tick_that_is_repeated_or_has_lost_its_cursor_loads_nothing_twice_at_once(
    shop: Shop,
) -> None:
    requests = shop.tick(keep_cursor=False)
    assert len(requests) == 1
    assert shop.tick() == []
    shop.load(requests)
    assert shop.changed() == {}


def test_a_database_that_does_not_answer_fails_the_tick_and_the_next_one_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.changed()
    shop.run("INSERT INTO orders VALUES (2, 'b')")
    with monkeypatch.context() as other:
        other.setenv("SOURCES__SHOP__CREDENTIALS", "postgresql://u:hidden@127.0.0.1:9/shop")
        with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:9/shop") as caught:
            shop.tick()
        assert "hidden" not in str(caught.value)
    assert shop.changed() == {"orders": "inserted 1 -> 2"}


def test_a_table_without_counters_is_scanned_and_every_change_is_seen(shop: Shop) -> None:
    shop.run("ALTER ROLE postgres IN DATABASE " + shop.database.name + " SET track_counts = off")
    seen = [probe_tables("shop", [ITEMS])["items"]]
    assert seen[0]["rows"] == "1"
    for change in (
        "INSERT INTO items VALUES (2, 'b')",
        "UPDATE items SET name = 'z' WHERE id = 1",
        "DELETE FROM items WHERE id = 2",
        "ALTER TABLE items ADD more int",
    ):
        shop.run(change)
        seen.append(probe_tables("shop", [ITEMS])["items"])
        assert seen[-1] not in seen[:-1]
        assert probe_tables("shop", [ITEMS])["items"] == seen[-1]


def test_a_view_is_probed_by_its_rows_and_cursor(shop: Shop) -> None:
    shop.run("CREATE VIEW newest AS SELECT * FROM items")
    view = Table("newest")
    assert probe_tables("shop", [view], {"newest": "id"})["newest"] == {"rows": "1", "id": "1"}
    with pytest.raises(DatabaseError, match="has no column idd"):
        probe_tables("shop", [view], {"newest": "idd"})


def test_a_table_of_another_database_is_probed_by_its_rows_and_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", f"sqlite:///{tmp_path / 'shop.sqlite'}")
    orders = Table("orders", mode="incremental", key="id", cursor="at")
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as file:
        file.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, at INTEGER)")
        assert probe_tables("shop", [orders]) == {"orders": {"rows": "0", "at": "None"}}
        file.execute("INSERT INTO orders VALUES (1, 7)")
        file.commit()
        assert probe_tables("shop", [orders]) == {"orders": {"rows": "1", "at": "7"}}
    with pytest.raises(DatabaseError, match="only its number of rows shows"):
        probe_tables("shop", [ITEMS])


def test_a_missing_table_is_named(shop: Shop) -> None:
    with pytest.raises(DatabaseError, match="has no table order"):
        probe_tables("shop", [ORDERS, Table("order")])


def test_a_table_that_is_loaded_by_partitions_is_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="orders: the mode window"):
        build_changed_tables_sensor([Table("orders", mode="window", cursor="at")], "shop", "data")
