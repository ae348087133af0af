"""Replace a table by the rows of a SELECT, in one transaction under the warehouse's lock."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseException
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from shared.redaction import redact
from shared.warehouse.catalog import is_loaded, quote_identifier
from shared.warehouse.comments import Descriptions, update_comments
from shared.warehouse.destinations.configuration import resolve_configuration, warehouse_type
from shared.warehouse.destinations.datasets import stored_dataset
from shared.warehouse.destinations.factory import (
    create_destination,
    create_lock_manager,
    database_name,
)
from shared.warehouse.environment_datasets import mark_dataset
from shared.warehouse.errors import (
    LoadPlanError,
    MissingTableError,
    QueryError,
    SelectError,
)
from shared.warehouse.lineage import ColumnLineage, LineageError, column_lineage
from shared.warehouse.locks.base import Log, no_log
from shared.warehouse.query import reject_differences
from shared.warehouse.select import Select, TableName
from shared.warehouse.stored_names import Place, attach_other_file, find, with_stored_names

SUPPORTED_TYPES = ("duckdb", "postgres")
"""The warehouses that replace a table in one transaction, as the tests show."""

_NEW_ROWS = "etl_new_rows"

_COLUMNS_SQL = {
    "duckdb": "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE database_name = "
    "coalesce({catalog}, current_database()) AND schema_name = {} AND table_name = {} "
    "ORDER BY column_index",
    "postgres": "SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) "
    "FROM pg_attribute WHERE attrelid = format('%I.%I', {}, {})::regclass AND attnum > 0 "
    "AND NOT attisdropped ORDER BY attnum",
}
"""The name, the type and the comment of a table's columns."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table that a SELECT made; `type` is the warehouse's."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class ReplacedTable:
    """A table after its rows were replaced.

    Attributes:
        database: the database that it is in, as people name it.
        row_count: how many rows it has.
        columns: its columns, in order. One that is only copied has the description of its source.
        lineage: where each column comes from, by column; empty if it cannot be computed.
        preview: some of the rows.
        duration_seconds: how long it took, with the wait for the lock.
    """

    database: str
    row_count: int
    columns: Sequence[TableColumn]
    lineage: Mapping[str, ColumnLineage]
    preview: Sequence[Mapping[str, Any]]
    duration_seconds: float


def replace_table(
    dataset: str, table: str, select: Select, *, preview_rows: int = 0, log: Log = no_log
) -> ReplacedTable:
    """Replace all rows of a table by those of a SELECT; create the table if it does not exist.

    It is one transaction: readers see the old rows, then the new ones. After an error, or if the process
    is killed, the table is unchanged. Loads of the dataset, and with a DuckDB file all loads, wait.

    In Postgres the table stays the same object, so views, grants and indexes stay. Columns that the
    SELECT no longer has are dropped, which Postgres refuses while a view uses them.

    Args:
        dataset: the dataset, which is created if it does not exist.
        table: the table.
        select: its rows.
        preview_rows: how many rows the result has.
        log: receives waits, and why the lineage cannot be computed.

    Raises:
        LoadPlanError: a pipeline loads the table, or the SELECT reads it, or the warehouse is of a type
            that cannot do it.
        MissingTableError: the SELECT reads a table that does not exist.
        SelectError: the warehouse refuses the SELECT, for example because a column does not exist.
        QueryError: the warehouse failed otherwise, and the next attempt may succeed.
        LockTimeoutError: other loads took more than `WAREHOUSE_WAIT_SECONDS`.
        WarehouseConnectionError: the server does not respond.
    """
    started = time.monotonic()
    _reject(dataset, table, select)
    destination: Any = create_destination()
    configuration = resolve_configuration(destination, stored_dataset(dataset))
    locks = create_lock_manager(destination, configuration, log)
    client = destination.client(Schema("sql"), configuration)
    session = client.sql_client
    replacement = _Replacement(session, dataset, table, select, log)
    with locks.dataset_lock(), client:
        try:
            mark_dataset(client)
            if warehouse_type() == "duckdb":
                attach_other_file(session.native_connection, log)
            with session.begin_transaction():
                replacement.run()
                locks.verify_held()
        except (DatabaseException, SqlglotError) as error:
            raise _refusal(f"{dataset}.{table}", error, session.dbapi.OperationalError) from None
        preview: Sequence[Mapping[str, Any]] = ()
        with suppress(Exception):  # such as a date that Python cannot hold; the rows are committed
            preview = replacement.preview(preview_rows)
    return ReplacedTable(
        database=database_name(destination, configuration),
        row_count=replacement.row_count,
        columns=replacement.columns,
        lineage=replacement.lineage,
        preview=preview,
        duration_seconds=time.monotonic() - started,
    )


def _reject(dataset: str, table: str, select: Select) -> None:
    """Reject a replacement that cannot be exact, before the lock."""
    name = f"{dataset}.{table}"
    if warehouse_type() not in SUPPORTED_TYPES:
        raise LoadPlanError(
            f"{name} is made by a SELECT, and WAREHOUSE_TYPE is {warehouse_type()}: SQL assets need "
            f"{' or '.join(SUPPORTED_TYPES)}. Use dbt for other warehouses."
        )
    if name.casefold() in {".".join(source).casefold() for source in select.tables}:
        raise LoadPlanError(
            f"The SELECT of {name} reads {name} itself, so a rerun would give other rows. Read another table."
        )
    if is_loaded(dataset, table):
        raise LoadPlanError(
            f"{name} is loaded by a pipeline, and the SELECT would replace its rows; nothing was changed. "
            "Give the .sql file another name, or the SQL assets another dataset."
        )


def _refusal(name: str, error: Exception, may_pass: type[Exception]) -> QueryError:
    """Return the error for what the warehouse raised: permanent, unless it is of a type that may pass."""
    is_temporary = isinstance(getattr(error, "dbapi_exception", None), may_pass)
    reason = " ".join(redact(str(error)).split())
    return (QueryError if is_temporary else SelectError)(
        f"{name} is unchanged, because the warehouse refused its SELECT: {reason}"
    )


class _Replacement:
    """One replacement, in an open transaction."""

    row_count: int
    columns: Sequence[TableColumn]
    lineage: Mapping[str, ColumnLineage]

    def __init__(self, session: Any, dataset: str, table: str, select: Select, log: Log) -> None:
        self.session, self.select, self.log = session, select, log
        self.name, self.place = f"{dataset}.{table}", (stored_dataset(dataset), table)
        self.target = quote_identifier(*self.place)

    def run(self) -> None:
        """Replace the rows, and describe the table."""
        sources = {
            source: {name: comment for name, (_, comment) in self._columns_of(place).items()}
            for source, place in self._find_sources().items()
        }
        self._execute(f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(self.place[0])}")
        if warehouse_type() == "postgres":
            self._replace_rows()
        else:
            self._execute(f"CREATE OR REPLACE TABLE {self.target} AS {self._translated()}")
        ((self.row_count,),) = self._execute(f"SELECT count(*) FROM {self.target}")
        stored = self._columns_of(self.place)
        self.lineage = self._lineage(stored, sources)
        self.columns = [
            TableColumn(name, kind, self._description(name, sources))
            for name, (kind, _) in stored.items()
        ]
        descriptions = {column.name: column.description for column in self.columns}
        described = Descriptions(self.select.description, descriptions)
        update_comments(self._execute, warehouse_type(), self.place[0], {self.place[1]: described})

    def preview(self, limit: int) -> list[dict[str, Any]]:
        """Return some of the rows."""
        names = [column.name for column in self.columns]
        rows = self._execute(f"SELECT * FROM {self.target} LIMIT {limit}") if limit else ()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _execute(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.session.execute_sql(sql) or ()]

    def _find_sources(self) -> dict[TableName, Place]:
        """Return where the tables are that the SELECT reads."""
        places = find(self.select.tables, self._execute)
        for source, place in places.items():
            if place is None:
                raise MissingTableError(
                    f"{self.name} is unchanged: it reads {'.'.join(source)}, which is not in the warehouse. "
                    f"Load that first: uv run etl run {'/'.join(source)}"
                )
        return {source: place for source, place in places.items() if place is not None}

    def _translated(self) -> str:
        """Return the SELECT with stored names, in the warehouse's dialect."""
        dialect = self.session.capabilities.sqlglot_dialect
        if dialect != "duckdb":
            reject_differences(self.select.parsed)
        parsed = with_stored_names(self.select.parsed, self._execute)
        return parsed.sql(dialect, unsupported_level=ErrorLevel.RAISE)

    def _columns_of(self, place: Place) -> dict[str, tuple[str, str]]:
        """Return the type and the comment of each column of a table."""
        *catalog, dataset, table = (exp.Literal.string(part).sql("duckdb") for part in place)
        sql = _COLUMNS_SQL[warehouse_type()].format(
            dataset, table, catalog=next(iter(catalog), "NULL")
        )
        return {column: (kind, comment or "") for column, kind, comment in self._execute(sql)}

    def _replace_rows(self) -> None:
        """Replace the rows of a table that other objects may depend on, so it is not dropped.

        Not TRUNCATE: a reader whose snapshot is older would see an empty table.
        """
        new_rows = quote_identifier("pg_temp", _NEW_ROWS)
        self._execute(f"CREATE TEMP TABLE {_NEW_ROWS} ON COMMIT DROP AS {self._translated()}")
        self._execute(
            f"CREATE TABLE IF NOT EXISTS {self.target} AS SELECT * FROM {new_rows} WITH NO DATA"
        )
        self._execute(f"DELETE FROM {self.target}")
        old, new = (
            {column: kind for column, (kind, _) in self._columns_of(name).items()}
            for name in (self.place, ("pg_temp", _NEW_ROWS))
        )
        changes = [
            *(f"DROP {quote_identifier(name)}" for name in old if old[name] != new.get(name)),
            *(
                f"ADD {quote_identifier(name)} {new[name]}"
                for name in new
                if old.get(name) != new[name]
            ),
        ]
        if changes:
            self._execute(f"ALTER TABLE {self.target} {', '.join(changes)}")
        names = ", ".join(map(quote_identifier, new))
        self._execute(f"INSERT INTO {self.target} ({names}) SELECT {names} FROM {new_rows}")

    def _lineage(
        self, columns: Mapping[str, Any], sources: Mapping[TableName, Mapping[str, str]]
    ) -> Mapping[str, ColumnLineage]:
        try:
            lineage = column_lineage(self.select, {name: list(of) for name, of in sources.items()})
        except LineageError as error:
            self.log(f"The lineage of the columns of {self.name} is unknown: {error}")
            return {}
        return {name: lineage[name.casefold()] for name in columns if name.casefold() in lineage}

    def _description(self, column: str, sources: Mapping[TableName, Mapping[str, str]]) -> str:
        """Return the comment on a column in the SELECT, or else that of the column it copies."""
        if described := self.select.column_descriptions.get(column.casefold()):
            return described
        lineage = self.lineage.get(column)
        if lineage is None or not lineage.is_copy:
            return ""
        (source,) = lineage.sources
        return sources[source.dataset, source.table][source.column]
