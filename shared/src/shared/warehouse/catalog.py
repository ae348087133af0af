"""List what is loaded: tables, their columns and last loads, from the tables of dlt."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dlt.common.schema import Schema
from dlt.common.schema.utils import get_root_table

from shared.warehouse.destinations.configuration import warehouse_type
from shared.warehouse.destinations.datasets import dataset_prefix
from shared.warehouse.environment_datasets import is_of_environment
from shared.warehouse.errors import QueryError
from shared.warehouse.locks.base import Log, no_log
from shared.warehouse.query import find_tables, query, read_only_connection

_TABLES_SQL = """
    SELECT table_schema AS dataset, table_name AS name FROM information_schema.tables
    WHERE table_schema IN (
        SELECT table_schema FROM information_schema.tables WHERE table_name = '_dlt_loads'
    )
    ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Column:
    """A column as the schema of its pipeline has it; `type` is dlt's."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class LoadRecord:
    """A load of dlt. One without a time did not complete."""

    load_id: str
    loaded_at: datetime | None
    status: str


@dataclass(frozen=True)
class TableInfo:
    """A table that a pipeline has loaded.

    Attributes:
        dataset: the dataset that it is in, as it is declared.
        name: its name there.
        parent: the table that its rows are nested in, if any.
        rows: how many it has.
        description: from its pipeline.
        columns: all except dlt's own.
        last_load: the last load that added any of its rows; of a nested table, its root's.
    """

    dataset: str
    name: str
    parent: str | None
    rows: int
    description: str
    columns: tuple[Column, ...]
    last_load: LoadRecord | None


def list_tables(log: Log = no_log) -> list[TableInfo]:
    """Return every table that pipelines of the environment have loaded, nested ones below their parents.

    Raises:
        QueryError: the warehouse is a directory or a bucket, which has no list of its tables.
        Exception: what `query` raises.
    """
    if warehouse_type() == "filesystem":
        raise QueryError(
            "A directory or a bucket has no list of its tables; query one: "
            'etl query "SELECT * FROM nasa_neo.daily_summary".'
        )
    stored: dict[str, set[str]] = {}
    for dataset, name in _stored_tables(log):
        stored.setdefault(dataset, set()).add(name)
    return [
        table
        for dataset, names in stored.items()
        if is_of_environment(dataset, names)
        for table in _tables(dataset.removeprefix(dataset_prefix()), names)
    ]


def _stored_tables(log: Log) -> list[tuple[str, str]]:
    """Return the datasets and tables of the environment, without those of `defer_to`."""
    if warehouse_type() != "duckdb":
        return [(row["dataset"], row["name"]) for row in query(_TABLES_SQL, log=log)]
    with read_only_connection(log, deferred=False) as connection:
        return connection.execute(_TABLES_SQL).fetchall()


def is_loaded(dataset: str, table: str) -> bool:
    """Return whether a pipeline has loaded a table; it raises what `query` raises."""
    versions = (dataset, "_dlt_version")
    return find_tables([versions])[versions] is not None and table in _declared(dataset)


def quote_identifier(*names: str) -> str:
    """Return a name of several parts, quoted for SQL."""
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def _tables(dataset: str, stored: set[str]) -> Iterator[TableInfo]:
    """Yield the tables of a declared dataset."""
    hints = {name: table for name, table in _declared(dataset).items() if name in stored}
    rows = {row["name"]: row for row in query(_counts_sql(dataset, hints))} if hints else {}
    for name in _nested(hints):
        table = hints[name]
        yield TableInfo(
            dataset,
            name,
            table.get("parent"),
            rows[name]["row_count"],
            _paragraph(table.get("description")),
            tuple(
                Column(column["name"], _type(column), _paragraph(column.get("description")))
                for column in table["columns"].values()
                if not column["name"].startswith("_dlt_") and column.get("data_type")
            ),
            _load_record(rows[get_root_table(hints, name)["name"]]),
        )


def _declared(dataset: str) -> dict[str, Any]:
    """Return the tables of the newest version of each schema that dlt has stored in a dataset."""
    versions = query(
        f'SELECT "schema" AS stored FROM {quote_identifier(dataset, "_dlt_version")} ORDER BY inserted_at'
    )
    tables: dict[str, Any] = {}
    newest: dict[str, Schema] = {}
    for version in versions:
        schema = Schema.from_stored_schema(json.loads(version["stored"]))
        newest[schema.name] = schema
    for schema in newest.values():
        tables |= {str(table["name"]): table for table in schema.data_tables()}
    return tables


def _counts_sql(dataset: str, hints: Mapping[str, Any]) -> str:
    """Return the query for each table's number of rows and newest load."""
    counts = " UNION ALL ".join(
        f"SELECT '{name}' AS name, count(*) AS row_count, "
        + ("max(_dlt_load_id)" if "_dlt_load_id" in table["columns"] else "CAST(NULL AS TEXT)")
        + f" AS load_id FROM {quote_identifier(dataset, name)}"
        for name, table in hints.items()
    )
    loads = quote_identifier(dataset, "_dlt_loads")
    complete = (
        f"SELECT * FROM {loads} WHERE status = 0"  # others are loads that do not end, or did not
    )
    return f"SELECT * FROM ({counts}) AS counts LEFT JOIN ({complete}) AS loads USING (load_id)"


def _load_record(row: Mapping[str, Any]) -> LoadRecord | None:
    """Return the load of a row, with its time in UTC if it is complete."""
    load_id, ended_at = row["load_id"], row["inserted_at"]
    if not ended_at:
        return LoadRecord(load_id, None, "incomplete") if load_id else None
    return LoadRecord(load_id, ended_at.astimezone(UTC), "complete")


def _nested(hints: Mapping[str, Any], parent: str | None = None) -> Iterator[str]:
    """Yield the names of tables in order, each followed by its nested tables."""
    for name in sorted(hints):
        if hints[name].get("parent") == parent:
            yield name
            yield from _nested(hints, name)


def _type(column: Any) -> str:
    """Return dlt's type with its precision, such as `decimal(18, 4)`."""
    sizes: Sequence[int] = [
        column[size] for size in ("precision", "scale") if column.get(size) is not None
    ]
    return str(column["data_type"]) + (f"({', '.join(map(str, sizes))})" if sizes else "")


def _paragraph(text: str | None) -> str:
    """Return the first paragraph in one line; the rest of a docstring is for programmers."""
    return " ".join((text or "").partition("\n\n")[0].split())
