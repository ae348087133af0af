"""Postgres: rows are copied in its binary format, batch by batch."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]
from dlt.common.destination import PreparedTableSchema
from dlt.common.destination.client import HasFollowupJobs, LoadJob
from dlt.common.libs.pyarrow import columns_to_arrow
from dlt.destinations.exceptions import DatabaseTerminalException

from shared.sources.quoting import literal
from shared.warehouse.destinations.direct import DirectJob, DirectReplaceMixin, WaitingFile
from shared.warehouse.destinations.pushdown_job import PushdownJob
from shared.warehouse.destinations.pushdown_query import query_of_duckdb
from shared.warehouse.dlt_internals import WarehouseJob

_BATCH_ROWS = 20_000
_PERMANENT_ERRORS = (
    pa.ArrowException,
    dbapi.ProgrammingError,
    dbapi.DataError,
    dbapi.IntegrityError,
    dbapi.NotSupportedError,
    dbapi.InternalError,
)
"""Errors of the rows, which a retry by dlt would repeat."""


class CopyJob(WarehouseJob):
    """Copies files in small batches; dlt's own job reads complete row groups into memory."""

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield a cursor, and commit at the end."""
        uri = self.client.config.credentials.to_native_representation()
        try:
            with dbapi.connect(uri) as connection, connection.cursor() as cursor:
                yield cursor
                connection.commit()
        except _PERMANENT_ERRORS as error:
            raise DatabaseTerminalException(error) from error

    def _copy(self, cursor: Any, table: str, path: str) -> None:
        # With its default, Arrow keeps in memory what it has read of the file.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            self._insert(cursor, table, file.schema_arrow, file.iter_batches(_BATCH_ROWS))

    def _insert(
        self, cursor: Any, table: str, sent: pa.Schema, batches: Iterable[pa.RecordBatch]
    ) -> int:
        """Copy batches, and return the number of rows."""
        sql_client = self.client.sql_client
        dataset = sql_client.escape_column_name(sql_client.dataset_name, quote=False, casefold=True)
        columns = self.client.schema.get_table_columns(table)
        declared = columns_to_arrow(columns, self.client.capabilities, "UTC")
        # Postgres reads the bytes as its column's type, so they must have that type.
        schema = pa.schema([declared.field(name) for name in sent.names])
        for name in schema.names:
            _reject_number_as_time(table, sent.field(name), schema.field(name))
        reader = pa.RecordBatchReader.from_batches(
            schema, (batch.cast(schema) for batch in batches)
        )
        return int(cursor.adbc_ingest(table, reader, mode="append", db_schema_name=dataset))


class StreamedCopyJob(CopyJob, HasFollowupJobs):
    """Copies a file into a table, or into its staging table."""

    def run(self) -> None:
        """Copy it in one transaction."""
        with self._transaction() as cursor:
            self._copy(cursor, self.load_table_name, self.file)


class ReplaceCopyJob(DirectJob, CopyJob):
    """Replaces a load's rows of all tables of one transaction."""

    def _replace(self) -> None:
        with self._transaction() as cursor:
            for statement in self._deletes():
                cursor.execute(statement)
            for table, path in self._files():
                self._copy(cursor, table, path)
            self.client.state.verify_lock()


class PushdownCopyJob(PushdownJob, CopyJob):
    """Runs the query in a separate DuckDB, while its rows are copied."""

    def _replace(self) -> None:
        table, state = self.load_table_name, self.client.state
        translated = self._read_query("postgres")
        query = query_of_duckdb(translated, "postgres", state.pushdown_selects)
        condition = state.partition_scopes[table].to_sql()
        outside = literal(f"{table}: a row of another partition")
        checked = (
            f"SELECT * FROM ({query}) AS loaded "
            f"WHERE CASE WHEN {condition} THEN true ELSE error({outside}) END"
        )
        config: Any = {
            "memory_limit": f"{self._memory_mb}MB",
            "preserve_insertion_order": False,
            "temp_directory": str(state.working_dir),
        }
        with duckdb.connect(config=config) as connection, self._transaction() as cursor:
            cursor.execute(self.client.delete_statement(table))
            reader = connection.sql(checked).to_arrow_reader(_BATCH_ROWS)
            inserted = self._insert(cursor, table, reader.schema, reader)
            self._check_before_commit()
            state.verify_lock()
        state.rows_inserted[table] = inserted


class PostgresReplaceMixin(DirectReplaceMixin):
    """A client of Postgres, which copies rows."""

    direct_job = ReplaceCopyJob

    def prepare_load_table(self, table_name: str) -> PreparedTableSchema:
        """Return the table as `SqlReplaceMixin` does, for Parquet only."""
        table = super().prepare_load_table(table_name)
        # Parquet cannot be copied into jsonb, and dlt uses json only for tables in Parquet.
        table["file_format"] = "parquet"
        return table

    def create_load_job(
        self, table: Any, file_path: str, *arguments: Any, **options: Any
    ) -> LoadJob:
        """Return the job that copies a file, or the rows of a query."""
        if table["name"] in self.state.pushdown_tables:
            return PushdownCopyJob(file_path)
        job = super().create_load_job(table, file_path, *arguments, **options)
        is_dlts_own = file_path.endswith(".parquet") and not isinstance(job, WaitingFile)
        return StreamedCopyJob(file_path) if is_dlts_own else job


def _reject_number_as_time(table: str, sent: pa.Field, declared: pa.Field) -> None:
    """Reject what Arrow would convert to a time: seconds, or their parts, since 1970."""
    if pa.types.is_integer(sent.type) and pa.types.is_temporal(declared.type):
        raise DatabaseTerminalException(
            TypeError(f"{table}.{sent.name} is {declared.type}, and upstream sent {sent.type}")
        )
