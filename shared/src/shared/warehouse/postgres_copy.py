"""Copies Parquet files into Postgres, batch by batch."""

import pyarrow as pa
import pyarrow.parquet as pq
from dlt.destinations.impl.postgres.postgres import PostgresParquetCopyJob

_BATCH_ROWS = 100_000


class StreamedCopyJob(PostgresParquetCopyJob):
    """dlt's job, which needs neither the whole file in memory nor a row in it."""

    def run(self) -> None:
        """Copies a file in Postgres' binary format, in one transaction."""
        _, dataset = self._set_catalog_and_schema()
        with pq.ParquetFile(self._file_path) as file:
            batches = pa.RecordBatchReader.from_batches(
                file.schema_arrow, file.iter_batches(_BATCH_ROWS)
            )
            with self._connect() as connection, connection.cursor() as cursor:
                cursor.adbc_ingest(
                    self.load_table_name, batches, mode="append", db_schema_name=dataset
                )
                connection.commit()
