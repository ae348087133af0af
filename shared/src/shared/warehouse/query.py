"""Reading the warehouse: one SQL, DuckDB's, whatever the warehouse is."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from dlt.common.destination.exceptions import DestinationException
from dlt.common.schema import Schema
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.tokens import TokenType  # type: ignore[attr-defined]

from shared.redaction import redact
from shared.warehouse.destinations.factory import (
    create_destination,
    resolve_configuration,
    warehouse_type,
)
from shared.warehouse.locks import (
    Log,
    WarehouseConnectionError,
    acquire_with_timeout,
    connect,
    duckdb_path,
    no_log,
)

_NO_QUERY = "Only SELECT queries are allowed: this one returns no rows."
_MAX_ROWS_PRINTED = 10_000


class QueryError(Exception):
    """A query is none, or the warehouse refuses it; the message says why."""


@contextmanager
def read_only_connection(log: Log = no_log) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yields a read-only connection to what has been committed in the DuckDB file.

    A writer is waited for. Keep it short: while it is open, loads wait.

    Raises:
        FileNotFoundError: nothing has been loaded yet.
        LockTimeoutError: a writer held it for more than `WAREHOUSE_WAIT_SECONDS`.
    """
    file = duckdb_path()
    _there(file)
    with acquire_with_timeout(lambda: connect(file, read_only=True), log) as connection:
        yield connection


def _there(file: Path) -> None:
    if not file.exists():
        raise FileNotFoundError(f"No warehouse at {file} yet: `uv run etl run` makes it.")


def query(
    sql: str, parameters: Sequence[object] = (), *, log: Log = no_log
) -> list[dict[str, Any]]:
    """Runs a query on what has been committed in the warehouse, and returns its rows.

    Args:
        sql: a query in DuckDB's dialect, its tables named `dataset.table`. Where the warehouse is
            another database it is translated by sqlglot; what must work everywhere keeps to what
            both have, without `GROUP BY ALL` and the like.
        parameters: what stands for its question marks, in order.
        log: told about waits.

    Raises:
        QueryError: the text is no query, it cannot be translated, or the server refuses it.
        WarehouseConnectionError: the server does not answer.
        FileNotFoundError: the warehouse is a file, and nothing has been loaded yet.
        LockTimeoutError: a writer held that file for more than `WAREHOUSE_WAIT_SECONDS`.
        duckdb.Error: DuckDB refuses it.
    """
    if warehouse_type() == "duckdb":
        with read_only_connection(log) as connection:
            return _rows(connection.execute(sql, parameters))
    asked = _parsed(sql, parameters)
    if warehouse_type() == "filesystem":
        with _files(asked) as connection:
            return _rows(connection.execute(asked.sql("duckdb")))
    return _translated(asked)


def check_connection() -> None:
    """Sees whether the warehouse answers, without waiting for whoever holds it.

    Raises:
        LockHeldError: another program holds the DuckDB file; the message says which.
        WarehouseConfigError: a variable is missing or wrong.
        Exception: what `query` raises, or what a bucket's own library does.
    """
    made: Any = create_destination()
    configuration = resolve_configuration(made, "public")
    if made.warehouse_type == "duckdb":
        _there(duckdb_path())
        connect(duckdb_path(), read_only=True).close()
        return
    if made.warehouse_type == "filesystem":
        client = made.client(Schema("reader"), configuration)
        client.fs_client.exists(client.dataset_path)
        return
    query("SELECT 1 AS answer")


def print_query(sql: str, width: int, log: Log = no_log) -> None:
    """Prints the rows of a query, the first of very many.

    Args:
        sql: as for `query`, which says what is raised as well.
        width: letters in a line.
        log: told about waits.
    """
    if warehouse_type() == "duckdb":
        with read_only_connection(log) as connection:
            found = connection.sql(sql)
            if found is None:
                raise QueryError(_NO_QUERY)
            found.show(max_width=width)
        return
    asked = _parsed(sql, ())
    if warehouse_type() == "filesystem":
        with _files(asked) as connection:
            connection.sql(asked.sql("duckdb")).show(max_width=width)
        return
    rows = _translated(asked if asked.args.get("limit") else asked.limit(_MAX_ROWS_PRINTED))
    if rows:
        duckdb.from_arrow(pa.Table.from_pylist(rows)).show(max_width=width)
    else:
        print("no rows")


def _rows(result: Any) -> list[dict[str, Any]]:
    if result is None:
        raise QueryError(_NO_QUERY)
    columns = [column[0] for column in result.description or []]
    if doubled := {name for name in columns if columns.count(name) > 1}:
        raise QueryError(f"Several columns are called {', '.join(doubled)}; name each with AS.")
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


def _parsed(sql: str, parameters: Sequence[object]) -> exp.Query:
    """Returns the query with its parameters as literals, which every dialect writes its own way."""
    try:
        # sqlglot reads ?:: as a sign of its own.
        marks = [
            token.start
            for token in sqlglot.tokenize(sql, read="duckdb")
            if token.token_type is TokenType.PLACEHOLDER or token.text == "?::"
        ]
        for number, start in reversed(list(enumerate(marks))):  # sqlglot keeps no order of them
            sql = f"{sql[:start]}${number} {sql[start + 1 :]}"
        parsed = sqlglot.parse_one(sql, dialect="duckdb")
    except SqlglotError as error:
        raise QueryError(str(error)) from None
    if not isinstance(parsed, exp.Query):
        raise QueryError(_NO_QUERY)
    if len(marks) != len(parameters):
        raise QueryError(
            f"The query has {len(marks)} question marks, for {len(parameters)} values."
        )
    for between in parsed.find_all(exp.DateDiff):
        if between.text("unit").upper() not in ("", "DAY", "'DAY'"):
            raise QueryError(
                "Engines count months and hours between moments differently; use days."
            )
    for place in list(parsed.find_all(exp.Placeholder)):
        if not (place.name.isdecimal() and int(place.name) < len(marks)):
            raise QueryError(f"A parameter is written ?, and not {place.sql('duckdb')}")
        value = parameters[int(place.name)]
        if isinstance(value, bytes) or (isinstance(value, float) and not isfinite(value)):
            raise QueryError(f"{value!r} cannot be a parameter: engines write it differently.")
        literal = exp.convert(value)
        # An empty list says nothing of what it would hold.
        place.replace(literal if value != [] else exp.cast(literal, "TEXT[]"))
    return parsed


def _translated(asked: exp.Query) -> list[dict[str, Any]]:
    """Runs a query on a server, which takes nothing but reading from this connection."""
    made: Any = create_destination()
    tables = [table.db for table in asked.find_all(exp.Table) if table.db]
    configuration = resolve_configuration(made, tables[0] if tables else "public")
    client = made.client(Schema("reader"), configuration)
    try:
        sql = asked.sql(client.capabilities.sqlglot_dialect, unsupported_level=ErrorLevel.RAISE)
        if made.warehouse_type == "ducklake":
            # A reader makes no lake, and changes none; dlt has no setting for it.
            attach = client.sql_client.attach_statement.removesuffix(")")
            client.sql_client._attach_statement = f"{attach}, READ_ONLY)"  # noqa: SLF001
        with ExitStack() as opened:
            try:
                session = opened.enter_context(client.sql_client)
            except Exception as error:  # noqa: BLE001 - of whichever driver
                told = redact(str(error).strip().rstrip("?."))
                raise WarehouseConnectionError(
                    f"{told}; look at DESTINATION__WAREHOUSE__CREDENTIALS."
                ) from None
            if made.warehouse_type == "postgres":
                session.execute_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            with session.execute_query(sql) as result:
                return _rows(result)
    except (DestinationException, SqlglotError) as error:
        raise QueryError(redact(str(error))) from None


@contextmanager
def _files(asked: exp.Query) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yields a connection in which the query's tables are views of their files."""
    made: Any = create_destination()
    with duckdb.connect() as connection:
        for table in {(each.db, each.name) for each in asked.find_all(exp.Table)}:
            dataset, name = table
            if not dataset:  # a subquery's name
                continue
            client = made.client(Schema("reader"), resolve_configuration(made, dataset))
            if not (client.is_local_filesystem or connection.list_filesystems()):
                # Through the client's own connection: DuckDB's extension would have to be downloaded.
                connection.register_filesystem(client.fs_client)
            files = [
                file if client.is_local_filesystem else client.make_remote_url(file)
                for file in client.data_files(name)
            ]
            if not files:
                raise QueryError(f"No table {dataset}.{name} in {client.config.bucket_url} yet.")
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{dataset}"')
            listed = ", ".join(exp.Literal.string(file).sql("duckdb") for file in files)
            connection.execute(
                f'CREATE VIEW "{dataset}"."{name}" AS SELECT * FROM '
                f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
            )
        yield connection
