"""The code location `csv_etl`."""

import dagster as dg

from csv_etl import assets, automation
from shared.orchestration.alerts import alert_owners
from shared.orchestration.code_references import with_code_references
from shared.orchestration.executor import executor
from shared.orchestration.resource import WarehouseDltResource

defs = dg.Definitions(
    assets=with_code_references(dg.load_assets_from_modules([assets])),
    asset_checks=dg.load_asset_checks_from_modules([assets]),
    jobs=[automation.daily_file_job, automation.dropped_file_job],
    schedules=[automation.daily_file_schedule],
    sensors=[automation.dropped_files_sensor, alert_owners],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
