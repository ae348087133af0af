"""One load, step by step: lock, extract, normalize, validate, lock, sync the schema, guard, load, count.

It does not need Dagster: `load(plan_load(spec, source, partitions))`.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from dlt.common.schema.exceptions import DataValidationError
from dlt.pipeline.exceptions import PipelineStepFailed

from shared.sources.dlt_settings import forget_secrets
from shared.sources.protocol import RetryLaterError
from shared.warehouse.errors import (
    RowValueError,
    SchemaContractError,
    StateChangedError,
    find_cause,
)
from shared.warehouse.load_run import LoadRun
from shared.warehouse.locks.base import Log, no_log
from shared.warehouse.plan import LoadPlan
from shared.warehouse.replacement.full_refresh import refreshable
from shared.warehouse.result import LoadResult

T = TypeVar("T")

MAX_EXTRACTIONS = 10
"""How often a load extracts if other runs change the state of its pipeline meanwhile."""


def load(plan: LoadPlan, log: Log = no_log) -> LoadResult:
    """Run a load from its first request to its last row, while it locks what it replaces.

    If the warehouse cannot read a file itself, the load runs again without pushdown. While a resource
    says that it has more rows, another load of it follows.

    Raises:
        LoadPlanError: a resource that is loaded by partition has a cursor without an end value; or a
            refresh would drop tables of other resources.
        OutOfPartitionError: a row belongs to none of the partitions that this load replaces.
        RowCountDropError: a replaced table would keep too few rows.
        RowValueError: a row has a value, or two names, that its table cannot store unchanged.
        SchemaContractError: upstream sent a type, or a column, that the contract freezes.
        StateChangedError: other runs changed the state of the pipeline at each of ten attempts.
        ConcurrentSchemaChangeError: another run has just given a new column another type.
        LockTimeoutError: another process held a lock for too long.
        WarehouseConfigError: a variable that says where the warehouse is has a wrong value.
        WarehouseConnectionError: the warehouse does not respond, or the run lost its locks.
        RetryLaterError: upstream accepts no more requests for now.
        PipelineStepFailed: what else failed, with its cause.
    """
    try:
        return _load_all(plan, log)
    finally:
        forget_secrets()  # the next run of this process reads a key that has rotated


def _load_all(plan: LoadPlan, log: Log) -> LoadResult:
    """Load, while the source has more rows. It raises what `load` lists."""
    if names := refreshable(plan.source, plan.options.full_refresh, plan.scopes):
        _settled(partial(_mark_full_refresh, plan, names, log), log)
    result = _settled(partial(_load_once, plan, log), log)
    while result.unfinished:
        log(f"{sum(result.rows_loaded.values())} rows are loaded, and the source has more.")
        rest = replace(plan, source=plan.source.with_resources(*sorted(result.unfinished)))
        result = result.followed_by(_settled(partial(_load_once, rest, log), log))
    return result


def _settled(attempt: Callable[[], T], log: Log) -> T:
    """Return the result of a load, which extracts again while other runs change the state."""
    for _ in range(MAX_EXTRACTIONS - 1):
        with suppress(StateChangedError):
            return attempt()
        log("Another run changed the state of the pipeline meanwhile; extracting again.")
    return attempt()


def _mark_full_refresh(plan: LoadPlan, names: Collection[str], log: Log) -> None:
    """Store in the state of some resources that their tables are to be replaced."""
    run = LoadRun(plan, log)
    try:
        with run.partition_lock():
            run.mark_full_refresh(names)
    finally:
        run.cleanup(failed=False)


def _load_once(plan: LoadPlan, log: Log) -> LoadResult:
    """Load as `load` does, and raise `StateChangedError` if it is to extract again."""
    run = LoadRun(plan, log)
    failed = True
    try:
        with run.partition_lock():
            run.extract()
            result = run.load()
        failed = False
    except StateChangedError:
        failed = False
        raise
    except PipelineStepFailed as error:
        if error.step == "load" and run.uses_pushdown:
            failed = False
        elif later := find_cause(error, RetryLaterError):
            failed = False
            raise later from None
        elif invalid := find_cause(error, RowValueError):
            table = plan.source.schema.naming.normalize_tables_path(invalid.table)
            raise invalid.at(plan.spec.dataset_name, run.partitions_of(table)) from None
        elif violation := find_cause(error, DataValidationError):
            raise SchemaContractError(run.explain(violation)) from None
        else:
            raise
    else:
        return result
    finally:
        run.cleanup(failed=failed)
    log("Fast path not possible; falling back to row-by-row validation.")
    return _load_once(replace(plan, options=replace(plan.options, pushdown_enabled=False)), log)
