"""No load writes into a table of another pipeline, or drops one: that is refused by name."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.orchestration.dataset_owners import TableOwner, find_conflicts
from shared.orchestration.definitions import build_definitions
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.warehouse.errors import LoadPlanError

SLOW_ON_SERVERS = True

ORDERS = TableOwner(
    location="shop_etl",
    asset="shop",
    pipeline="shop_pipeline",
    dataset="raw",
    source="rest_api",
    resource="orders",
    table="orders",
)
OTHER = {"location": "crm_etl", "asset": "crm", "pipeline": "crm_pipeline"}
OTHER_TABLE = {"resource": "leads", "table": "leads"}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({**OTHER, "source": "crm"}, r"raw\.orders is loaded by shop_etl\.shop .* and by crm_etl"),
        ({**OTHER, **OTHER_TABLE}, r"source rest_api of the dataset raw .* drops the tables"),
        (
            {"location": "crm_etl", "source": "crm", **OTHER_TABLE},
            r"pipeline shop_pipeline of the dataset raw .* one state",
        ),
        ({"asset": "again"}, r"raw\.orders is loaded by shop_etl\.shop .* shop_etl\.again"),
        ({"asset": "again", "table": "old_orders"}, r"resource orders .* one cursor for both"),
        ({**OTHER, **OTHER_TABLE, "dataset": "raw_staging"}, r"raw_staging .* empties its tables"),
    ],
)
def test_what_two_pipelines_would_share_in_a_dataset_is_named(
    other: Mapping[str, str], reason: str
) -> None:
    second = replace(ORDERS, **other)
    for pair in ([ORDERS, second], [second, ORDERS]):
        (conflict,) = find_conflicts(pair)
        assert all(str(owner) in conflict or "_staging" in conflict for owner in pair)
        assert "Give " in conflict
    assert re.search(reason, find_conflicts([ORDERS, second])[0])


@pytest.mark.parametrize(
    "other",
    [
        {**OTHER, "dataset": "crm"},
        {**OTHER, **OTHER_TABLE, "source": "crm"},
        {"asset": "again", **OTHER_TABLE},
        {"resource": "orders_us"},  # two resources of one asset load one table
        {"table": "orders_rejected"},  # the companion table of a resource
        {"location": "crm_etl", "dataset": "crm"},
    ],
)
def test_pipelines_that_share_nothing_may_have_one_dataset(other: Mapping[str, str]) -> None:
    assert find_conflicts([ORDERS, replace(ORDERS, **other)]) == []


def resource(name: str, **hints: Any) -> DltResource:
    made: DltResource = dlt.resource([{"id": 1}], name=name, write_disposition="replace", **hints)
    return made


def source(name: str, *resources: DltResource) -> DltSource:
    return DltSource(dlt.Schema(name), name, list(resources))


def assets(name: str, of: DltSource, pipeline: str) -> dg.AssetsDefinition:
    @dlt_assets(
        dlt_source=of,
        dlt_pipeline=warehouse.pipeline(pipeline, "raw"),
        dagster_dlt_translator=WarehouseTranslator("team:raw"),
        name=name,
    )
    def definition(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Any:
        yield from dlt.run(context)

    return definition


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a component that loads `raw.items` in the pipeline `raw_pipeline`."""
    folder = tmp_path / "raw_etl"
    (folder / "defs" / "items").mkdir(parents=True)
    for path in (folder, folder / "defs"):
        (path / "__init__.py").touch()
    (folder / "items.py").write_text(
        "import dlt\n\n\n@dlt.source(name='items_api')\ndef items_source():\n"
        "    return dlt.resource([{'id': 1}], name='items', write_disposition='replace')\n"
    )
    (folder / "defs" / "items" / "defs.yaml").write_text(
        "type: shared.orchestration.component.WarehouseLoadComponent\n"
        "attributes: {source: raw_etl.items.items_source, dataset: raw, owner: 'team:raw'}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("raw_etl", "raw_etl.items", "raw_etl.defs"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return "raw_etl"


@pytest.mark.parametrize(
    ("table", "of_source", "reason"),
    [
        ("leads", "items_api", "source items_api of the dataset raw"),
        ("Items", "leads_api", r"raw\.items is loaded by"),
        ("leads", "leads_api", None),
    ],
)
def test_a_location_whose_pipelines_would_overwrite_each_other_does_not_load(
    package: str, table: str, of_source: str, reason: str | None, tmp_warehouse: Path
) -> None:
    module: Any = ModuleType("raw_etl.assets")
    module.leads = assets("leads", source(of_source, resource(table)), "leads_pipeline")
    if reason is None:
        assert build_definitions(package, module)
        return
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=reason) as error:
        build_definitions(package, module)
    assert "leads_pipeline" in str(error.value)
    assert "raw_pipeline" in str(error.value)


def load(of: DltSource, **arguments: Any) -> None:
    options = warehouse.LoadOptions(extract_arguments=arguments)
    warehouse.load(
        warehouse.plan_load(warehouse.pipeline("raw_pipeline", "raw"), of, options=options)
    )


def tables() -> dict[str, int]:
    return {table.name: table.rows for table in warehouse.list_tables()}


def test_a_refresh_drops_only_what_the_load_fills_again(any_warehouse: str) -> None:
    both = source("rest_api", resource("orders"), resource("leads"))
    load(both)
    for refused in (source("rest_api", resource("leads")), both.with_resources("leads")):
        with pytest.raises(LoadPlanError, match=r"raw\.orders.* refresh='drop_resources'"):
            load(refused, refresh="drop_sources")
    assert tables() == {"orders": 1, "leads": 1}
    load(both.with_resources("leads"), refresh="drop_resources")
    load(both, refresh="drop_sources")
    assert tables() == {"orders": 1, "leads": 1}


@pytest.mark.parametrize("refresh", ["drop_resources", "drop_data"])
def test_a_refresh_of_a_child_does_not_empty_its_parent(refresh: str, any_warehouse: str) -> None:
    parent = resource("orders")

    @dlt.transformer(data_from=parent, write_disposition="replace")
    def lines(order: Any) -> Any:
        yield {"order": order["id"]}

    load(source("rest_api", parent, lines))
    with pytest.raises(LoadPlanError, match=r"raw\.orders"):
        load(source("rest_api", parent, lines).with_resources("lines"), refresh=refresh)
    assert tables() == {"orders": 1, "lines": 1}
