"""The one place that knows where data lands: destination, file, working folders and locking.

All pipelines load into one DuckDB file, a dataset (schema) each. DuckDB lets one process write at a
time, and dlt reconnects at every step, so a whole load runs inside one exclusive section
(`exclusive`); extracting and normalising stay outside it and run in parallel.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeVar

import dlt
import duckdb
from dlt.common.data_writers.escape import escape_postgres_identifier
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import FollowupJobRequest, SqlModel, WithStateSync
from dlt.common.pipeline import LoadInfo
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration
from dlt.destinations.impl.duckdb.duck import DuckDbClient
from dlt.destinations.job_client_impl import ModelLoadJob
from dlt.destinations.sql_client import SqlClientBase
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.extract import DltSource
from filelock import FileLock, Timeout
from pyarrow.parquet import ParquetFile
from xxhash import xxh3_128_hexdigest

from shared import environment
from shared.sources import TryLaterError

Log = Callable[[str], None]
T = TypeVar("T")
Progress = Literal["tqdm", "enlighten", "log", "alive_progress"]

_POLL_SECONDS = 0.1
_MEMORY_MB = 256  # for a file that the warehouse reads itself, however long
_MEMORY_MB_PER_COLUMN = 4
_KEEP_WORKING_FOLDERS_SECONDS = 7 * 24 * 3600


class PartitionError(Exception):
    """Rows were extracted that belong to none of the partitions a run replaces."""


class ShrinkingError(Exception):
    """A replace would leave a table with far fewer rows than it has."""


class SchemaConflictError(Exception):
    """Two runs at the same moment gave one new column two types."""


class WarehouseBusyError(Exception):
    """The warehouse stayed in use by another process for longer than the stated limit."""


def path() -> Path:
    """Returns the warehouse's DuckDB file (`WAREHOUSE_PATH`); it need not exist yet."""
    return environment.path("WAREHOUSE_PATH")


def _silent(_: str) -> None:
    pass


class _HeldError(Exception):
    """Says what is held, and by whom."""


def _wait_for(attempt: Callable[[], T], log: Log, since: float | None = None) -> T:
    """Tries until nobody holds what is wanted any more, and tells once that it waits.

    Args:
        attempt: raises `_HeldError` while it is held.
        log: told about the wait.
        since: when the wait began, if not now; several waits can share one limit.

    Raises:
        WarehouseBusyError: it was held for more than `WAREHOUSE_WAIT_SECONDS`.
    """
    limit = environment.seconds("WAREHOUSE_WAIT_SECONDS")
    deadline = (since or time.monotonic()) + limit
    told = False
    while True:
        try:
            return attempt()
        except _HeldError as held:
            if time.monotonic() > deadline:
                raise WarehouseBusyError(
                    f"Waited more than {limit:g} s for {held}. Let that end, or raise "
                    "WAREHOUSE_WAIT_SECONDS."
                ) from None
            if not told:
                log(f"Waiting for {held}")
                told = True
            time.sleep(_POLL_SECONDS)


def _connect(file: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(file), read_only=read_only)
    except duckdb.IOException as error:
        # DuckDB raises the same class for a missing folder or a damaged file: only a held lock goes
        # away by waiting, and its message names the holder's process.
        if "Could not set lock" not in str(error):
            raise
        raise _HeldError(f"the warehouse, held by another program: {error}") from None


@contextmanager
def exclusive(log: Log = _silent) -> Iterator[duckdb.DuckDBPyConnection]:
    """Holds the warehouse for one writer, and yields an open connection to it.

    Two things together make the section whole: a side lock file, which the kernel frees even when
    the process is killed, orders our own runs; the connection, open for the section's length, keeps
    programs that know nothing of the lock file out between dlt's steps.

    Raises:
        WarehouseBusyError: another process held it for more than `WAREHOUSE_WAIT_SECONDS`.
    """
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(file.with_suffix(".lock")), file.with_suffix(".holder")

    def acquire() -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            who = holder.read_text() if holder.exists() else "an unknown process"
            raise _HeldError(f"the warehouse, held by {who}") from None

    _wait_for(acquire, log)
    try:
        holder.write_text(f"pid {os.getpid()}")
        with _wait_for(lambda: _connect(file, read_only=False), log) as connection:
            yield connection
    finally:
        lock.release()


@contextmanager
def reader(log: Log = _silent) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yields a read-only connection to what has been committed; a writer is waited for.

    Keep it short: while it is open, loads wait.

    Raises:
        FileNotFoundError: nothing has been loaded yet.
        WarehouseBusyError: a writer held it for more than `WAREHOUSE_WAIT_SECONDS`.
    """
    file = path()
    if not file.exists():
        raise FileNotFoundError(f"No warehouse at {file} yet: `uv run etl run` makes it.")
    with _wait_for(lambda: _connect(file, read_only=True), log) as connection:
        yield connection


def query(sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
    """Runs a query on the warehouse, as `reader` does, and returns its rows as dictionaries."""
    with reader() as connection:
        result = connection.execute(sql, parameters)
        columns = [column[0] for column in result.description or []]
        return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


@dataclass(frozen=True)
class ReplacedRows:
    """The rows of a table that a run replaces: those with some values in its partition column."""

    resource: str
    column: str
    values: tuple[str, ...]

    @property
    def condition(self) -> str:
        """The same in SQL."""
        values = ", ".join(map(_sql_value, self.values))
        return f"{escape_postgres_identifier(self.column)} IN ({values})"

    def without(self, values: Sequence[str]) -> "ReplacedRows":
        """Returns those of the rows that have none of these values."""
        return replace(self, values=tuple(each for each in self.values if each not in values))


def _sql_value(key: str) -> str:
    """Returns SQL for a partition key that survives what dlt does to a merge's text.

    dlt splits that text at every semicolon, joins its lines, fills its braces and leaves the
    transaction out where it reads ALTER SCHEMA; a file may be named like any of these.
    """
    if re.fullmatch(r"[\w.:/-]*", key, re.ASCII):
        return f"'{key}'"
    return f"decode(from_hex('{key.encode().hex()}'))"


class WarehouseDestination(dlt.destinations.duckdb):
    """DuckDB, which replaces exactly the partitions a run is about, in one transaction.

    dlt's delete-insert merge takes a `destination_scope`: the rows to delete before the new ones go
    in. Declared on a resource it would be stored in the schema and outlive its day (a later load
    would delete that day again), so it is set here, at load time only.
    """

    def __init__(
        self,
        replaced_rows: Mapping[str, ReplacedRows] | None = None,
        *,
        log: Log = _silent,
        loads_again: bool = False,
        **kwargs: Any,
    ) -> None:
        """Takes the rows to replace, by table name, what `open` was given, and dlt's own arguments."""
        self.replaced_rows = dict(replaced_rows or {})
        self.pushed_down: set[str] = set()
        self.versions: list[str] = []
        self.confirmations: list[Callable[[], None]] = []
        self.inserted: Counter[str] = Counter()
        self.loading: set[str] = set()
        self.merging: dict[str, Sequence[Any]] = {}
        self.loads_again = loads_again
        self.log = log
        super().__init__(**kwargs)

    def _raw_capabilities(self) -> Any:
        capabilities = super()._raw_capabilities()
        # dlt leaves this unset for DuckDB, and then commits a merge statement by statement: a load
        # that fails between its delete and its insert would lose the rows.
        capabilities.supports_transactions = True
        # dlt's own choice, a text of INSERTs, is most of a load's time.
        capabilities.preferred_loader_file_format = "parquet"
        return capabilities

    @cached_property
    def _own_configuration(self) -> DuckDbClientConfiguration:
        return self.configuration(self.spec(), accept_partial=True)

    def capabilities(
        self, config: Any = None, naming: Any = None
    ) -> DestinationCapabilitiesContext:
        """Dlt's own, for which it need not resolve the configuration some twenty times a run."""
        return super().capabilities(config or self._own_configuration, naming)

    def replaced_together(self, table: str) -> set[str]:
        """Returns the tables that this load merges in one transaction with a table, itself included."""
        rows = self.replaced_rows.get(table)
        return {table} | {
            name
            for name in self.loading - self.pushed_down
            if rows and name in self.replaced_rows
            if self.replaced_rows[name].resource == rows.resource
        }

    @property
    def destination_type(self) -> str:
        """Dlt's own type, so that a pipeline's stored state opens with plain dlt as well."""
        return "dlt.destinations.duckdb"

    @property
    def client_class(self) -> type[DuckDbClient]:
        """The DuckDB client that knows this run's conditions."""
        destination = self

        class PartitionReplacingClient(DuckDbClient):
            def prepare_load_table(self, table_name: str) -> Any:
                table = super().prepare_load_table(table_name)
                if rows := destination.replaced_rows.get(table_name):
                    scope: Any = {"x-merge-destination-scope": rows.condition}
                    table.update(scope)
                return table

            def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
                if table_name in destination.pushed_down:
                    return False
                return super().should_load_data_to_staging_dataset(table_name)

            def create_load_job(self, table: Any, file_path: str, *args: Any, **kwargs: Any) -> Any:
                if table["name"] in destination.pushed_down:
                    return PushedDownJob(file_path, destination)
                return super().create_load_job(table, file_path, *args, **kwargs)

            def _create_merge_followup_jobs(self, table_chain: Any) -> Any:
                root = table_chain[0]["name"]
                if root in destination.pushed_down:
                    return []
                destination.merging[root] = table_chain
                together = destination.replaced_together(root)
                if not together <= destination.merging.keys():
                    return []  # the last of them merges all
                chains = [destination.merging[name] for name in sorted(together)]
                return [_merge_together(chains, self.sql_client)]

        return PartitionReplacingClient


def _merge_together(
    chains: Sequence[Sequence[Any]], sql_client: SqlClientBase[Any]
) -> FollowupJobRequest:
    """Returns one job, hence one transaction, that merges several tables and what is nested in them."""

    class MergeTogether(SqlMergeFollowupJob):
        @classmethod
        def generate_sql(cls, table_chain: Any, sql_client: SqlClientBase[Any]) -> list[str]:
            del table_chain  # the first of them, which names the job
            merge = super().generate_sql
            return [statement for chain in chains for statement in merge(chain, sql_client)]

    return MergeTogether.from_table_chain(chains[0], sql_client)


class PushedDownJob(ModelLoadJob):
    """Replaces a run's rows of a table by those of a query, in one transaction and without staging.

    What it replaced them by is kept in `_pushed_down_loads`, in the same transaction: where the query
    would bring the rows that are there, it does not run.
    """

    def __init__(self, file_path: str, destination: WarehouseDestination) -> None:
        super().__init__(file_path)
        self._destination = destination

    def run(self) -> None:
        """Runs the query.

        Raises:
            DatabaseTerminalException: whatever happened; of any other kind dlt would try it five times.
        """
        try:
            self._replace()
        except Exception as error:
            raise DatabaseTerminalException(error) from error

    def _replace(self) -> None:
        with Path(self._file_path).open(encoding="utf-8") as file:
            model = SqlModel.from_file(file, "duckdb")
        insert = self._insert_statement_from_select_statement("duckdb", model.to_sql())
        name = str(self._load_table["name"])
        rows = self._destination.replaced_rows[name]
        client = self._job_client.sql_client
        table = client.make_qualified_table_name(name)
        version = xxh3_128_hexdigest("\n".join(self._destination.versions).encode())
        loads = client.make_qualified_table_name("_pushed_down_loads")
        # Rows may land in any order: DuckDB then needs less memory and less time, however long the
        # file is.
        client.execute_sql("SET preserve_insertion_order = false")
        memory = _MEMORY_MB + len(self._load_table["columns"]) * _MEMORY_MB_PER_COLUMN
        client.execute_sql(f"SET memory_limit = '{memory}MB'")
        with client.begin_transaction():
            client.execute_sql(
                f"CREATE TABLE IF NOT EXISTS {loads} "
                "(table_name TEXT, condition TEXT, version TEXT, load_id TEXT, row_count BIGINT)"
            )
            # Rows that came otherwise since have another load's id, and those removed are missing.
            found = client.execute_sql(
                f"SELECT load_id, row_count FROM {loads} JOIN (SELECT count(*) AS row_count, "
                f"min(_dlt_load_id) AS load_id, max(_dlt_load_id) AS last FROM {table} "
                f"WHERE {rows.condition}) AS there USING (load_id, row_count) WHERE last = load_id "
                "AND table_name = %s AND condition = %s AND version = %s",
                name,
                rows.condition,
                version,
            )
            if found and not self._destination.loads_again:
                ((load_id, self._destination.inserted[name]),) = found
                for confirm in self._destination.confirmations:
                    confirm()
                self._destination.log(f"{name}: unchanged since load {load_id}, so left as it is")
                return
            client.execute_sql(f"DELETE FROM {table} WHERE {rows.condition}")
            ((inserted,),) = client.execute_sql(insert) or ((0,),)
            ((landed,),) = client.execute_sql(
                f"SELECT count(*) FROM {table} WHERE {rows.condition}"
            ) or ((0,),)
            if landed != inserted:
                raise PartitionError(f"{name}: {inserted - landed} rows of other partitions")
            for confirm in self._destination.confirmations:
                confirm()
            client.execute_sql(
                f"DELETE FROM {loads} WHERE table_name = %s AND condition = %s",
                name,
                rows.condition,
            )
            client.execute_sql(
                f"INSERT INTO {loads} VALUES (%s, %s, %s, %s, %s)",
                name,
                rows.condition,
                version,
                self._load_id,
                inserted,
            )
        self._destination.inserted[name] = inserted


class WarehousePipeline(dlt.Pipeline):
    """A dlt pipeline that touches the warehouse only while it holds it."""

    log: Log = staticmethod(_silent)
    schema_name: str = ""
    replaced_rows: Mapping[str, ReplacedRows]
    loads_whole_tables: bool = True
    keep_at_least: float = 0.0
    pushes_down: bool = True
    loads_in_parts: bool = False
    left: Mapping[str, TryLaterError]
    start_over: Callable[[], "WarehousePipeline"]
    row_counts: Mapping[str, int]

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
        """
        units = [
            f"{rows.resource} {value}"
            for rows in self.replaced_rows.values()
            for value in rows.values
        ]
        if self.loads_whole_tables:
            # Such a table, and the cursor of an incremental one, belong to the pipeline as a whole.
            units.append(f"pipeline {self.pipeline_name}")
        what = f"another run of the same partition of {self.dataset_name}"
        since = time.monotonic()
        with path().with_suffix(".turns").open("a") as file:

            def acquire(place: int) -> None:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                except BlockingIOError:
                    raise _HeldError(what) from None

            # A byte of one file for each unit, in order, so that no two runs wait for each other.
            # The kernel frees them when the process ends, however it ends.
            for place in sorted({_place(f"{self.dataset_name} {unit}") for unit in units}):
                _wait_for(partial(acquire, place), self.log, since)
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
    def _warehouse(self) -> WarehouseDestination:
        assert isinstance(self.destination, WarehouseDestination)
        return self.destination

    @property
    def has_pushed_down(self) -> bool:
        """Whether the warehouse was to run a query of this run."""
        return bool(self._warehouse.pushed_down)

    @property
    def pushed_down_rows(self) -> Mapping[str, int]:
        """How many rows such queries brought, by table."""
        return self._warehouse.inserted

    def _sync_destination(self, *args: Any, **kwargs: Any) -> None:
        with exclusive(self.log):
            super()._sync_destination(*args, **kwargs)

    def load(self, *args: Any, **kwargs: Any) -> LoadInfo:
        """Loads as dlt does, and counts each table's rows before others may change them.

        Raises:
            PartitionError: a row belongs to none of the partitions that this run replaces.
            SchemaConflictError: another run has just given a new column another type.
            ShrinkingError: a replaced table would keep less than `keep_at_least` of its rows.
        """
        new_rows = self._normalised_rows()
        with exclusive(self.log) as connection:
            self._take_in_stored_schema()
            self._refuse_shrinking(connection, new_rows)
            info = super().load(*args, **kwargs)
            self.row_counts = {
                table: _count(connection, self.dataset_name, table)
                for table in self.default_schema.data_table_names()
            }
        return info

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

    def _refuse_shrinking(
        self, connection: duckdb.DuckDBPyConnection, new_rows: Mapping[str, int]
    ) -> None:
        """Stops a replace that looks like an upstream in trouble rather than one that got smaller."""
        for table in new_rows:
            hints = self.default_schema.tables.get(table)
            if hints is None or hints.get("write_disposition") != "replace":
                continue
            had = _count(connection, self.dataset_name, table)
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


def _place(unit: str) -> int:
    return int.from_bytes(blake2b(unit.encode(), digest_size=7).digest())


def _refuse(parquet: str, table: str, rows: ReplacedRows) -> None:
    with duckdb.connect() as connection:
        found = connection.execute(
            f'SELECT "{rows.column}"::VARCHAR, count(*) FROM read_parquet(?) '
            f"WHERE ({rows.condition}) IS NOT TRUE GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
            [parquet],
        ).fetchone()
    if found:
        value, count = found
        raise PartitionError(
            f"{table}: {count} row{'s' * (count > 1)} with {rows.column} {value}, which is none of the "
            f"partitions this run replaces ({', '.join(rows.values[:5])}); nothing was loaded. Yield "
            "their rows only, or name them as well."
        )


def _count(connection: duckdb.DuckDBPyConnection, dataset: str, table: str) -> int:
    """Returns a table's rows; a table that is declared and not made yet has none."""
    known = "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = ?"
    if connection.execute(known, [dataset, table]).fetchone() is None:
        return 0
    row = connection.execute(f'SELECT count(*) FROM "{dataset}"."{table}"').fetchone()
    return int(row[0]) if row else 0


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
        self._destination: Any = WarehouseDestination()

    def __repr__(self) -> str:
        """Reads as the call that made it."""
        return f"pipeline({self.pipeline_name!r}, dataset_name={self.dataset_name!r})"

    def open(
        self,
        run_id: str,
        source: DltSource,
        replaced_rows: Mapping[str, ReplacedRows] | None = None,
        *,
        log: Log = _silent,
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
        folders = path().with_suffix(".working")
        folders.mkdir(parents=True, exist_ok=True)
        _sweep(folders)
        pipeline: WarehousePipeline = dlt.pipeline(
            pipeline_name=self.pipeline_name,
            pipelines_dir=tempfile.mkdtemp(prefix=f"{run_id}-", dir=folders),
            dataset_name=self.dataset_name,
            destination=WarehouseDestination(
                credentials={"database": str(path())},
                # A plain replace empties the table at the start, and is seen empty meanwhile.
                replace_strategy="insert-from-staging",
                replaced_rows=replaced_rows,
                log=log,
                loads_again=loads_again,
            ),
            progress=self.progress,
            _impl_cls=WarehousePipeline,
        )
        pipeline.log = log
        pipeline.pushes_down = pushes_down
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
