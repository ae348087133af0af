"""The Dagster resource that loads with `warehouse.load`, so that a rerun or a parallel run stays exact."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg
from dagster_dlt import DagsterDltResource, DagsterDltTranslator
from dlt.extract import DltResource, DltSource
from dlt.pipeline.pipeline import Pipeline

from shared import warehouse
from shared.environments import FILE
from shared.orchestration.batches import (
    BatchProgress,
    loaded_in_this_run,
    pending_partitions,
    require_batch_size,
    results_without_load,
    retry_request,
)
from shared.orchestration.column_lineage import lineage_metadata, with_upstream_columns
from shared.orchestration.dagster_events import store_events_in_batches
from shared.orchestration.dagster_internals import (
    DltEventIterator,
    DltEventType,
    DltResourceTranslatorData,
    declared_load,
    is_subset,
)
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.metadata import load_metadata, missing_warnings, shrunken_warnings
from shared.orchestration.partitions import (
    adjoining_batches,
    log_materializations,
    partition_row_counts,
    partitions_of,
    report,
)
from shared.orchestration.related_tables import roots_of_related, selected_roots
from shared.sources.dlt_settings import forget_secrets
from shared.sources.protocol import RetryLaterError

ALLOW_ROW_COUNT_DROP = "etl/allow_row_count_drop"
"""The run tag that allows a load to leave a table with far fewer rows than it has."""

FORCE_RELOAD = "etl/force_reload"
"""The run tag that loads a large file although it is unchanged and its rows are in the table."""

FULL_REFRESH = "etl/full_refresh"
"""The run tag that loads all rows of tables again: `true`, or names of tables after commas."""

Context = dg.OpExecutionContext | dg.AssetExecutionContext


@dataclass(frozen=True)
class _AssetLoad:
    """A plan, and what it materializes.

    Attributes:
        plan: the plan.
        resources: the dlt resources of each asset: those that load its table.
        related: the assets of related tables that these resources fill too.
    """

    plan: warehouse.LoadPlan
    resources: Mapping[dg.AssetKey, Sequence[DltResource]]
    related: Sequence[dg.AssetKey]

    def run(self, context: Context) -> "tuple[warehouse.LoadResult, list[DltEventType]]":
        """Load, and return the result with a materialization for each asset.

        The asset of a related table is materialized although it got no row: its table is up to date.
        """
        result = warehouse.load(self.plan, log=context.log.info)
        other_assets = {key.path[-1] for key in self.related}
        missing = sorted(other_assets - result.schema.tables.keys())
        for warning in [
            *shrunken_warnings(result),
            *missing_warnings(result, missing),
            *result.warnings,
        ]:
            context.log.warning(warning)
        event = dg.MaterializeResult if context.has_assets_def else dg.AssetMaterialization
        specs = {spec.key: spec for spec in context.assets_def.specs}

        def describe(key: dg.AssetKey, tables: Sequence[str], **more: Any) -> dict[str, Any]:
            metadata = load_metadata(
                context, specs[key], tables, self.plan, result, other_assets=other_assets, **more
            )
            table = tables[0] if len(tables) == 1 else ""
            lineage = lineage_metadata(specs[key], table, result.schema)
            return with_upstream_columns({**metadata, **lineage})

        roots: list[DltEventType] = [
            event(
                asset_key=key,
                metadata=describe(key, _filled_tables(resources, result), resources=resources),
            )
            for key, resources in self.resources.items()
        ]
        related: list[DltEventType] = [
            event(asset_key=key, metadata=describe(key, [key.path[-1]])) for key in self.related
        ]
        return result, [*roots, *related]


def _filled_tables(resources: Sequence[DltResource], result: warehouse.LoadResult) -> Sequence[str]:
    filled = (warehouse.filled_tables(resource, result.schema) for resource in resources)
    return list(dict.fromkeys(chain.from_iterable(filled)))


class WarehouseEventIterator(DltEventIterator[DltEventType]):
    """The events of a load; their metadata has the row counts already."""

    def fetch_row_count(self) -> "WarehouseEventIterator":
        """Return the same events: dagster-dlt would count with a pipeline that can connect."""
        return self


class WarehouseDltResource(DagsterDltResource):
    """`DagsterDltResource` whose loads are exact: `warehouse.load` in place of dlt's `run`."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's interface
        """Read the secrets of `SECRETS_PROVIDER` again in this run, and store its events in batches."""
        forget_secrets()
        store_events_in_batches()

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
            Failure: with the message of what `plan_load`, `load` or the source raised, without secrets.
        """
        with as_dagster_failure():
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
                _refuse_second_load(context, load.resources.keys())
                result, materializations = load.run(context)
                for event in materializations:
                    yield from report(context, event, result)

        return WarehouseEventIterator(events(), context=context, dlt_pipeline=load.plan.spec)

    def run_in_batches(
        self,
        context: dg.AssetExecutionContext,
        source: Callable[[Sequence[str]], DltSource],
        partitions_per_batch: int,
        look_back: int = 0,
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
            source: returns what to extract for some partitions; see `PartitionKey`.
            partitions_per_batch: how many of them are loaded at a time.
            look_back: how many partitions before them each batch loads again, because rows arrive late.
            kwargs: passed on to dlt's `Pipeline.extract`.

        Raises:
            ValueError: `partitions_per_batch` is less than 1.
            RetryRequested: upstream accepts no more requests for now; what came until then is loaded.
            Failure: as `run` does.
        """
        require_batch_size(partitions_per_batch)
        plan = partial(_plan, allow_partial=True, extract_arguments=kwargs)
        pending = pending_partitions(context, earlier := loaded_in_this_run(context))
        if not pending:
            yield from results_without_load(context)
            return
        progress = BatchProgress.of(earlier, pending)
        rows: defaultdict[dg.AssetKey | None, dict[str, dict[str, int]]] = defaultdict(dict)
        keys = partitions_of(context, keys=pending)
        for batch in adjoining_batches(keys, partitions_per_batch, split=_has_cursor(context)):
            partitions = partitions_of(context, look_back, batch) if look_back else batch
            try:
                with as_dagster_failure(passthrough=(RetryLaterError,)):
                    load = plan(context, source(partitions), partitions=partitions)
                    result, events = load.run(context)
            except RetryLaterError as why:
                raise retry_request(context, why, progress, progress.has_loaded) from why
            loaded = [partition for partition in batch if partition not in result.deferred]
            progress.add_batch(
                loaded, [event for event in events if event.asset_key in load.resources]
            )
            for event in events:
                rows[event.asset_key] |= partition_row_counts(event, result, loaded)
            # The step's own result materializes the last ones.
            if result.deferred or loaded[-1] != pending[-1]:
                log_materializations(context, loaded, events, result, progress)
            for reason in result.deferred.values():
                raise retry_request(context, reason, progress, loaded=True) from reason
            context.log.info(progress.summary())
        for event in events:
            yield from report(context, event, result, progress.metadata(), rows[event.asset_key])


def _has_cursor(context: Context) -> bool:
    source, _, _ = declared_load(context)
    return any(resource.incremental for resource in source.resources.values())


_loaded: WeakKeyDictionary[Context, set[dg.AssetKey]] = WeakKeyDictionary()
"""The assets that each running step has loaded."""


def _refuse_second_load(context: Context, keys: Iterable[dg.AssetKey]) -> None:
    """Refuse to load an asset twice in one step: Dagster could not distinguish the two results."""
    loaded = _loaded.setdefault(context, set())
    if again := sorted(key.to_user_string() for key in loaded.intersection(keys)):
        raise warehouse.LoadPlanError(
            f"dlt.run was called a second time for {', '.join(again)} in one asset. Call it once, with one "
            "source that has all rows; for one batch of partitions after the other, use "
            "dlt.run_in_batches."
        )
    loaded.update(keys)


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
    source = warehouse.require_source(dlt_source if dlt_source is not None else declared_source)
    spec = warehouse.require_spec(dlt_pipeline or declared_spec)
    translator = dagster_dlt_translator or declared_translator
    resources: dict[dg.AssetKey, list[DltResource]] = {}
    for resource in source.selected_resources.values():
        data = DltResourceTranslatorData(resource=resource, pipeline=spec)
        resources.setdefault(translator.get_asset_spec(data).key, []).append(resource)
    if is_subset(context):
        selected = selected_roots(context)
        resources = {key: of_table for key, of_table in resources.items() if key in selected}
    roots = roots_of_related(context.assets_def)
    related = [key for key, root in roots.items() if root in resources]
    if partitions is None and context.assets_def.partitions_def is not None:
        partitions = partitions_of(context)
    _refuse_many_partitions(context)
    tags = context.run.tags
    options = warehouse.LoadOptions(
        run_id=context.run.run_id,
        min_row_ratio=0 if tags.get(ALLOW_ROW_COUNT_DROP) == "true" else min_row_ratio,
        force_reload=tags.get(FORCE_RELOAD) == "true",
        allow_partial=allow_partial,
        full_refresh=_full_refresh(context.run, resources, roots),
        resources=[resource.name for of_table in resources.values() for resource in of_table],
        extract_arguments=extract_arguments,
    )
    return _AssetLoad(warehouse.plan_load(spec, source, partitions, options), resources, related)


def _refuse_many_partitions(context: Context) -> None:
    """Refuse a run with more partitions than the environment loads at once.

    Raises:
        LoadPlanError: with the limit, and where it is set.
    """
    environment = warehouse.current_environment()
    limit = environment.max_partitions
    if limit is None or context.assets_def.partitions_def is None:
        return
    if (count := len(context.partition_keys)) > limit:
        raise warehouse.LoadPlanError(
            f"The run has {count:,} partitions, and a run of the environment {environment.name} "
            f"loads at most {limit:,}: select fewer, or change max_partitions in {FILE}."
        )


def _full_refresh(
    run: dg.DagsterRun,
    resources: Mapping[dg.AssetKey, Sequence[DltResource]],
    roots: Mapping[dg.AssetKey, dg.AssetKey],
) -> frozenset[str]:
    """Return the resources whose rows a run loads again; other steps of the run load its other tables.

    The name of a related table is that of its root.

    Raises:
        LoadPlanError: the run loads no table of a name.
    """
    tag = run.tags.get(FULL_REFRESH, "")
    if tag in ("", "true", "false"):
        names = {key.path[-1] for key in resources} if tag == "true" else set()
    else:
        tables = {key.path[-1]: root.path[-1] for key, root in roots.items()}
        names = {tables.get(name.strip(), name.strip()) for name in tag.split(",")}
    in_run = {roots.get(key, key).path[-1] for key in run.asset_selection or ()}
    if in_run and (unknown := names - in_run):
        raise warehouse.LoadPlanError(
            f"The run tag {FULL_REFRESH} names {', '.join(sorted(unknown))}, which this run does not load. "
            f"Write true, or names of {', '.join(sorted(in_run))}."
        )
    return frozenset(
        resource.name
        for key, of_table in resources.items()
        if key.path[-1] in names
        for resource in of_table
    )
