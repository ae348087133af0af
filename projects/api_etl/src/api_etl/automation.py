"""When the daily tables load by themselves: a job, and a schedule for yesterday."""

import dagster as dg

from api_etl.assets import daily_summary, near_earth_objects

nasa_neo_job = dg.define_asset_job(
    "nasa_neo_job",
    selection=dg.AssetSelection.assets(near_earth_objects, daily_summary),
    description="Loads days of near-earth objects and sums them up.",
)

nasa_neo_schedule = dg.build_schedule_from_partitioned_job(
    nasa_neo_job,
    name="nasa_neo_at_six",
    description="Loads yesterday, every day at 06:00 UTC.",
    hour_of_day=6,
)
