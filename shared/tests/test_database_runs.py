"""Tables of a database as assets: what a run's tags and log say."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster_dlt import DagsterDltResource, dlt_assets

from shared import warehouse
from shared.orchestration.resource import FULL_REFRESH, WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.database import Table, database_source
from shared.testing.source_database import SourceDatabase

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
def database(
    source_database: SourceDatabase, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> SourceDatabase:
    """Return the database of the source, with two rows in each table."""
    assert tmp_warehouse
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", source_database.url)
    for table in ("orders", "visits"):
        source_database.run(f"CREATE TABLE {table} (id int PRIMARY KEY, at timestamptz)")
        source_database.run(f"INSERT INTO {table} VALUES (1, now()), (2, now())")
    return source_database


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
    instance: dg.DagsterInstance, database: SourceDatabase
) -> None:
    assert run(instance).success
    database.run("DELETE FROM orders WHERE id = 1; DELETE FROM visits WHERE id = 1")
    assert run(instance).success
    assert (ids("orders"), ids("visits")) == ([1, 2], [1, 2])
    assert run(instance, **{FULL_REFRESH: "orders"}).success
    assert (ids("orders"), ids("visits")) == ([2], [1, 2])
    assert run(instance, **{FULL_REFRESH: "true"}).success
    assert (ids("orders"), ids("visits")) == ([2], [2])


def test_a_run_says_what_it_read_and_which_index_helps(
    instance: dg.DagsterInstance, database: SourceDatabase
) -> None:
    assert "mode incremental" in str(shop.descriptions_by_key[dg.AssetKey(["shop", "orders"])])
    result = run(instance)
    metadata = result.asset_materializations_for_node("shop")[0].metadata
    assert metadata["rows_read"].value == 2
    assert 'CREATE INDEX ON "visits" ("at")' in logged(instance, result)
    assert 'CREATE INDEX ON "orders"' not in logged(instance, result)


def test_a_run_without_credentials_says_which_to_set(
    instance: dg.DagsterInstance, tmp_warehouse: Path
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
