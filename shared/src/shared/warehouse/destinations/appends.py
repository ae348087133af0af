"""An append happens once: what a load that did not complete has appended is removed by the next one.

In a database, a row of `_dlt_loads` with the status 1 marks a load that has started to append. dlt reads
only the status 0. In files, a file in `_started_loads` does the same.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from dlt.common.destination.client import FollowupJobRequest
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema import Schema
from dlt.common.schema.utils import get_first_column_name_with_prop, get_root_table
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient
from dlt.destinations.job_client_impl import SqlJobClientWithStagingDataset
from dlt.destinations.sql_jobs import SqlFollowupJob

from shared.warehouse.appends import is_appended, tables_of
from shared.warehouse.scope import LoadState

_STARTED = 1
"""The status of a load in `_dlt_loads` that appends rows and is not complete."""


class AppendJob(SqlFollowupJob):
    """Appends the staged rows of a table and of its nested tables in one transaction."""

    @classmethod
    def generate_sql(cls, table_chain: Sequence[Any], sql_client: Any) -> list[str]:
        """Return a statement for each table."""
        statements = []
        for table in table_chain:
            target, staged = sql_client.get_qualified_table_names(table["name"])
            columns = ", ".join(map(sql_client.escape_column_name, _stored_columns(table)))
            statements.append(f"INSERT INTO {target}({columns}) SELECT {columns} FROM {staged};")
        return statements


class SqlAppendMixin(SqlJobClientWithStagingDataset):
    """A client of a database that marks the loads that append, and undoes those that did not complete."""

    state: LoadState

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Return whether a table is staged, as one with nested rows is, also if it is appended to."""
        root = get_root_table(self.schema.tables, table_name)["name"]
        return root in self.state.appends.staged or super().should_load_data_to_staging_dataset(
            table_name
        )

    def create_table_chain_completed_followup_jobs(
        self, table_chain: Any, completed_table_chain_jobs: Any = None
    ) -> list[FollowupJobRequest]:
        """Return the job that appends the staged rows, once all of them are staged."""
        jobs = super().create_table_chain_completed_followup_jobs(
            table_chain, completed_table_chain_jobs
        )
        if table_chain[0]["name"] in self.state.appends.staged:
            # The staging table of a table without rows in this load can have rows of an earlier one.
            loaded = self.state.tables_in_package
            chain = [table for table in table_chain if table["name"] in loaded]
            jobs.append(AppendJob.from_table_chain(chain, self.sql_client))
        return jobs

    def update_stored_schema(self, *arguments: Any, **options: Any) -> Any:
        """Update the tables, then mark the load as started, before any rows are committed."""
        applied = super().update_stored_schema(*arguments, **options)
        appends, name = self.state.appends, self.schema.name
        if (
            name in appends.tables
            and name not in appends.started
            and not self.in_staging_dataset_mode
        ):
            self.sql_client.execute_sql(
                f"INSERT INTO {self._loads}({self.loads_table_schema_columns}) "
                "VALUES (%s, %s, %s, %s, %s)",
                *(appends.load_ids[name], name, _STARTED, datetime.now(UTC)),
                self.schema.stored_version_hash,
            )
            appends.started.add(name)
        return applied

    def complete_load(self, load_id: str) -> None:
        """Record that a load is complete; with the last one, the loads of the run are not marked any more."""
        appends = self.state.appends
        if not appends.started or load_id != appends.last_load_id:
            super().complete_load(load_id)
            return
        self.state.verify_lock()  # another run would have removed the rows
        # Without transactions, a load that is killed in between is repeated, and no rows are lost.
        with self._transaction():
            for name in appends.started:
                self._delete_marks(appends.load_ids[name])
            super().complete_load(load_id)

    def undo_unfinished_loads(self) -> list[str]:
        """Remove what loads have appended that did not complete, and return their ids.

        The dataset is locked, so none of them is running. It costs one query of `_dlt_loads` if there
        are none.
        """
        load_id, status = self._columns("load_id", "status")
        try:
            unfinished = self.sql_client.execute_sql(
                f"SELECT {load_id} FROM {self._loads} WHERE {status} = {_STARTED}"
            )
        except DestinationUndefinedEntity:  # nothing has been loaded yet
            return []
        load_ids = [str(row[0]) for row in unfinished or ()]
        for each in load_ids:
            self._undo(each, self._schema_of(each))
        return load_ids

    def undo_this_load(self) -> None:
        """Remove what this load has appended, because it failed."""
        if self.schema.name in self.state.appends.started:
            self._undo(self.state.appends.load_ids[self.schema.name], self.schema)

    def _schema_of(self, load_id: str) -> Schema:
        """Return the schema that a load had; if its version is not stored any more, the newest one."""
        column, name, version = self._columns("load_id", "schema_name", "schema_version_hash")
        rows = self.sql_client.execute_sql(
            f"SELECT {name}, {version} FROM {self._loads} WHERE {column} = %s", load_id
        )
        for schema_name, version_hash in rows or ():
            stored = self.get_stored_schema_by_hash(version_hash) or self.get_stored_schema(
                schema_name
            )
            if stored:
                return Schema.from_stored_schema(json.loads(stored.schema))
        return self.schema

    def _undo(self, load_id: str, schema: Schema) -> None:
        (column,) = self._columns("load_id")
        with self._transaction():
            self._delete_appended(schema, load_id)
            self.sql_client.execute_sql(f"DELETE FROM {self._loads} WHERE {column} = %s", load_id)

    def _delete_appended(self, schema: Schema, load_id: str) -> None:
        """Delete the rows of a load from the tables that it appended to, nested ones first."""
        roots = [
            name
            for name in schema.data_table_names()
            if not schema.tables[name].get("parent") and is_appended(schema, name)
        ]
        names = tables_of(schema, roots)
        exists = {name for name, columns in self.get_storage_tables(names) if columns}
        for name in reversed(names):
            if name in exists:
                condition = self._of_load(schema, name)
                table = self.sql_client.make_qualified_table_name(name)
                self.sql_client.execute_sql(f"DELETE FROM {table} WHERE {condition}", load_id)

    def _of_load(self, schema: Schema, name: str) -> str:
        """Return the condition for a table's rows of a load, with a placeholder for its id."""
        table = schema.tables[name]
        escape = self.sql_client.escape_column_name
        if not (parent := table.get("parent")):
            return f"{escape(schema.naming.normalize_identifier('_dlt_load_id'))} = %s"
        parent_key = str(get_first_column_name_with_prop(table, "parent_key"))
        row_key = str(get_first_column_name_with_prop(schema.tables[parent], "row_key"))
        return (
            f"{escape(parent_key)} IN (SELECT {escape(row_key)} "
            f"FROM {self.sql_client.make_qualified_table_name(parent)} "
            f"WHERE {self._of_load(schema, parent)})"
        )

    def _delete_marks(self, load_id: str) -> None:
        column, status = self._columns("load_id", "status")
        self.sql_client.execute_sql(
            f"DELETE FROM {self._loads} WHERE {column} = %s AND {status} = {_STARTED}", load_id
        )

    def _columns(self, *names: str) -> list[str]:
        naming = self.schema.naming
        return [self.sql_client.escape_column_name(naming.normalize_identifier(n)) for n in names]

    @property
    def _loads(self) -> str:
        return self.sql_client.make_qualified_table_name(self.schema.loads_table_name)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run the block in a transaction, where the database has them."""
        if not self.capabilities.supports_transactions:
            yield
            return
        with self.sql_client.begin_transaction():
            yield


class FileAppendMixin(FilesystemClient):
    """A client of files that marks the loads that append, and undoes those that did not complete."""

    state: LoadState

    def update_stored_schema(self, *arguments: Any, **options: Any) -> Any:
        """Store the schema, then mark the load as started, before any rows are written."""
        applied = super().update_stored_schema(*arguments, **options)
        appends, name = self.state.appends, self.schema.name
        if name in appends.tables and name not in appends.started:
            mark = {"tables": appends.tables[name], "completed_by": appends.last_load_id}
            self.fs_client.makedirs(self._marks, exist_ok=True)
            self.fs_client.pipe_file(
                f"{self._marks}/{appends.load_ids[name]}.json", json.dumps(mark).encode()
            )
            appends.started.add(name)
        return applied

    def complete_load(self, load_id: str) -> None:
        """Record that a load is complete; with the last one, the loads of the run are not marked any more."""
        super().complete_load(load_id)
        appends = self.state.appends
        if appends.started and load_id == appends.last_load_id:
            for name in appends.started:
                self.fs_client.rm_file(f"{self._marks}/{appends.load_ids[name]}.json")

    def undo_unfinished_loads(self) -> list[str]:
        """Remove the files of loads that appended and did not complete, and return their ids.

        The dataset is locked, so none of them is running. It costs one list of a directory.
        """
        undone = []
        for file in self.fs_client.find(self._marks) if self.fs_client.isdir(self._marks) else ():
            load_id = PurePosixPath(file).name.removesuffix(".json")
            try:
                mark = json.loads(self.fs_client.cat_file(file))
            except ValueError:  # it was killed while it wrote the mark, before any rows
                mark = {"tables": [], "completed_by": load_id}
            if not self._is_complete(mark["completed_by"]):
                for table in mark["tables"]:
                    self._remove_files(table, load_id)
                undone.append(load_id)
            self.fs_client.rm_file(file)
        return undone

    def undo_this_load(self) -> None:
        """Remove what this load has appended, because it failed."""
        appends, name = self.state.appends, self.schema.name
        if name in appends.started:
            for table in appends.tables[name]:
                self._remove_files(table, appends.load_ids[name])
            self.fs_client.rm_file(f"{self._marks}/{appends.load_ids[name]}.json")

    def _is_complete(self, load_id: str) -> bool:
        """Return whether a load is recorded, or its state, which dlt writes first."""
        schema = self.schema
        return any(
            load_id in PurePosixPath(file).stem.split("__")
            for table in (schema.state_table_name, schema.loads_table_name)
            for file in self.fs_client.find(self.get_table_dir(table))
        )

    def _remove_files(self, table: str, load_id: str) -> None:
        for file in self.fs_client.find(self.get_table_dir(table)):
            if PurePosixPath(file).name.startswith(f"{load_id}."):
                self.fs_client.rm_file(file)

    @property
    def _marks(self) -> str:
        return f"{self.dataset_path}_started_loads"


def _stored_columns(table: Any) -> list[str]:
    """Return the columns that a table has in the database."""
    return [name for name, column in table["columns"].items() if column.get("data_type")]
