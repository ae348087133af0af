"""How dbt connects to the warehouse: the variables that a project's `profiles.yml` reads."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shared import environments, warehouse
from shared.warehouse.destinations.configuration import resolve_configuration
from shared.warehouse.destinations.factory import create_destination

PASSWORD_VARIABLE = "DBT_ENV_SECRET_WAREHOUSE_PASSWORD"  # noqa: S105 - a name
"""dbt strikes the values of variables with this prefix out of its logs."""

_LIBPQ_NAMES = {"application_name": "PGAPPNAME"}
_lock = threading.Lock()


def connection_variables() -> dict[str, str]:
    """Return the variables of `profiles.yml`, and those of libpq for what a DSN has after `?`.

    Raises:
        WarehouseConfigError: dbt has no adapter for the warehouse here, or a variable is wrong.
    """
    kind = warehouse.warehouse_type()
    if kind == "duckdb":
        create_destination()  # checks the variables
        return {
            "WAREHOUSE_TYPE": kind,
            "ETL_DBT_PATH": str(warehouse.duckdb_path()),
            "ETL_DBT_ATTACH": repr(_attached_files()),
        }
    if kind != "postgres":
        raise warehouse.WarehouseConfigError(
            f"WAREHOUSE_TYPE is {kind}, and the models of dbt run on duckdb and postgres."
        )
    credentials = resolve_configuration(create_destination(), "public").credentials
    return {
        "WAREHOUSE_TYPE": kind,
        "ETL_DBT_HOST": credentials.host or "localhost",
        "ETL_DBT_PORT": str(credentials.port or 5432),
        "ETL_DBT_USER": credentials.username or "",
        "ETL_DBT_DATABASE": credentials.database,
        PASSWORD_VARIABLE: credentials.password or "",
        **{
            _LIBPQ_NAMES.get(name, f"PG{name.upper()}"): str(value)
            for name, value in (credentials.query or {}).items()
        },
    }


def _attached_files() -> list[dict[str, object]]:
    """Return the DuckDB file of the environment that tables are read from, as dbt-duckdb attaches it."""
    if not (name := warehouse.current_environment().defer_to):
        return []
    other = environments.named(name)
    file = warehouse.duckdb_path_of(other)
    attached = {"path": str(file), "alias": other.identifier, "read_only": True}
    return [attached] if file.exists() else []


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the start of dbt, which dagster-dbt starts with those of this process."""
    with _lock:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
