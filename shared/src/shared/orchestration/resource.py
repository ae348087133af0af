"""The Dagster resource that runs dlt exactly once per intent."""

import reprlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import dagster as dg
import dlt as dlt_library
from dagster_dlt import DagsterDltResource, DagsterDltTranslator
from dagster_dlt.constants import META_KEY_PIPELINE, META_KEY_SOURCE, META_KEY_TRANSLATOR
from dagster_dlt.dlt_event_iterator import DltEventIterator, DltEventType
from dlt.common.pipeline import LoadInfo
from dlt.common.schema import Schema
from dlt.common.schema.exceptions import DataValidationError
from dlt.common.schema.typing import TSchemaContractDict
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from shared import warehouse
from shared.orchestration import metadata
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.translator import asset_key
from shared.sources.protocol import COMPANION_TABLES_HINT, RetryLaterError

DEFAULT_SCHEMA_CONTRACT: TSchemaContractDict = {
    "tables": "evolve",
    "columns": "evolve",
    "data_type": "freeze",
}
"""For sources that state none: new columns are added, a value of another type stops the load."""

ALLOW_ROW_COUNT_DROP = "etl/allow_row_count_drop"
"""The run tag that lets a replace leave a table with far fewer rows than it has."""

FORCE_RELOAD = "etl/force_reload"
"""The run tag that loads a large file although its rows are there, unchanged since it was loaded."""

ONLY_MISSING = "etl/only_missing"
"""The run tag that leaves out partitions which have landed before; see `run_in_batches`."""

MAX_RETRIES = 100
"""How often a run comes back to an upstream that asks it to try later."""

_PARTITION_METADATA = (
    "dlt_load_id",
    metadata.ROW_HISTORY_KEY,
    "dagster/row_count",
    "dagster/table_name",
)
_MAX_PARTITIONS_WITH_METADATA = 100  # partitions; Dagster takes longer for each, the more a run has

DLT_SETTINGS = {
    "runtime.dlthub_telemetry": False,
    # Rows that arrive as Arrow know their load as well.
    "normalize.parquet_normalizer.add_dlt_load_id": True,
    "normalize.model_normalizer.add_dlt_load_id": True,
}
"""dlt's configuration for every run."""

E = TypeVar("E", bound=BaseException)


class SchemaContractError(Exception):
    """Upstream sent what a table's schema contract does not take."""


class WarehouseDltResource(DagsterDltResource):
    """`DagsterDltResource`, with a working folder, a source and an exclusive load for each run."""

    def run(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        dlt_source: DltSource | None = None,
        dlt_pipeline: Pipeline | None = None,
        dagster_dlt_translator: DagsterDltTranslator | None = None,
        *,
        partitions: Sequence[str] | None = None,
        min_row_ratio: float = 0.5,
        **kwargs: Any,
    ) -> DltEventIterator[DltEventType]:
        """Runs the asset's dlt pipeline and yields a materialization for each resource.

        A resource that marks a column with dlt's `partition` hint is loaded by replacement: its rows
        of the named partitions go, those just extracted come, in one transaction; no other row is
        touched. Without that hint the resource's write disposition decides alone.

        Args:
            context: the asset's execution context.
            dlt_source: what to extract in this run; the asset's own source if left out.
            dlt_pipeline: a pipeline declared with `warehouse.pipeline`; the asset's own if left out.
            dagster_dlt_translator: the asset's own if left out.
            partitions: values of the partition column that this run replaces; the run's partition
                keys if left out.
            min_row_ratio: the share of its rows that a table with the write disposition `replace`
                must keep; less stops the load, for a truncated answer looks just like that. The run
                tag `etl/allow_row_count_drop` = `true` allows it once.
            kwargs: passed on to dlt's `Pipeline.run`.

        Raises:
            TypeError: the pipeline was not declared with `warehouse.pipeline`.
            ValueError: a resource is loaded by partition and the run names none.
            Failure: in the words of what went wrong, less any secret. That is
                `OutOfPartitionError`: a row belongs to none of the run's partitions;
                `SchemaContractError`: upstream sent a type, or a column, that the contract freezes out;
                `RowCountDropError`: a replaced table would keep too few rows;
                `LockTimeoutError`: another process held the warehouse for too long;
                `RetryLaterError`: upstream takes no more requests for now; or what the source raised.
        """
        load = self._prepare(
            context,
            dlt_source,
            dlt_pipeline,
            dagster_dlt_translator,
            partitions=partitions,
            min_row_ratio=min_row_ratio,
        )

        def results() -> Iterator[DltEventType]:
            with as_dagster_failure():
                for result in self._run(context, *load, **kwargs):
                    yield _attach_partition_metadata(context, result, load[1])

        return DltEventIterator(results(), context=context, dlt_pipeline=load[1])

    def run_in_batches(
        self,
        context: dg.AssetExecutionContext,
        source: Callable[[Sequence[str]], DltSource],
        partitions_per_batch: int,
        **kwargs: Any,
    ) -> Iterator[DltEventType]:
        """Runs the asset's dlt pipeline as `run` does, some of the run's partitions after the other.

        Each batch is a load of its own, so memory stays flat and a crash costs one batch; its
        partitions are materialized as soon as they have landed, and the log says how far the run is.
        Where upstream asks to try later, Dagster retries the step then, for what has not landed yet.

        The run tag `etl/only_missing` = `true` leaves out partitions that were materialized before, by
        whichever run: so an interrupted backfill goes on. At the run's end Dagster materializes all of
        its partitions, those left out as well.

        Args:
            context: the asset's execution context.
            source: returns what to extract for some partitions.
            partitions_per_batch: how many of them a load takes.
            kwargs: passed on to dlt's `Pipeline.run`.

        Raises:
            RetryRequested: upstream takes no more requests for now; what came until then has landed.
            Failure: as `run` does.
        """
        wanted = _pending_partitions(context)
        if not wanted:
            context.log.info("All of the run's partitions have landed before; nothing was asked.")
            for key in context.selected_asset_keys:
                event = context.instance.get_latest_materialization_event(key)
                told = event.asset_materialization if event else None
                latest = told.metadata if told else {}
                kept = {name: latest[name] for name in _PARTITION_METADATA if name in latest}
                yield dg.MaterializeResult(asset_key=key, metadata=kept)
            return
        progress = BatchProgress.of(context, wanted)
        rows: dict[dg.AssetKey | None, dict[str, dict[str, int]]] = {}
        for first in range(0, len(wanted), partitions_per_batch):
            batch = wanted[first : first + partitions_per_batch]
            load = self._prepare(context, source(batch), partitions=batch, allow_partial=True)
            pipeline = load[1]
            try:
                with as_dagster_failure(but=RetryLaterError):
                    results = list(self._run(context, *load, **kwargs))
            except RetryLaterError as why:
                raise _retry(context, why, progress, bool(first)) from why
            landed = [partition for partition in batch if partition not in pipeline.deferred]
            progress.add_batch(landed, results)
            for result in results:
                of_result = rows.setdefault(result.asset_key, {})
                of_result |= _rows_of_partitions(result, pipeline, landed)
            if landed != wanted[first:]:  # the last ones are told by the step's own result
                _log_materializations(context, landed, results, pipeline, progress)
            for later in pipeline.deferred.values():
                raise _retry(context, later, progress, landed=True) from later
            context.log.info(progress.summary())
        for result in results:
            of_each, earlier = progress.metadata(), rows[result.asset_key]
            yield _attach_partition_metadata(context, result, pipeline, of_each, earlier)

    def _prepare(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        dlt_source: DltSource | None = None,
        dlt_pipeline: Pipeline | None = None,
        dagster_dlt_translator: DagsterDltTranslator | None = None,
        *,
        partitions: Sequence[str] | None,
        min_row_ratio: float = 0.0,
        allow_partial: bool = False,
    ) -> tuple[DltSource, warehouse.WarehousePipeline, DagsterDltTranslator]:
        """Returns source, pipeline and translator of one load; see `run`."""
        declared = next(iter(context.assets_def.metadata_by_key.values()))
        # A fresh copy: extracting alters a source's schema, and a second run would fail on it
        # (Dagster issue 34052).
        source = dlt_source if dlt_source is not None else declared[META_KEY_SOURCE].clone()
        if source.schema_contract is None:
            source.schema_contract = DEFAULT_SCHEMA_CONTRACT
        if partitions is None and context.assets_def.partitions_def is not None:
            partitions = context.partition_keys
        declaration = dlt_pipeline or declared[META_KEY_PIPELINE]
        if not isinstance(declaration, warehouse.PipelineSpec):
            raise TypeError(
                f"{declaration} was made by dlt.pipeline(), which owns a folder from the start; "
                "declare it with shared.warehouse.pipeline()."
            )
        pipeline = declaration.create(
            run_id=context.run.run_id,
            source=source,
            partition_scopes=partition_scopes(source, partitions),
            log=context.log.info,
            min_row_ratio=0
            if context.run.tags.get(ALLOW_ROW_COUNT_DROP) == "true"
            else min_row_ratio,
            force_reload=context.run.tags.get(FORCE_RELOAD) == "true",
            allow_partial=allow_partial,
        )
        return source, pipeline, dagster_dlt_translator or declared[META_KEY_TRANSLATOR]

    def _run(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        dlt_source: DltSource,
        dlt_pipeline: Pipeline,
        dagster_dlt_translator: DagsterDltTranslator,
        **kwargs: Any,
    ) -> Iterator[DltEventType]:
        assert isinstance(dlt_pipeline, warehouse.WarehousePipeline)
        again = dlt_source.clone()
        failed = True
        try:
            with dlt_pipeline.partition_lock(), dlt_library.config.values(DLT_SETTINGS):
                yield from super()._run(
                    context, dlt_source, dlt_pipeline, dagster_dlt_translator, **kwargs
                )
            failed = False
        except PipelineStepFailed as error:
            if error.step == "load" and dlt_pipeline.uses_pushdown:
                context.log.info("Not as the fast way needs it, so read record by record.")
                failed = False
                anew = dlt_pipeline.retry_without_pushdown()
                for result in self._run(context, again, anew, dagster_dlt_translator, **kwargs):
                    dlt_pipeline.table_stats = anew.table_stats
                    yield result
                return
            if later := _cause(error, RetryLaterError):
                failed = False
                raise later from None
            if violation := _cause(error, DataValidationError):
                raise SchemaContractError(
                    _contract_violation_message(violation, dlt_pipeline)
                ) from None
            raise
        finally:
            warehouse.cleanup(dlt_pipeline, failed)

    def _extract_table_schema_metadata(self, table_name: str, schema: Schema) -> dg.TableSchema:
        return metadata.column_schema(table_name, schema)

    def extract_resource_metadata(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        resource: DltResource,
        load_info: LoadInfo,
        dlt_pipeline: Pipeline,
    ) -> Mapping[str, Any]:
        """Returns what Dagster shows of a table's load, what people look for first.

        `rows_loaded` is what this run brought, 0 included; `dagster/row_count` what the table holds
        now; `source` the files or days whose rows were replaced; `bytes` what was read, where the
        source counts it, else the size of dlt's files. dagster-dlt's own `jobs` and the schemas of
        nested tables come last.
        """
        assert isinstance(dlt_pipeline, warehouse.WarehousePipeline)
        table = dlt_pipeline.default_schema.naming.normalize_table_identifier(
            str(resource.table_name)
        )
        stats = dlt_pipeline.table_stats.get(table, warehouse.TableStats())
        trace = dlt_pipeline.last_trace
        normalized = trace.last_normalize_info if trace else None
        extracted = normalized.row_counts.get(table, 0) if normalized else 0
        rows = dlt_pipeline.pushdown_row_counts.get(table, extracted)
        replaced = dlt_pipeline.partition_scopes.get(table)
        jobs = [
            job
            for package in load_info.load_packages
            for job in package.jobs["completed_jobs"]
            if job.job_file_info.table_name == table
        ]
        defaults = super().extract_resource_metadata(context, resource, load_info, dlt_pipeline)
        return {
            "rows_loaded": rows,
            **metadata.row_history(
                context.instance,
                asset_key(str(dlt_pipeline.dataset_name), resource.name),
                context.run.run_id,
                rows,
            ),
            **metadata.tables(stats),
            "replaced": metadata.source(replaced.column, replaced.partition_keys)
            if replaced
            else "full table",
            "duration_seconds": round((datetime.now(UTC) - trace.started_at).total_seconds(), 2)
            if trace
            else 0.0,
            "bytes_read": sum(
                job.file_size for job in jobs if job.job_file_info.file_format != "model"
            ),
            **resource.custom_metrics,
            "dlt_load_id": ", ".join(load_info.loads_ids),
            "dagster/row_count": stats.row_count,
            "dagster/table_name": ".".join(
                (dlt_pipeline.warehouse_name, str(dlt_pipeline.dataset_name), table)
            ),
            "dagster/storage_kind": warehouse.warehouse_type(),
            "dagster/column_schema": defaults["dagster/column_schema"],
            **{
                name: value
                for name, value in defaults.items()
                if name == "jobs" or isinstance(value, dg.TableSchema)
            },
        }


def _pending_partitions(context: dg.AssetExecutionContext) -> list[str]:
    """Returns the run's partitions, less those that it need not load any more."""
    landed: set[str] = set()
    if context.run.tags.get(ONLY_MISSING) == "true":
        landed |= set.intersection(
            *(
                context.instance.get_materialized_partitions(key)
                for key in context.selected_asset_keys
            )
        )
    landed |= _landed_in_this_run(context).keys()
    return [partition for partition in context.partition_keys if partition not in landed]


def _landed_in_this_run(context: dg.AssetExecutionContext) -> dict[str, Mapping[str, Any]]:
    """Returns the partitions that an earlier try of the step has landed, of all of its assets.

    Each has what its materialization told of the run's progress.
    """
    landed: dict[dg.AssetKey, dict[str, Mapping[str, Any]]] = {
        key: {} for key in context.selected_asset_keys
    }
    cursor, more = None, context.retry_number > 0
    while more:
        found = context.instance.get_records_for_run(
            context.run.run_id, cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        cursor, more = found.cursor, found.has_more
        for record in found.records:
            told = record.asset_materialization
            if told and told.asset_key in landed and told.partition is not None:
                values = {name: value.value for name, value in told.metadata.items()}
                landed[told.asset_key][told.partition] = values
    everywhere = set.intersection(*(set(partitions) for partitions in landed.values()))
    return {name: told for name, told in next(iter(landed.values())).items() if name in everywhere}


def _retry(
    context: dg.AssetExecutionContext, why: RetryLaterError, progress: "BatchProgress", landed: bool
) -> dg.RetryRequested:
    """Returns what makes Dagster come back later, and says so.

    A try that has landed something costs none of the `MAX_RETRIES`.
    """
    context.log.warning(
        "%s %s Dagster tries again in %.0f s.", why, progress.summary(), why.retry_after
    )
    free = context.retry_number if landed else 0
    return dg.RetryRequested(max_retries=free + MAX_RETRIES, seconds_to_wait=why.retry_after)


def _rows_of_partitions(
    result: Any, pipeline: warehouse.WarehousePipeline, partitions: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Returns how many rows each partition of a table has after a load, as Dagster's metadata."""
    table = result.metadata["dagster/table_name"].rpartition(".")[2]
    replaced = pipeline.partition_scopes.get(table)
    rows = pipeline.table_stats[table].partition_row_counts
    if replaced is None or not rows.keys() <= set(replaced.partition_keys):
        return {}  # the database writes the values in another way
    # A partition is called like its value, or has one in the same place.
    values = dict.fromkeys(replaced.partition_keys)
    others = dict(zip(partitions, values, strict=False)) if len(values) == len(partitions) else {}
    named = {each: each if each in values else others.get(each) for each in partitions}
    return {
        partition: {"dagster/partition_row_count": rows.get(value, 0)}
        for partition, value in named.items()
        if value is not None
    }


def _attach_partition_metadata(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    result: Any,
    pipeline: warehouse.WarehousePipeline,
    of_each: Mapping[str, Any] | None = None,
    earlier: Mapping[str, dict[str, int]] | None = None,
) -> Any:
    """Returns a load's result with its metadata on the run's last partition alone.

    Dagster would write them, with preview and columns, once for each of thousands.

    Args:
        context: of the run.
        result: what the load yielded.
        pipeline: the load's.
        of_each: what is told of each partition.
        earlier: the rows of those that the run's loads before it replaced.
    """
    if not isinstance(context, dg.AssetExecutionContext) or not (
        context.has_partition_key or context.has_partition_key_range
    ):
        return result
    partitions = list(context.partition_keys)
    if len(partitions) <= _MAX_PARTITIONS_WITH_METADATA:
        rows = {**(earlier or {}), **_rows_of_partitions(result, pipeline, partitions)}
        for partition, told in rows.items():
            context.add_asset_metadata(told, result.asset_key, partition)
    context.add_asset_metadata(result.metadata, result.asset_key, partitions[-1])
    # Partitions that are no days are told in any order, and what reads the latest event needs these.
    kept = {name: result.metadata[name] for name in _PARTITION_METADATA}
    return result._replace(metadata={**kept, **(of_each or {})})


def _log_materializations(
    context: dg.AssetExecutionContext,
    partitions: Sequence[str],
    results: Sequence[Any],
    pipeline: warehouse.WarehousePipeline,
    progress: "BatchProgress",
) -> None:
    """Materializes partitions that have landed while the step goes on."""
    for result in results:
        rows = _rows_of_partitions(result, pipeline, partitions)
        for partition in partitions:
            told = {
                **progress.metadata(),
                **rows.get(partition, {}),
                **{name: result.metadata[name] for name in _PARTITION_METADATA},
            }
            context.log_event(
                dg.AssetMaterialization(
                    asset_key=result.asset_key, partition=partition, metadata=told
                )
            )


@dataclass
class BatchProgress:
    """How far a run in batches is.

    Attributes:
        total: the partitions it is to load.
        completed: those that have landed.
        rows: the rows they brought, of all resources.
        requests: the requests they took, where the source counts them.
        completed_before: those of `completed` that landed in an earlier try.
    """

    total: int
    completed: int = 0
    rows: int = 0
    requests: int = 0
    completed_before: int = 0
    started_at: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, context: dg.AssetExecutionContext, wanted: Sequence[str]) -> "BatchProgress":
        """Returns the progress at a try's begin."""
        landed = _landed_in_this_run(context)
        told = max(landed.values(), key=lambda each: each.get("run_partitions", 0), default={})
        return cls(
            total=len(landed) + len(wanted),
            completed=len(landed),
            rows=told.get("run_rows_loaded", 0),
            requests=told.get("run_requests", 0),
            completed_before=len(landed),
        )

    def add_batch(self, landed: Sequence[str], results: Sequence[Any]) -> None:
        """Adds a batch."""
        self.completed += len(landed)
        for result in results:
            told = result.metadata or {}
            self.rows += told["rows_loaded"]
            self.requests += told.get("requests", 0)

    def summary(self) -> str:
        """Returns how far the run is, and what is to come at this pace."""
        left = self.total - self.completed
        told = f"{self.completed:,} of {self.total:,} partitions, {self.rows:,} rows"
        if self.completed == self.completed_before or not left:
            return f"{told}."
        seconds = (
            (time.monotonic() - self.started_at) / (self.completed - self.completed_before) * left
        )
        if self.requests:
            told += (
                f"; about {max(1, round(self.requests / self.completed * left)):,} requests to go"
            )
        return f"{told}; about {timedelta(seconds=round(seconds))} to go."

    def metadata(self) -> dict[str, Any]:
        """Returns the same for Dagster."""
        return {
            "run_partitions": self.completed,
            "run_partitions_left": self.total - self.completed,
            "run_rows_loaded": self.rows,
            **({"run_requests": self.requests} if self.requests else {}),
        }


def _cause(error: BaseException | None, kind: type[E]) -> E | None:
    """Returns the error of a kind among an error and its causes."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, kind):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def _contract_violation_message(
    violation: DataValidationError, pipeline: warehouse.WarehousePipeline
) -> str:
    """Returns what upstream sent against which column, where, and what to do about it."""
    table = f"{pipeline.dataset_name}.{violation.table_name}"
    item = violation.data_item if isinstance(violation.data_item, dict) else {}
    example = f"such as {reprlib.repr(item.get(violation.column_name))}"
    # dlt would put a value of another type into a column of its own, named <column>__v_<type>.
    column, variant, sent = str(violation.column_name).partition("__v_")
    if violation.schema_entity == "columns":
        what = f"{table} has no column {column} and upstream sent one, {example}"
    elif variant:
        declared = violation.table_schema["columns"][column]["data_type"]
        what = f"{table}.{column} is {declared} and upstream sent {sent}, {example}"
    else:
        what = str(violation)
    partitions = pipeline.partition_scopes.get(violation.table_name)
    run = f" in the run of {reprlib.repr(partitions.partition_keys)}" if partitions else ""
    return (
        f"{what}{run}; nothing was loaded. Change the resource's columns or its schema_contract if "
        "upstream is right."
    )


def partition_scopes(
    source: DltSource, partitions: Sequence[str] | None
) -> Mapping[str, warehouse.PartitionScope]:
    """Returns which rows of each table a run replaces; tables loaded as a whole are left out.

    Raises:
        ValueError: a resource is loaded by partition and the run names none, or the resource's write
            disposition would not replace them.
    """
    conditions = {}
    naming = source.schema.naming
    for resource in source.selected_resources.values():
        schema = resource.compute_table_schema()
        columns = schema["columns"]
        partition_column = next(
            (name for name, hints in columns.items() if hints.get("partition")), None
        )
        if partition_column is None:
            continue
        disposition = (schema.get("write_disposition"), schema.get("x-merge-strategy"))
        if disposition != ("merge", "delete-insert"):
            raise ValueError(
                f"{resource.name} marks {partition_column} as its partition: its write disposition "
                'must be {"disposition": "merge", "strategy": "delete-insert"}, or reruns add up.'
            )
        if not partitions:
            raise ValueError(
                f"{resource.name} is loaded by {partition_column}: run it for a partition, or pass "
                "`partitions=[...]` to dlt.run, so that exactly those rows are replaced."
            )
        column = naming.normalize_identifier(partition_column)
        together: Sequence[str] = schema.get(COMPANION_TABLES_HINT, [])  # type: ignore[assignment]
        for table in (str(resource.table_name), *together):
            conditions[naming.normalize_table_identifier(table)] = warehouse.PartitionScope(
                resource.name, column, tuple(partitions)
            )
    return conditions
