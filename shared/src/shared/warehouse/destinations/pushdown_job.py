"""A query whose rows replace those of a load, in the transaction that deletes them and without staging."""

import os
from pathlib import Path
from typing import Literal

from dlt.common.destination.client import SqlModel
from dlt.destinations.exceptions import DatabaseTerminalException

from shared.warehouse.dlt_internals import WarehouseJob

_MEMORY_MB = 96  # of DuckDB, for a file that it reads itself, however long
_MEMORY_MB_PER_THREAD = 24
_MEMORY_MB_PER_COLUMN = 4


class PushdownJob(WarehouseJob):
    """Replaces a load's rows of a table by those of a query of DuckDB."""

    def run(self) -> None:
        """Run the query, in one transaction.

        Raises:
            DatabaseTerminalException: in place of all errors, because dlt retries others five times.
        """
        try:
            self._replace()
        except Exception as error:
            raise DatabaseTerminalException(error) from error

    def _replace(self) -> None:
        raise NotImplementedError

    def _read_query(self, dialect: Literal["duckdb", "postgres"]) -> str:
        """Return the query of the job's file, which dlt has written in a dialect."""
        with Path(self.file).open(encoding="utf-8") as file:
            return SqlModel.from_file(file, dialect).to_sql()

    @property
    def _memory_mb(self) -> int:
        """DuckDB's limit of memory for the query; it otherwise uses what there is."""
        columns = self.client.schema.get_table_columns(self.load_table_name)
        threads = (os.cpu_count() or 1) * _MEMORY_MB_PER_THREAD
        return _MEMORY_MB + threads + len(columns) * _MEMORY_MB_PER_COLUMN

    def _check_before_commit(self) -> None:
        for check in self.client.state.pre_commit_checks:
            check()
