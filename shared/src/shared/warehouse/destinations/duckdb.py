"""DuckDB: files are inserted in little memory, and a query can take the place of rows."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from dlt.common.destination.client import LoadJob
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.impl.duckdb.duck import DuckDbCopyJob
from duckdb import OutOfMemoryException
from xxhash import xxh3_128_hexdigest

from shared.sources.quoting import glob_literal
from shared.warehouse.destinations.direct import DirectJob, DirectReplaceMixin
from shared.warehouse.destinations.pushdown_job import PushdownJob
from shared.warehouse.dlt_internals import WarehouseJob
from shared.warehouse.errors import OutOfPartitionError, find_cause

_BATCH_MEMORY_MB = 24  # for a file in Parquet, of which DuckDB reads a batch of rows per thread
_BATCH_MEMORY_MB_PER_COLUMN = 6
_UNLIMITED_MB = sys.maxsize
_changing_limit = Lock()

_MAX_DESCRIBED_TABLES = 20  # each costs a statement

_UNCHANGED_LOAD_SQL = """
    SELECT load_id, row_count FROM {loads} JOIN (
        SELECT count(*) AS row_count, min(_dlt_load_id) AS load_id, max(_dlt_load_id) AS last_load_id
        FROM {table} WHERE {condition}
    ) AS stored USING (load_id, row_count)
    WHERE last_load_id = load_id AND table_name = %s AND condition = %s AND version = %s
"""
"""The load that inserted all stored rows of a scope by the same query; none if rows were added or removed."""


class PushdownLoadJob(PushdownJob):
    """Runs the query in the warehouse itself.

    The table `_pushdown_loads` records, in the same transaction, which query inserted the rows. If the
    query would bring the rows that are stored, it does not run.
    """

    def _replace(self) -> None:
        _in_little_memory(self, self._replace_rows, self._memory_mb)

    def _replace_rows(self) -> None:
        name, client, state = self.load_table_name, self.client.sql_client, self.client.state
        select, condition = self._read_query("duckdb"), state.partition_scopes[name].to_sql()
        table, loads = map(client.make_qualified_table_name, (name, "_pushdown_loads"))
        version = xxh3_128_hexdigest("\n".join(state.fingerprints).encode())
        # DuckDB needs less memory and less time if it need not keep the order of rows.
        client.execute_sql("SET preserve_insertion_order = false")
        with client.begin_transaction():
            client.execute_sql(
                f"CREATE TABLE IF NOT EXISTS {loads} "
                "(table_name TEXT, condition TEXT, version TEXT, load_id TEXT, row_count BIGINT)"
            )
            unchanged = client.execute_sql(
                _UNCHANGED_LOAD_SQL.format(loads=loads, table=table, condition=condition),
                *(name, condition, version),
            )
            if unchanged and not state.force_reload:
                ((load_id, state.rows_inserted[name]),) = unchanged
                self._check_before_commit()
                state.log(f"{name}: unchanged since load {load_id}, so it is not loaded again")
                return
            client.execute_sql(f"DELETE FROM {table} WHERE {condition}")
            ((inserted,),) = client.execute_sql(f"INSERT INTO {table} BY NAME {select}") or ((0,),)
            ((in_scope,),) = client.execute_sql(f"SELECT count(*) FROM {table} WHERE {condition}")
            if in_scope != inserted:
                raise OutOfPartitionError(f"{name}: {inserted - in_scope} rows of other partitions")
            self._check_before_commit()
            client.execute_sql(
                f"DELETE FROM {loads} WHERE table_name = %s AND condition = %s", name, condition
            )
            client.execute_sql(
                f"INSERT INTO {loads} VALUES (%s, %s, %s, %s, %s)",
                *(name, condition, version, self.load_id, inserted),
            )
        state.rows_inserted[name] = inserted


class ReplaceFilesJob(DirectJob):
    """Replaces a load's rows of all tables of one transaction, in little memory."""

    def _replace(self) -> None:
        _in_little_memory(self, self._replace_files, _batch_memory_mb(self))

    def _replace_files(self) -> None:
        client = self.client.sql_client
        with client.begin_transaction():
            for statement in self._deletes():
                client.execute_sql(statement)
            for table, path in self._files():
                name = client.make_qualified_table_name(table)
                # Of several files, `read_parquet` would convert the columns to a common type.
                client.execute_sql(
                    f"INSERT INTO {name} BY NAME SELECT * FROM read_parquet({glob_literal(Path(path))})"
                )
            self.client.state.verify_lock()


class CopyFileJob(DuckDbCopyJob, WarehouseJob):
    """Inserts the rows of a file into a table, or into its staging table, in little memory."""

    def run(self) -> None:
        """Insert them in one transaction."""
        _in_little_memory(self, super().run, _batch_memory_mb(self))


def _batch_memory_mb(job: WarehouseJob) -> int:
    """Return the memory of one batch of rows of a usual width per thread."""
    columns = len(job.client.schema.get_table_columns(job.load_table_name))
    return _BATCH_MEMORY_MB + columns * _BATCH_MEMORY_MB_PER_COLUMN


def _in_little_memory(job: WarehouseJob, run: Callable[[], None], megabytes: int) -> None:
    """Run a transaction with a limit of memory, and again without it if a row needs more.

    DuckDB otherwise uses what there is.
    """
    try:
        with memory_limit(job.client, megabytes):
            run()
    except Exception as error:
        if find_cause(error, OutOfMemoryException) is None:
            raise
        with memory_limit(job.client, _UNLIMITED_MB):
            run()


@contextmanager
def memory_limit(client: Any, megabytes: int) -> Iterator[None]:
    """Limit the memory of DuckDB.

    All connections of a process to a file share its limit, and the jobs of a load run concurrently. So a job
    only raises the limit of the others, and the last one removes it.
    """
    limits, execute = client.state.memory_limits, client.sql_client.execute_sql
    try:
        with _changing_limit:
            limits.append(megabytes)
            highest = max(limits)
            is_limited = highest < _UNLIMITED_MB
            execute(f"SET memory_limit = '{highest}MB'" if is_limited else "RESET memory_limit")
        yield
    finally:
        with _changing_limit:
            limits.remove(megabytes)
            if not limits:
                execute("RESET memory_limit")


class DuckDbReplaceMixin(DirectReplaceMixin):
    """A client of DuckDB, which runs a query for the tables of a pushdown."""

    direct_job = ReplaceFilesJob

    def stored_columns(self, tables: Sequence[str]) -> Iterable[tuple[str, Any]]:
        """Yield the columns of each table; none if it does not exist. No transaction may be open.

        dlt queries `information_schema.columns`, for which each new instance of DuckDB first creates all
        views of its catalogs. That takes a tenth of a small load.
        """
        if len(tables) > _MAX_DESCRIBED_TABLES:
            yield from super().stored_columns(tables)
            return
        for name in tables:
            try:
                rows = self._rows(f"DESCRIBE {self.sql_client.make_qualified_table_name(name)}")
            except DestinationUndefinedEntity:
                rows = ()
            yield name, {column: {"name": column} for column, *_ in rows}

    def create_load_job(
        self, table: Any, file_path: str, *arguments: Any, **options: Any
    ) -> LoadJob:
        """Return the job that loads a file, or runs a query."""
        if table["name"] in self.state.pushdown_tables:
            return PushdownLoadJob(file_path)
        job = super().create_load_job(table, file_path, *arguments, **options)
        return CopyFileJob(file_path) if type(job) is DuckDbCopyJob else job
