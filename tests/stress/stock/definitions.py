"""What most projects write with dagster-dlt, for comparison: the same days of the same API.

It follows the tutorials: a pipeline that is created at import, `DagsterDltResource` unchanged, the
key in the URL, and dlt's defaults for the rest.
"""

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg
import dlt
import requests
from dagster_dlt import DagsterDltResource, dlt_assets
from dlt.extract import DltResource


@dlt.source
def neows(day: str) -> DltResource:
    """Yield a day of near-earth objects."""

    @dlt.resource
    def near_earth_objects() -> Iterator[Any]:
        parameters = {"start_date": day, "end_date": day, "api_key": os.environ["NASA_API_KEY"]}
        response = requests.get(
            f"{os.environ['NASA_BASE_URL']}/feed", params=parameters, timeout=30
        )
        response.raise_for_status()
        for item in response.json()["near_earth_objects"][day]:
            yield {"day": day, "neo_reference_id": item["neo_reference_id"], "name": item["name"]}

    return near_earth_objects


@dlt_assets(
    dlt_source=neows(""),
    dlt_pipeline=dlt.pipeline(
        pipeline_name="nasa_neo",
        dataset_name="nasa_neo",
        destination=dlt.destinations.duckdb(os.environ["WAREHOUSE_PATH"]),
    ),
    partitions_def=dg.DailyPartitionsDefinition(start_date="2025-04-01"),
    name="nasa_neo",
)
def nasa_neo(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
    """Load the day of the run."""
    yield from dlt.run(context=context, dlt_source=neows(context.partition_key))


defs = dg.Definitions(
    assets=[nasa_neo], resources={"dlt": DagsterDltResource()}, executor=dg.in_process_executor
)
