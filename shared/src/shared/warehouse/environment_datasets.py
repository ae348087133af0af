"""What environments have in the warehouse: list it, and drop it.

Each dataset of an environment on a server, and each DuckDB file of one, has a table with the name of its
environment. Only what has this table is dropped, so nothing of production can be.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlt.common.schema import Schema

from shared import environments, settings
from shared.lazy_modules import duckdb
from shared.warehouse.destinations.configuration import resolve_configuration, warehouse_type
from shared.warehouse.destinations.datasets import current_environment, dataset_prefix
from shared.warehouse.destinations.factory import create_destination, create_lock_manager
from shared.warehouse.errors import WarehouseConfigError
from shared.warehouse.locks.base import Log, acquire_with_timeout, no_log
from shared.warehouse.locks.file import (
    ENVIRONMENT_TABLE,
    connect,
    duckdb_path_of,
    exclusive_connection,
)

MARKED_TYPES = ("duckdb", "postgres", "ducklake")
"""The warehouses whose environments are listed and dropped."""


@dataclass(frozen=True)
class StoredEnvironment:
    """What an environment has in the warehouse: its name, and its datasets or its DuckDB file."""

    name: str
    stored: tuple[str, ...]


def mark_dataset(client: Any) -> None:
    """Create the table with the environment's name in the dataset of a dlt client, if it is missing.

    Production has none, and a DuckDB file has one for all of its datasets.

    Raises:
        WarehouseConfigError: the dataset has tables that no load of the environment has created.
    """
    if not dataset_prefix() or warehouse_type() not in MARKED_TYPES:
        return
    sql_client = client.sql_client
    dataset, table = (
        sql_client.dataset_name,
        sql_client.make_qualified_table_name(ENVIRONMENT_TABLE),
    )
    found = sql_client.execute_sql(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", dataset
    )
    existing = {str(name) for (name,) in found or ()}
    if ENVIRONMENT_TABLE in existing and sql_client.execute_sql(f"SELECT environment FROM {table}"):
        return
    if existing - {ENVIRONMENT_TABLE}:
        raise WarehouseConfigError(
            f"The dataset {dataset} has tables that the environment {current_environment().name} did "
            f"not create, so nothing was loaded: `etl env drop` would drop them too. Rename one of "
            f"the two; or, if the tables are of this environment, create {table} with its name in the "
            "column environment."
        )
    client.initialize_storage()
    sql_client.execute_sql(f"CREATE TABLE IF NOT EXISTS {table} (environment VARCHAR)")
    sql_client.execute_sql(f"INSERT INTO {table} VALUES (%s)", current_environment().name)


def is_of_environment(dataset: str, tables: Collection[str]) -> bool:
    """Return whether a stored dataset is of the environment of this process.

    Args:
        dataset: its name in the warehouse.
        tables: the tables that it has.
    """
    if prefix := dataset_prefix():
        return dataset.startswith(prefix)
    return warehouse_type() == "duckdb" or ENVIRONMENT_TABLE not in tables


def list_environments(log: Log = no_log) -> list[StoredEnvironment]:
    """Return the environments that have a DuckDB file or a dataset, without production.

    Raises:
        WarehouseConfigError: the warehouse is of a type whose environments are not listed.
        WarehouseConnectionError: the server does not respond.
        LockTimeoutError: a writer had a DuckDB file open for more than `WAREHOUSE_WAIT_SECONDS`.
    """
    _require_marked_type()
    if warehouse_type() == "duckdb":
        default = settings.get_path("WAREHOUSE_PATH")
        files = sorted(default.parent.glob(f"{default.stem}_*{default.suffix}"))
        found = [(_environment_of(file, log), file) for file in files]
        return [StoredEnvironment(name, (str(file),)) for name, file in found if name]
    datasets: dict[str, list[str]] = {}
    with _session() as client:
        for name, dataset in _marked_datasets(client):
            datasets.setdefault(name, []).append(dataset)
    return [StoredEnvironment(name, tuple(stored)) for name, stored in sorted(datasets.items())]


def drop_environment(name: str, log: Log = no_log) -> Sequence[str]:
    """Drop the DuckDB file or the datasets of an environment, and return what was dropped.

    A load that writes ends first. One that has not begun to write extracts again and creates its tables.

    Raises:
        WarehouseConfigError: it is production, or `local` with the DuckDB file that production has too.
        LockTimeoutError: a load took more than `WAREHOUSE_WAIT_SECONDS`.
        Exception: what `list_environments` raises.
    """
    _require_marked_type()
    environment = environments.named(name)
    if environment.is_production:
        raise WarehouseConfigError("production is not dropped: its tables are what others use.")
    if warehouse_type() == "duckdb":
        if not environment.has_own_file:
            raise WarehouseConfigError(
                f"{name} uses the file {duckdb_path_of(environment)}, as production does: delete the file "
                "if nobody needs it."
            )
        return _drop_file(duckdb_path_of(environment), name, log)
    prefix = environment.dataset_prefix  # that of `local` has the name of the person
    with _session() as client:
        datasets = [
            dataset
            for owner, dataset in _marked_datasets(client)
            if owner == name and dataset.startswith(prefix)
        ]
    for dataset in datasets:
        _drop_dataset(dataset, log)
    return datasets


def _require_marked_type() -> None:
    if warehouse_type() not in MARKED_TYPES:
        raise WarehouseConfigError(
            f"The warehouse is {warehouse_type()}; the environments of {', '.join(MARKED_TYPES)} are "
            "listed and dropped. Drop the datasets that begin with the name of the environment yourself."
        )


def _environment_of(file: Path, log: Log) -> str | None:
    """Return the environment that a DuckDB file is of; None if it is another file."""
    try:
        with acquire_with_timeout(lambda: connect(file, read_only=True), log) as connection:
            return _marked(connection)
    except duckdb.Error:  # no database
        return None


def _marked(connection: "duckdb.DuckDBPyConnection") -> str | None:
    try:
        row = connection.execute(f"SELECT environment FROM {ENVIRONMENT_TABLE}").fetchone()
    except duckdb.CatalogException:
        return None
    return str(row[0]) if row else None


def _drop_file(file: Path, name: str, log: Log) -> list[str]:
    if not file.exists():
        return []
    try:
        with exclusive_connection(log, file) as connection:
            if _marked(connection) != name:
                return []
            # Under the lock, because a load that waits creates these files again; and first, because
            # DuckDB would read what is left of them into a new file. The lock file stays.
            for rest in (file.with_name(f"{file.name}.wal"), file.with_suffix(".partition-locks")):
                rest.unlink(missing_ok=True)
            file.unlink()
    except duckdb.IOException:  # no database
        return []
    with suppress(OSError):  # a load that waits, or one that failed, has a directory in it
        file.with_suffix(".working").rmdir()
    return [str(file)]


@contextmanager
def _session(dataset: str = "public") -> Iterator[Any]:
    """Yield dlt's client of a stored dataset, connected."""
    destination: Any = create_destination()
    configuration = resolve_configuration(destination, dataset)
    with destination.client(Schema("environments"), configuration) as client:
        yield client


def _marked_datasets(client: Any) -> Iterator[tuple[str, str]]:
    """Yield the environment and the name of each dataset that has the table."""
    sql_client = client.sql_client
    found = sql_client.execute_sql(
        "SELECT table_schema FROM information_schema.tables WHERE table_name = %s ORDER BY 1",
        ENVIRONMENT_TABLE,
    )
    for (dataset,) in found or ():
        table = ".".join(map(sql_client.escape_column_name, (dataset, ENVIRONMENT_TABLE)))
        for (name,) in sql_client.execute_sql(f"SELECT environment FROM {table}") or ():
            yield str(name), str(dataset)


def _drop_dataset(dataset: str, log: Log) -> None:
    """Drop a dataset and the one for staging, under the lock of the dataset."""
    destination: Any = create_destination()
    configuration = resolve_configuration(destination, dataset)
    locks = create_lock_manager(destination, configuration, log)
    with locks.dataset_lock(), _session(dataset) as client:
        sql_client = client.sql_client
        with sql_client.with_staging_dataset():
            if sql_client.has_dataset():
                sql_client.drop_dataset()
        sql_client.drop_dataset()
