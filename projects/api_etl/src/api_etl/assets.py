"""NASA's near-earth objects: one day by run config, every day by partition, and a daily summary."""

import re
from collections.abc import Iterator
from datetime import date

import dagster as dg
from dagster_dlt import DagsterDltResource, dlt_assets
from pydantic import field_validator

from api_etl.partitions import BUNDLED, daily
from shared import warehouse
from shared.resources import WarehouseDltResource
from shared.sources.neows import neows, neows_summary
from shared.translator import WarehouseTranslator, asset_key

pipeline = warehouse.pipeline(
    pipeline_name="nasa_neo_pipeline", dataset_name="nasa_neo", progress="log"
)


class NasaDate(dg.Config):
    """The day to load."""

    date: str = "2025-03-10"

    @field_validator("date")
    @classmethod
    def is_a_calendar_day(cls, value: str) -> str:
        """Refuses anything but YYYY-MM-DD."""
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value) or not date.fromisoformat(value):
            raise ValueError(f"{value!r} is no day; write YYYY-MM-DD, such as 2025-03-10")
        return value


@dlt_assets(
    dlt_source=neows([], table="asteroids"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(owner="team:api"),
    name="asteroids",
)
def asteroids(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource, config: NasaDate
) -> Iterator[object]:
    """Loads the day named in the run's config."""
    yield from dlt.run(
        context=context,
        dlt_source=neows([config.date], table="asteroids"),
        partitions=[config.date],
    )


@dlt_assets(
    dlt_source=neows([]),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        owner="team:api",
        automation_condition=dg.AutomationCondition.on_cron("@daily"),
        bundled_partitions=BUNDLED,
    ),
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="near_earth_objects",
)
def near_earth_objects(
    context: dg.AssetExecutionContext, dlt: DagsterDltResource
) -> Iterator[object]:
    """Loads the run's days, however many."""
    yield from dlt.run(context=context, dlt_source=neows(context.partition_keys))


SUMMARY = """
    SELECT
        day.day AS close_approach_date,
        count(neo_reference_id) AS objects,
        count(*) FILTER (WHERE is_potentially_hazardous_asteroid) AS hazardous_objects,
        arg_min(name, miss_distance_lunar) AS closest_name,
        min(miss_distance_lunar) AS closest_lunar_distance,
        arg_max(name, relative_velocity_kilometers_per_second) AS fastest_name,
        max(relative_velocity_kilometers_per_second) AS fastest_kilometers_per_second
    FROM (SELECT unnest(?)::DATE AS day) AS day
    LEFT JOIN nasa_neo.near_earth_objects ON close_approach_date = day.day
    GROUP BY day.day
    ORDER BY day.day
"""


@dlt_assets(
    dlt_source=neows_summary(list),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        owner="team:api",
        deps={"daily_summary": [asset_key("nasa_neo", "near_earth_objects")]},
        automation_condition=dg.AutomationCondition.eager(),
        bundled_partitions=BUNDLED,
    ),
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="daily_summary",
)
def daily_summary(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
    """Sums up the run's days from the warehouse."""
    days = list(context.partition_keys)
    yield from dlt.run(
        context=context, dlt_source=neows_summary(lambda: warehouse.query(SUMMARY, [days]))
    )
