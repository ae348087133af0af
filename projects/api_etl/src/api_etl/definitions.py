"""The code location `api_etl`."""

import dagster as dg

from api_etl import assets, automation, checks
from shared.alerts import alert_owners
from shared.executor import executor
from shared.resources import WarehouseDltResource

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([assets]),
    asset_checks=[checks.near_earth_objects_checks],
    jobs=[automation.nasa_neo_job, automation.nasa_neo_checks_job],
    schedules=[automation.nasa_neo_schedule, automation.nasa_neo_checks_schedule],
    sensors=[alert_owners],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
