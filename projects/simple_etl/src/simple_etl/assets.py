"""An in-code list, loaded by dlt."""

from collections.abc import Iterator

import dagster as dg
from dagster_dlt import DagsterDltResource, dlt_assets

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.translator import WarehouseTranslator, asset_key
from shared.sources.simple import simple_source


@dlt_assets(
    dlt_source=simple_source(),
    dlt_pipeline=warehouse.pipeline(
        pipeline_name="simple_pipeline", dataset_name="simple", progress="log"
    ),
    dagster_dlt_translator=WarehouseTranslator(owner="team:simple"),
    name="simple_assets",
)
def simple_assets(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
    """Load the list."""
    yield from dlt.run(context=context)


people_are_unique = build_unique_rows_check(asset_key("simple", "load_dict"), ["id"])
