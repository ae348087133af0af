"""The code location `simple_etl`."""

import dagster as dg

from shared.orchestration.alerts import alert_owners
from shared.orchestration.code_references import with_code_references
from shared.orchestration.executor import executor
from shared.orchestration.resource import WarehouseDltResource
from simple_etl.assets import people_are_unique, simple_assets

defs = dg.Definitions(
    assets=with_code_references([simple_assets]),
    asset_checks=[people_are_unique],
    sensors=[alert_owners],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
