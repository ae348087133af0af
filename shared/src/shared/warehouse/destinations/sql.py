"""What the clients of all databases share: one transaction replaces the rows of a load."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlglot
from dlt.common.destination import PreparedTableSchema
from dlt.common.destination.client import FollowupJobRequest
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from shared.redaction import redact
from shared.warehouse.comments import has_comments, update_comments
from shared.warehouse.destinations.appends import SqlAppendMixin
from shared.warehouse.destinations.configuration import warehouse_type
from shared.warehouse.dlt_internals import DESTINATION_SCOPE_KEY, as_one_followup_job
from shared.warehouse.scope import LoadState


class SqlReplaceMixin(SqlAppendMixin):
    """A client of a database: one transaction deletes a load's partitions and inserts the new rows."""

    state: LoadState

    def update_stored_schema(self, *arguments: Any, **options: Any) -> Any:
        """Update the tables, then their comments, before any rows are committed.

        The version of the schema has a digest of the comments. If the last complete load had this version,
        it has compared them, and they are not compared again: for DuckDB that is a tenth of a small load.
        """
        applied = super().update_stored_schema(*arguments, **options)
        if (
            self.state.descriptions  # none in a migration
            and has_comments(warehouse_type())
            and not self.in_staging_dataset_mode
            and (applied or not self._was_last(self.schema.stored_version_hash))
        ):
            self._update_comments()
        return applied

    def _was_last(self, version: str) -> bool:
        """Return whether the schema's last complete load had a version, and no load has stored another one since."""
        name, of_load, status, time, of_schema = self._columns(
            "schema_name", "schema_version_hash", "status", "inserted_at", "version_hash"
        )
        versions = self.sql_client.make_qualified_table_name(self.schema.version_table_name)
        of_this = f"WHERE {name} = '{self.schema.name}'"
        latest = f"ORDER BY {time} DESC LIMIT 1"
        rows = self._rows(
            f"SELECT (SELECT {of_load} FROM {self._loads} {of_this} AND {status} = 0 {latest}), "
            f"(SELECT {of_schema} FROM {versions} {of_this} {latest})"
        )
        return [*map(tuple, rows)] == [(version, version)]

    def _update_comments(self) -> None:
        """Comment tables and columns in one transaction, as far as comments differ.

        An error is a warning of the load's result, such as of a table that another role owns.
        """
        client = self.sql_client
        dataset = client.capabilities.casefold_identifier(client.dataset_name)
        try:
            with client.begin_transaction():
                update_comments(
                    client.execute_sql, warehouse_type(), dataset, self.state.descriptions
                )
        except Exception as error:  # noqa: BLE001 - a comment must not stop a load
            self.state.warnings.append(
                redact(f"The comments of the tables could not change: {error}")
            )

    def prepare_load_table(self, table_name: str) -> PreparedTableSchema:
        """Return the table with the condition of the rows that the merge deletes."""
        table: dict[str, Any] = super().prepare_load_table(table_name)  # type: ignore[assignment]
        if scope := self.state.partition_scopes.get(table_name):
            escape = self.sql_client.escape_column_name
            table[DESTINATION_SCOPE_KEY] = scope.to_sql(self._dialect, escape)
            if any(column.get("primary_key") for column in table["columns"].values()):
                # A merge keeps one row of each key: of each partition, not of all in the load.
                keys = {
                    name: {**table["columns"][name], "primary_key": True}
                    for name in scope.column_names
                }
                table["columns"] = {**table["columns"], **keys}
        if table_name in self.state.unique_tables:
            table["x-stage-data-deduplicated"] = True  # dlt need not look for repeated keys
        return table  # type: ignore[return-value]

    def create_table_chain_completed_followup_jobs(
        self, table_chain: Any, completed_table_chain_jobs: Any = None
    ) -> list[FollowupJobRequest]:
        """Return one job that replaces the rows of all tables of a transaction, once all are staged."""
        create = super().create_table_chain_completed_followup_jobs
        chains = self.state.ready_together(table_chain[0]["name"], table_chain)
        jobs = [
            job for chain in chains.values() for job in create(chain, completed_table_chain_jobs)
        ]
        if jobs:
            self.state.verify_lock()
        return as_one_followup_job(jobs, self.state.working_dir)

    def stored_columns(self, tables: Sequence[str]) -> Iterable[tuple[str, Any]]:
        """Yield the columns of each table, by name; none if it does not exist."""
        return self.get_storage_tables(tables)

    def row_count(self, table: str, condition: str = "1 = 1") -> int:
        """Return the number of rows of a table; 0 if it is declared and not created yet."""
        try:
            return self._count(table, condition)
        except DestinationUndefinedEntity:  # the table, or a column of the condition
            return 0

    def _count(self, table: str, condition: str) -> int:
        name = self.sql_client.make_qualified_table_name(table)
        ((rows,),) = self._rows(f"SELECT count(*) FROM {name} WHERE {condition}")
        return int(rows)

    def partition_counts(self, table: str) -> dict[str, int]:
        """Return the number of rows of each partition that the load replaces."""
        scope = self.state.partition_scopes[table]
        escape = self.sql_client.escape_column_name
        conditions = [
            replace(scope, partitions=(key,)).to_sql(self._dialect, escape)
            for key in scope.partitions
        ]
        if len(conditions) == 1:
            return {str(scope.partitions[0]): self._count(table, conditions[0])}
        counts = ", ".join(
            f"sum(CASE WHEN {condition} THEN 1 ELSE 0 END)" for condition in conditions
        )
        name = self.sql_client.make_qualified_table_name(table)
        (row,) = self._rows(
            f"SELECT {counts} FROM {name} WHERE {scope.to_sql(self._dialect, escape)}"
        )
        return {str(key): int(rows or 0) for key, rows in zip(scope.partitions, row, strict=True)}

    def preview(
        self, table: str, columns: Sequence[str], load_ids: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """Return some rows of some loads; if these have none, some other rows.

        Args:
            table: an existing table.
            columns: which of its columns.
            load_ids: the loads.
            limit: how many rows.
        """
        escape = self.sql_client.escape_column_name
        selected = ", ".join(map(escape, columns))
        name = self.sql_client.make_qualified_table_name(table)
        of_loads = " OR ".join(f"{escape('_dlt_load_id')} = '{load_id}'" for load_id in load_ids)
        rows: Sequence[Sequence[Any]] = ()
        for condition in filter(None, (of_loads, "1 = 1")):
            query = sqlglot.parse_one(
                f"SELECT {selected} FROM {name} WHERE {condition}", read=self._dialect
            )
            assert isinstance(query, sqlglot.exp.Select)
            if rows := self._rows(query.limit(limit).sql(self._dialect)):
                break
        return [dict(zip(columns, row, strict=True)) for row in rows]

    @property
    def _dialect(self) -> str:
        return str(self.capabilities.sqlglot_dialect)

    def _rows(self, sql: str) -> Sequence[Sequence[Any]]:
        return self.sql_client.execute_sql(sql) or ()
