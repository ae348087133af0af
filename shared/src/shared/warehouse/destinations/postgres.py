"""Postgres: rows are copied in its binary format, batch by batch.

Rows that replace others go directly into their table, in the transaction that deletes the old ones:
staging would write everything twice. Only a table with nested tables is staged, as dlt does it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]
from dlt.common.destination import PreparedTableSchema
from dlt.common.destination.client import FollowupJobRequest, HasFollowupJobs, LoadJob
from dlt.common.libs.pyarrow import columns_to_arrow
from dlt.common.schema.utils import get_nested_tables, has_column_with_prop
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.job_impl import FinalizedLoadJobWithFollowupJobs, ReferenceFollowupJobRequest

from shared.warehouse.destinations.sql import SqlReplaceMixin
from shared.warehouse.dlt_internals import FollowupFile, WarehouseJob
from shared.warehouse.scope import LoadState

_BATCH_ROWS = 100_000
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
        sql_client = self.client.sql_client
        dataset = sql_client.escape_column_name(sql_client.dataset_name, quote=False, casefold=True)
        columns = self.client.schema.get_table_columns(table)
        declared = columns_to_arrow(columns, self.client.capabilities, "UTC")
        with pq.ParquetFile(path) as file:
            # Postgres reads the bytes as its column's type, so they must have that type.
            schema = pa.schema([declared.field(name) for name in file.schema_arrow.names])
            for name in schema.names:
                _reject_number_as_time(table, file.schema_arrow.field(name), schema.field(name))
            batches = (batch.cast(schema) for batch in file.iter_batches(_BATCH_ROWS))
            reader = pa.RecordBatchReader.from_batches(schema, batches)
            cursor.adbc_ingest(table, reader, mode="append", db_schema_name=dataset)


class StreamedCopyJob(CopyJob, HasFollowupJobs):
    """Copies a file into a table, or into its staging table."""

    def run(self) -> None:
        """Copy it in one transaction."""
        with self._transaction() as cursor:
            self._copy(cursor, self.load_table_name, self.file)


class ReplaceCopyJob(CopyJob):
    """Replaces a load's rows of all tables of one transaction."""

    def __init__(self, file_path: str, state: LoadState) -> None:
        super().__init__(file_path)
        self.load_state = state

    def run(self) -> None:
        """Delete the load's rows, and copy the files that the job's own file lists."""
        sql_client = self.client.sql_client
        with self._transaction() as cursor:
            for table in sorted(self.load_state.tables_in_transaction(self.load_table_name)):
                name = sql_client.make_qualified_table_name(table)
                scope = self.load_state.partition_scopes[table]
                condition = scope.to_sql("postgres", sql_client.escape_column_name)
                cursor.execute(f"DELETE FROM {name} WHERE {condition}")
            for path in ReferenceFollowupJobRequest.resolve_references(self.file):
                self._copy(cursor, ParsedLoadJobFileName.parse(path).table_name, path)
            self.load_state.verify_lock()


class PostgresReplaceMixin(SqlReplaceMixin):
    """A client of Postgres, which copies rows without staging if no table has nested tables."""

    def prepare_load_table(self, table_name: str) -> PreparedTableSchema:
        """Return the table as `SqlReplaceMixin` does, for Parquet only."""
        table = super().prepare_load_table(table_name)
        # Parquet cannot be copied into jsonb, and dlt uses json only for tables in Parquet.
        table["file_format"] = "parquet"
        return table

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Return whether a table is staged."""
        return not self._uses_direct_copy(
            table_name
        ) and super().should_load_data_to_staging_dataset(table_name)

    def create_load_job(
        self, table: Any, file_path: str, *arguments: Any, **options: Any
    ) -> LoadJob:
        """Return the job that copies a file; where rows are replaced, it waits for all files."""
        if ReferenceFollowupJobRequest.is_reference_job(file_path):
            return ReplaceCopyJob(file_path, self.state)
        if self._uses_direct_copy(table["name"]):
            return FinalizedLoadJobWithFollowupJobs(file_path)
        if file_path.endswith(".parquet"):
            return StreamedCopyJob(file_path)
        return super().create_load_job(table, file_path, *arguments, **options)

    def create_table_chain_completed_followup_jobs(
        self, table_chain: Any, completed_table_chain_jobs: Any = None
    ) -> list[FollowupJobRequest]:
        """Return the job that replaces the rows of all tables of a transaction."""
        root = table_chain[0]["name"]
        if not self._uses_direct_copy(root):
            return super().create_table_chain_completed_followup_jobs(
                table_chain, completed_table_chain_jobs
            )
        ready = self.state.ready_together(
            root, [job.file_path for job in completed_table_chain_jobs or ()]
        )
        if not ready:
            return []  # the last of them replaces all
        files = [file for paths in ready.values() for file in paths]
        name = ParsedLoadJobFileName.parse(files[0]).to_reference_file_name()
        return [FollowupFile(self.state.working_dir / name, "\n".join(files))]

    def _uses_direct_copy(self, table: str) -> bool:
        return table in self.state.partition_scopes and all(
            len(get_nested_tables(self.schema.tables, name)) == 1
            # dlt's merge keeps one row of each key, and none that is marked as deleted.
            and not has_column_with_prop(self.schema.tables[name], "primary_key")
            and not has_column_with_prop(self.schema.tables[name], "hard_delete")
            for name in self.state.tables_in_transaction(table)
        )


def _reject_number_as_time(table: str, sent: pa.Field, declared: pa.Field) -> None:
    """Reject what Arrow would convert to a time: seconds, or their parts, since 1970."""
    if pa.types.is_integer(sent.type) and pa.types.is_temporal(declared.type):
        raise DatabaseTerminalException(
            TypeError(f"{table}.{sent.name} is {declared.type}, and upstream sent {sent.type}")
        )
