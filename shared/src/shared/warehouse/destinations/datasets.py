"""The names of datasets in the warehouse: what a team declares, and what an environment makes of it.

A DuckDB file belongs to one environment, so names are as declared there. On a server, environments share
a database, and all but production have a prefix: `csv_data` is `pr_123__csv_data`.
"""

from shared import environments, settings
from shared.warehouse.destinations.configuration import warehouse_type
from shared.warehouse.errors import WarehouseConfigError

_MAX_NAME = 63  # of Postgres, which cuts longer names silently
_STAGING = "_staging"


def current_environment() -> environments.Environment:
    """Return the environment of this process.

    Raises:
        WarehouseConfigError: `ETL_ENVIRONMENT` or `environments.toml` is not valid; or the warehouse is
            shared with others, and nothing says which environment this is.
    """
    try:
        environment = environments.current()
    except (environments.EnvironmentNameError, environments.EnvironmentFileError) as error:
        raise WarehouseConfigError(str(error)) from None
    if warehouse_type() != "duckdb" and not settings.is_set("ETL_ENVIRONMENT"):
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {warehouse_type()}, which others use too, and ETL_ENVIRONMENT is not set; "
            "nothing was read or loaded. On a laptop, set ETL_ENVIRONMENT=local: your datasets begin with "
            f"{environment.dataset_prefix}. Where the tables are loaded that others use, set "
            "ETL_ENVIRONMENT=production."
        )
    return environment


def stored_dataset(dataset: str, environment: environments.Environment | None = None) -> str:
    """Return the name of a declared dataset in the warehouse.

    Args:
        dataset: the declared name, such as `csv_data`.
        environment: by default that of this process.

    Raises:
        WarehouseConfigError: as `current_environment` does; or the name is too long for Postgres.
    """
    prefix = dataset_prefix(environment)
    name = f"{prefix}{dataset}"
    if prefix and warehouse_type() == "postgres" and len(name + _STAGING) > _MAX_NAME:
        raise WarehouseConfigError(
            f"The dataset {name} and its {_STAGING} are longer than the {_MAX_NAME} characters of Postgres: "
            "give the environment or the dataset a shorter name."
        )
    return name


def dataset_prefix(environment: environments.Environment | None = None) -> str:
    """Return what the stored names of an environment's datasets begin with; empty for none.

    It raises what `current_environment` raises.
    """
    checked = current_environment()
    return "" if warehouse_type() == "duckdb" else (environment or checked).dataset_prefix
