"""A run's pipeline: a working folder of its own, exact rows, and the warehouse held while it loads."""

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dlt
import duckdb
from dlt.common.destination.client import WithStateSync
from dlt.common.pipeline import LoadInfo
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.common.schema.utils import get_nested_tables
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.extract import DltSource
from pyarrow.parquet import ParquetFile

from shared import settings
from shared.redaction import redact
from shared.sources.protocol import COMPANION_TABLES_HINT, RetryLaterError
from shared.warehouse.destinations.factory import (
    OutOfPartitionError,
    PartitionScope,
    WarehouseDestination,
    create_destination,
    create_lock_manager,
    database_name,
    resolve_configuration,
)
from shared.warehouse.locks import LockManager, Log, duckdb_path, exclusive_connection, no_log

Progress = Literal["tqdm", "enlighten", "log", "alive_progress"]

_KEEP_WORKING_FOLDERS_SECONDS = 7 * 24 * 3600


class RowCountDropError(Exception):
    """A replace would leave a table with far fewer rows than it has."""


class ConcurrentSchemaChangeError(Exception):
    """Two runs at the same moment gave one new column two types."""


@dataclass(frozen=True)
class TableStats:
    """What a table holds after a load.

    Attributes:
        row_count: of the whole table.
        related_row_counts: the rows of the tables that load with it, by table: those of nested lists, and what
            its resource replaces together with it.
        partition_row_counts: the rows of each partition that the load replaced, where it has any.
        preview: some of the rows that the load brought, by column.
    """

    row_count: int = 0
    related_row_counts: Mapping[str, int] = field(default_factory=dict)
    partition_row_counts: Mapping[str, int] = field(default_factory=dict)
    preview: Sequence[Mapping[str, Any]] = ()


class WarehousePipeline(dlt.Pipeline):
    """A dlt pipeline that touches the warehouse only while it holds it."""

    log: Log = staticmethod(no_log)
    schema_name: str = ""
    partition_scopes: Mapping[str, PartitionScope]
    has_unpartitioned_resources: bool = True
    min_row_ratio: float = 0.0
    pushdown_enabled: bool = True
    allow_partial: bool = False
    deferred: Mapping[str, RetryLaterError]
    retry_without_pushdown: Callable[[], "WarehousePipeline"]
    table_stats: Mapping[str, TableStats]
    reported_tables: frozenset[str]
    preview_rows: int
    locks: LockManager
    warehouse_name: str

    @property
    def default_schema(self) -> Schema:
        """The schema of the source that this run loads, once extracted, whatever came before."""
        extracted = self.schema_name in self.schema_names
        return self.schemas[self.schema_name] if extracted else super().default_schema

    @contextmanager
    def partition_lock(self) -> Iterator[None]:
        """Holds what this run replaces, from its first request to its last row.

        Runs of the same partition take turns as a whole: else a run that asked upstream earlier
        could land later and put old rows over new ones. Runs of other partitions go on beside it.

        Raises:
            LockTimeoutError: another run of a partition took more than `WAREHOUSE_WAIT_SECONDS`.
            WarehouseConnectionError: the warehouse is a server that does not answer.
        """
        units: dict[str, Sequence[str]] = {
            rows.resource: rows.partition_keys for rows in self.partition_scopes.values()
        }
        if self.has_unpartitioned_resources:
            # Such a table, and the cursor of an incremental one, belong to the pipeline as a whole.
            units[f"pipeline {self.pipeline_name}"] = ()
        with self.locks.partition_lock(units):
            yield

    def pushdown_query(
        self, select: str, fingerprint: str, before_commit: Callable[[], None]
    ) -> dlt.Relation:
        """Returns the item that makes the warehouse run a query; see `sources.SupportsPushdown`."""
        self._warehouse.fingerprints.append(fingerprint)
        self._warehouse.pre_commit_checks.append(before_commit)
        return self.dataset().query(select, "duckdb")

    def defer_partitions(self, partitions: Sequence[str], why: RetryLaterError) -> None:
        """Leaves partitions as they are in this load; see `sources.SupportsPartialLoads`."""
        rows = {table: rows.excluding(partitions) for table, rows in self.partition_scopes.items()}
        if not self.allow_partial or not all(each.partition_keys for each in rows.values()):
            raise why
        self.deferred = {**self.deferred, **dict.fromkeys(partitions, why)}
        self.partition_scopes = self._warehouse.partition_scopes = rows

    @property
    def _warehouse(self) -> WarehouseDestination:
        opened: Any = self.destination
        assert isinstance(opened, WarehouseDestination)
        return opened

    @property
    def uses_pushdown(self) -> bool:
        """Whether the warehouse was to run a query of this run."""
        return bool(self._warehouse.pushed_down)

    @property
    def pushdown_row_counts(self) -> Mapping[str, int]:
        """How many rows such queries brought, by table."""
        return self._warehouse.rows_inserted

    def _sync_destination(self, *args: Any, **kwargs: Any) -> None:
        # Connecting to the file is writing to it.
        with (
            exclusive_connection(self.log)
            if self._warehouse.warehouse_type == "duckdb"
            else nullcontext()
        ):
            super()._sync_destination(*args, **kwargs)

    def load(self, *args: Any, **kwargs: Any) -> LoadInfo:
        """Loads as dlt does, and looks at each table before others may change it.

        Raises:
            OutOfPartitionError: a row belongs to none of the partitions that this run replaces.
            ConcurrentSchemaChangeError: another run has just given a new column another type.
            RowCountDropError: a replaced table would keep less than `min_row_ratio` of its rows.
        """
        new_rows = self._validate_package()
        with self.locks.dataset_lock():
            self._merge_stored_schema()
            self._check_row_count(new_rows)
            info = super().load(*args, **kwargs)
            with self._client() as client:
                self.table_stats = {
                    table: self._collect_stats(client, table, info.loads_ids)
                    for table in self.reported_tables
                }
        return info

    def _collect_stats(self, client: Any, table: str, load_ids: Sequence[str]) -> TableStats:
        """Returns what is told of a table; what cannot be must not fail what has landed."""
        rows = client.row_count(table)
        schema = self.default_schema
        if not rows or table not in schema.tables:
            return TableStats(rows)
        together: Sequence[str] = schema.tables[table].get(COMPANION_TABLES_HINT, [])  # type: ignore[assignment]
        further = [
            *(str(each["name"]) for each in get_nested_tables(schema.tables, table)[1:]),
            *map(schema.naming.normalize_table_identifier, together),
        ]
        columns = schema.get_table_columns(table)
        shown = [name for name in columns if not name.startswith("_dlt")]
        loads = load_ids if "_dlt_load_id" in columns else ()
        most = self.preview_rows
        try:
            return TableStats(
                rows,
                {each: client.row_count(each) for each in further},
                client.partition_counts(table) if table in self.partition_scopes else {},
                client.preview(table, shown, loads, most) if most and shown else (),
            )
        except Exception as error:  # noqa: BLE001 - such as a date that Python cannot hold
            self.log(redact(f"{table} has landed, and cannot be shown: {error}"))
            return TableStats(rows)

    def _client(self) -> Any:
        return self.destination_client(self.default_schema.name)

    def _merge_stored_schema(self) -> None:
        """Adds to what is about to load the tables and columns that other runs stored meanwhile.

        dlt stores the schema that a run began with and what that run found. A table that a run of
        another partition found in between would be missing from the newest version, and from then on
        nothing would delete from it.
        """
        packages = self._get_load_storage().normalized_packages
        for load_id in self.list_normalized_load_packages():
            schema = packages.load_schema(load_id)
            with self.destination_client(schema.name) as client:
                if not client.is_storage_initialized():
                    return
                assert isinstance(client, WithStateSync)
                stored = client.get_stored_schema(schema.name)
            known = {schema.stored_version_hash, *schema.previous_hashes}
            if stored is None or stored.version_hash in known:
                continue
            newest = Schema.from_stored_schema(json.loads(stored.schema))
            for table in newest.data_tables(include_incomplete=True):
                _add(schema, table)
            packages.save_schema(load_id, schema)
            self.schemas.save_schema(schema)

    def _validate_package(self) -> Counter[str]:
        """Counts what is about to load, by table; a row that this run does not replace would double."""
        rows: Counter[str] = Counter()
        self._warehouse.tables_in_package.clear()
        self._warehouse.pending_table_chains.clear()
        storage = self._get_load_storage().normalized_packages
        for load_id in self.list_normalized_load_packages():
            for job in storage.list_new_jobs(load_id):
                file = ParsedLoadJobFileName.parse(job)
                self._warehouse.tables_in_package.add(file.table_name)
                self._reject_keyless_merge(file.table_name)
                if file.file_format == "model":
                    self._warehouse.pushed_down.add(file.table_name)
                if file.file_format == "parquet":
                    full = storage.storage.make_full_path(job)
                    rows[file.table_name] += ParquetFile(full).metadata.num_rows
                    if file.table_name in self.partition_scopes:
                        _check_partition_membership(
                            full, file.table_name, self.partition_scopes[file.table_name]
                        )
        return rows

    def _reject_keyless_merge(self, table: str) -> None:
        """Stops a merge that dlt would turn into an append, because nothing says what it replaces."""
        hints = self.default_schema.tables.get(table)
        if hints is None:  # dlt's own state, which may stand under another source's schema
            return
        keyed = any(
            column.get("primary_key") or column.get("merge_key") or column.get("unique")
            for column in hints["columns"].values()
            if column["name"] != "_dlt_id"
        )
        merges = hints.get("write_disposition") == "merge" and not hints.get("parent")
        if merges and not keyed and table not in self.partition_scopes:
            raise OutOfPartitionError(
                f"{table} merges without a key, and this run replaces none of its partitions; nothing "
                "was loaded, for reruns would add up. Give it a primary key, or a resource of its own "
                "with a partition column."
            )

    def _check_row_count(self, new_rows: Mapping[str, int]) -> None:
        """Stops a replace that looks like an upstream in trouble rather than one that got smaller."""
        for table in new_rows:
            hints = self.default_schema.tables.get(table)
            if hints is None or hints.get("write_disposition") != "replace":
                continue
            with self._client() as client:
                had = client.row_count(table)
            if new_rows[table] < self.min_row_ratio * had:
                raise RowCountDropError(
                    f"{self.dataset_name}.{table} would shrink from {had} rows to {new_rows[table]}, "
                    f"below {self.min_row_ratio:.0%} of what it has; nothing was loaded. If upstream "
                    "is right, run again with the tag etl/allow_row_count_drop = true."
                )


def _add(schema: Schema, stored: TTableSchema) -> None:
    """Adds a stored table to a schema, or those of its columns that the schema's lacks.

    Raises:
        ConcurrentSchemaChangeError: a column has another type there.
    """
    name = stored["name"]
    if name not in schema.tables:
        schema.update_table(stored, normalize_identifiers=False)
        return
    columns = schema.tables[name]["columns"]
    for column, hints in stored["columns"].items():
        ours, theirs = columns.get(column, {}).get("data_type"), hints.get("data_type")
        if ours is None:
            columns[column] = hints
        elif theirs not in (None, ours):
            raise ConcurrentSchemaChangeError(
                f"{schema.name}: another run has just made {name}.{column} {theirs}, and this one has "
                f"{ours} in it; nothing was loaded. Run it again, and its contract will decide."
            )


def _check_partition_membership(parquet: str, table: str, rows: PartitionScope) -> None:
    # By its text: a moment is another one in another zone, and 05 is no folder of 5.
    written = rows.to_sql(escape='"{}"::VARCHAR'.format)
    with duckdb.connect() as connection:
        found = connection.execute(
            f'SELECT "{rows.column}"::VARCHAR, count(*) FROM read_parquet(?) '
            f"WHERE ({written}) IS NOT TRUE GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
            [parquet],
        ).fetchone()
    if found:
        value, count = found
        raise OutOfPartitionError(
            f"{table}: {count} row{'s' * (count > 1)} with {rows.column} {value}, which is none of the "
            f"partitions this run replaces ({', '.join(rows.partition_keys[:5])}); nothing was loaded. Yield "
            "their rows only, or name them as well."
        )


class PipelineSpec(dlt.Pipeline):
    """A pipeline's name, dataset and destination type, without its working folder.

    `dlt.pipeline()` creates (and may wipe) its folder when called, so it has no place in a module's
    body. `@dlt_assets` needs no more than this; the run opens the real pipeline with `create`.
    """

    def __init__(self, pipeline_name: str, dataset_name: str, progress: Progress) -> None:
        # No super().__init__(): it is what creates the folder.
        self.pipeline_name = pipeline_name
        self.dataset_name = dataset_name
        self.progress = progress
        self._destination: Any = None  # what it is, the run's environment says

    def __repr__(self) -> str:
        """Reads as the call that made it."""
        return f"pipeline({self.pipeline_name!r}, dataset_name={self.dataset_name!r})"

    def create(
        self,
        run_id: str,
        source: DltSource,
        partition_scopes: Mapping[str, PartitionScope] | None = None,
        *,
        log: Log = no_log,
        min_row_ratio: float = 0.0,
        pushdown_enabled: bool = True,
        force_reload: bool = False,
        allow_partial: bool = False,
    ) -> WarehousePipeline:
        """Makes the real pipeline, in a working folder that no other run shares.

        Shared folders are how parallel runs lose data (dlt issue 1102, Dagster issue 21022). State
        and schema come back from the warehouse, so a fresh folder loses nothing.

        Args:
            run_id: names the folder, for people who look into it after a failure.
            source: what the run is to load.
            partition_scopes: the rows to replace, by table; other tables load as a whole.
            log: told about waits.
            min_row_ratio: the share of its rows that a replaced table must keep.
            pushdown_enabled: whether a source may have the warehouse read files itself.
            force_reload: whether it then reads files as well whose rows it has.
            allow_partial: whether a source may leave partitions for a later run.
        """
        preview_rows = settings.get_int("PREVIEW_ROWS")  # wrong, it stops before the load
        made: Any = create_destination(partition_scopes, log=log, force_reload=force_reload)
        configuration = resolve_configuration(made, self.dataset_name)
        folders = duckdb_path().with_suffix(".working")
        folders.mkdir(parents=True, exist_ok=True)
        _delete_expired_dirs(folders)
        pipeline: WarehousePipeline = dlt.pipeline(
            pipeline_name=self.pipeline_name,
            pipelines_dir=tempfile.mkdtemp(prefix=f"{run_id}-", dir=folders),
            dataset_name=self.dataset_name,
            destination=made,
            progress=self.progress,
            _impl_cls=WarehousePipeline,
        )
        pipeline.log = log
        pipeline.locks = create_lock_manager(made, configuration, log)
        pipeline.warehouse_name = database_name(made, configuration)
        made.verify_lock = pipeline.locks.verify_held
        pipeline.reported_tables = frozenset(
            source.schema.naming.normalize_table_identifier(resource.table_name)
            for resource in source.selected_resources.values()
            if isinstance(resource.table_name, str)
        )
        pipeline.preview_rows, pipeline.table_stats = preview_rows, {}
        pipeline.pushdown_enabled = pushdown_enabled and made.warehouse_type == "duckdb"
        pipeline.retry_without_pushdown = partial(
            self.create,
            run_id,
            source,
            partition_scopes,
            log=log,
            min_row_ratio=min_row_ratio,
            pushdown_enabled=False,
            allow_partial=allow_partial,
        )
        pipeline.allow_partial, pipeline.deferred = allow_partial, {}
        pipeline.min_row_ratio = min_row_ratio
        pipeline.schema_name = source.schema.name
        pipeline.partition_scopes = dict(partition_scopes or {})
        by_partition = {rows.resource for rows in pipeline.partition_scopes.values()}
        pipeline.has_unpartitioned_resources = bool(source.selected_resources.keys() - by_partition)
        return pipeline


def pipeline(pipeline_name: str, dataset_name: str, progress: Progress = "log") -> PipelineSpec:
    """Declares a pipeline into the warehouse; safe in a module's body, it touches nothing."""
    return PipelineSpec(pipeline_name, dataset_name, progress)


def cleanup(opened: WarehousePipeline, failed: bool) -> None:
    """Removes a run's working folder; after a failure keeps it, for a look at what was extracted.

    The trace goes in any case: it holds exception texts, and those can hold secrets.
    """
    folder = Path(opened.pipelines_dir)
    if failed:
        for trace in folder.rglob("trace.pickle"):
            trace.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _delete_expired_dirs(folders: Path) -> None:
    """Removes what killed and failed runs left, a week later."""
    oldest = time.time() - _KEEP_WORKING_FOLDERS_SECONDS
    for folder in folders.iterdir():
        with suppress(FileNotFoundError):  # another run may just have removed its own
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
