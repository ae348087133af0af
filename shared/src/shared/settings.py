"""Every environment variable of the workspace with its default; nothing else reads `os.environ`."""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dotenv import load_dotenv


@dataclass(frozen=True)
class Setting:
    """One setting: its working default and what it decides."""

    default: str
    description: str


SETTINGS = {
    "DAGSTER_HOME": Setting(
        "${PWD}",
        "Folder whose dagster.yaml configures the instance (absolute); its state goes to .dagster/.",
    ),
    "WAREHOUSE_TYPE": Setting(
        "duckdb",
        "What all pipelines load into; any but the file takes dlt's DESTINATION__WAREHOUSE__ variables.",
    ),
    "WAREHOUSE_PATH": Setting(
        "data/warehouse.duckdb",
        "The DuckDB file, relative to the workspace; beside it stand the working folders of runs.",
    ),
    "WAREHOUSE_WAIT_SECONDS": Setting(
        "600", "How long a load or a reader waits for whoever holds the warehouse before it fails."
    ),
    "PREVIEW_ROWS": Setting(
        "5", "How many rows of a load Dagster shows with it, and keeps; 0 where nobody may see any."
    ),
    "DROP_FOLDER": Setting(
        "data/drop", "Where csv_etl finds files: a local folder, s3://, gs:// or az://."
    ),
    "NASA_API_KEY": Setting(
        "DEMO_KEY", "Key for api.nasa.gov, sent as a header. DEMO_KEY allows 30 requests an hour."
    ),
    "NASA_MAX_WAIT_SECONDS": Setting(
        "60",
        "How long a request may wait for NASA's limit; above that the rest is left for a retry.",
    ),
    "NASA_BASE_URL": Setting(
        "https://api.nasa.gov/neo/rest/v1",
        "Where api_etl asks; `etl run` sets it to its own server without a key.",
    ),
    "REPOSITORY_URL": Setting(
        "",
        "Where the code can be read, https://host/team/repository/tree/main: assets link to their lines.",
    ),
    "ALERTS_WEBHOOK_URL": Setting(
        "",
        "Where failures and late tables are told: a Slack-compatible incoming webhook; secret.",
    ),
    "DAGSTER_UI_URL": Setting(
        "http://localhost:3000", "The UI's address as people open it, for the links in alerts."
    ),
    "WORKERS_REDIS_URL": Setting(
        "",
        "The Redis through which workers get steps: redis://host:6379. Without it a run executes its own.",
    ),
    "WORKERS_MAX_STEP_SECONDS": Setting(
        "3600",
        "How long a step may take on a worker; after that, one whose machine died runs on another.",
    ),
}


def get(name: str) -> str:
    """Returns a setting: the environment's value, or its default where that is unset or empty.

    The workspace's .env file counts as environment, from whichever folder a command starts; a
    variable that is set already wins.

    Raises:
        KeyError: the variable is not listed in `SETTINGS`.
    """
    default = SETTINGS[name].default
    load_env_file()
    return os.environ.get(name) or default


@cache
def load_env_file() -> None:
    """Takes the workspace's .env file into the environment, once; what is set already wins."""
    load_dotenv(workspace_root() / ".env")


def is_default(name: str) -> bool:
    """Tells whether a setting is what it is without the environment's help."""
    return get(name) == SETTINGS[name].default


def workspace_root() -> Path:
    """Returns the folder that holds workspace.yaml: at or above the working folder, else this file.

    A package installed outside any workspace takes the working folder.
    """
    working_folder = Path.cwd()
    for folder in (working_folder, *working_folder.parents, *Path(__file__).resolve().parents):
        if (folder / "workspace.yaml").is_file():
            return folder
    return working_folder


def get_seconds(name: str) -> float:
    """Returns a setting that is a number of seconds.

    Raises:
        ValueError: it is none; the message names the variable.
    """
    try:
        return float(get(name))
    except ValueError:
        raise ValueError(f"{name} is {get(name)!r}; it must be a number of seconds") from None


def get_int(name: str) -> int:
    """Returns a setting that is a whole number, 0 or more.

    Raises:
        ValueError: it is none; the message names the variable.
    """
    text = get(name)
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ValueError(f"{name} is {text!r}; it must be a whole number, 0 or more")
    return int(text)


def get_path(name: str) -> Path:
    """Returns a setting that is a path; a relative one starts at the workspace root."""
    return workspace_root() / Path(get(name)).expanduser()


def drop_folder() -> str:
    """Returns the drop folder's address; a relative local one starts at the workspace root."""
    address = get("DROP_FOLDER")
    return address if "://" in address else str(get_path("DROP_FOLDER"))
