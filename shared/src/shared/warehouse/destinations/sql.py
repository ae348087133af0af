"""dlt's clients of the destinations, which replace exactly the partitions of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlglot
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema.utils import get_nested_tables
from dlt.destinations.job_impl import (
    FinalizedLoadJobWithFollowupJobs,
    ReferenceFollowupJobRequest,
)

from shared.warehouse.destinations.duckdb import PushdownLoadJob
from shared.warehouse.destinations.ducklake import ReusableConnectionPool
from shared.warehouse.destinations.factory import WarehouseDestination
from shared.warehouse.destinations.filesystem import FilesystemReplaceMixin


def client_class(base: Any, destination: WarehouseDestination) -> Any:
    """Returns dlt's client class of a destination with what this run's loads need added."""
    replaces = {
        "ducklake": DuckLakeReplaceMixin,
        "filesystem": FilesystemReplaceMixin,
        "postgres": PostgresReplaceMixin,
    }
    adds: type = replaces.get(destination.warehouse_type, SqlReplaceMixin)
    return type(f"WarehouseDestination{base.__name__}", (adds, base), {"destination": destination})


class SqlReplaceMixin:
    """A client of a database: one transaction deletes a run's rows of a table and inserts the new."""

    destination: WarehouseDestination

    def prepare_load_table(self, table_name: str) -> Any:
        """Returns the table with the rows that the merge is to delete."""
        this: Any = self
        table = super().prepare_load_table(table_name)  # type: ignore[misc]
        if rows := self.destination.partition_scopes.get(table_name):
            condition = rows.to_sql(
                this.capabilities.sqlglot_dialect, this.sql_client.escape_column_name
            )
            table["x-merge-destination-scope"] = condition
        return table

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Tells whether a table goes through staging: not where the warehouse runs a query for it."""
        if table_name in self.destination.pushed_down:
            return False
        staged: bool = super().should_load_data_to_staging_dataset(table_name)  # type: ignore[misc]
        return staged

    def create_load_job(self, table: Any, file_path: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the job that loads a file, or runs a query."""
        if table["name"] in self.destination.pushed_down:
            return PushdownLoadJob(file_path, self.destination)
        return super().create_load_job(table, file_path, *args, **kwargs)  # type: ignore[misc]

    def row_count(self, table: str) -> int:
        """Returns a table's rows; a table that is declared and not made yet has none."""
        this: Any = self
        name = this.sql_client.make_qualified_table_name(table)
        try:
            ((rows,),) = this.sql_client.execute_sql(f"SELECT count(*) FROM {name}")
        except DestinationUndefinedEntity:
            return 0
        return int(rows)

    def partition_counts(self, table: str) -> dict[str, int]:
        """Returns how many rows each partition has that the run replaces, where it has any.

        A partition is named as the database writes its value.
        """
        this: Any = self
        replaced = self.destination.partition_scopes[table]
        column = this.sql_client.escape_column_name(replaced.column)
        dialect = this.capabilities.sqlglot_dialect
        condition = replaced.to_sql(dialect, this.sql_client.escape_column_name)
        text = sqlglot.exp.DataType.build("varchar").sql(dialect)
        name = this.sql_client.make_qualified_table_name(table)
        rows = this.sql_client.execute_sql(
            f"SELECT CAST({column} AS {text}), count(*) FROM {name} WHERE {condition} "
            f"GROUP BY {column}"
        )
        return {str(value): int(count) for value, count in rows or ()}

    def preview(
        self, table: str, columns: Sequence[str], load_ids: Sequence[str], most: int
    ) -> list[dict[str, Any]]:
        """Returns some rows that loads have brought; any others where they brought none.

        Args:
            table: a table that there is.
            columns: which of its columns.
            load_ids: the loads.
            most: how many rows.
        """
        this: Any = self
        of_load = this.sql_client.escape_column_name("_dlt_load_id")
        selected = ", ".join(map(this.sql_client.escape_column_name, columns))
        name = this.sql_client.make_qualified_table_name(table)
        dialect = this.capabilities.sqlglot_dialect
        these = " OR ".join(f"{of_load} = '{each}'" for each in load_ids)
        for condition in (these, "1 = 1") if these else ("1 = 1",):
            query = sqlglot.parse_one(
                f"SELECT {selected} FROM {name} WHERE {condition}", read=dialect
            )
            assert isinstance(query, sqlglot.exp.Select)
            rows = this.sql_client.execute_sql(query.limit(most).sql(dialect)) or ()
            if rows:
                break
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def _create_merge_followup_jobs(self, table_chain: Sequence[Any]) -> Any:
        """Returns one job, hence one transaction, that merges all the tables that belong together."""
        merging, root = self.destination.pending_table_chains, table_chain[0]["name"]
        if root in self.destination.pushed_down:
            return []
        merging[root] = table_chain
        together = self.destination.tables_in_transaction(root)
        if not together <= merging.keys():
            return []  # the last of them merges all
        merge = super()._create_merge_followup_jobs  # type: ignore[misc]
        jobs = [job for name in sorted(together) for job in merge(merging[name])]
        statements = [Path(job.new_file_path()).read_text(encoding="utf-8") for job in jobs]
        self.destination.verify_lock()
        jobs[0]._save_text_file("\n".join(statements))  # noqa: SLF001 - dlt has no public way
        return jobs[:1]


class DuckLakeReplaceMixin(SqlReplaceMixin):
    """A client of a DuckLake, whose connections are used again."""

    def __init__(self, schema: Any, config: Any, capabilities: Any) -> None:
        credentials = config.credentials
        credentials.conn_pool = ReusableConnectionPool(credentials, always_open_connection=True)
        super().__init__(schema, config, capabilities)  # type: ignore[call-arg]


class PostgresReplaceMixin(SqlReplaceMixin):
    """A client of Postgres, which copies rows without staging where no nested table hinders it."""

    def prepare_load_table(self, table_name: str) -> Any:
        """Returns the table as `SqlReplaceMixin` does, for Parquet alone."""
        table = super().prepare_load_table(table_name)
        # Parquet cannot be copied into jsonb, and dlt chooses json where the table asks for it.
        table["file_format"] = "parquet"
        return table

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Tells whether a table goes through staging."""
        return not self._uses_direct_copy(
            table_name
        ) and super().should_load_data_to_staging_dataset(table_name)

    def create_load_job(self, table: Any, file_path: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the job that copies a file; where rows are replaced that waits for all files."""
        from shared.warehouse.destinations import postgres as postgres_copy  # needs its driver

        if ReferenceFollowupJobRequest.is_reference_job(file_path):
            return postgres_copy.ReplaceCopyJob(file_path, self.destination)
        if self._uses_direct_copy(table["name"]):
            return FinalizedLoadJobWithFollowupJobs(file_path)
        if file_path.endswith(".parquet"):
            return postgres_copy.StreamedCopyJob(file_path)
        return super().create_load_job(table, file_path, *args, **kwargs)

    def create_table_chain_completed_followup_jobs(
        self, table_chain: Sequence[Any], completed_table_chain_jobs: Sequence[Any] | None = None
    ) -> Any:
        """Returns the job that replaces the rows of all tables that belong together."""
        root = table_chain[0]["name"]
        if not self._uses_direct_copy(root):
            return super().create_table_chain_completed_followup_jobs(  # type: ignore[misc]
                table_chain, completed_table_chain_jobs
            )
        merging = self.destination.pending_table_chains
        merging[root] = [job.file_path for job in completed_table_chain_jobs or ()]
        together = self.destination.tables_in_transaction(root)
        if not together <= merging.keys():
            return []  # the last of them replaces all
        files = [file for name in sorted(together) for file in merging[name]]
        return [ReferenceFollowupJobRequest(Path(files[0]).name, files)]

    def _uses_direct_copy(self, table: str) -> bool:
        this: Any = self
        return table in self.destination.partition_scopes and all(
            len(get_nested_tables(this.schema.tables, each)) == 1
            for each in self.destination.tables_in_transaction(table)
        )
