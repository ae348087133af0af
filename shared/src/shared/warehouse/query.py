"""Read the warehouse with one SQL dialect, DuckDB's, whatever the warehouse is."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import sqlglot
from dlt.common.destination.exceptions import DestinationException
from dlt.common.schema import Schema
from sqlglot import TokenType, exp
from sqlglot.errors import ErrorLevel, SqlglotError

from shared.lazy_modules import duckdb
from shared.lazy_modules import pyarrow as pa
from shared.redaction import redact
from shared.warehouse.destinations.configuration import resolve_configuration, warehouse_type
from shared.warehouse.destinations.datasets import stored_dataset
from shared.warehouse.destinations.factory import create_destination
from shared.warehouse.dlt_internals import attach_read_only
from shared.warehouse.errors import QueryError, WarehouseConnectionError, WarehouseNotFoundError
from shared.warehouse.locks.base import Log, acquire_with_timeout, no_log
from shared.warehouse.locks.file import connect, duckdb_path
from shared.warehouse.stored_names import (
    Place,
    Table,
    both_files,
    deferred_environment,
    find,
    views_of_both_files,
    with_stored_names,
)

_NOT_A_QUERY = "Only SELECT queries are allowed: this one returns no rows."
_MAX_ROWS_PRINTED = 10_000


@contextmanager
def read_only_connection(
    log: Log = no_log, *, deferred: bool = True
) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Yield a read-only connection to what has been committed in the DuckDB file.

    It waits for a writer, and raises what `query` lists. While it is open, loads wait.

    Args:
        log: receives waits.
        deferred: whether it has the tables that the environment reads from another one, too.
    """
    if deferred and deferred_environment():
        with views_of_both_files(log) as connection:
            yield connection
        return
    file = _existing_file()
    with acquire_with_timeout(lambda: connect(file, read_only=True), log) as connection:
        yield connection


def _existing_file() -> Path:
    file = duckdb_path()
    if not file.exists():
        raise WarehouseNotFoundError(f"No warehouse at {file} yet: `uv run etl run` creates it.")
    return file


def query(
    sql: str, parameters: Sequence[object] = (), *, log: Log = no_log
) -> list[dict[str, Any]]:
    """Run a query on what has been committed in the warehouse, and return its rows.

    Args:
        sql: a query in DuckDB's dialect, with tables named `dataset.table`, as they are declared: in
            each environment it reads its tables. If the warehouse is another database, sqlglot
            translates it; for every warehouse, use only what both have: no `GROUP BY ALL`, for example.
        parameters: the values of its question marks, in order.
        log: receives waits.

    Raises:
        QueryError: the text is not a query, cannot be translated, or is refused by the server.
        WarehouseConnectionError: the server does not respond.
        WarehouseNotFoundError: the warehouse is a file, and nothing has been loaded yet.
        LockTimeoutError: a writer of that file took more than `WAREHOUSE_WAIT_SECONDS`.
        duckdb.Error: DuckDB refuses it.
    """
    if warehouse_type() == "duckdb":
        with read_only_connection(log) as connection:
            return _rows(connection.execute(sql, parameters))
    parsed = _parse(sql, parameters)
    if warehouse_type() == "filesystem":
        with _file_views(parsed) as connection:
            return _rows(connection.execute(parsed.sql("duckdb")))
    return _translate_and_run(parsed)


def find_tables(tables: Collection[Table], log: Log = no_log) -> dict[Table, Place | None]:
    """Return where the environment reads each table; None for one that exists nowhere.

    It is a dataset and a table. With DuckDB, the catalog of `defer_to` is before both if the table is there.

    Args:
        tables: datasets and tables, as they are declared.
        log: receives waits.

    Raises:
        WarehouseConnectionError: the server does not respond.
        QueryError: the warehouse is a directory or a bucket, which has no list of its tables.
        LockTimeoutError: a writer of the DuckDB file took more than `WAREHOUSE_WAIT_SECONDS`.
    """
    if warehouse_type() == "filesystem":
        raise QueryError("A directory or a bucket has no list of its tables.")
    if warehouse_type() != "duckdb":
        with _session(_client("public")) as session:
            return find(tables, partial(_fetch, session))
    with both_files(log) as connection:
        return find(tables, lambda sql: connection.execute(sql).fetchall())


def check_connection() -> None:
    """Check that the warehouse responds, without waiting for a lock.

    Raises:
        LockHeldError: another program has the DuckDB file open; the message names it.
        WarehouseConfigError: a variable is missing or wrong.
        Exception: what `query` raises, or what a bucket's own library does.
    """
    if warehouse_type() == "duckdb":
        create_destination()  # checks the variables
        connect(_existing_file(), read_only=True).close()
    elif warehouse_type() == "filesystem":
        client = _client("public")
        client.fs_client.exists(client.dataset_path)
    else:
        query("SELECT 1 AS answer")


def print_query(sql: str, width: int, log: Log = no_log) -> None:
    """Print the rows of a query in lines of `width` characters; see `query`."""
    if warehouse_type() == "duckdb":
        with read_only_connection(log) as connection:
            relation = connection.sql(sql)
            if relation is None:
                raise QueryError(_NOT_A_QUERY)
            relation.show(max_width=width)
        return
    parsed = _parse(sql, ())
    if warehouse_type() == "filesystem":
        with _file_views(parsed) as connection:
            connection.sql(parsed.sql("duckdb")).show(max_width=width)
        return
    limited = parsed if parsed.args.get("limit") else parsed.limit(_MAX_ROWS_PRINTED)
    if rows := _translate_and_run(limited):
        duckdb.from_arrow(pa.Table.from_pylist(rows)).show(max_width=width)
    else:
        print("no rows")


def _rows(result: Any) -> list[dict[str, Any]]:
    if result is None:
        raise QueryError(_NOT_A_QUERY)
    columns = [column[0] for column in result.description or []]
    if duplicates := {name for name in columns if columns.count(name) > 1}:
        raise QueryError(f"Several columns are named {', '.join(duplicates)}; name each with AS.")
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


def _parse(sql: str, parameters: Sequence[object]) -> exp.Query:
    """Return the query with its parameters as literals, which each dialect writes its own way."""
    try:
        # sqlglot reads ?:: as one token.
        marks = [
            token.start
            for token in sqlglot.tokenize(sql, read="duckdb")
            if token.token_type is TokenType.PLACEHOLDER or token.text == "?::"
        ]
        for number, start in reversed(list(enumerate(marks))):  # sqlglot does not keep their order
            sql = f"{sql[:start]}${number} {sql[start + 1 :]}"
        parsed = sqlglot.parse_one(sql, dialect="duckdb")
    except SqlglotError as error:
        raise QueryError(str(error)) from None
    if not isinstance(parsed, exp.Query):
        raise QueryError(_NOT_A_QUERY)
    if len(marks) != len(parameters):
        raise QueryError(
            f"The query has {len(marks)} question marks, for {len(parameters)} values."
        )
    reject_differences(parsed)
    for placeholder in list(parsed.find_all(exp.Placeholder)):
        if not (placeholder.name.isdecimal() and int(placeholder.name) < len(marks)):
            raise QueryError(f"Write a parameter as ?, not as {placeholder.sql('duckdb')}")
        value = parameters[int(placeholder.name)]
        if isinstance(value, bytes) or (isinstance(value, float) and not isfinite(value)):
            raise QueryError(f"{value!r} cannot be a parameter: engines write it differently.")
        literal = exp.convert(value)
        # An empty list has no element type.
        placeholder.replace(literal if value != [] else exp.cast(literal, "TEXT[]"))
    return parsed


def reject_differences(parsed: exp.Query) -> None:
    """Reject what engines compute differently, although sqlglot translates it.

    Raises:
        QueryError: with what to write instead.
    """
    for difference in parsed.find_all(exp.DateDiff):
        if difference.text("unit").upper() not in ("", "DAY", "'DAY'"):
            raise QueryError("Engines count months and hours between times differently; use days.")


def _client(dataset: str) -> Any:
    """Return dlt's client of a declared dataset."""
    destination: Any = create_destination()
    configuration = resolve_configuration(destination, stored_dataset(dataset))
    return destination.client(Schema("reader"), configuration)


def _translate_and_run(parsed: exp.Query) -> list[dict[str, Any]]:
    """Run a query on a server, over a connection that can only read."""
    datasets = [table.db for table in parsed.find_all(exp.Table) if table.db]
    client = _client(datasets[0] if datasets else "public")
    with _session(client) as session:
        sql = with_stored_names(parsed, partial(_fetch, session)).sql(
            client.capabilities.sqlglot_dialect, unsupported_level=ErrorLevel.RAISE
        )
        with session.execute_query(sql) as result:
            return _rows(result)


def _fetch(session: Any, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in session.execute_sql(sql) or ()]


@contextmanager
def _session(client: Any) -> Iterator[Any]:
    """Yield the SQL client of dlt, connected so that it can only read."""
    try:
        if warehouse_type() == "ducklake":
            attach_read_only(client.sql_client)
        with ExitStack() as opened:
            try:
                session = opened.enter_context(client.sql_client)
            except Exception as error:  # noqa: BLE001 - of any driver
                message = redact(str(error).strip().rstrip("?."))
                raise WarehouseConnectionError(
                    f"{message}; check DESTINATION__WAREHOUSE__CREDENTIALS."
                ) from None
            if warehouse_type() == "postgres":
                session.execute_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            yield session
    except (DestinationException, SqlglotError) as error:
        raise QueryError(redact(str(error))) from None


@contextmanager
def _file_views(parsed: exp.Query) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Yield a connection in which the query's tables are views of their files."""
    with duckdb.connect() as connection:
        for dataset, name in {(table.db, table.name) for table in parsed.find_all(exp.Table)}:
            if not dataset:  # a subquery's name
                continue
            client = _client(dataset)
            if not (client.is_local_filesystem or connection.list_filesystems()):
                # The client's own connection, because DuckDB would have to download an extension.
                connection.register_filesystem(client.fs_client)
            files = [
                file if client.is_local_filesystem else client.make_remote_url(file)
                for file in client.data_files(name)
            ]
            if not files:
                raise QueryError(f"No table {dataset}.{name} in {client.config.bucket_url} yet.")
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{dataset}"')
            literals = ", ".join(exp.Literal.string(file).sql("duckdb") for file in files)
            connection.execute(
                f'CREATE VIEW "{dataset}"."{name}" AS SELECT * FROM '
                f"read_parquet([{literals}], union_by_name = true, hive_partitioning = false)"
            )
        yield connection
