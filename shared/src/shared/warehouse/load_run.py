"""The steps of one load: extract, normalize, validate, lock, sync the schema, guard, load, count."""

import reprlib
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import dlt
from dlt.common.schema import Schema
from dlt.common.schema.exceptions import DataValidationError
from dlt.common.schema.typing import PIPELINE_STATE_TABLE_NAME
from dlt.extract import DltSource

from shared import settings
from shared.lazy_modules import pyarrow as pa
from shared.sources.partitions import PartitionKey
from shared.sources.protocol import RetryLaterError, loading
from shared.warehouse.appends import find_appends
from shared.warehouse.comments import digest
from shared.warehouse.destinations.configuration import resolve_configuration
from shared.warehouse.destinations.datasets import stored_dataset
from shared.warehouse.destinations.factory import (
    PUSHDOWN_TYPES,
    create_destination,
    create_lock_manager,
    database_name,
)
from shared.warehouse.destinations.pushdown_query import declared_query
from shared.warehouse.dlt_internals import delete_traces
from shared.warehouse.environment_datasets import mark_dataset
from shared.warehouse.errors import WarehouseConfigError
from shared.warehouse.guards import (
    PackageContent,
    check_row_counts,
    count_partitions,
    reject_stored_cursors,
    shrunken_partitions,
    validate_packages,
)
from shared.warehouse.load_settings import load_settings
from shared.warehouse.locks.base import Log, no_log
from shared.warehouse.locks.file import exclusive_connection
from shared.warehouse.new_keys import find_new_keys
from shared.warehouse.ownership import StoredCursors, reject_lost_cursors, reject_new_cursor
from shared.warehouse.plan import LoadPlan
from shared.warehouse.replacement.dispositions import check_dispositions, reject_appending_tables
from shared.warehouse.replacement.empty_partitions import add_empty_tables
from shared.warehouse.replacement.full_refresh import mark, take_marked
from shared.warehouse.replacement.partitioning import bind_scopes, with_cursor_columns
from shared.warehouse.replacement.windows import partition_window
from shared.warehouse.result import LoadResult
from shared.warehouse.rows.check import check_rows
from shared.warehouse.rows.joined_tables import join_tables
from shared.warehouse.rows.normalizer import with_normalizers
from shared.warehouse.rows.widening import normalize
from shared.warehouse.schema.contract import contract_violation_message, reject_renamed
from shared.warehouse.schema.declared_hints import apply_declared_hints
from shared.warehouse.schema.stored_tables import restore_dropped
from shared.warehouse.schema.sync import merge_stored_schema, save_plain_schemas
from shared.warehouse.scope import LoadState, PartitionScope
from shared.warehouse.state import reject_lost_updates, reject_positions, source_states
from shared.warehouse.statistics import MAX_PARTITIONS_WITH_COUNTS, TableStats, collect_stats
from shared.warehouse.tables import (
    find_descriptions,
    reject_refresh,
    root_tables,
    with_related_tables,
)
from shared.warehouse.working_dirs import create_working_dir


class LoadRun:
    """The steps of one load, in a working directory that no other run shares.

    Shared directories are how parallel runs lose data (dlt issue 1102, Dagster issue 21022). State and
    schema come back from the warehouse, so a new directory loses nothing.

    A source finds it by `sources.protocol.current_load()`, for pushdown and for deferred partitions.
    """

    def __init__(self, plan: LoadPlan, log: Log = no_log) -> None:
        self.plan, self.log = plan, log
        self.source: DltSource = plan.source.clone()
        for resource in self.source.resources.values():
            resource.custom_metrics.clear()  # the clone has those of the last load
        self.deferred: dict[str, RetryLaterError] = {}
        self._unfinished: set[str] = set()
        self._full_refresh: set[str] = set()
        self._after_commit: list[Callable[[], None]] = []
        self._preview_rows = settings.get_int("PREVIEW_ROWS")
        self._started = time.monotonic()
        self.scopes: Mapping[str, PartitionScope] = plan.scopes
        self.state = LoadState(force_reload=plan.options.force_reload, log=log)
        destination: Any = create_destination(self.state)
        dataset = stored_dataset(plan.spec.dataset_name)
        configuration = resolve_configuration(destination, dataset)
        self.locks = create_lock_manager(destination, configuration, log)
        self.state.verify_lock = self.locks.verify_held
        self._database = database_name(destination, configuration)
        self._is_duckdb = destination.warehouse_type == "duckdb"
        self.pushdown_enabled = (
            plan.options.pushdown_enabled and destination.warehouse_type in PUSHDOWN_TYPES
        )
        self.pipelines_dir = create_working_dir(plan.options.run_id)
        self.state.working_dir = Path(self.pipelines_dir)
        self.pipeline = dlt.pipeline(
            pipeline_name=plan.spec.pipeline_name,
            pipelines_dir=self.pipelines_dir,
            dataset_name=dataset,
            destination=destination,
            progress=plan.spec.progress,
        )
        if self.pipeline.dataset_name != dataset:
            self.cleanup(failed=False)
            raise WarehouseConfigError(
                "dlt's dataset_name_layout is set (DATASET_NAME_LAYOUT), and ETL_ENVIRONMENT decides the "
                "names of datasets. Unset it, and set ETL_ENVIRONMENT; nothing was loaded."
            )

    def partition_lock(self) -> AbstractContextManager[None]:
        """Lock what this load replaces, from its first request to its last row; see `LockManager`.

        Otherwise a run that sent its request earlier could load later, and replace new rows by old ones.
        Runs of other partitions continue concurrently.
        """
        return self.locks.partition_lock(self.plan.lock_scope)

    def extract(self) -> None:
        """Restore state and schema from the warehouse, then extract and normalize."""
        with load_settings(), loading(self):
            self._restore()
            self._take_over_stored()
            self._full_refresh = take_marked(self.pipeline, self.source, self.plan.scopes)
            join_tables(self.source)
            check_rows(self.source)
            with partition_window(self.source, self.plan.partitions):
                self.pipeline.extract(self.source, **self.plan.options.extract_arguments)
                self._check_extraction()
            self._row_counts = normalize(self.pipeline, self.schema).row_counts
            self.state.partition_scopes = bind_scopes(self.scopes, self.schema)
            if self.scopes:
                add_empty_tables(self.pipeline, self.schema, self.state.partition_scopes)

    def mark_full_refresh(self, resources: Collection[str]) -> None:
        """Load a state with which the next load of some resources replaces their tables."""
        with load_settings():
            self._restore()
            if self.pipeline.default_schema_name is None:
                return  # nothing is loaded yet
            restored = source_states(self.pipeline)
            mark(self.pipeline, self.source, resources)
            normalize(self.pipeline, self.pipeline.default_schema)
            with self.locks.dataset_lock():
                with self.pipeline.destination_client() as client:
                    reject_lost_updates(
                        client, self.pipeline, restored, [PIPELINE_STATE_TABLE_NAME]
                    )
                self.pipeline.load().raise_on_failed_jobs()

    def _restore(self) -> None:
        if self.pipeline.config.restore_from_destination:
            # To connect to a DuckDB file is to write to it.
            with exclusive_connection(self.log) if self._is_duckdb else nullcontext():
                self.pipeline.sync_destination()

    def _take_over_stored(self) -> None:
        """Compare what the warehouse has of the pipeline with the code, and remember it."""
        schemas = {name: self.pipeline.schemas[name] for name in self.pipeline.schemas}
        self._restored_schemas = {
            name: schema.stored_version_hash for name, schema in schemas.items()
        }
        refresh = self.plan.options.extract_arguments.get("refresh")
        reject_refresh(self.pipeline, self.source, refresh)
        stored = schemas.get(self.source.schema.name)
        apply_declared_hints(stored, self.source)
        for schema in schemas.values():
            self.pipeline.schemas.save_schema(with_normalizers(schema))
        self._restored = source_states(self.pipeline)
        self._stored_cursors = StoredCursors.of(self.pipeline, stored)

    def _check_extraction(self) -> None:
        """Check what only the extraction knows: the cursors, and the state that the source stores."""
        if self.plan.partitions:
            reject_stored_cursors(self.source, self.plan.partitions)
        self.scopes = with_cursor_columns(self.scopes, self.source, self.schema)
        check_dispositions(self.source, {*self.plan.scopes, *self._full_refresh})
        reject_positions(self.source, self.plan.replaced_by_default, self._restored, self.pipeline)

    def load(self) -> LoadResult:
        """Load what was extracted, under the lock of the dataset. It raises what `load` lists."""
        with load_settings():
            pa.default_memory_pool().release_unused()  # the extraction needed it
            content = self._validate()
            client = self._client()  # before the lock: other runs wait for it
            with self.locks.dataset_lock():
                before = self._prepare_warehouse(client, content)
                try:
                    info = self.pipeline.load()
                    info.raise_on_failed_jobs()
                except Exception:
                    with suppress(Exception), client:
                        client.undo_this_load()  # otherwise the next load does
                    raise
                tables = self._collect_stats(client, info.loads_ids)
        for action in self._after_commit:
            action()
        roots = self._tables_by_root()
        rows_loaded = {**self._row_counts, **self.state.rows_inserted}
        for table in self.schema.dlt_table_names():
            rows_loaded.pop(table, None)
        return LoadResult(
            info=info,
            schema=self.schema,
            database=self._database,
            rows_loaded=rows_loaded,
            tables=tables,
            metrics={
                name: dict(resource.custom_metrics)
                for name, resource in self.source.selected_resources.items()
            },
            scopes=self.state.partition_scopes,
            deferred=self.deferred,
            shrunken={
                table: partitions
                for table, counts in before.items()
                if table in roots  # a companion table, such as of rejected rows, may shrink
                if (partitions := shrunken_partitions(counts, tables[table].partition_row_counts))
            },
            duration_seconds=time.monotonic() - self._started,
            unfinished=frozenset(self._unfinished),
            warnings=self.state.warnings,
        )

    def cleanup(self, *, failed: bool) -> None:
        """Remove the working directory. After a failure it stays, to show what was extracted.

        dlt's trace is always deleted, because it contains exception texts, which can contain secrets.
        """
        if failed:
            delete_traces(self.pipelines_dir)
        else:
            shutil.rmtree(self.pipelines_dir, ignore_errors=True)

    def explain(self, violation: DataValidationError) -> str:
        """Return what does not fit which column, and the command that would change the table."""
        stored = self.schema if self.source.schema.name in self.pipeline.schemas else None
        dataset, where = self.plan.spec.dataset_name, self.partitions_of(violation.table_name)
        return contract_violation_message(violation, dataset, stored, where)

    def partitions_of(self, table: str) -> str:
        """Return which partitions of a table the run loads, for the text of an error."""
        scope = next((each for each in self.scopes.values() if table in each.tables), None)
        return f" in the run of {reprlib.repr(list(scope.partitions))}" if scope else ""

    @cached_property
    def schema(self) -> Schema:
        """The schema of the source, from its extraction on. dlt alters it in place."""
        return self.pipeline.schemas[self.source.schema.name]

    @property
    def uses_pushdown(self) -> bool:
        """Whether the warehouse was to fill a table by a query."""
        return bool(self.state.pushdown_tables)

    def pushdown_query(
        self, select: str, fingerprint: str, before_commit: Callable[[], None]
    ) -> dlt.Relation:
        """Return the item that makes the warehouse run a query; see `CurrentLoad`."""
        self.state.fingerprints.append(fingerprint)
        self.state.pre_commit_checks.append(before_commit)
        if not self._is_duckdb:  # dlt would translate the query, which the load job runs in DuckDB
            name = f"pushdown_{len(self.state.pushdown_selects)}"
            self.state.pushdown_selects[name] = select
            select = declared_query(select, name)
        return self.pipeline.dataset().query(select, "duckdb")

    def defer_partitions(self, partitions: Sequence[str], why: RetryLaterError) -> None:
        """Leave partitions unchanged in this load; see `CurrentLoad`."""
        scopes = {name: scope.excluding(partitions) for name, scope in self.scopes.items()}
        if not self.plan.options.allow_partial or not all(
            scope.partitions for scope in scopes.values()
        ):
            raise why
        self.deferred |= dict.fromkeys(partitions, why)
        self.scopes = scopes

    @property
    def partitions(self) -> Sequence[PartitionKey]:
        """The partitions whose rows the load replaces; see `CurrentLoad`."""
        return self.plan.partitions

    def is_full_refresh(self, resource: str) -> bool:
        """Return whether a resource brings all of its rows again; see `CurrentLoad`."""
        return resource in self._full_refresh

    def load_again(self, resource: str) -> None:
        """Load a resource once more after this load; see `CurrentLoad`."""
        self._unfinished.add(resource)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call an action once the load is complete; see `CurrentLoad`."""
        self._after_commit.append(action)

    def warn(self, message: str) -> None:
        """Show a message with the result; see `CurrentLoad`."""
        self.state.warnings.append(message)

    def _validate(self) -> PackageContent:
        schema = self.schema
        reject_renamed(schema, self.plan.spec.dataset_name)
        load_ids = self.pipeline.list_normalized_load_packages()
        packages = [*map(self.pipeline.get_load_package_info, load_ids)]
        self.state.appends = find_appends(packages, schema, self.state.partition_scopes)
        content = validate_packages(packages, schema, self.state.partition_scopes)
        digests = self._describe_tables()
        self._package_schemas = save_plain_schemas(self.pipeline, digests)
        requested = self.plan.options.extract_arguments.get("write_disposition")
        reject_appending_tables(self.source, schema, content.tables, self.plan.scopes, requested)
        self.state.tables_in_package = content.tables
        self.state.pushdown_tables |= content.pushdown_tables
        self.state.pending_table_chains.clear()
        return content

    def _prepare_warehouse(
        self, client: Any, content: PackageContent
    ) -> Mapping[str, Mapping[str, int]]:
        """Compare the load with the warehouse, and return the rows of each partition that it replaces.

        It undoes what killed loads left, takes over what other runs stored meanwhile, creates what was
        dropped by hand, and guards what will vanish.
        """
        options, dataset = self.plan.options, self.plan.spec.dataset_name
        refresh = bool(options.extract_arguments.get("refresh") or self._full_refresh)
        with client:
            reject_lost_updates(client, self.pipeline, self._restored, content.tables)
            reject_lost_cursors(self.pipeline, self.source, self._stored_cursors, refresh=refresh)
            if not refresh:
                reject_new_cursor(self.source, self._stored_cursors)
            mark_dataset(client)
            if client.is_storage_initialized():
                merge_stored_schema(
                    self.pipeline, client, self._package_schemas, self._restored_schemas
                )
                if not refresh:
                    restore_dropped(client, self.pipeline, self.source, content.tables, self.log)
            for load_id in client.undo_unfinished_loads():
                self.log(f"Removed the rows that load {load_id} had appended; it did not complete.")
            check_row_counts(
                client, self.schema, content.row_counts, dataset, options.min_row_ratio
            )
            few = [
                table
                for table, scope in self.state.partition_scopes.items()
                if len(scope.partitions) <= MAX_PARTITIONS_WITH_COUNTS
            ]
            find_new_keys(client, self.schema, content, self.state)
            return count_partitions(client, few, self.log)

    def _tables_by_root(self) -> dict[str, list[str]]:
        """Return the tables that the load fills, nested and companion tables by their root."""
        schema = self.schema
        roots = root_tables(self.plan.source, schema)
        return {root: list(with_related_tables(root, schema)) for root in roots}

    def _describe_tables(self) -> dict[str, str]:
        """Find what the tables contain, for their comments, and return a digest of it by root."""
        found = {
            root: find_descriptions(self.plan.source, self.schema, tables)
            for root, tables in self._tables_by_root().items()
        }
        self.state.descriptions = {
            name: text for each in found.values() for name, text in each.items()
        }
        return {root: digest(described) for root, described in found.items()}

    def _collect_stats(self, client: Any, load_ids: Sequence[str]) -> dict[str, TableStats]:
        """Return what the tables contain after the load."""
        options: Any = {"preview_rows": self._preview_rows, "log": self.log}
        with client:
            return {
                table: collect_stats(client, self.schema, table, load_ids, **options)
                for tables in self._tables_by_root().values()
                for table in tables
            }

    def _client(self) -> Any:
        """Return the client of the destination, with the schema as it will be stored. It can be entered again."""
        client = self.pipeline.destination_client(self.source.schema.name)
        schemas = {schema.name: schema for schema in self._package_schemas.values()}
        client.schema = schemas.get(client.schema.name, client.schema)  # none, if nothing is new
        return client
