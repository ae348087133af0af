"""From the declared names in a query to the tables of an environment.

An environment can read tables that it does not have from another one (`defer_to`). On a server they are
in the datasets of that environment; with DuckDB, in its file, which is attached by the environment's name.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from sqlglot import exp

from shared import environments
from shared.lazy_modules import duckdb
from shared.warehouse.destinations.configuration import warehouse_type
from shared.warehouse.destinations.datasets import current_environment, stored_dataset
from shared.warehouse.errors import LockHeldError
from shared.warehouse.locks.base import Log, acquire_with_timeout
from shared.warehouse.locks.file import connect, duckdb_path, duckdb_path_of

_TABLES_SQL = "SELECT table_schema, table_name FROM information_schema.tables"

_FILES_SQL = """
    SELECT nullif(table_catalog, current_database()), table_schema, table_name
    FROM information_schema.tables
"""

_OWN = "own"

_VIEWED_SQL = """
    SELECT table_catalog, table_schema, table_name FROM information_schema.tables
    WHERE table_catalog <> current_database()
    QUALIFY row_number() OVER (
        PARTITION BY lower(table_schema), lower(table_name) ORDER BY table_catalog = ? DESC
    ) = 1
"""

OF_ENGINES = {"information_schema", "pg_catalog"}
"""Schemas that are in no environment."""

Table: TypeAlias = tuple[str, str]
"""A declared dataset and table."""

Place: TypeAlias = tuple[str, ...]
"""A table in the warehouse: dataset and table, or a catalog before both."""

Run: TypeAlias = Callable[[str], list[tuple[object, ...]]]
"""Runs a query on stored names in the warehouse's own dialect, and returns its rows."""


def deferred_environment() -> environments.Environment | None:
    """Return the environment whose tables are read where this one has none; None if there is none.

    Raises:
        WarehouseConfigError: as `current_environment` does.
    """
    name = current_environment().defer_to
    return environments.named(name) if name else None


def with_stored_names(parsed: exp.Query, run: Run) -> exp.Query:
    """Return a query on the tables of the environment, from one with declared names.

    Args:
        parsed: the query.
        run: runs the query for the tables that exist.
    """
    declared = {
        _declared(table, "this")
        for table in parsed.find_all(exp.Table)
        if table.db and not table.catalog and table.db.lower() not in OF_ENGINES
    }
    places = locate(declared, run)
    parsed = parsed.copy()
    for node in list(parsed.find_all(exp.Table, exp.Column)):  # a column may name its dataset too
        if not node.text("db"):
            continue
        declared_place = _declared(node, "this" if isinstance(node, exp.Table) else "table")
        if (place := places.get(declared_place, declared_place)) != declared_place:
            quoted = node.args["db"].quoted  # engines have different cases for names without quotes
            *catalog, dataset, _ = (exp.to_identifier(part, quoted=quoted) for part in place)
            node.set("db", dataset)
            if catalog:
                node.set("catalog", catalog[0])
    return parsed


def _declared(node: exp.Expr, name: str) -> Table:
    """Return the dataset and the table of a node; a name without quotes has no case."""
    dataset, table = (
        part.name if part.args.get("quoted") else part.name.lower()
        for part in (node.args["db"], node.args[name])
    )
    return dataset, table


def locate(tables: Collection[Table], run: Run) -> dict[Table, Place]:
    """Return where each declared table is; one that exists nowhere is in the environment.

    Args:
        tables: declared datasets and tables.
        run: runs the query for the tables that exist; only if the environment defers to another one.
    """
    own = {table: (stored_dataset(table[0]), table[1]) for table in tables}
    if not tables or not deferred_environment():
        return dict(own)
    return {table: place or own[table] for table, place in find(tables, run).items()}


def find(tables: Collection[Table], run: Run) -> dict[Table, Place | None]:
    """Return where each declared table is; None for one that exists nowhere.

    Args:
        tables: declared datasets and tables.
        run: runs the query for the tables that exist.
    """
    is_file, other = warehouse_type() == "duckdb", deferred_environment()
    found = set(run(_FILES_SQL if is_file else _TABLES_SQL))
    if is_file:  # without the name of its own catalog
        found = {row[1:] if row[0] is None else row for row in found}

    def places(dataset: str, name: str) -> Iterator[Place]:
        yield stored_dataset(dataset), name
        if other:
            yield (
                (other.identifier, dataset, name)
                if is_file
                else (stored_dataset(dataset, other), name)
            )

    return {
        table: next((place for place in places(*table) if place in found), None) for table in tables
    }


@contextmanager
def both_files(log: Log) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Yield a read-only connection to the DuckDB file, with that of `defer_to` attached.

    A file that does not exist has no tables. It raises what `read_only_connection` raises.
    """
    file = duckdb_path()
    open_own = partial(connect, file, read_only=True) if file.exists() else duckdb.connect
    with acquire_with_timeout(open_own, log) as connection:
        attach_other_file(connection, log)
        yield connection


@contextmanager
def views_of_both_files(log: Log) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Yield a connection with a view of each table of both files; of one that both have, the environment's.

    So every statement of DuckDB works as in an environment that has all tables.
    """
    with duckdb.connect() as connection:
        if (file := duckdb_path()).exists():
            _attach_file(connection, file, _OWN, log)
        attach_other_file(connection, log)
        tables = connection.execute(_VIEWED_SQL, [_OWN]).fetchall()
        for catalog, dataset, name in tables:
            view, place = (
                ".".join(exp.to_identifier(part, quoted=True).sql("duckdb") for part in parts)
                for parts in ((dataset, name), (catalog, dataset, name))
            )
            schema = exp.to_identifier(dataset, quoted=True).sql("duckdb")
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.execute(f"CREATE VIEW {view} AS FROM {place}")
        yield connection


def attach_other_file(connection: "duckdb.DuckDBPyConnection", log: Log) -> None:
    """Attach the DuckDB file of `defer_to` by its environment's name, if there is one.

    Raises:
        LockTimeoutError: a writer of that file took more than `WAREHOUSE_WAIT_SECONDS`.
    """
    other = deferred_environment()
    if other and (file := duckdb_path_of(other)).exists():
        _attach_file(connection, file, other.identifier, log)


def _attach_file(
    connection: "duckdb.DuckDBPyConnection", file: Path, catalog: str, log: Log
) -> None:
    path = exp.Literal.string(str(file)).sql("duckdb")
    statement = f'ATTACH {path} AS "{catalog}" (READ_ONLY)'
    acquire_with_timeout(partial(_attach, connection, statement), log)


def _attach(connection: "duckdb.DuckDBPyConnection", statement: str) -> None:
    try:
        connection.execute(statement)
    except duckdb.IOException as error:
        if "Could not set lock" not in str(error):
            raise
        raise LockHeldError("the warehouse lock", f"another program: {error}") from None
