"""The code location `api_etl`."""

import dagster as dg

from api_etl.assets import asteroids, daily_summary, near_earth_objects
from api_etl.automation import nasa_neo_job, nasa_neo_schedule
from shared.resources import WarehouseDltResource

defs = dg.Definitions(
    assets=[asteroids, near_earth_objects, daily_summary],
    jobs=[nasa_neo_job],
    schedules=[nasa_neo_schedule],
    resources={"dlt": WarehouseDltResource()},
    executor=dg.in_process_executor,
)
