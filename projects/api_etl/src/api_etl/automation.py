"""When the daily tables load by themselves: a job with a schedule for yesterday, and a look at seven."""

import dagster as dg

from api_etl.assets import daily_summary, near_earth_objects
from api_etl.checks import near_earth_objects_checks

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

nasa_neo_checks_job = dg.define_asset_job(
    "nasa_neo_checks_job",
    selection=dg.AssetSelection.checks(near_earth_objects_checks),
    description="Checks the loaded days, whether or not a load has come.",
)

nasa_neo_checks_schedule = dg.ScheduleDefinition(
    "nasa_neo_due_at_seven",
    job=nasa_neo_checks_job,
    description="Looks whether yesterday is there, every day at 07:00 UTC.",
    cron_schedule="0 7 * * *",
    execution_timezone="UTC",
)

due_assets_sensor = dg.AutomationConditionSensorDefinition(
    "automation_sensor",
    target=dg.AssetSelection.all(),
    description="Loads each table when its own condition says so: days daily, the summary after them, "
    "the catalog hourly.",
)
