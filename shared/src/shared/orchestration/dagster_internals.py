# ruff: noqa: PLC0414 - the other modules import these names from here
"""With `dagster_tables`, the only module that uses private names of Dagster and its integrations.

`shared/tests/test_dagster_internals.py` lists these names and fails with a clear message when an upgrade
removes one. Everything else uses the functions below.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph as AssetGraph
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.partitions.partitioned_schedule import (
    UnresolvedPartitionedAssetScheduleDefinition,
)
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.scheduler.instigation import InstigatorState as InstigatorState
from dagster._core.scheduler.instigation import InstigatorTick as InstigatorTick
from dagster._core.scheduler.instigation import TickStatus as TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._record import replace
from dagster_dlt.constants import META_KEY_PIPELINE, META_KEY_SOURCE, META_KEY_TRANSLATOR
from dagster_dlt.dlt_event_iterator import DltEventIterator as DltEventIterator
from dagster_dlt.dlt_event_iterator import DltEventType as DltEventType
from dagster_dlt.translator import DltResourceTranslatorData as DltResourceTranslatorData
from dagster_shared.record import copy as copy_record

# A location's assets, for `etl run`.


def asset_graph(defs: dg.Definitions) -> AssetGraph:
    """Return the graph of a location's assets."""
    return defs.resolve_asset_graph()


def build_global_job(defs: dg.Definitions) -> dg.JobDefinition:
    """Return the job that can materialize any of a location's assets."""
    return defs.resolve_implicit_global_asset_job_def()


def asset_node(graph: AssetGraph, key: dg.AssetKey) -> Any:
    """Return an asset's node: it has `partitions_def`, `backfill_policy` and `metadata`."""
    return graph.get(key)


def materializable_keys(graph: AssetGraph) -> list[dg.AssetKey]:
    """Return the assets that can be materialized, upstream first."""
    return [key for key in graph.toposorted_asset_keys if key in graph.materializable_asset_keys]


def select_assets(graph: AssetGraph, selection: str) -> AbstractSet[dg.AssetKey]:
    """Return the assets that a selection in Dagster's syntax names; none if it is invalid."""
    try:
        return dg.AssetSelection.from_string(selection).resolve(graph)
    except dg.DagsterError:
        return frozenset()


def check_nodes(graph: AssetGraph, key: dg.AssetKey) -> dict[str, Any]:
    """Return the checks of an asset by name: a check has `blocking` and `metadata`."""
    return {check.name: graph.get(check) for check in graph.get(key).check_keys}


def defined_keys(definition: dg.AssetsDefinition) -> set[dg.AssetKey]:
    """Return the assets that a definition materializes or checks."""
    return {*definition.keys, *(check.asset_key for check in definition.check_keys)}


def blocking_parents(graph: AssetGraph, key: dg.AssetKey) -> set[dg.AssetKey]:
    """Return the parents of an asset that have a blocking check."""
    return {
        parent
        for parent in graph.get(key).parent_keys
        if any(graph.get(check).blocking for check in graph.get(parent).check_keys)
    }


def external_parents(graph: AssetGraph, keys: Iterable[dg.AssetKey]) -> list[dg.AssetKey]:
    """Return the assets that some assets read and the location does not materialize."""
    parents = {parent for key in keys for parent in graph.get(key).parent_keys}
    return sorted(parents - graph.materializable_asset_keys)


# Events and runs.


def run_records(
    instance: dg.DagsterInstance,
    run_id: str,
    of_type: dg.DagsterEventType | set[dg.DagsterEventType],
) -> Iterator[dg.EventLogRecord]:
    """Yield a run's events of some types, in the order in which they were logged."""
    cursor, has_more = None, True
    while has_more:
        page = instance.get_records_for_run(run_id, cursor, of_type=of_type)
        yield from page.records
        cursor, has_more = page.cursor, page.has_more


def failure_message(event: dg.DagsterEvent) -> str | None:
    """Return why a step or a run failed: the failure's description, or the innermost error's message.

    None if a failed check of its input kept the step from running.
    """
    failure: Any = event.step_failure_data if event.is_step_failure else event.job_failure_data
    described = getattr(failure, "user_failure_data", None)
    if described and described.description:
        return str(described.description)
    error = failure.error
    if error is None:
        return event.message or ""
    if error.cls_name == "DagsterAssetCheckFailedError":
        return None
    while error.cause:
        error = error.cause
    return str(error.message).strip()


def step_seconds(event: dg.DagsterEvent) -> float:
    """Return how long a successful step took."""
    return event.step_success_data.duration_ms / 1000


def check_evaluation(event: dg.DagsterEvent) -> dg.AssetCheckEvaluation:
    """Return the evaluation that an event of a check reports."""
    return event.asset_check_evaluation_data


def last_check_metadata(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey
) -> Mapping[str, dg.MetadataValue]:
    """Return the metadata of a check's last evaluation, which may have failed; empty before the first.

    The public methods return the evaluation that is planned for the current run.
    """
    evaluated = {
        AssetCheckExecutionRecordStatus.SUCCEEDED,
        AssetCheckExecutionRecordStatus.FAILED,
    }
    records = instance.event_log_storage.get_asset_check_execution_history(
        key, limit=1, status=evaluated
    )
    evaluation = records[0].evaluation if records else None
    return evaluation.metadata if evaluation else {}


def earlier_check_results(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, run_id: str, limit: int
) -> list[tuple[bool | None, Mapping[str, dg.MetadataValue]]]:
    """Return whether a check passed in other runs, with its metadata, the latest first.

    It is None if the run ended without a result; runs that have not ended are left out.
    """
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=limit)
    records = [record for record in history if record.run_id != run_id]
    ids = [each.run_id for each in records if each.status.name == "PLANNED"]
    runs = instance.get_runs(dg.RunsFilter(run_ids=ids)) if ids else []
    active = {run.run_id for run in runs if not run.is_finished}
    is_passed = {"SUCCEEDED": True, "FAILED": False}
    return [
        (is_passed.get(each.status.name), getattr(each.evaluation, "metadata", {}))
        for each in records
        if each.run_id not in active
    ]


def run_worker_health(*, alive: bool) -> CheckRunHealthResult:
    """Return what a run launcher says to run monitoring about a started run."""
    if alive:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The process of the run is gone.")


def run_location(run: dg.DagsterRun) -> str | None:
    """Return the code location of a run; None for a run of a command line."""
    origin = run.remote_job_origin
    return origin.repository_origin.code_location_origin.location_name if origin else None


def is_run_of_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Return whether a sensor and a run belong to the same location; a command line's runs have none."""
    return run_location(run) == sensor_location(context)


# What a repository knows about its assets.


def repository_graph(repository: dg.RepositoryDefinition) -> AssetGraph:
    """Return the graph of a location's assets, of its repository."""
    return repository.asset_graph


def checks_of(graph: AssetGraph) -> set[dg.AssetCheckKey]:
    """Return the checks of a location."""
    return {check for node in graph.asset_nodes for check in node.check_keys}


def assets_of_steps(
    repository: dg.RepositoryDefinition, step_keys: AbstractSet[str]
) -> set[dg.AssetKey]:
    """Return the assets that some steps materialize."""
    return {
        key
        for key, asset in repository.assets_defs_by_key.items()
        if asset.is_executable and asset.node_def.name in step_keys
    }


def asset_owners(repository: dg.RepositoryDefinition, keys: Iterable[dg.AssetKey]) -> set[str]:
    """Return the owners of some assets."""
    graph = repository.asset_graph
    return {owner for key in keys if graph.has(key) for owner in graph.get(key).owners}


def freshness(
    repository: dg.RepositoryDefinition, instance: dg.DagsterInstance
) -> Mapping[dg.AssetKey, bool | None]:
    """Return whether each asset with a freshness policy is fresh; None if Dagster does not know."""
    nodes = repository.asset_graph.asset_nodes
    keys = [node.key for node in nodes if node.freshness_policy_or_from_metadata]
    records = instance.get_freshness_state_records(keys) if keys else {}
    is_fresh = {
        FreshnessState.FAIL: False,
        FreshnessState.PASS: True,
        FreshnessState.WARN: True,
    }
    return {key: is_fresh.get(record.freshness_state) for key, record in sorted(records.items())}


def declared_loads(definition: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the source, the pipeline and the translator of a definition that is a `@dlt_assets`."""
    if isinstance(definition, dg.AssetsDefinition):
        metadata = next(iter(definition.metadata_by_key.values()), {})
        if META_KEY_SOURCE in metadata and META_KEY_PIPELINE in metadata:
            translator = metadata.get(META_KEY_TRANSLATOR)
            yield metadata[META_KEY_SOURCE], metadata[META_KEY_PIPELINE], translator


# Definitions.


def declared_pipeline(asset: dg.AssetsDefinition) -> tuple[dg.AssetKey, Any] | None:
    """Return the first key and the pipeline of assets that `@dlt_assets` made; None for others."""
    for key, metadata in asset.metadata_by_key.items():
        if META_KEY_PIPELINE in metadata:
            return key, metadata[META_KEY_PIPELINE]
    return None


def replace_assets(defs: dg.Definitions, assets: Sequence[Any]) -> dg.Definitions:
    """Return definitions with other assets."""
    return replace(defs, assets=assets)


# A running step.


def declared_load(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Sequence[Any]:
    """Return the source, the pipeline and the translator that `@dlt_assets` was given."""
    metadata = next(iter(context.assets_def.metadata_by_key.values()))
    return [metadata[key] for key in (META_KEY_SOURCE, META_KEY_PIPELINE, META_KEY_TRANSLATOR)]


def declared_dbt(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
) -> tuple[Mapping[str, Any], Any]:
    """Return the manifest and the translator that `@dbt_assets` was given."""
    from dagster_dbt.asset_utils import get_manifest_and_translator_from_dbt_assets

    manifest, translator, *_ = get_manifest_and_translator_from_dbt_assets([context.assets_def])
    return manifest, translator


def is_subset(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> bool:
    """Return whether a step runs only some of its assets."""
    return bool(context.is_subset)


def retry_number(context: dg.AssetExecutionContext) -> int:
    """Return how often the step was retried."""
    return int(context.retry_number)


def materialized_partitions(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[str]:
    """Return the partitions of an asset that any run has materialized.

    The public `get_status_by_partition` does not count those whose latest run failed.
    """
    return instance.get_materialized_partitions(key)


# Schedules and sensors.


def instigators(
    instance: dg.DagsterInstance, location: str | None = None, *, switched_on: bool = True
) -> Sequence[InstigatorState]:
    """Return the schedules and sensors that have ticked or were switched on, of one location or of all.

    Those that are switched off now are left out, unless `switched_on` is False. An instance in memory
    has none.
    """
    if instance.schedule_storage is None:
        return []
    return [
        state
        for state in instance.all_instigator_state()
        if (state.is_running or not switched_on)
        and location in (None, location_of_instigator(state))
    ]


def location_of_instigator(state: InstigatorState) -> str:
    """Return the code location of a schedule or a sensor."""
    return state.repository_selector.location_name


def repository_label(state: InstigatorState) -> str:
    """Return the repository and the location of a schedule or a sensor, as in the URLs of the UI."""
    selector = state.repository_selector
    return f"{selector.repository_name}@{selector.location_name}"


def ticks(
    instance: dg.DagsterInstance,
    state: InstigatorState,
    statuses: Sequence[TickStatus],
    *,
    after: float | None = None,
    limit: int = 1,
) -> Sequence[InstigatorTick]:
    """Return the latest ticks of a schedule or a sensor, the last one first."""
    return instance.get_ticks(
        state.instigator_origin_id,
        state.selector_id,
        after=after,
        limit=limit,
        statuses=list(statuses),
    )


def purge_ticks(instance: dg.DagsterInstance, state: InstigatorState, before: float) -> None:
    """Delete the ticks of a schedule or a sensor before a timestamp."""
    instance.purge_ticks(state.instigator_origin_id, state.selector_id, before)


def daemon_heartbeats(instance: dg.DagsterInstance) -> dict[str, float]:
    """Return when each part of Dagster's daemon last reported that it runs, by its name."""
    return {name: beat.timestamp for name, beat in instance.get_daemon_heartbeats().items()}


def sensor_location(context: dg.SensorEvaluationContext) -> str | None:
    """Return the code location of a sensor; None in a test without one."""
    origin = context.code_location_origin
    return origin.location_name if origin else None


# Workers.


def is_process_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether the process of a started run has ended; False if the launcher does not know."""
    launcher = instance.run_launcher
    if not launcher.supports_check_run_worker_health:
        return False
    return launcher.check_run_worker_health(run).status is WorkerStatus.NOT_FOUND


def build_celery_app(configuration: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the Celery app of dagster-celery and its task, with our configuration."""
    from dagster_celery.make_app import make_app
    from dagster_celery.tasks import create_task

    app = make_app()  # type: ignore[no-untyped-call]
    app.conf.update(configuration)
    return app, create_task(app)  # type: ignore[no-untyped-call]


# Schedules and sensors.


def running_by_default(definition: Any) -> Any:
    """Return a schedule or a sensor that is on until somebody switches it off."""
    if isinstance(definition, UnresolvedPartitionedAssetScheduleDefinition):
        return copy_record(definition, default_status=dg.DefaultScheduleStatus.RUNNING)
    is_sensor = isinstance(definition, dg.SensorDefinition)
    changed = copy(definition)
    changed._default_status = (  # noqa: SLF001 - no public method changes it
        dg.DefaultSensorStatus.RUNNING if is_sensor else dg.DefaultScheduleStatus.RUNNING
    )
    return changed
