"""The key of an asset is its table in the warehouse, however the resource spells its name."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.component import WarehouseLoadComponent
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import (
    WarehouseTranslator,
    asset_key,
    reject_lost_dependencies,
)
from shared.warehouse.errors import LoadPlanError

SLOW_ON_SERVERS = True

LONG = "a_name_that_is_longer_than_the_63_characters_which_postgres_accepts"
SHOP = warehouse.pipeline("shop_pipeline", "shop")


def rows_of(name: str, *ids: int, **hints: Any) -> DltResource:
    rows = [{"id": number, "lines": [{"n": 1}]} for number in ids]
    resource: DltResource = dlt.resource(rows, name=name, write_disposition="replace", **hints)
    return resource


def shop(*resources: DltResource) -> DltSource:
    return DltSource(dlt.Schema("shop"), "shop", list(resources))


def assets_of(
    source: DltSource,
    spec: warehouse.PipelineSpec = SHOP,
    deps: Mapping[str, Sequence[dg.AssetKey]] | None = None,
) -> dg.AssetsDefinition:
    translator = WarehouseTranslator("team:shop", deps=deps or {})

    @dlt_assets(
        dlt_source=source, dlt_pipeline=spec, dagster_dlt_translator=translator, name="shop"
    )
    def shop_assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Any:
        yield from dlt.run(context)

    return shop_assets


def materialize(
    instance: dg.DagsterInstance, *definitions: Any, selection: Any = None
) -> dg.ExecuteInProcessResult:
    resources = {"dlt": WarehouseDltResource()}
    return dg.materialize(definitions, instance=instance, resources=resources, selection=selection)


def shown(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Return the metadata of each materialization, by asset key."""
    return {
        event.materialization.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


TABLES = {  # by the name of the resource
    "OrderItems": "order_items",
    "customer-items": "customer_items",
    "returns v2": "returns_v2",
    "refunds.v2": "refunds_v2",
    "orders__v2": "orders__v2",
    "2024": "_2024",
    "orders_v3": "orders",  # it has the table name `Orders`
}


def test_the_asset_key_the_metadata_and_the_checks_name_the_table_that_is_loaded(
    any_warehouse: str, instance: dg.DagsterInstance
) -> None:
    spec = warehouse.pipeline("shop_pipeline", "Shop-Data")
    named = {name: name for name in (*TABLES, LONG)} | {"orders_v3": "Orders"}
    resources = [rows_of(name, 1, 2, table_name=table) for name, table in named.items()]
    checks = [
        build_unique_rows_check(asset_key("Shop-Data", name), ["id"]) for name in named.values()
    ]
    result = materialize(instance, assets_of(shop(*resources), spec), *checks)
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True] * len(named)
    metadata = shown(result)
    stored = {table.name for table in warehouse.list_tables() if not table.parent}
    assert set(metadata) == {f"shop_data/{table}" for table in stored}
    (long,) = stored - set(TABLES.values())
    assert (long == LONG) == (any_warehouse == "duckdb")  # dlt shortens it for Postgres
    for key, of_table in metadata.items():
        assert of_table["rows_loaded"] == of_table["dagster/row_count"] == 2
        assert of_table["dagster/table_name"].endswith(f".{key.replace('/', '.')}")
        assert of_table["dagster/column_schema"].columns[0].name == "id"


def test_resources_of_one_table_are_one_asset_and_load_together(
    any_warehouse: str, instance: dg.DagsterInstance
) -> None:
    eu, us = rows_of("eu", 1, table_name="orders"), rows_of("us", 2, 3, table_name="orders")
    us.apply_hints(additional_table_hints={"description": "Of the US."})
    assets = assets_of(shop(eu, us, rows_of("customers", 1)))
    assert {key.to_user_string() for key in assets.keys} == {"shop/orders", "shop/customers"}
    for _ in range(2):
        metadata = shown(materialize(instance, assets, selection=[asset_key("shop", "orders")]))
        assert list(metadata) == ["shop/orders"]
        assert metadata["shop/orders"]["rows_loaded"] == 3
        assert metadata["shop/orders"]["dagster/row_count"] == 3


@pytest.mark.parametrize("names", [("Orders", "orders"), ("user-orders", "userOrders"), ("a", "A")])
def test_names_that_become_one_table_are_refused_and_both_are_named(
    names: tuple[str, str], tmp_warehouse: Any
) -> None:
    source = shop(*(rows_of(name, 1) for name in names))
    with pytest.raises(LoadPlanError, match="table_name") as error:
        warehouse.plan_load(SHOP, source)
    assert all(repr(name) in str(error.value) for name in names)


def test_dependencies_are_stated_by_table_or_by_resource(tmp_warehouse: Any) -> None:
    upstream = dg.AssetKey("upstream")
    for name in ("orders_v2", "orders"):
        source = shop(rows_of("orders_v2", table_name="orders"))
        (spec,) = assets_of(source, deps={name: [upstream]}).specs
        assert [dep.asset_key for dep in spec.deps] == [upstream]


def test_a_dependency_that_no_asset_has_is_refused(tmp_warehouse: Any) -> None:
    upstream = [dg.AssetKey("upstream")]
    two = shop(rows_of("eu", table_name="orders"), rows_of("us", table_name="orders"))
    lost = assets_of(two, deps={"us": upstream})
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"deps=\{'orders': \[\.\.\.\]\}"):
        reject_lost_dependencies([lost])
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"'order', and there is no such"):
        reject_lost_dependencies([assets_of(two, deps={"order": upstream})])
    reject_lost_dependencies([assets_of(two, deps={"orders": upstream})])


def test_a_table_that_dagster_accepts_under_no_name_is_refused_with_what_to_write(
    tmp_warehouse: Any,
) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"größe.* table_name"):
        assets_of(shop(rows_of("größe", 1)))


@dlt.source(name="shop")
def shop_source() -> DltResource:
    return rows_of("orders_v2", 1, 2, table_name="OrderItems")


def test_a_component_states_checks_and_dependencies_by_table(
    any_warehouse: str,
    instance: dg.DagsterInstance,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "test_table_names", request.module)
    attributes = {
        "source": "test_table_names.shop_source",
        "dataset": "shop",
        "owner": "team:shop",
        "deps": {"order_items": ["upstream"]},
        "checks": {"unique": {"OrderItems": ["id"]}},
    }
    component = WarehouseLoadComponent.from_attributes_dict(attributes=attributes)
    defs = dg.build_defs_for_component(component)
    result = materialize(instance, *(defs.assets or ()), *(defs.asset_checks or ()))
    assert list(shown(result)) == ["shop/order_items"]
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
