"""The code location `api_etl`."""

import dagster as dg

from api_etl import assets, automation, checks
from shared.orchestration.alerts import alert_owners
from shared.orchestration.code_references import with_code_references
from shared.orchestration.executor import executor
from shared.orchestration.resource import WarehouseDltResource

defs = dg.Definitions(
    assets=with_code_references(dg.load_assets_from_modules([assets])),
    asset_checks=dg.load_asset_checks_from_modules([checks]),
    jobs=[automation.nasa_neo_job, automation.nasa_neo_checks_job],
    schedules=[automation.nasa_neo_schedule, automation.nasa_neo_checks_schedule],
    sensors=[automation.due_assets_sensor, alert_owners],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
