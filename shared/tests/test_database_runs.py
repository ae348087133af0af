"""Tables of a database as assets: what a run's tags and log say."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster_dlt import DagsterDltResource, dlt_assets

from shared import warehouse
from shared.orchestration.resource import FULL_REFRESH, WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.database import Table, database_source
from shared.testing.postgres_server import PostgresServer

TABLES = [
    Table("orders", mode="incremental", key="id"),
    Table("visits", mode="incremental", key="id", cursor="at", overlap=timedelta(minutes=5)),
]


@dlt_assets(
    dlt_source=database_source(TABLES, name="shop"),
    dlt_pipeline=warehouse.pipeline("shop_pipeline", dataset_name="shop"),
    dagster_dlt_translator=WarehouseTranslator(owner="team:shop"),
    name="shop",
)
def shop(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
    """Load what is new."""
    yield from dlt.run(context=context)


@pytest.fixture
def connection(
    warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Any
) -> Iterator[Any]:
    """Yield a connection to the database of the source, with two rows in each table."""
    url = warehouse_server.database().replace("+psycopg2", "")
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
    connected = psycopg2.connect(url)
    connected.autocommit = True
    with connected.cursor() as cursor:
        for table in ("orders", "visits"):
            cursor.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, at timestamptz)")
            cursor.execute(f"INSERT INTO {table} VALUES (1, now()), (2, now())")
    yield connected
    connected.close()


def run(instance: dg.DagsterInstance, **tags: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [shop],
        instance=instance,
        resources={"dlt": WarehouseDltResource()},
        tags={key.replace("__", "/"): value for key, value in tags.items()},
        raise_on_error=False,
    )


def ids(table: str) -> list[int]:
    return [row["id"] for row in warehouse.query(f"SELECT id FROM shop.{table} ORDER BY 1")]


def logged(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def test_a_run_tag_loads_one_table_anew_without_touching_others(
    instance: dg.DagsterInstance, connection: Any
) -> None:
    assert run(instance).success
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM orders WHERE id = 1")
        cursor.execute("DELETE FROM visits WHERE id = 1")
    assert run(instance).success
    assert (ids("orders"), ids("visits")) == ([1, 2], [1, 2])
    assert run(instance, **{FULL_REFRESH: "orders"}).success
    assert (ids("orders"), ids("visits")) == ([2], [1, 2])
    assert run(instance, **{FULL_REFRESH: "true"}).success
    assert (ids("orders"), ids("visits")) == ([2], [2])


def test_a_run_says_what_it_read_and_which_index_helps(
    instance: dg.DagsterInstance, connection: Any
) -> None:
    result = run(instance)
    metadata = result.asset_materializations_for_node("shop")[0].metadata
    assert metadata["rows_read"].value == 2
    assert 'CREATE INDEX ON "visits" ("at")' in logged(instance, result)
    assert 'CREATE INDEX ON "orders"' not in logged(instance, result)


def test_a_run_without_credentials_says_which_to_set(
    instance: dg.DagsterInstance, tmp_warehouse: Any
) -> None:
    result = run(instance)
    assert not result.success
    assert "SOURCES__SHOP__CREDENTIALS" in logged(instance, result)


def test_definitions_load_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCES__SHOP__CREDENTIALS", raising=False)
    keys = {
        key.to_user_string()
        for key in dg.Definitions(
            assets=[shop], resources={"dlt": WarehouseDltResource()}
        ).resolve_all_asset_keys()
    }
    assert keys == {"shop/orders", "shop/visits"}
