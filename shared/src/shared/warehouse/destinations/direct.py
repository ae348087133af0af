"""Rows go directly into their table, in the transaction that deletes the rows that they replace.

dlt loads them into a staging table first and copies them from there, so everything is written twice. This
package does so only where it must: for tables with nested tables, and for merges that find rows to replace.
"""

from typing import Any

from dlt.common.destination.client import FollowupJobRequest, HasFollowupJobs, LoadJob
from dlt.common.schema.utils import get_nested_tables, has_column_with_prop
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.job_impl import ReferenceFollowupJobRequest

from shared.warehouse.destinations.sql import SqlReplaceMixin
from shared.warehouse.dlt_internals import FollowupFile, WarehouseJob


class DirectJob(WarehouseJob):
    """Replaces a load's rows of all tables of one transaction by those of some files."""

    def run(self) -> None:
        """Delete the load's rows, and insert the files that the job's own file lists.

        Raises:
            DatabaseTerminalException: in place of all errors, if no rows are deleted: if the error is a
                lost connection, the rows may be committed, and a retry by dlt would add them again.
        """
        try:
            self._replace()
        except Exception as error:
            if self.load_table_name in self.client.state.inserted_tables:
                raise DatabaseTerminalException(error) from error
            raise

    def _replace(self) -> None:
        raise NotImplementedError

    def _deletes(self) -> list[str]:
        """Return the statements that delete the rows that the load replaces."""
        tables = sorted(self.client.state.tables_in_transaction(self.load_table_name))
        return [sql for table in tables if (sql := self.client.delete_statement(table))]

    def _files(self) -> list[tuple[str, str]]:
        """Return the files, each with its table."""
        return [
            (ParsedLoadJobFileName.parse(path).table_name, path)
            for path in ReferenceFollowupJobRequest.resolve_references(self.file)
        ]


class WaitingFile(WarehouseJob, HasFollowupJobs):
    """A file that is loaded with the others of its transaction, by the job that follows them.

    It runs, though it does nothing: dlt's loader wakes when a job that runs ends. For one that is complete
    from the start, such as dlt's `FinalizedLoadJob`, it sleeps a second.
    """

    def run(self) -> None:
        """Do nothing."""


class DirectReplaceMixin(SqlReplaceMixin):
    """A client of a database, which inserts rows without staging where no table has nested tables."""

    direct_job: type[DirectJob]

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Return whether a table is staged."""
        is_direct = table_name in self.state.pushdown_tables or self._is_direct(table_name)
        return not is_direct and super().should_load_data_to_staging_dataset(table_name)

    def create_load_job(
        self, table: Any, file_path: str, *arguments: Any, **options: Any
    ) -> LoadJob:
        """Return the job that loads a file; where rows are replaced, it waits for all files."""
        if ReferenceFollowupJobRequest.is_reference_job(file_path):
            return self.direct_job(file_path)
        if self._is_direct(table["name"]):
            return WaitingFile(file_path)
        return super().create_load_job(table, file_path, *arguments, **options)

    def create_table_chain_completed_followup_jobs(
        self, table_chain: Any, completed_table_chain_jobs: Any = None
    ) -> list[FollowupJobRequest]:
        """Return the job that replaces the rows of all tables of a transaction."""
        root = table_chain[0]["name"]
        if not self._is_direct(root):
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

    def delete_statement(self, table: str) -> str:
        """Return SQL that deletes the rows of a table that the load replaces; empty if there are none."""
        if table in self.state.inserted_tables:
            return ""
        delete = f"DELETE FROM {self.sql_client.make_qualified_table_name(table)}"
        scope = self.state.partition_scopes.get(table)
        if scope is None:
            return delete
        return f"{delete} WHERE {scope.to_sql(self._dialect, self.sql_client.escape_column_name)}"

    def _is_direct(self, table: str) -> bool:
        tables = self.state.tables_in_transaction(table)
        hints = self.schema.tables
        if any(len(get_nested_tables(hints, name)) > 1 for name in tables if name in hints):
            return False
        if table in self.state.partition_scopes:
            return not any(
                # dlt's merge keeps one row of each key, and none that is marked as deleted.
                has_column_with_prop(hints[name], "primary_key")
                or has_column_with_prop(hints[name], "hard_delete")
                for name in tables
            )
        replaces = hints.get(table, {}).get("write_disposition") == "replace"
        return replaces or table in self.state.inserted_tables
