"""The code location `simple_etl`."""

import dagster as dg

from shared.alerts import alert_owners
from shared.executor import executor
from shared.resources import WarehouseDltResource
from simple_etl.assets import simple_assets

defs = dg.Definitions(
    assets=[simple_assets],
    sensors=[alert_owners],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
