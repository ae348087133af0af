"""Every environment variable of the workspace, with its default. Read settings only through here."""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dotenv import load_dotenv


@dataclass(frozen=True)
class Setting:
    """One setting: its default and what it controls."""

    default: str
    description: str


SETTINGS = {
    "DAGSTER_HOME": Setting(
        "${PWD}", "Folder of dagster.yaml (absolute). Dagster stores its state there in .dagster/."
    ),
    "ETL_ENVIRONMENT": Setting(
        "local",
        "The environment: local, dev, staging, production, or any name, such as pr-123.",
    ),
    "WAREHOUSE_TYPE": Setting(
        "duckdb",
        "Warehouse of all pipelines. Types other than duckdb need dlt's DESTINATION__WAREHOUSE__ variables.",
    ),
    "WAREHOUSE_PATH": Setting(
        "data/warehouse.duckdb",
        "The DuckDB file, relative to the workspace. The working folders of runs are next to it.",
    ),
    "WAREHOUSE_STORAGE_VERSION": Setting(
        "v1.4.0",
        "The oldest DuckDB that can open a new DuckDB file, such as v1.0.0; latest for this DuckDB only.",
    ),
    "WAREHOUSE_WAIT_SECONDS": Setting(
        "600", "How long a load or a reader waits for the warehouse lock before it fails."
    ),
    "PREVIEW_ROWS": Setting(
        "5", "How many rows of a load Dagster shows and stores; 0 to store none."
    ),
    "SECRETS_PROVIDER": Setting(
        "",
        "Where dlt also reads secrets: aws://REGION/PREFIX, google://PROJECT or vault://HOST/MOUNT/PREFIX.",
    ),
    "DROP_FOLDER": Setting(
        "data/drop",
        "Folder of the files: local, or the URL of a bucket, an SFTP or an HTTP server.",
    ),
    "DROP_FOLDER_PASSWORD": Setting(
        "", "Password of the user in DROP_FOLDER, for sftp:// and https://; secret."
    ),
    "DROP_FOLDER_TOKEN": Setting(
        "", "Bearer token for a DROP_FOLDER that is https:// without a user; secret."
    ),
    "SFTP_KNOWN_HOSTS": Setting(
        "~/.ssh/known_hosts", "File with the host keys of SFTP servers. Others are refused."
    ),
    "MAX_UNCOMPRESSED_BYTES": Setting(
        "0", "How large a compressed CSV file may become; 0 for half of the disk's free bytes."
    ),
    "NASA_API_KEY": Setting(
        "DEMO_KEY", "Key for api.nasa.gov, sent as a header. DEMO_KEY allows 30 requests per hour."
    ),
    "NASA_MAX_WAIT_SECONDS": Setting(
        "60", "How long a request may wait for NASA's limit. Longer waits are deferred to a retry."
    ),
    "NASA_BASE_URL": Setting("https://api.nasa.gov/neo/rest/v1", "URL of the NeoWs API."),
    "REPOSITORY_URL": Setting(
        "", "URL of the code, https://host/team/repository/tree/main. Assets link to their lines."
    ),
    "ALERTS_WEBHOOK_URL": Setting(
        "", "Slack-compatible incoming webhook for failures and stale tables; secret."
    ),
    "DAGSTER_UI_URL": Setting("http://localhost:3000", "URL of the UI, for the links in alerts."),
    "WORKERS_REDIS_URL": Setting(
        "",
        "Redis that sends steps to workers: redis://host:6379. If empty, a run executes its own steps.",
    ),
    "WORKERS_MAX_STEP_SECONDS": Setting(
        "3600",
        "How long a step may take on a worker. If its machine died, another worker then runs it.",
    ),
}


def get(name: str) -> str:
    """Return a setting: the value of the environment, or the default if that is unset or empty.

    The workspace's .env file is part of the environment. Variables that are already set win.

    Raises:
        KeyError: the variable is not in `SETTINGS`.
    """
    default = SETTINGS[name].default
    load_env_file()
    return os.environ.get(name) or default


@cache
def load_env_file() -> None:
    """Load the workspace's .env file into the environment, once. Variables that are set win."""
    load_dotenv(workspace_root() / ".env")


def is_set(name: str) -> bool:
    """Return whether the environment has a value for a setting."""
    load_env_file()
    return bool(os.environ.get(name))


def is_default(name: str) -> bool:
    """Return whether a setting has its default."""
    return get(name) == SETTINGS[name].default


def workspace_root() -> Path:
    """Return the folder of workspace.yaml: at or above the working folder, or above this file.

    Without a workspace.yaml, it is the working folder.
    """
    working_folder = Path.cwd()
    for folder in (working_folder, *working_folder.parents, *Path(__file__).resolve().parents):
        if (folder / "workspace.yaml").is_file():
            return folder
    return working_folder


def get_seconds(name: str) -> float:
    """Return a setting that is a number of seconds.

    Raises:
        ValueError: it is not a number; the message names the variable.
    """
    try:
        return float(get(name))
    except ValueError:
        raise ValueError(f"{name} is {get(name)!r}; it must be a number of seconds") from None


def get_int(name: str) -> int:
    """Return a setting that is an integer, 0 or more.

    Raises:
        ValueError: it is not; the message names the variable.
    """
    text = get(name)
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ValueError(f"{name} is {text!r}; it must be an integer, 0 or more")
    return int(text)


def get_path(name: str) -> Path:
    """Return a setting that is a path. A relative one starts at the workspace root."""
    return workspace_root() / Path(get(name)).expanduser()


def drop_folder() -> str:
    """Return the URL or the path of the drop folder. A relative path starts at the workspace root."""
    folder = get("DROP_FOLDER")
    return folder if "://" in folder else str(get_path("DROP_FOLDER"))
