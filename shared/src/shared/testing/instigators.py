"""Schedules and sensors of a location in a Dagster instance, with the ticks that its daemon would store."""

import sys
import time

import dagster as dg
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._utils.error import serializable_error_info_from_exc_info


def switch_on(
    instance: dg.DagsterInstance, name: str, location: str, *, is_schedule: bool = False
) -> InstigatorState:
    """Store that a sensor or a schedule is switched on, and return its state."""
    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__"), name
    )
    state = InstigatorState(
        origin,
        InstigatorType.SCHEDULE if is_schedule else InstigatorType.SENSOR,
        InstigatorStatus.RUNNING,
        ScheduleInstigatorData("0 0 * * *") if is_schedule else SensorInstigatorData(),
    )
    existing = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
    if existing:
        return existing
    instance.add_instigator_state(state)
    return state


def store_tick(
    instance: dg.DagsterInstance,
    name: str,
    location: str,
    error: str = "",
    *,
    seconds_ago: float = 0,
    is_schedule: bool = False,
) -> None:
    """Store a tick of a sensor or a schedule, which failed if there is an error."""
    state = switch_on(instance, name, location, is_schedule=is_schedule)
    info = None
    try:
        _fail(error)
    except RuntimeError:
        info = serializable_error_info_from_exc_info(sys.exc_info())
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name=name,
            instigator_type=state.instigator_type,
            status=TickStatus.FAILURE if error else TickStatus.SKIPPED,
            timestamp=time.time() - seconds_ago,
            selector_id=state.selector_id,
            error=info if error else None,
        )
    )


def _fail(error: str) -> None:
    raise RuntimeError("the sensor failed") from ValueError(error)
