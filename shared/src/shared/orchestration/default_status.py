"""Which schedules and sensors are on by default in an environment (`schedules_on`).

A person can switch each of them on or off in the UI, and Dagster keeps that choice.
"""

from fnmatch import fnmatchcase

import dagster as dg

from shared import environments
from shared.orchestration.dagster_internals import running_by_default

AUTOMATION_SENSOR = "default_automation_condition_sensor"
"""Dagster's own sensor for assets with an automation condition. Dagster adds it, stopped, if there is none."""


def with_default_status(defs: dg.Definitions) -> dg.Definitions:
    """Return definitions whose schedules and sensors are on by default if the environment names them.

    Raises:
        DagsterInvalidDefinitionError: `ETL_ENVIRONMENT` or `environments.toml` is not valid.
    """
    try:
        patterns = environments.current().schedules_on
    except (environments.EnvironmentNameError, environments.EnvironmentFileError) as error:
        raise dg.DagsterInvalidDefinitionError(str(error)) from None
    if not patterns:
        return defs
    sensors = [*(defs.sensors or ())]
    if _has_conditions(defs) and not any(
        isinstance(sensor, dg.AutomationConditionSensorDefinition) for sensor in sensors
    ):
        sensors.append(dg.AutomationConditionSensorDefinition(AUTOMATION_SENSOR, target="*"))

    def on(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return dg.Definitions(
        assets=defs.assets,
        schedules=[
            running_by_default(each) if on(each.name) else each for each in defs.schedules or ()
        ],
        sensors=[running_by_default(each) if on(each.name) else each for each in sensors],
        jobs=defs.jobs,
        resources=defs.resources,
        executor=defs.executor,
        loggers=defs.loggers,
        asset_checks=defs.asset_checks,
        metadata=defs.metadata,
        component_tree=defs.component_tree,
    )


def _has_conditions(defs: dg.Definitions) -> bool:
    return any(
        spec.automation_condition
        for asset in defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs
    )
