"""The Dagster resource that runs dlt exactly once per intent."""

import re
import reprlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import dlt as dlt_library
from dagster_dlt import DagsterDltResource, DagsterDltTranslator
from dagster_dlt.constants import META_KEY_PIPELINE, META_KEY_SOURCE, META_KEY_TRANSLATOR
from dagster_dlt.dlt_event_iterator import DltEventIterator, DltEventType
from dlt.common.data_writers.escape import escape_postgres_identifier
from dlt.common.pipeline import LoadInfo
from dlt.common.schema import Schema
from dlt.common.schema.exceptions import DataValidationError
from dlt.common.schema.typing import TSchemaContractDict
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from shared import environment, warehouse
from shared.sources import REPLACED_TOGETHER

DEFAULT_CONTRACT: TSchemaContractDict = {
    "tables": "evolve",
    "columns": "evolve",
    "data_type": "freeze",
}
"""For sources that state none: new columns are added, a value of another type stops the load."""

ALLOW_SHRINKING = "etl/allow_shrinking"
"""The run tag that lets a replace leave a table with far fewer rows than it has."""

LOAD_AGAIN = "etl/load_again"
"""The run tag that loads a large file although its rows are there, unchanged since it was loaded."""

DLT_SETTINGS = {
    "runtime.dlthub_telemetry": False,
    # Rows that arrive as Arrow know their load as well.
    "normalize.parquet_normalizer.add_dlt_load_id": True,
    "normalize.model_normalizer.add_dlt_load_id": True,
}
"""dlt's configuration for every run."""


class SchemaContractError(Exception):
    """Upstream sent what a table's schema contract does not take."""


class RedactedError(Exception):
    """Stands in for an error whose text held a secret, with that text less the secret."""


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
        keep_at_least: float = 0.5,
        **kwargs: Any,
    ) -> DltEventIterator[DltEventType]:
        """Runs the asset's dlt pipeline and yields a materialisation for each resource.

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
            keep_at_least: the share of its rows that a table with the write disposition `replace`
                must keep; less stops the load, for a truncated answer looks just like that. The run
                tag `etl/allow_shrinking` = `true` allows it once.
            kwargs: passed on to dlt's `Pipeline.run`.

        Raises:
            TypeError: the pipeline was not declared with `warehouse.pipeline`.
            ValueError: a resource is loaded by partition and the run names none.
            PartitionError: a row belongs to none of the run's partitions.
            SchemaContractError: upstream sent a type, or a column, that the contract freezes out.
            ShrinkingError: a replaced table would keep too few rows.
            WarehouseBusyError: another process held the warehouse for too long.
            RedactedError: anything else, where its text held a secret.
        """
        declared = next(iter(context.assets_def.metadata_by_key.values()))
        # A fresh copy: extracting alters a source's schema, and a second run would fail on it
        # (Dagster issue 34052).
        source = dlt_source if dlt_source is not None else declared[META_KEY_SOURCE].clone()
        if source.schema_contract is None:
            source.schema_contract = DEFAULT_CONTRACT
        if partitions is None and context.assets_def.partitions_def is not None:
            partitions = context.partition_keys
        declaration = dlt_pipeline or declared[META_KEY_PIPELINE]
        if not isinstance(declaration, warehouse.PipelineDeclaration):
            raise TypeError(
                f"{declaration} was made by dlt.pipeline(), which owns a folder from the start; "
                "declare it with shared.warehouse.pipeline()."
            )
        pipeline = declaration.open(
            run_id=context.run.run_id,
            source=source,
            replaced_rows=replaced_rows(source, partitions),
            log=context.log.info,
            keep_at_least=0 if context.run.tags.get(ALLOW_SHRINKING) == "true" else keep_at_least,
            loads_again=context.run.tags.get(LOAD_AGAIN) == "true",
        )
        translator = dagster_dlt_translator or declared[META_KEY_TRANSLATOR]
        return DltEventIterator(
            self._run(context, source, pipeline, translator, **kwargs),
            context=context,
            dlt_pipeline=pipeline,
        )

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
            with dlt_pipeline.turn(), dlt_library.config.values(DLT_SETTINGS):
                yield from super()._run(
                    context, dlt_source, dlt_pipeline, dagster_dlt_translator, **kwargs
                )
            failed = False
        except PipelineStepFailed as error:
            if error.step == "load" and dlt_pipeline.has_pushed_down:
                context.log.info("Not as the fast way needs it, so read record by record.")
                failed = False
                yield from self._run(
                    context, again, dlt_pipeline.start_over(), dagster_dlt_translator, **kwargs
                )
                return
            if violation := _violation(error):
                raise SchemaContractError(_told(violation, dlt_pipeline)) from None
            _refuse_secrets(error)
            raise
        except Exception as error:
            _refuse_secrets(error)
            raise
        finally:
            warehouse.close(dlt_pipeline, failed)

    def _extract_table_schema_metadata(self, table_name: str, schema: Schema) -> dg.TableSchema:
        """Returns a table's columns with their descriptions, and leaves the schema as it is."""
        shown = {"name", "data_type", "description", "nullable", "unique"}
        return dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=name,
                    type=hints.get("data_type") or "text",
                    description=hints.get("description"),
                    constraints=dg.TableColumnConstraints(
                        nullable=hints.get("nullable") is not False,
                        unique=bool(hints.get("unique")),
                        other=sorted(hints.keys() - shown),
                    ),
                )
                for name, hints in schema.get_table_columns(table_name).items()
            ]
        )

    def extract_resource_metadata(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        resource: DltResource,
        load_info: LoadInfo,
        dlt_pipeline: Pipeline,
    ) -> Mapping[str, Any]:
        """Returns dagster-dlt's metadata with the table's real name and row counts.

        `rows_loaded` is what this run brought, 0 included; `dagster/row_count` what the table holds
        now.
        """
        assert isinstance(dlt_pipeline, warehouse.WarehousePipeline)
        table = dlt_pipeline.default_schema.naming.normalize_table_identifier(
            str(resource.table_name)
        )
        trace = dlt_pipeline.last_trace
        normalised = trace.last_normalize_info if trace else None
        extracted = normalised.row_counts.get(table, 0) if normalised else 0
        rows = dlt_pipeline.pushed_down_rows.get(table, extracted)
        return {
            **super().extract_resource_metadata(context, resource, load_info, dlt_pipeline),
            "rows_loaded": dg.MetadataValue.int(rows),
            "dagster/table_name": f"{warehouse.path().stem}.{dlt_pipeline.dataset_name}.{table}",
            "dagster/row_count": dg.MetadataValue.int(dlt_pipeline.row_counts.get(table, 0)),
        }


def _refuse_secrets(error: Exception) -> None:
    """Raises a stand-in for an error whose text, or a cause's, a note's or a member's, has a secret."""
    text = "".join(traceback.format_exception(error))
    if (told := environment.redacted(text)) != text:
        raise RedactedError(told) from None


def _violation(error: BaseException | None) -> DataValidationError | None:
    """Returns the broken contract among an error's causes."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, DataValidationError):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def _told(violation: DataValidationError, pipeline: warehouse.WarehousePipeline) -> str:
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
    partitions = pipeline.replaced_rows.get(violation.table_name)
    run = f" in the run of {reprlib.repr(partitions.values)}" if partitions else ""
    return (
        f"{what}{run}; nothing was loaded. Change the resource's columns or its schema_contract if "
        "upstream is right."
    )


def replaced_rows(
    source: DltSource, partitions: Sequence[str] | None
) -> Mapping[str, warehouse.ReplacedRows]:
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
        values = ", ".join(_sql_value(key) for key in partitions)
        column = naming.normalize_identifier(partition_column)
        condition = f"{escape_postgres_identifier(column)} IN ({values})"
        together: Sequence[str] = schema.get(REPLACED_TOGETHER, [])  # type: ignore[assignment]
        for table in (str(resource.table_name), *together):
            conditions[naming.normalize_table_identifier(table)] = warehouse.ReplacedRows(
                resource.name, column, tuple(partitions), condition
            )
    return conditions


def _sql_value(key: str) -> str:
    """Returns SQL for a partition key that survives what dlt does to a merge's text.

    dlt splits that text at every semicolon, joins its lines, fills its braces and leaves the
    transaction out where it reads ALTER SCHEMA; a file may be named like any of these.
    """
    if re.fullmatch(r"[\w.:/-]*", key, re.ASCII):
        return f"'{key}'"
    return f"decode(from_hex('{key.encode().hex()}'))"
