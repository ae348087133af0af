"""Create the warehouse's destination and its locks, and describe where it is."""

import os
import re
from functools import partial
from typing import Any

from dlt.common.schema import Schema
from dlt.common.storages.configuration import FilesystemConfiguration

from shared.redaction import redact
from shared.warehouse.destinations.base import WarehouseDestination, destination_class
from shared.warehouse.destinations.configuration import (
    DESTINATION_NAME,
    reject_fixed_settings,
    reject_server_settings,
    resolve_configuration,
    warehouse_type,
)
from shared.warehouse.destinations.datasets import current_environment
from shared.warehouse.locks.base import LockManager, Log
from shared.warehouse.locks.file import DuckDbLockManager, FileLockManager, duckdb_path
from shared.warehouse.locks.postgres import DuckLakeLockManager, PostgresLockManager
from shared.warehouse.scope import LoadState

PUSHDOWN_TYPES = ("duckdb", "postgres")
"""The warehouse types that load the rows of a query of DuckDB."""


def create_destination(state: LoadState | None = None) -> WarehouseDestination:
    """Return the warehouse as a destination of dlt, for one load.

    Raises:
        WarehouseConfigError: a variable is missing or wrong.
    """
    current_environment()  # first, so that a wrong one is refused before anything is created
    name = warehouse_type()
    arguments: dict[str, Any] = {
        "destination_name": DESTINATION_NAME,
        # dlt's own default, a text of INSERTs, is most of a load's time.
        "preferred_loader_file_format": "parquet",
        # A `PipelineSpec` has normalized it, and dlt would make one underscore of the two in `pr_1__shop`.
        "enable_dataset_name_normalization": False,
    }
    if name == "duckdb":
        arguments["credentials"] = {"database": str(duckdb_path())}
    # The guards, and the jobs that replace rows, read no other format, whatever a resource requests.
    if name in ("duckdb", "postgres", "ducklake", "filesystem"):
        pushdown = ["model"] if name in PUSHDOWN_TYPES else []
        arguments["supported_loader_file_formats"] = ["parquet", "reference", *pushdown]
    if name in ("duckdb", "motherduck", "ducklake", "postgres"):
        # dlt leaves this unset for them, and then commits a merge statement by statement: a load that
        # fails between its delete and its insert would lose the rows.
        arguments["supports_transactions"] = True
    if name == "postgres":
        # A reader whose snapshot is older than a TRUNCATE sees an empty table.
        arguments["supports_truncate_command"] = False
    if name != "filesystem":
        # dlt's default empties the table first, and readers see that.
        arguments["replace_strategy"] = "insert-from-staging"
    if name not in ("duckdb", "postgres", "ducklake", "filesystem"):
        # Only the runs of one machine are serialized there, and dlt truncates the staging tables at
        # each load: rows of another machine would silently be lost from them.
        host = re.sub(r"\W", "_", os.uname().nodename.lower())
        arguments["staging_dataset_name_layout"] = f"%s_staging_{host}"
    reject_fixed_settings(arguments)
    if name == "duckdb":
        reject_server_settings()
    destination: WarehouseDestination = destination_class(name)(**arguments)
    destination.state = state or LoadState()
    return destination


def create_lock_manager(
    destination: WarehouseDestination, configuration: Any, log: Log
) -> LockManager:
    """Return what serializes the runs of the configuration's dataset."""
    dataset, credentials = str(configuration.dataset_name), configuration.credentials
    owner = f"pid {os.getpid()} of {os.uname().nodename}"
    if destination.warehouse_type == "duckdb":
        return DuckDbLockManager(dataset, log)
    if destination.warehouse_type == "postgres":
        return PostgresLockManager(dataset, log, credentials.to_native_representation(), owner)
    if destination.warehouse_type == "ducklake":
        address = str(credentials.catalog.to_native_representation()).partition("://")[2]
        return DuckLakeLockManager(
            *(dataset, log, f"postgresql://{address}", owner),
            schema=credentials.metadata_schema or credentials.ducklake_name,
            create_lake=partial(_attach, destination, configuration),
        )
    return FileLockManager(dataset, log)


def _attach(destination: Any, configuration: Any) -> None:
    """Open the lake, which creates it if it is missing."""
    with destination.client(Schema("lake"), configuration).sql_client:
        pass


def database_name(destination: WarehouseDestination, configuration: Any) -> str:
    """Return the warehouse's name for people: the file's stem, the database, or the directory."""
    if destination.warehouse_type == "duckdb":
        return duckdb_path().stem
    if isinstance(configuration, FilesystemConfiguration):
        return redact(str(configuration.bucket_url))
    return str(getattr(configuration.credentials, "database", None) or destination.warehouse_type)


def describe_location() -> str:
    """Return where the warehouse is, for people: the file, or the database and its host.

    Raises:
        WarehouseConfigError: a variable is missing or wrong.
    """
    destination = create_destination()
    configuration = resolve_configuration(destination, "public")
    if destination.warehouse_type == "duckdb":
        return str(duckdb_path())
    host = getattr(configuration.credentials, "host", None)
    return f"{destination.warehouse_type} {database_name(destination, configuration)}" + (
        f" on {host}" if host else ""
    )
