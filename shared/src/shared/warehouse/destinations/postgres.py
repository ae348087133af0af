"""Copies Parquet files into Postgres in its binary format, batch by batch.

Rows that replace others go straight into their table, in the transaction that deletes those: staging
would write everything twice. Only where a table has nested ones does it take dlt's way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_manager import dbapi
from dlt.common.destination.client import HasFollowupJobs, RunnableLoadJob
from dlt.common.libs.pyarrow import columns_to_arrow
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.impl.postgres.factory import get_adbc_driver_location
from dlt.destinations.job_impl import ReferenceFollowupJobRequest

from shared.warehouse.destinations.factory import WarehouseDestination

_BATCH_ROWS = 100_000


class CopyJob(RunnableLoadJob):
    """What copies files, without the whole of one in memory as dlt's own job."""

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yields a cursor; what went wrong with the rows would go wrong again, so dlt need not try."""
        try:
            this: Any = self._job_client
            address = {"uri": this.config.credentials.to_native_representation()}
            with (
                dbapi.connect(driver=get_adbc_driver_location(), db_kwargs=address) as connection,
                connection.cursor() as cursor,
            ):
                yield cursor
                connection.commit()
        except (pa.ArrowException, dbapi.ProgrammingError, dbapi.DataError) as error:
            raise DatabaseTerminalException(error) from error
        except (dbapi.IntegrityError, dbapi.NotSupportedError, dbapi.InternalError) as error:
            raise DatabaseTerminalException(error) from error

    def _copy(self, cursor: Any, table: str, path: str) -> None:
        this: Any = self._job_client
        dataset = this.sql_client.escape_column_name(
            this.sql_client.dataset_name, quote=False, casefold=True
        )
        columns = this.schema.get_table_columns(table)
        declared = columns_to_arrow(columns, this.capabilities, "UTC")
        with pq.ParquetFile(path) as file:
            # Postgres takes the bytes as its column's type, whatever they were.
            schema = pa.schema([declared.field(name) for name in file.schema_arrow.names])
            for name in schema.names:
                _refuse_number_as_moment(table, file.schema_arrow.field(name), schema.field(name))
            batches = (batch.cast(schema) for batch in file.iter_batches(_BATCH_ROWS))
            reader = pa.RecordBatchReader.from_batches(schema, batches)
            cursor.adbc_ingest(table, reader, mode="append", db_schema_name=dataset)


class StreamedCopyJob(CopyJob, HasFollowupJobs):
    """Copies a file into a table, or into staging."""

    def run(self) -> None:
        """Copies it, in one transaction."""
        with self._transaction() as cursor:
            self._copy(cursor, self.load_table_name, self._file_path)


class ReplaceCopyJob(CopyJob):
    """Replaces a run's rows of all tables that belong together, in one transaction."""

    def __init__(self, file_path: str, destination: WarehouseDestination) -> None:
        super().__init__(file_path)
        self._destination = destination

    def run(self) -> None:
        """Deletes the run's rows, and copies the files that this job's own file names."""
        this: Any = self._job_client
        sql_client = this.sql_client
        with self._transaction() as cursor:
            for table in sorted(self._destination.tables_in_transaction(self.load_table_name)):
                name = sql_client.make_qualified_table_name(table)
                rows = self._destination.partition_scopes[table]
                condition = rows.to_sql("postgres", sql_client.escape_column_name)
                cursor.execute(f"DELETE FROM {name} WHERE {condition}")
            for path in ReferenceFollowupJobRequest.resolve_references(self._file_path):
                self._copy(cursor, ParsedLoadJobFileName.parse(path).table_name, path)
            self._destination.verify_lock()


def _refuse_number_as_moment(table: str, found: pa.Field, declared: pa.Field) -> None:
    """Refuses what Arrow would take for seconds, or their parts, since 1970."""
    if pa.types.is_integer(found.type) and pa.types.is_temporal(declared.type):
        raise DatabaseTerminalException(
            TypeError(f"{table}.{found.name} is {declared.type}, and upstream sent {found.type}")
        )
