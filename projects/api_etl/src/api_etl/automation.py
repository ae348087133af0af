"""When the daily tables load automatically: a schedule for yesterday, and a check at 07:00."""

import dagster as dg

from api_etl.assets import daily_summary, near_earth_objects
from api_etl.checks import near_earth_objects_checks

nasa_neo_job = dg.define_asset_job(
    "nasa_neo_job",
    selection=dg.AssetSelection.assets(near_earth_objects, daily_summary),
    description="Loads days of near-earth objects and summarizes them.",
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
    description="Checks the loaded days, whether or not there was a load.",
)

nasa_neo_checks_schedule = dg.ScheduleDefinition(
    "nasa_neo_due_at_seven",
    job=nasa_neo_checks_job,
    description="Checks whether yesterday is loaded, every day at 07:00 UTC.",
    cron_schedule="0 7 * * *",
    execution_timezone="UTC",
)

due_assets_sensor = dg.AutomationConditionSensorDefinition(
    "automation_sensor",
    target=dg.AssetSelection.all(),
    description="Loads each table when its automation condition is true: days daily, the summary after "
    "them, the catalog hourly.",
)
