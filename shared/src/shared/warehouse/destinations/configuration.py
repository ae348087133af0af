"""Where the warehouse is, from the environment.

`WAREHOUSE_TYPE` names dlt's destination. All types except the DuckDB file take their location and
credentials from dlt's own variables, `DESTINATION__WAREHOUSE__…`.
"""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    ConfigurationException,
)
from dlt.common.destination.client import DEFAULT_FILE_LAYOUT
from dlt.common.exceptions import MissingDependencyException
from dlt.common.storages.configuration import FilesystemConfigurationWithLocalFiles
from dlt.dataset.utils import get_destination_client_initial_config

from shared import settings
from shared.redaction import redact
from shared.sources.dlt_settings import also_in_provider
from shared.warehouse.destinations.base import WarehouseDestination
from shared.warehouse.errors import WarehouseConfigError

DESTINATION_NAME = "warehouse"
"""The destination's name, and so the middle part of dlt's variables."""

_PREFIX = f"DESTINATION__{DESTINATION_NAME.upper()}__"

SUPPORTED_TYPES = (
    "duckdb",
    "postgres",
    "ducklake",
    "filesystem",
    "motherduck",
    "snowflake",
    "bigquery",
    "clickhouse",
    "databricks",
)
"""dlt's destinations that the warehouse can be."""


def warehouse_type() -> str:
    """Return the warehouse's type, `WAREHOUSE_TYPE`.

    Raises:
        WarehouseConfigError: it is not one of `SUPPORTED_TYPES`.
    """
    value = settings.get("WAREHOUSE_TYPE")
    if value not in SUPPORTED_TYPES:
        close = get_close_matches(value, SUPPORTED_TYPES, 1)
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {value!r}; it must be one of {', '.join(SUPPORTED_TYPES)}."
            + "".join(f" Did you mean {name}?" for name in close)
        )
    return value


def reject_server_settings() -> None:
    """Reject the settings of a server while the warehouse is a DuckDB file.

    Raises:
        WarehouseConfigError: one is set, so `WAREHOUSE_TYPE` was probably forgotten.
    """
    ignored = sorted(
        name for name, value in os.environ.items() if name.startswith(_PREFIX) and value
    )
    if ignored:
        raise WarehouseConfigError(
            f"{ignored[0]} is set, but WAREHOUSE_TYPE is duckdb, a file (WAREHOUSE_PATH) that does not "
            "use it. Set WAREHOUSE_TYPE, or unset the other."
        )


def reject_fixed_settings(fixed: Iterable[str]) -> None:
    """Reject settings of dlt that the engine decides, because loads are exact only with its choice.

    Args:
        fixed: the names of the settings, as arguments of dlt's destination.

    Raises:
        WarehouseConfigError: one of them is set.
    """
    for name in fixed:
        variable = f"{_PREFIX}{name.upper()}"
        if name not in ("credentials", "destination_name") and os.environ.get(variable):
            raise WarehouseConfigError(
                f"{variable} is set, and the warehouse decides it, because other values lose or double "
                "rows in some loads. Unset it; nothing else is to be set in its place."
            )


def resolve_configuration(destination: WarehouseDestination, dataset: str) -> Any:
    """Return the destination's complete configuration for a dataset.

    Raises:
        WarehouseConfigError: a variable is missing or wrong, or packages are missing.
    """
    name = destination.warehouse_type
    try:
        initial: Any = get_destination_client_initial_config(destination, dataset)
        configuration: Any = destination.configuration(initial)
        destination.client_class  # noqa: B018 - imports what the destination needs
    except ConfigFieldMissingException as error:
        # dlt names each part of a missing connection string.
        missing = sorted(set(re.findall(rf"{_PREFIX}\w+", str(error)))) or [f"{_PREFIX}…"]
        variable = missing[0] if len(missing) == 1 else missing[0].rpartition("__")[0]
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {name}, and {variable} is not set"
            f"{also_in_provider('destination', DESTINATION_NAME)}; no request was sent and nothing was "
            f"loaded. See dlt's documentation of the destination {name}."
        ) from None
    except (ImportError, MissingDependencyException) as error:
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {name}, whose packages are missing: "
            f"{str(error).strip().splitlines()[0]}. Add them: uv add --package shared 'dlt[{name}]'"
        ) from None
    except (ConfigurationException, ValueError) as error:
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {name}, and one of the variables {_PREFIX}… is wrong: "
            f"{redact(str(error).strip())}"
        ) from None
    driver = getattr(configuration.credentials, "drivername", None)
    if name == "postgres" and driver not in ("postgres", "postgresql"):
        raise WarehouseConfigError(
            f"{_PREFIX}CREDENTIALS must begin with postgresql://, without a driver; it has {driver}."
        )
    if name == "filesystem" and configuration.layout != DEFAULT_FILE_LAYOUT:
        raise WarehouseConfigError(
            f"{_PREFIX}LAYOUT is {configuration.layout}, with which a load cannot find what it "
            "replaces. Unset it."
        )
    if name == "ducklake":
        _require_shared_storage(configuration.credentials)
    return configuration


def _require_shared_storage(credentials: Any) -> None:
    """Reject the defaults of dlt for parts of a DuckLake that are not set."""
    variables, driver = f"{_PREFIX}CREDENTIALS__", credentials.catalog.drivername
    if driver not in ("postgres", "postgresql"):
        raise WarehouseConfigError(
            f"DuckLake's catalog is {driver}, and must be a Postgres database: a file loses loads of "
            f"concurrent writers. Set {variables}CATALOG to postgresql://…; no request was sent and "
            "nothing was loaded."
        )
    if isinstance(credentials.storage, FilesystemConfigurationWithLocalFiles):
        raise WarehouseConfigError(
            "DuckLake's files would be written to the working directory of each run. Set "
            f"{variables}STORAGE__BUCKET_URL to s3://…, or to a directory that all machines share; no "
            "request was sent and nothing was loaded."
        )
