"""The rows and columns of tables in an environment."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared import environments

_COLUMNS_SQL = """
    SELECT column_name, data_type, numeric_precision, numeric_scale
    FROM information_schema.columns
    WHERE table_schema = ? AND table_name = ? {catalog}
    ORDER BY ordinal_position
"""


@dataclass(frozen=True)
class StoredTable:
    """A table in the warehouse: how many rows it has, and the type of each column except dlt's."""

    rows: int
    columns: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def in_environment(environment: environments.Environment) -> Iterator[None]:
    """Read the tables of an environment in the body."""
    before = os.environ.get("ETL_ENVIRONMENT")
    os.environ["ETL_ENVIRONMENT"] = environment.name
    try:
        yield
    finally:
        del os.environ["ETL_ENVIRONMENT"]
        if before is not None:
            os.environ["ETL_ENVIRONMENT"] = before


def stored_tables(
    keys: Collection[str], environment: environments.Environment
) -> dict[str, StoredTable]:
    """Return the tables of assets that an environment has itself, by the asset's key.

    Raises:
        Exception: what `warehouse.query` raises.
    """
    from shared import warehouse

    named = {
        (dataset, table) for dataset, _, table in (key.partition("/") for key in keys) if table
    }
    with in_environment(environment):
        own = {
            table: place
            for table, place in warehouse.find_tables(named).items()
            if place == (warehouse.stored_dataset(table[0]), table[1])
        }
        return {"/".join(table): _describe(table, own[table]) for table in own}


def readable_tables(keys: Collection[str], environment: environments.Environment) -> set[str]:
    """Return the assets whose tables an environment has, or reads from another one.

    Raises:
        Exception: what `warehouse.find_tables` raises.
    """
    from shared import warehouse

    with in_environment(environment):
        places = warehouse.find_tables(_named(keys))
    return {"/".join(table) for table, place in places.items() if place}


def _named(keys: Collection[str]) -> set[tuple[str, str]]:
    """Return the dataset and the table of each asset that has such a key."""
    parts = (key.partition("/") for key in keys)
    return {(dataset, table) for dataset, _, table in parts if table and "/" not in table}


def _describe(table: tuple[str, str], place: tuple[str, ...]) -> StoredTable:
    from shared import warehouse

    (counted,) = warehouse.query(
        f"SELECT count(*) AS row_count FROM {warehouse.quote_identifier(*table)}"
    )
    # The file of another environment may be attached to that of DuckDB, with the same datasets.
    is_file = warehouse.warehouse_type() == "duckdb"
    sql = _COLUMNS_SQL.format(catalog="AND table_catalog = current_database()" if is_file else "")
    columns = warehouse.query(sql, [*place])
    return StoredTable(
        int(counted["row_count"]),
        {
            row["column_name"]: _type(row["data_type"], row)
            for row in columns
            if not row["column_name"].startswith("_dlt_")
        },
    )


def _type(data_type: str, row: Mapping[str, int | None]) -> str:
    """Return a type with its size; DuckDB's name of a decimal has it already."""
    if data_type == "numeric" and row["numeric_precision"] is not None:
        return f"numeric({row['numeric_precision']},{row['numeric_scale']})"
    return data_type.lower()
