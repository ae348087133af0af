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

from shared import environment
from shared.sources import REPLACED_TOGETHER, TryLaterError
from shared.warehouse.destination import (
    PartitionError,
    ReplacedRows,
    Warehouse,
    configured,
    destination,
    locks,
    name,
)
from shared.warehouse.locks import Locks, Log, exclusive, path, silent

Progress = Literal["tqdm", "enlighten", "log", "alive_progress"]

_KEEP_WORKING_FOLDERS_SECONDS = 7 * 24 * 3600


class ShrinkingError(Exception):
    """A replace would leave a table with far fewer rows than it has."""


class SchemaConflictError(Exception):
    """Two runs at the same moment gave one new column two types."""


@dataclass(frozen=True)
class Landed:
    """What a table holds after a load.

    Attributes:
        rows: of the whole table.
        further: the rows of the tables that load with it, by table: those of nested lists, and what
            its resource replaces together with it.
        partitions: the rows of each partition that the load replaced, where it has any.
        first_rows: some of the rows that the load brought, by column.
    """

    rows: int = 0
    further: Mapping[str, int] = field(default_factory=dict)
    partitions: Mapping[str, int] = field(default_factory=dict)
    first_rows: Sequence[Mapping[str, Any]] = ()


class WarehousePipeline(dlt.Pipeline):
    """A dlt pipeline that touches the warehouse only while it holds it."""

    log: Log = staticmethod(silent)
    schema_name: str = ""
    replaced_rows: Mapping[str, ReplacedRows]
    loads_whole_tables: bool = True
    keep_at_least: float = 0.0
    pushes_down: bool = True
    loads_in_parts: bool = False
    left: Mapping[str, TryLaterError]
    start_over: Callable[[], "WarehousePipeline"]
    landed: Mapping[str, Landed]
    shown_tables: frozenset[str]
    preview_rows: int
    locks: Locks
    warehouse_name: str

    @property
    def default_schema(self) -> Schema:
        """The schema of the source that this run loads, once extracted, whatever came before."""
        extracted = self.schema_name in self.schema_names
        return self.schemas[self.schema_name] if extracted else super().default_schema

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Holds what this run replaces, from its first request to its last row.

        Runs of the same partition take turns as a whole: else a run that asked upstream earlier
        could land later and put old rows over new ones. Runs of other partitions go on beside it.

        Raises:
            WarehouseBusyError: another run of a partition took more than `WAREHOUSE_WAIT_SECONDS`.
            WarehouseUnreachableError: the warehouse is a server that does not answer.
        """
        units: dict[str, Sequence[str]] = {
            rows.resource: rows.values for rows in self.replaced_rows.values()
        }
        if self.loads_whole_tables:
            # Such a table, and the cursor of an incremental one, belong to the pipeline as a whole.
            units[f"pipeline {self.pipeline_name}"] = ()
        with self.locks.turn(units):
            yield

    def push_down(self, select: str, version: str, confirm: Callable[[], None]) -> dlt.Relation:
        """Returns the item that makes the warehouse run a query; see `sources.PushesDown`."""
        self._warehouse.versions.append(version)
        self._warehouse.confirmations.append(confirm)
        return self.dataset().query(select, "duckdb")

    def leave(self, partitions: Sequence[str], why: TryLaterError) -> None:
        """Leaves partitions as they are in this load; see `sources.LoadsInParts`."""
        rows = {table: rows.without(partitions) for table, rows in self.replaced_rows.items()}
        if not self.loads_in_parts or not all(each.values for each in rows.values()):
            raise why
        self.left = {**self.left, **dict.fromkeys(partitions, why)}
        self.replaced_rows = self._warehouse.replaced_rows = rows

    @property
    def _warehouse(self) -> Warehouse:
        opened: Any = self.destination
        assert isinstance(opened, Warehouse)
        return opened

    @property
    def has_pushed_down(self) -> bool:
        """Whether the warehouse was to run a query of this run."""
        return bool(self._warehouse.pushed_down)

    @property
    def pushed_down_rows(self) -> Mapping[str, int]:
        """How many rows such queries brought, by table."""
        return self._warehouse.inserted

    def _sync_destination(self, *args: Any, **kwargs: Any) -> None:
        # Connecting to the file is writing to it.
        with exclusive(self.log) if self._warehouse.kind == "duckdb" else nullcontext():
            super()._sync_destination(*args, **kwargs)

    def load(self, *args: Any, **kwargs: Any) -> LoadInfo:
        """Loads as dlt does, and looks at each table before others may change it.

        Raises:
            PartitionError: a row belongs to none of the partitions that this run replaces.
            SchemaConflictError: another run has just given a new column another type.
            ShrinkingError: a replaced table would keep less than `keep_at_least` of its rows.
        """
        new_rows = self._normalised_rows()
        with self.locks.load():
            self._take_in_stored_schema()
            self._refuse_shrinking(new_rows)
            info = super().load(*args, **kwargs)
            with self._client() as client:
                self.landed = {
                    table: self._look_at(client, table, info.loads_ids)
                    for table in self.shown_tables
                }
        return info

    def _look_at(self, client: Any, table: str, load_ids: Sequence[str]) -> Landed:
        """Returns what is told of a table; what cannot be must not fail what has landed."""
        rows = client.row_count(table)
        schema = self.default_schema
        if not rows or table not in schema.tables:
            return Landed(rows)
        together: Sequence[str] = schema.tables[table].get(REPLACED_TOGETHER, [])  # type: ignore[assignment]
        further = [
            *(str(each["name"]) for each in get_nested_tables(schema.tables, table)[1:]),
            *map(schema.naming.normalize_table_identifier, together),
        ]
        columns = schema.get_table_columns(table)
        shown = [name for name in columns if not name.startswith("_dlt")]
        loads = load_ids if "_dlt_load_id" in columns else ()
        most = self.preview_rows
        try:
            return Landed(
                rows,
                {each: client.row_count(each) for each in further},
                client.partition_counts(table) if table in self.replaced_rows else {},
                client.first_rows(table, shown, loads, most) if most and shown else (),
            )
        except Exception as error:  # noqa: BLE001 - such as a date that Python cannot hold
            self.log(environment.redacted(f"{table} has landed, and cannot be shown: {error}"))
            return Landed(rows)

    def _client(self) -> Any:
        return self.destination_client(self.default_schema.name)

    def _take_in_stored_schema(self) -> None:
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

    def _normalised_rows(self) -> Counter[str]:
        """Counts what is about to load, by table; a row that this run does not replace would double."""
        rows: Counter[str] = Counter()
        self._warehouse.loading.clear()
        self._warehouse.merging.clear()
        storage = self._get_load_storage().normalized_packages
        for load_id in self.list_normalized_load_packages():
            for job in storage.list_new_jobs(load_id):
                file = ParsedLoadJobFileName.parse(job)
                self._warehouse.loading.add(file.table_name)
                self._refuse_adding_up(file.table_name)
                if file.file_format == "model":
                    self._warehouse.pushed_down.add(file.table_name)
                if file.file_format == "parquet":
                    full = storage.storage.make_full_path(job)
                    rows[file.table_name] += ParquetFile(full).metadata.num_rows
                    if file.table_name in self.replaced_rows:
                        _refuse(full, file.table_name, self.replaced_rows[file.table_name])
        return rows

    def _refuse_adding_up(self, table: str) -> None:
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
        if merges and not keyed and table not in self.replaced_rows:
            raise PartitionError(
                f"{table} merges without a key, and this run replaces none of its partitions; nothing "
                "was loaded, for reruns would add up. Give it a primary key, or a resource of its own "
                "with a partition column."
            )

    def _refuse_shrinking(self, new_rows: Mapping[str, int]) -> None:
        """Stops a replace that looks like an upstream in trouble rather than one that got smaller."""
        for table in new_rows:
            hints = self.default_schema.tables.get(table)
            if hints is None or hints.get("write_disposition") != "replace":
                continue
            with self._client() as client:
                had = client.row_count(table)
            if new_rows[table] < self.keep_at_least * had:
                raise ShrinkingError(
                    f"{self.dataset_name}.{table} would shrink from {had} rows to {new_rows[table]}, "
                    f"below {self.keep_at_least:.0%} of what it has; nothing was loaded. If upstream "
                    "is right, run again with the tag etl/allow_shrinking = true."
                )


def _add(schema: Schema, stored: TTableSchema) -> None:
    """Adds a stored table to a schema, or those of its columns that the schema's lacks.

    Raises:
        SchemaConflictError: a column has another type there.
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
            raise SchemaConflictError(
                f"{schema.name}: another run has just made {name}.{column} {theirs}, and this one has "
                f"{ours} in it; nothing was loaded. Run it again, and its contract will decide."
            )


def _refuse(parquet: str, table: str, rows: ReplacedRows) -> None:
    # By its text: a moment is another one in another zone, and 05 is no folder of 5.
    written = rows.condition(escape='"{}"::VARCHAR'.format)
    with duckdb.connect() as connection:
        found = connection.execute(
            f'SELECT "{rows.column}"::VARCHAR, count(*) FROM read_parquet(?) '
            f"WHERE ({written}) IS NOT TRUE GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
            [parquet],
        ).fetchone()
    if found:
        value, count = found
        raise PartitionError(
            f"{table}: {count} row{'s' * (count > 1)} with {rows.column} {value}, which is none of the "
            f"partitions this run replaces ({', '.join(rows.values[:5])}); nothing was loaded. Yield "
            "their rows only, or name them as well."
        )


class PipelineDeclaration(dlt.Pipeline):
    """A pipeline's name, dataset and destination type, without its working folder.

    `dlt.pipeline()` creates (and may wipe) its folder when called, so it has no place in a module's
    body. `@dlt_assets` needs no more than this; the run opens the real pipeline with `open`.
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

    def open(
        self,
        run_id: str,
        source: DltSource,
        replaced_rows: Mapping[str, ReplacedRows] | None = None,
        *,
        log: Log = silent,
        keep_at_least: float = 0.0,
        pushes_down: bool = True,
        loads_again: bool = False,
        loads_in_parts: bool = False,
    ) -> WarehousePipeline:
        """Makes the real pipeline, in a working folder that no other run shares.

        Shared folders are how parallel runs lose data (dlt issue 1102, Dagster issue 21022). State
        and schema come back from the warehouse, so a fresh folder loses nothing.

        Args:
            run_id: names the folder, for people who look into it after a failure.
            source: what the run is to load.
            replaced_rows: the rows to replace, by table; other tables load as a whole.
            log: told about waits.
            keep_at_least: the share of its rows that a replaced table must keep.
            pushes_down: whether a source may have the warehouse read files itself.
            loads_again: whether it then reads files as well whose rows it has.
            loads_in_parts: whether a source may leave partitions for a later run.
        """
        preview_rows = environment.whole_number("PREVIEW_ROWS")  # wrong, it stops before the load
        made: Any = destination(replaced_rows, log=log, loads_again=loads_again)
        configuration = configured(made, self.dataset_name)
        folders = path().with_suffix(".working")
        folders.mkdir(parents=True, exist_ok=True)
        _sweep(folders)
        pipeline: WarehousePipeline = dlt.pipeline(
            pipeline_name=self.pipeline_name,
            pipelines_dir=tempfile.mkdtemp(prefix=f"{run_id}-", dir=folders),
            dataset_name=self.dataset_name,
            destination=made,
            progress=self.progress,
            _impl_cls=WarehousePipeline,
        )
        pipeline.log = log
        pipeline.locks = locks(made, configuration, log)
        pipeline.warehouse_name = name(made, configuration)
        made.confirm_turn = pipeline.locks.confirm
        pipeline.shown_tables = frozenset(
            source.schema.naming.normalize_table_identifier(resource.table_name)
            for resource in source.selected_resources.values()
            if isinstance(resource.table_name, str)
        )
        pipeline.preview_rows, pipeline.landed = preview_rows, {}
        pipeline.pushes_down = pushes_down and made.kind == "duckdb"
        pipeline.start_over = partial(
            self.open,
            run_id,
            source,
            replaced_rows,
            log=log,
            keep_at_least=keep_at_least,
            pushes_down=False,
            loads_in_parts=loads_in_parts,
        )
        pipeline.loads_in_parts, pipeline.left = loads_in_parts, {}
        pipeline.keep_at_least = keep_at_least
        pipeline.schema_name = source.schema.name
        pipeline.replaced_rows = dict(replaced_rows or {})
        by_partition = {rows.resource for rows in pipeline.replaced_rows.values()}
        pipeline.loads_whole_tables = bool(source.selected_resources.keys() - by_partition)
        return pipeline


def pipeline(
    pipeline_name: str, dataset_name: str, progress: Progress = "log"
) -> PipelineDeclaration:
    """Declares a pipeline into the warehouse; safe in a module's body, it touches nothing."""
    return PipelineDeclaration(pipeline_name, dataset_name, progress)


def close(opened: WarehousePipeline, failed: bool) -> None:
    """Removes a run's working folder; after a failure keeps it, for a look at what was extracted.

    The trace goes in any case: it holds exception texts, and those can hold secrets.
    """
    folder = Path(opened.pipelines_dir)
    if failed:
        for trace in folder.rglob("trace.pickle"):
            trace.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folders: Path) -> None:
    """Removes what killed and failed runs left, a week later."""
    oldest = time.time() - _KEEP_WORKING_FOLDERS_SECONDS
    for folder in folders.iterdir():
        with suppress(FileNotFoundError):  # another run may just have removed its own
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
