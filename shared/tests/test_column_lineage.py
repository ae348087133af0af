"""Column lineage of loads: from a field of the source to the column of a table."""

from typing import Any

import dagster as dg
import dlt
from dagster_dlt import dlt_assets
from dlt.extract import DltSource

from shared import warehouse
from shared.orchestration.column_lineage import COLUMN_LINEAGE, with_column_lineage
from shared.orchestration.dropped_files import file_columns
from shared.orchestration.related_tables import with_related_tables
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator, asset_key
from shared.sources.csv import CsvFormat
from shared.sources.hints import column, with_source_fields
from shared.sources.neows import neows
from shared.warehouse import declared_tables

FILE, ORDERS = asset_key("shop", "file"), asset_key("shop", "orders")
LINES = asset_key("shop", "orders__lines")
FORMAT = CsvFormat(
    columns={"share_price": column("double", "The price."), "day": column("text", "The day.")},
    header_names={"share_price": "Share Price"},
)
COLUMNS: Any = {
    **with_source_fields(FORMAT.columns, fields=FORMAT.source_fields),
    "orderNo": column("bigint", "Renamed by the warehouse."),
}


def shop() -> DltSource:
    rows = [{"share_price": 1.5, "day": "mon", "orderNo": 1, "lines": [{"taxes": [{"rate": 7}]}]}]
    orders = dlt.resource(
        rows, name="orders", columns=COLUMNS, primary_key="order_no", write_disposition="merge"
    )
    return DltSource(dlt.Schema("shop"), "shop", [orders])


@dlt_assets(
    dlt_source=shop(),
    dlt_pipeline=warehouse.pipeline("shop_pipeline", "shop"),
    dagster_dlt_translator=WarehouseTranslator(
        "team:shop",
        deps={"orders": [FILE]},
        related_tables={"orders": ["orders__lines", "orders__lines__taxes"]},
    ),
    name="shop",
)
def shop_assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Any:
    yield from dlt.run(context)


def sources(value: Any) -> dict[str, list[tuple[str, str]]]:
    return {
        name: [(dep.asset_key.path[-1], dep.column_name) for dep in deps]
        for name, deps in value.deps_by_column.items()
    }


def test_a_column_comes_from_the_field_of_the_upstream_asset_and_a_nested_row_from_its_parent(
    any_warehouse: str, instance: dg.DagsterInstance
) -> None:
    file = dg.AssetSpec(FILE, metadata=file_columns(FORMAT))
    _, assets = with_column_lineage([file, *with_related_tables([shop_assets])])
    resources = {"dlt": WarehouseDltResource()}
    result = dg.materialize([assets], instance=instance, resources=resources)
    shown = {
        event.asset_key: event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert sources(shown[ORDERS][COLUMN_LINEAGE].value) == {
        "share_price": [("file", "Share Price")],
        "day": [("file", "day")],
    }
    assert sources(shown[LINES][COLUMN_LINEAGE].value)["_dlt_parent_id"] == [("orders", "_dlt_id")]
    of_taxes = sources(shown[asset_key("shop", "orders__lines__taxes")][COLUMN_LINEAGE].value)
    assert of_taxes["_dlt_parent_id"] == [("orders__lines", "_dlt_id")]
    assert of_taxes["_dlt_root_id"] == [("orders", "_dlt_id")]
    listed = str(shown[ORDERS]["upstream_columns"].value).splitlines()
    assert sorted(listed) == [
        "- `day`: `shop/file.day`",
        "- `share_price`: `shop/file.Share Price`",
    ]
    columns: Any = shown[ORDERS]["dagster/column_schema"].value
    assert {each.name: each.tags for each in columns.columns if each.tags} == {
        "share_price": {"source_field": "Share Price"},
        "day": {"source_field": "day"},
        "order_no": {"source_field": "orderNo"},
    }
    assert not any("x-source-field" in each.constraints.other for each in columns.columns)


def test_columns_of_json_state_their_path() -> None:
    (resource,) = neows([]).selected_resources.values()
    columns: Any = declared_tables(resource)["near_earth_objects"]["columns"]
    paths = {name: hints.get("x-source-field") for name, hints in columns.items()}
    assert (
        paths["estimated_diameter_feet_min"] == "$.estimated_diameter.feet.estimated_diameter_min"
    )
    assert paths["miss_distance_lunar"] == "$.close_approach_data[].miss_distance.lunar"
    assert paths["close_approach_at"] == "$.close_approach_data[].epoch_date_close_approach"
    assert paths["unmapped_fields"] is None
