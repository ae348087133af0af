"""Copies Parquet files into Postgres in its binary format, batch by batch.

Rows that replace others go straight into their table, in the transaction that deletes those: staging
would write everything twice. Only where a table has nested ones does it take dlt's way.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dlt.destinations.impl.postgres.postgres import PostgresParquetCopyJob

from shared.warehouse.destination import Warehouse

_BATCH_ROWS = 100_000


class StreamedCopyJob(PostgresParquetCopyJob):
    """dlt's job, which needs neither the whole file in memory nor a row in it."""

    def run(self) -> None:
        """Copies a file, in one transaction."""
        with self._connect() as connection, connection.cursor() as cursor:
            with pq.ParquetFile(self._file_path) as file:
                self._copy(cursor, self.load_table_name, file)
            connection.commit()

    def _copy(self, cursor: Any, table: str, file: pq.ParquetFile) -> None:
        _, dataset = self._set_catalog_and_schema()
        batches = pa.RecordBatchReader.from_batches(
            file.schema_arrow, file.iter_batches(_BATCH_ROWS)
        )
        cursor.adbc_ingest(table, batches, mode="append", db_schema_name=dataset)


class ReplacingCopyJob(StreamedCopyJob):
    """Replaces a run's rows of all tables that belong together, in one transaction.

    dlt makes a job of each file. All but the last to run only hand theirs over: that one loads them
    all, and where it fails nothing of any has been loaded, and the load fails.
    """

    def __init__(self, file_path: str, destination: Warehouse) -> None:
        super().__init__(file_path)
        self._destination = destination

    def run(self) -> None:
        """Hands the file over, or loads all of them."""
        together = self._destination.replaced_together(self.load_table_name)
        key = (self.load_table_name, Path(self._file_path).name)
        with self._destination.handing_over:
            # Opened, for dlt moves the file away once this job is done.
            self._destination.handed_over[key] = pq.ParquetFile(self._file_path)
            files = {
                (table, name): file
                for (table, name), file in self._destination.handed_over.items()
                if table in together
            }
        if len(files) < sum(self._destination.loading[table] for table in together):
            return
        sql_client: Any = self._job_client.sql_client
        with self._connect() as connection, connection.cursor() as cursor:
            for table in sorted(together):
                name = sql_client.make_qualified_table_name(table)
                rows = self._destination.replaced_rows[table]
                condition = rows.condition("postgres", sql_client.escape_column_name)
                cursor.execute(f"DELETE FROM {name} WHERE {condition}")
            for (table, _), file in files.items():
                self._copy(cursor, table, file)
            connection.commit()
