"""The Dagster resource that loads with `warehouse.load`, so that a rerun or a parallel run stays exact."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_dlt import DagsterDltResource, DagsterDltTranslator
from dlt.extract import DltResource, DltSource
from dlt.pipeline.pipeline import Pipeline

from shared import warehouse
from shared.orchestration.batches import (
    BatchProgress,
    loaded_in_this_run,
    pending_partitions,
    results_without_load,
    retry_request,
)
from shared.orchestration.dagster_internals import (
    DltEventIterator,
    DltEventType,
    DltResourceTranslatorData,
    declared_load,
    is_subset,
)
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.metadata import load_metadata, shrunken_warnings
from shared.orchestration.partitions import (
    attach_partition_metadata,
    log_materializations,
    partition_row_counts,
)
from shared.sources.protocol import RetryLaterError

ALLOW_ROW_COUNT_DROP = "etl/allow_row_count_drop"
"""The run tag that allows a load to leave a table with far fewer rows than it has."""

FORCE_RELOAD = "etl/force_reload"
"""The run tag that loads a large file although it is unchanged and its rows are in the table."""

Context = dg.OpExecutionContext | dg.AssetExecutionContext


@dataclass(frozen=True)
class _AssetLoad:
    """A plan, and the dlt resource of each selected asset."""

    plan: warehouse.LoadPlan
    resources: Mapping[dg.AssetKey, DltResource]

    def run(self, context: Context) -> "tuple[warehouse.LoadResult, list[DltEventType]]":
        """Load, and return the result with a materialization for each asset."""
        result = warehouse.load(self.plan, log=context.log.info)
        for warning in shrunken_warnings(result):
            context.log.warning(warning)
        event = dg.MaterializeResult if context.has_assets_def else dg.AssetMaterialization
        return result, [
            event(asset_key=key, metadata=load_metadata(context, key, resource, self.plan, result))
            for key, resource in self.resources.items()
        ]


class WarehouseDltResource(DagsterDltResource):
    """`DagsterDltResource` whose loads are exact: `warehouse.load` in place of dlt's `run`."""

    def run(
        self,
        context: Context,
        dlt_source: DltSource | None = None,
        dlt_pipeline: Pipeline | None = None,
        dagster_dlt_translator: DagsterDltTranslator | None = None,
        *,
        partitions: Sequence[str] | None = None,
        min_row_ratio: float = 0.5,
        **kwargs: Any,
    ) -> DltEventIterator[DltEventType]:
        """Run the asset's dlt pipeline and yield a materialization for each resource.

        A resource that marks a column with dlt's `partition` hint is loaded by replacement: in one
        transaction its rows of the named partitions are deleted and those just extracted are inserted;
        no other row changes. Without that hint the resource's write disposition decides.

        Args:
            context: the asset's execution context.
            dlt_source: what to extract in this run; by default the asset's own source.
            dlt_pipeline: a pipeline declared with `warehouse.pipeline`; by default the asset's own.
            dagster_dlt_translator: by default the asset's own.
            partitions: values of the partition column that this run replaces; by default the run's
                partition keys.
            min_row_ratio: the share of its rows that a table must keep whose rows a load removes or
                closes if it does not bring them (write disposition `replace`, merge strategies `cdc` and
                `scd2`); less fails the load, because a truncated response looks just like that. The run
                tag `etl/allow_row_count_drop` = `true` allows it once.
            kwargs: passed on to dlt's `Pipeline.extract`.

        Raises:
            TypeError: the pipeline was not declared with `warehouse.pipeline`.
            LoadPlanError: a resource is loaded by partition and the run names none; see `plan_load`.
            Failure: with the message of what `warehouse.load` or the source raised, without secrets.
        """
        load = _plan(
            context,
            dlt_source,
            dlt_pipeline,
            dagster_dlt_translator,
            partitions=partitions,
            min_row_ratio=min_row_ratio,
            extract_arguments=kwargs,
        )

        def events() -> Iterator[DltEventType]:
            with as_dagster_failure():
                result, materializations = load.run(context)
                for event in materializations:
                    yield attach_partition_metadata(context, event, result)

        return DltEventIterator(events(), context=context, dlt_pipeline=load.plan.spec)

    def run_in_batches(
        self,
        context: dg.AssetExecutionContext,
        source: Callable[[Sequence[str]], DltSource],
        partitions_per_batch: int,
        **kwargs: Any,
    ) -> Iterator[DltEventType]:
        """Run the asset's dlt pipeline as `run` does, a batch of the run's partitions at a time.

        Each batch is its own load, so memory stays flat and a crash costs one batch. Its partitions are
        materialized as soon as they are loaded, and the log reports the progress. When upstream accepts
        no more requests for now, Dagster retries the step later, for the partitions that are missing.

        The run tag `etl/only_missing` = `true` leaves out partitions that any run has materialized
        before, so an interrupted backfill continues. Dagster materializes those too at the end of the run.

        Args:
            context: the asset's execution context.
            source: returns what to extract for some partitions.
            partitions_per_batch: how many of them are loaded at a time.
            kwargs: passed on to dlt's `Pipeline.extract`.

        Raises:
            RetryRequested: upstream accepts no more requests for now; what came until then is loaded.
            Failure: as `run` does.
        """
        pending = pending_partitions(context, earlier := loaded_in_this_run(context))
        if not pending:
            yield from results_without_load(context)
            return
        progress = BatchProgress.of(earlier, pending)
        rows: dict[dg.AssetKey | None, dict[str, dict[str, int]]] = {}
        for first in range(0, len(pending), partitions_per_batch):
            batch = pending[first : first + partitions_per_batch]
            load = _plan(
                context,
                source(batch),
                partitions=batch,
                allow_partial=True,
                extract_arguments=kwargs,
            )
            try:
                with as_dagster_failure(passthrough=(RetryLaterError,)):
                    result, events = load.run(context)
            except RetryLaterError as why:
                raise retry_request(context, why, progress, bool(first)) from why
            loaded = [partition for partition in batch if partition not in result.deferred]
            progress.add_batch(loaded, events)
            for event in events:
                counts = rows.setdefault(event.asset_key, {})
                counts |= partition_row_counts(event, result, loaded)
            if loaded != pending[first:]:  # the step's own result materializes the last ones
                log_materializations(context, loaded, events, result, progress)
            for reason in result.deferred.values():
                raise retry_request(context, reason, progress, loaded=True) from reason
            context.log.info(progress.summary())
        for event in events:
            yield attach_partition_metadata(
                context, event, result, progress.metadata(), rows[event.asset_key]
            )


def _plan(
    context: Context,
    dlt_source: DltSource | None = None,
    dlt_pipeline: Any = None,
    dagster_dlt_translator: DagsterDltTranslator | None = None,
    *,
    partitions: Sequence[str] | None,
    min_row_ratio: float = 0.0,
    allow_partial: bool = False,
    extract_arguments: Mapping[str, Any],
) -> _AssetLoad:
    """Return the load of a run's selected assets; see `WarehouseDltResource.run`."""
    declared_source, declared_spec, declared_translator = declared_load(context)
    source = dlt_source if dlt_source is not None else declared_source
    spec = dlt_pipeline or declared_spec
    translator = dagster_dlt_translator or declared_translator
    resources = {
        translator.get_asset_spec(
            DltResourceTranslatorData(resource=resource, pipeline=spec)
        ).key: resource
        for resource in source.selected_resources.values()
    }
    if is_subset(context):
        resources = {
            key: resource
            for key, resource in resources.items()
            if key in context.selected_asset_keys
        }
    if partitions is None and context.assets_def.partitions_def is not None:
        partitions = context.partition_keys
    tags = context.run.tags
    options = warehouse.LoadOptions(
        run_id=context.run.run_id,
        min_row_ratio=0 if tags.get(ALLOW_ROW_COUNT_DROP) == "true" else min_row_ratio,
        force_reload=tags.get(FORCE_RELOAD) == "true",
        allow_partial=allow_partial,
        resources=[resource.name for resource in resources.values()],
        extract_arguments=extract_arguments,
    )
    return _AssetLoad(warehouse.plan_load(spec, source, partitions, options), resources)
