"""Parquet files in a directory or a bucket: a partition is a directory.

A load writes the rows of a partition to files in `<dataset>/<table>/<partition>/`. Once all are written,
it removes the files of earlier loads there. Files have no transactions: in between, a reader sees old
and new rows, and a run that is killed there leaves both until the partition is loaded again.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dlt.common.destination import PreparedTableSchema
from dlt.common.destination.client import JobClientBase, LoadJob
from dlt.common.destination.exceptions import (
    DestinationTerminalException,
    DestinationUndefinedEntity,
)
from dlt.common.schema.utils import get_nested_tables, get_root_table
from dlt.destinations.impl.filesystem.filesystem import FilesystemLoadJob

from shared.warehouse.destinations.appends import FileAppendMixin
from shared.warehouse.dlt_internals import WarehouseJob
from shared.warehouse.errors import OutOfPartitionError, WarehouseConfigError
from shared.warehouse.scope import Bound, LoadState, PartitionScope

_BATCH_ROWS = 100_000
_UNFINISHED = ".part"
_MAX_CONCURRENT_FILES = 16  # of a bucket, where each request is slow


def partition_dir(partition: str) -> str:
    """Return a partition's directory: its key, with the characters that a path cannot have escaped."""
    name = quote(partition, safe="")
    return name.replace(".", "%2E") if not name.strip(".") and name else name or "%00"


class AtomicFileJob(WarehouseJob, FilesystemLoadJob):
    """Writes a file that is complete or missing, wherever the run may be killed."""

    def run(self) -> None:
        """Write the job's file."""
        self._put(self.file, self.make_remote_path())

    def _put(self, file: str, remote: str) -> None:
        files = self.client.fs_client
        if not self.client.is_local_filesystem:
            files.put_file(file, remote)  # a bucket shows it once it is complete
            return
        files.makedirs(str(PurePosixPath(remote).parent), exist_ok=True)
        files.put_file(file, f"{remote}{_UNFINISHED}")
        files.mv(f"{remote}{_UNFINISHED}", remote)


class PartitionedFileJob(AtomicFileJob):
    """Writes each partition's rows of a file into the partition's directory."""

    def __init__(self, file_path: str, scope: PartitionScope) -> None:
        super().__init__(file_path)
        self._scope = scope

    def run(self) -> None:
        """Write the files. Without rows, write one file, which has the table's columns."""
        remote = PurePosixPath(self.make_remote_path())
        with TemporaryDirectory(dir=Path(self.file).parent) as directory, ExitStack() as opened:
            writers: dict[str, pq.ParquetWriter] = {}
            for batch in pq.ParquetFile(self.file).iter_batches(_BATCH_ROWS):
                written = 0
                for key in self._scope.partitions:
                    rows = batch.filter(_row_mask(batch, self._scope.bounds(key)))
                    written += len(rows)
                    if len(rows) and key not in writers:
                        file = Path(directory) / str(len(writers))
                        writers[key] = opened.enter_context(pq.ParquetWriter(file, batch.schema))
                    if len(rows):
                        writers[key].write_batch(rows)
                if written != len(batch):
                    message = (
                        f"{self._scope.resource}: {len(batch) - written} rows of other partitions"
                    )
                    raise DestinationTerminalException(OutOfPartitionError(message))
            opened.close()
            for number, written_key in enumerate(writers):
                target = remote.parent / partition_dir(written_key) / remote.name
                self._put(str(Path(directory) / str(number)), str(target))
        if not writers:
            super().run()


def _row_mask(batch: pa.RecordBatch, bounds: Sequence[Bound]) -> Any:
    """Return which rows of a batch belong to a partition."""
    mask: Any = pa.scalar(value=True)
    for bound in bounds:
        column = batch.column(bound.column)
        start = pa.scalar(bound.value).cast(column.type)
        if bound.end is None:
            mask = pc.and_(mask, pc.equal(column, start))
        else:
            before = pc.less(column, pa.scalar(bound.end).cast(column.type))
            mask = pc.and_(mask, pc.and_(pc.greater_equal(column, start), before))
    return mask


class FilesystemReplaceMixin(FileAppendMixin):
    """dlt's client of files, which removes the old files of a load after the new ones are written."""

    state: LoadState

    def verify_schema(
        self, only_tables: Iterable[str] | None = None, new_jobs: Iterable[Any] | None = None
    ) -> list[PreparedTableSchema]:
        """Reject what files cannot replace exactly.

        Raises:
            WarehouseConfigError: a table merges by key, or has nested rows of a partition.
        """
        for job in new_jobs or ():
            name = job.table_name
            if name in self.state.partition_scopes or name.startswith("_dlt"):
                continue
            root = get_root_table(self.schema.tables, name)
            if root.get("write_disposition") == "merge":
                what = "merges by key" if root["name"] == name else "is nested"
                raise WarehouseConfigError(
                    f"{name} {what}, which WAREHOUSE_TYPE=filesystem cannot load exactly: it would keep "
                    "rows twice. Nothing was loaded; ducklake stores the same files and can."
                )
        return super().verify_schema(only_tables, new_jobs)  # type: ignore[arg-type]

    def prepare_load_table(self, table_name: str) -> PreparedTableSchema:
        """Return the table as dlt is to load it: what a run replaces is removed after the load."""
        if table_name not in self.state.partition_scopes:
            return super().prepare_load_table(table_name)
        table = JobClientBase.prepare_load_table(self, table_name)
        table["write_disposition"] = "append"
        return table

    def should_truncate_table_before_load(self, table_name: str) -> bool:
        """Return False: the old files of a replaced table stay until the new ones are written."""
        del table_name
        return False

    def create_load_job(
        self, table: Any, file_path: str, *arguments: Any, **options: Any
    ) -> LoadJob:
        """Return the job that writes a file's rows."""
        name = table["name"]
        if scope := self.state.partition_scopes.get(name):
            return PartitionedFileJob(file_path, scope)
        if file_path.endswith(".parquet") and not name.startswith("_dlt"):
            return AtomicFileJob(file_path)
        return super().create_load_job(table, file_path, *arguments, **options)

    def data_files(self, table: str) -> list[str]:
        """Return a table's files; a table that is declared and not created yet has none."""
        try:
            return [file for file in self.list_table_files(table) if file.endswith(".parquet")]
        except DestinationUndefinedEntity:
            return []

    def row_count(self, table: str) -> int:
        """Return the number of rows of a table, from the footers of its files."""
        return self._rows_in(self.data_files(table))

    def partition_counts(self, table: str) -> dict[str, int]:
        """Return the number of rows of each partition that the load replaces, if it has any."""
        files: dict[str, list[str]] = {}
        for file in self.data_files(table):
            files.setdefault(PurePosixPath(file).parent.name, []).append(file)
        return {
            key: self._rows_in(files[directory])
            for key in self.state.partition_scopes[table].partitions
            if (directory := partition_dir(key)) in files
        }

    def preview(
        self, table: str, columns: Sequence[str], load_ids: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """Return some rows of some loads; if these have none, some other rows."""
        of_loads = tuple(f"{load_id}." for load_id in load_ids)
        files = sorted(
            self.data_files(table),
            key=lambda file: not PurePosixPath(file).name.startswith(of_loads),
        )
        for file in files:
            with self.fs_client.open(file, "rb") as opened:
                parquet = pq.ParquetFile(opened)
                stored = [name for name in columns if name in parquet.schema_arrow.names]
                for batch in parquet.iter_batches(limit, columns=stored):
                    return list(batch.to_pylist())
        return []

    def _rows_in(self, files: Sequence[str]) -> int:
        def row_count(file: str) -> int:
            with self.fs_client.open(file, "rb") as opened:
                return int(pq.ParquetFile(opened).metadata.num_rows)

        with ThreadPoolExecutor(_MAX_CONCURRENT_FILES) as pool:
            return sum(pool.map(row_count, files))

    def complete_load(self, load_id: str) -> None:
        """Remove what the load replaces, then record that it is complete."""
        for file in self._replaced():
            if not PurePosixPath(file).name.startswith(f"{load_id}."):
                self.fs_client.rm_file(file)
        super().complete_load(load_id)

    def _replaced(self) -> Iterator[str]:
        """Yield the files of the partitions, and of the tables, that the load replaces."""
        for name in self.state.tables_in_package:
            if name.startswith("_dlt"):
                continue
            if scope := self.state.partition_scopes.get(name):
                table_dir = self.get_table_dir(name)
                # The table's own directory can have the file of an earlier load without rows.
                for directory in ("", *map(partition_dir, scope.partitions)):
                    yield from self.fs_client.find(f"{table_dir}{directory}", maxdepth=1)
            elif self.prepare_load_table(name)["write_disposition"] == "replace":
                # A nested table may have old rows, and no new ones.
                for nested in get_nested_tables(self.schema.tables, name):
                    yield from self.data_files(str(nested["name"]))
