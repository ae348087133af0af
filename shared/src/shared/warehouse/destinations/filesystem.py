"""Parquet files in a folder or a bucket, where a partition is a folder of its own.

A load's rows of a partition are files in `<dataset>/<table>/<partition>/`; once all have landed, those
that earlier loads left there go. Files know no transaction: between the two a reader finds old and new
rows, and a run killed there leaves both until the partition loads again.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pyarrow.compute as pc
import pyarrow.parquet as pq
from dlt.common.destination.client import JobClientBase
from dlt.common.destination.exceptions import (
    DestinationTerminalException,
    DestinationUndefinedEntity,
)
from dlt.common.schema.utils import get_nested_tables, get_root_table
from dlt.destinations.impl.filesystem.filesystem import FilesystemLoadJob

from shared.warehouse.destinations.factory import (
    OutOfPartitionError,
    PartitionScope,
    WarehouseConfigError,
    WarehouseDestination,
)

_BATCH_ROWS = 100_000
_UNFINISHED = ".part"
_AT_ONCE = 16  # files in a bucket, each of which answers slowly


def partition_dir(partition: str) -> str:
    """Returns a partition's folder: its value, with what a path cannot hold as in an address."""
    written = quote(partition, safe="")
    return written.replace(".", "%2E") if not written.strip(".") and written else written or "%00"


class AtomicFileJob(FilesystemLoadJob):
    """Writes a file that is there as a whole or not at all, wherever the run may die."""

    def run(self) -> None:
        """Writes the job's file."""
        self._put(self._file_path, self.make_remote_path())

    def _put(self, file: str, remote: str) -> None:
        client: Any = self._job_client
        if not client.is_local_filesystem:
            client.fs_client.put_file(file, remote)  # a bucket shows it once it is complete
            return
        client.fs_client.makedirs(str(PurePosixPath(remote).parent), exist_ok=True)
        client.fs_client.put_file(file, f"{remote}{_UNFINISHED}")
        client.fs_client.mv(f"{remote}{_UNFINISHED}", remote)


class PartitionedFileJob(AtomicFileJob):
    """Writes each partition's rows of a file into the partition's folder."""

    def __init__(self, file_path: str, rows: PartitionScope) -> None:
        super().__init__(file_path)
        self._rows = rows

    def run(self) -> None:
        """Writes the files; of a load without rows one remains, that tells the table's columns."""
        written = PurePosixPath(self.make_remote_path())
        with TemporaryDirectory(dir=Path(self._file_path).parent) as own, ExitStack() as opened:
            writers: dict[str, pq.ParquetWriter] = {}
            for batch in pq.ParquetFile(self._file_path).iter_batches(_BATCH_ROWS):
                values = pc.cast(batch.column(self._rows.column), "string")
                for value in pc.unique(values).to_pylist():
                    if value not in self._rows.partition_keys:
                        told = (
                            f"{self._rows.resource}: {value!r} names none of the run's partitions"
                        )
                        raise DestinationTerminalException(OutOfPartitionError(told))
                    if value not in writers:
                        file = Path(own) / str(len(writers))
                        writers[value] = opened.enter_context(pq.ParquetWriter(file, batch.schema))
                    writers[value].write_batch(batch.filter(pc.equal(values, value)))
            opened.close()
            for number, value in enumerate(writers):
                remote = written.parent / partition_dir(value) / written.name
                self._put(str(Path(own) / str(number)), str(remote))
        if not writers:
            super().run()


class FilesystemReplaceMixin:
    """dlt's client of files, which replaces partitions and whole tables after the new have landed."""

    destination: WarehouseDestination

    def verify_schema(self, only_tables: Any = None, new_jobs: Any = None) -> Any:
        """Refuses what files cannot replace exactly.

        Raises:
            WarehouseConfigError: a table merges by key, or has nested rows of a partition.
        """
        this: Any = self
        for job in new_jobs or ():
            name = job.table_name
            if name in self.destination.partition_scopes or name.startswith("_dlt"):
                continue
            root = get_root_table(this.schema.tables, name)
            if root.get("write_disposition") == "merge":
                what = "merges by key" if root["name"] == name else "is nested"
                raise WarehouseConfigError(
                    f"{name} {what}, which WAREHOUSE_TYPE=filesystem cannot load exactly: rows would "
                    "stand there twice. Nothing was loaded; ducklake keeps the same files and can."
                )
        return super().verify_schema(only_tables, new_jobs)  # type: ignore[misc]

    def prepare_load_table(self, table_name: str) -> Any:
        """Returns the table as dlt is to load it: what a run replaces goes after the load."""
        if table_name not in self.destination.partition_scopes:
            return super().prepare_load_table(table_name)  # type: ignore[misc]
        this: Any = self
        table = JobClientBase.prepare_load_table(this, table_name)
        table["write_disposition"] = "append"
        return table

    def should_truncate_table_before_load(self, table_name: str) -> bool:
        """Tells dlt to leave the old files of a replaced table until the new ones are there."""
        del table_name
        return False

    def create_load_job(self, table: Any, file_path: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the job that writes a file's rows."""
        if rows := self.destination.partition_scopes.get(table["name"]):
            return PartitionedFileJob(file_path, rows)
        if file_path.endswith(".parquet") and not table["name"].startswith("_dlt"):
            return AtomicFileJob(file_path)
        return super().create_load_job(table, file_path, *args, **kwargs)  # type: ignore[misc]

    def data_files(self, table: str) -> list[str]:
        """Returns a table's files; a table that is declared and not made yet has none."""
        this: Any = self
        try:
            return [file for file in this.list_table_files(table) if file.endswith(".parquet")]
        except DestinationUndefinedEntity:
            return []

    def row_count(self, table: str) -> int:
        """Returns a table's rows, which the files' ends tell."""
        return self._rows_of(self.data_files(table))

    def partition_counts(self, table: str) -> dict[str, int]:
        """Returns how many rows each partition has that the run replaces, where it has any."""
        files: dict[str, list[str]] = {}
        for file in self.data_files(table):
            files.setdefault(PurePosixPath(file).parent.name, []).append(file)
        return {
            value: self._rows_of(files[folder])
            for value in self.destination.partition_scopes[table].partition_keys
            if (folder := partition_dir(value)) in files
        }

    def preview(
        self, table: str, columns: Sequence[str], load_ids: Sequence[str], most: int
    ) -> list[dict[str, Any]]:
        """Returns some rows that loads have brought; any others where they brought none."""
        this: Any = self
        files = self.data_files(table)
        brought = tuple(f"{each}." for each in load_ids)
        files.sort(key=lambda file: not PurePosixPath(file).name.startswith(brought))
        for file in files:
            with this.fs_client.open(file, "rb") as opened:
                parquet = pq.ParquetFile(opened)
                there = [name for name in columns if name in parquet.schema_arrow.names]
                for batch in parquet.iter_batches(most, columns=there):
                    return list(batch.to_pylist())
        return []

    def _rows_of(self, files: Sequence[str]) -> int:
        this: Any = self

        def rows(file: str) -> int:
            with this.fs_client.open(file, "rb") as opened:
                return int(pq.ParquetFile(opened).metadata.num_rows)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return sum(pool.map(rows, files))

    def complete_load(self, load_id: str) -> None:
        """Removes what the load replaces, then says that it is complete."""
        for file in self._replaced():
            if not PurePosixPath(file).name.startswith(f"{load_id}."):
                this: Any = self
                this.fs_client.rm_file(file)
        super().complete_load(load_id)  # type: ignore[misc]

    def _replaced(self) -> Iterator[str]:
        """Yields the files of the partitions, and of the tables, that the load replaces."""
        this: Any = self
        for name in self.destination.tables_in_package:
            if name.startswith("_dlt"):
                continue
            if rows := self.destination.partition_scopes.get(name):
                folder = this.get_table_dir(name)
                # What an earlier load without rows left.
                for each in ("", *map(partition_dir, rows.partition_keys)):
                    yield from this.fs_client.find(f"{folder}{each}", maxdepth=1)
            elif this.prepare_load_table(name)["write_disposition"] == "replace":
                # A nested table may have rows of before, and none now.
                for nested in get_nested_tables(this.schema.tables, name):
                    yield from self.data_files(str(nested["name"]))
