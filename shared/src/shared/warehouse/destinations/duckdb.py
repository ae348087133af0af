"""DuckDB reads large files itself: a query in place of rows, in one transaction and without staging."""

from pathlib import Path

from dlt.common.destination.client import SqlModel
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.job_client_impl import ModelLoadJob
from xxhash import xxh3_128_hexdigest

from shared.warehouse.destinations.factory import OutOfPartitionError, WarehouseDestination

_MEMORY_MB = 256  # for a file that the warehouse reads itself, however long
_MEMORY_MB_PER_COLUMN = 4


class PushdownLoadJob(ModelLoadJob):
    """Replaces a run's rows of a table by those of a query, in one transaction and without staging.

    What it replaced them by is kept in `_pushdown_loads`, in the same transaction: where the query
    would bring the rows that are there, it does not run.
    """

    def __init__(self, file_path: str, destination: WarehouseDestination) -> None:
        super().__init__(file_path)
        self._destination = destination

    def run(self) -> None:
        """Runs the query.

        Raises:
            DatabaseTerminalException: whatever happened; of any other kind dlt would try it five times.
        """
        try:
            self._replace()
        except Exception as error:
            raise DatabaseTerminalException(error) from error

    def _replace(self) -> None:
        with Path(self._file_path).open(encoding="utf-8") as file:
            model = SqlModel.from_file(file, "duckdb")
        insert = self._insert_statement_from_select_statement("duckdb", model.to_sql())
        name = str(self._load_table["name"])
        condition = self._destination.partition_scopes[name].to_sql()
        client = self._job_client.sql_client
        table = client.make_qualified_table_name(name)
        version = xxh3_128_hexdigest("\n".join(self._destination.fingerprints).encode())
        loads = client.make_qualified_table_name("_pushdown_loads")
        # Rows may land in any order: DuckDB then needs less memory and less time, however long the
        # file is.
        client.execute_sql("SET preserve_insertion_order = false")
        memory = _MEMORY_MB + len(self._load_table["columns"]) * _MEMORY_MB_PER_COLUMN
        client.execute_sql(f"SET memory_limit = '{memory}MB'")
        with client.begin_transaction():
            client.execute_sql(
                f"CREATE TABLE IF NOT EXISTS {loads} "
                "(table_name TEXT, condition TEXT, version TEXT, load_id TEXT, row_count BIGINT)"
            )
            # Rows that came otherwise since have another load's id, and those removed are missing.
            found = client.execute_sql(
                f"SELECT load_id, row_count FROM {loads} JOIN (SELECT count(*) AS row_count, "
                f"min(_dlt_load_id) AS load_id, max(_dlt_load_id) AS last FROM {table} "
                f"WHERE {condition}) AS there USING (load_id, row_count) WHERE last = load_id "
                "AND table_name = %s AND condition = %s AND version = %s",
                name,
                condition,
                version,
            )
            if found and not self._destination.force_reload:
                ((load_id, self._destination.rows_inserted[name]),) = found
                for confirm in self._destination.pre_commit_checks:
                    confirm()
                self._destination.log(f"{name}: unchanged since load {load_id}, so left as it is")
                return
            client.execute_sql(f"DELETE FROM {table} WHERE {condition}")
            ((inserted,),) = client.execute_sql(insert) or ((0,),)
            ((landed,),) = client.execute_sql(
                f"SELECT count(*) FROM {table} WHERE {condition}"
            ) or ((0,),)
            if landed != inserted:
                raise OutOfPartitionError(f"{name}: {inserted - landed} rows of other partitions")
            for confirm in self._destination.pre_commit_checks:
                confirm()
            client.execute_sql(
                f"DELETE FROM {loads} WHERE table_name = %s AND condition = %s",
                name,
                condition,
            )
            client.execute_sql(
                f"INSERT INTO {loads} VALUES (%s, %s, %s, %s, %s)",
                name,
                condition,
                version,
                self._load_id,
                inserted,
            )
        self._destination.rows_inserted[name] = inserted
