"""NASA's near-earth objects: by day, by page, by lookup, and a daily summary with a chart."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster_dlt import DagsterDltResource, dlt_assets
from pydantic import field_validator

from api_etl.chart import show_chart
from api_etl.partitions import SAMPLE_PARTITIONS, daily
from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import DAILY_BY_7AM_FRESHNESS, WarehouseTranslator, asset_key
from shared.sources.neows import neows, neows_catalog, neows_sentry_objects, neows_summary

DAYS_PER_LOAD = 160
"""Days that one load of a backfill takes: twenty requests, about 2,500 objects."""
PAGES_PER_LOAD = 50
"""Pages of the catalog, of twenty objects each, that a run loads."""

pipeline = warehouse.pipeline(
    pipeline_name="nasa_neo_pipeline", dataset_name="nasa_neo", progress="log"
)


class NasaDate(dg.Config):
    """The day to load."""

    date: str = "2025-03-10"

    @field_validator("date")
    @classmethod
    def is_a_calendar_day(cls, value: str) -> str:
        """Return the day; raise an error unless it is YYYY-MM-DD."""
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value) or not date.fromisoformat(value):
            raise ValueError(f"{value!r} is not a day: write YYYY-MM-DD, such as 2025-03-10")
        return value


@dlt_assets(
    dlt_source=neows([], table="asteroids"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(owner="team:api"),
    name="asteroids",
)
def asteroids(
    context: dg.AssetExecutionContext, dlt: DagsterDltResource, config: NasaDate
) -> Iterator[object]:
    """Load the day named in the run's config."""
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
        freshness_policy=DAILY_BY_7AM_FRESHNESS,
        sample_partitions=SAMPLE_PARTITIONS,
    ),
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="near_earth_objects",
)
def near_earth_objects(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource
) -> Iterator[object]:
    """Load the run's days, in batches."""
    yield from dlt.run_in_batches(context, neows, partitions_per_batch=DAYS_PER_LOAD)


MISSING_DAYS_SQL = """
    SELECT day FROM (SELECT unnest(?) AS day)
    WHERE day NOT IN (SELECT close_approach_date::VARCHAR FROM nasa_neo.near_earth_objects_days)
    ORDER BY day
"""


class MissingPartitionError(Exception):
    """The objects of some days are not loaded, so that these days would seem to have none."""


def require_loaded(days: Sequence[str]) -> list[str]:
    """Return the days.

    Raises:
        MissingPartitionError: the objects of some days are not loaded.
    """
    missing = [row["day"] for row in warehouse.query(MISSING_DAYS_SQL, [list(days)])]
    if missing:
        raise MissingPartitionError(
            f"nasa_neo.near_earth_objects has no {missing[0]} ({len(missing)} of {len(days)} days are "
            "missing): load these days first."
        )
    return list(days)


SUMMARY_SQL = """
    SELECT
        day.day AS close_approach_date,
        count(neo_reference_id) AS objects,
        count(*) FILTER (WHERE is_potentially_hazardous_asteroid) AS hazardous_objects,
        (array_agg(name ORDER BY miss_distance_lunar)
            FILTER (WHERE miss_distance_lunar IS NOT NULL))[1] AS closest_name,
        min(miss_distance_lunar) AS closest_lunar_distance,
        (array_agg(name ORDER BY relative_velocity_kilometers_per_second DESC)
            FILTER (WHERE relative_velocity_kilometers_per_second IS NOT NULL))[1] AS fastest_name,
        max(relative_velocity_kilometers_per_second) AS fastest_kilometers_per_second
    FROM (SELECT unnest(?)::DATE AS day) AS day
    LEFT JOIN nasa_neo.near_earth_objects ON close_approach_date = day.day
    GROUP BY day.day
    ORDER BY day.day
"""


def summarize(days: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each day, with the columns of the source's `SUMMARY_COLUMNS`."""
    return warehouse.query(SUMMARY_SQL, [require_loaded(days)])


@dlt_assets(
    dlt_source=neows_summary(list),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        owner="team:api",
        deps={"daily_summary": [asset_key("nasa_neo", "near_earth_objects")]},
        automation_condition=dg.AutomationCondition.eager(),
        freshness_policy=DAILY_BY_7AM_FRESHNESS,
        sample_partitions=SAMPLE_PARTITIONS,
    ),
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="daily_summary",
)
def daily_summary(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
    """Summarize the run's days from the warehouse, and draw the last weeks."""
    days = list(context.partition_keys)
    summary = neows_summary(lambda: summarize(days))
    results = list(dlt.run(context=context, dlt_source=summary))
    show_chart(context, last_day=max(days))
    yield from results


SENTRY_IDS_SQL = """
    SELECT close_approach_date::VARCHAR AS day, array_agg(DISTINCT neo_reference_id) AS spk_ids
    FROM nasa_neo.near_earth_objects
    WHERE is_sentry_object AND close_approach_date::VARCHAR IN (SELECT unnest(?))
    GROUP BY 1
"""


def sentry_ids_by_day(days: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the SPK-IDs of the Sentry objects that approach on some days, by day."""
    return {
        row["day"]: sorted(row["spk_ids"])
        for row in warehouse.query(SENTRY_IDS_SQL, [require_loaded(days)])
    }


@dlt_assets(
    dlt_source=neows_sentry_objects([], sentry_ids_by_day),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        owner="team:api",
        deps={"sentry_objects": [asset_key("nasa_neo", "near_earth_objects")]},
        sample_partitions=SAMPLE_PARTITIONS,
    ),
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="sentry_objects",
)
def sentry_objects(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource
) -> Iterator[object]:
    """Look up the Sentry objects of the run's days."""
    yield from dlt.run_in_batches(
        context, lambda days: neows_sentry_objects(days, sentry_ids_by_day), partitions_per_batch=30
    )


@dlt_assets(
    dlt_source=neows_catalog(),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        owner="team:api", automation_condition=dg.AutomationCondition.on_cron("@hourly")
    ),
    name="catalog",
)
def catalog(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
    """Load the next pages of the catalog."""
    yield from dlt.run(context=context, dlt_source=neows_catalog(PAGES_PER_LOAD))
