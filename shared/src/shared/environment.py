"""Every environment variable of the workspace with its default; nothing else reads `os.environ`."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

from dotenv import load_dotenv


@dataclass(frozen=True)
class Variable:
    """One setting: its working default and what it decides."""

    default: str
    purpose: str


VARIABLES = {
    "DAGSTER_HOME": Variable(
        "${PWD}",
        "Folder whose dagster.yaml configures the instance (absolute); its state goes to .dagster/.",
    ),
    "WAREHOUSE_TYPE": Variable(
        "duckdb",
        "What all pipelines load into; any but the file takes dlt's DESTINATION__WAREHOUSE__ variables.",
    ),
    "WAREHOUSE_PATH": Variable(
        "data/warehouse.duckdb",
        "The DuckDB file, relative to the workspace; beside it stand the working folders of runs.",
    ),
    "WAREHOUSE_WAIT_SECONDS": Variable(
        "600", "How long a load or a reader waits for whoever holds the warehouse before it fails."
    ),
    "PREVIEW_ROWS": Variable(
        "5", "How many rows of a load Dagster shows with it, and keeps; 0 where nobody may see any."
    ),
    "DROP_FOLDER": Variable(
        "data/drop", "Where csv_etl finds files: a local folder, s3://, gs:// or az://."
    ),
    "NASA_API_KEY": Variable(
        "DEMO_KEY", "Key for api.nasa.gov, sent as a header. DEMO_KEY allows 30 requests an hour."
    ),
    "NASA_LONGEST_WAIT_SECONDS": Variable(
        "60",
        "How long a request may wait for NASA's limit; above that the rest is left for a retry.",
    ),
    "NASA_BASE_URL": Variable(
        "https://api.nasa.gov/neo/rest/v1",
        "Where api_etl asks; `etl run` sets it to its own server without a key.",
    ),
    "REPOSITORY_URL": Variable(
        "",
        "Where the code can be read, https://host/team/repository/tree/main: assets link to their lines.",
    ),
    "ALERTS_WEBHOOK_URL": Variable(
        "",
        "Where failures and late tables are told: a Slack-compatible incoming webhook; secret.",
    ),
    "DAGSTER_UI_URL": Variable(
        "http://localhost:3000", "The UI's address as people open it, for the links in alerts."
    ),
    "WORKERS_REDIS_URL": Variable(
        "",
        "The Redis through which workers get steps: redis://host:6379. Without it a run executes its own.",
    ),
    "WORKERS_LONGEST_STEP_SECONDS": Variable(
        "3600",
        "How long a step may take on a worker; after that, one whose machine died runs on another.",
    ),
}


def value(name: str) -> str:
    """Returns a setting: the environment's value, or its default where that is unset or empty.

    The workspace's .env file counts as environment, from whichever folder a command starts; a
    variable that is set already wins.

    Raises:
        KeyError: the variable is not listed in `VARIABLES`.
    """
    default = VARIABLES[name].default
    load_env_file()
    return os.environ.get(name) or default


@cache
def load_env_file() -> None:
    """Takes the workspace's .env file into the environment, once; what is set already wins."""
    load_dotenv(workspace_root() / ".env")


_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS|WEBHOOK_URL)$")
_SHORTEST_SECRET = 8  # a shorter one would be found in texts that have nothing to do with it


def redacted(text: str) -> str:
    """Returns a text with `***` for each secret of the environment.

    A secret is what a variable holds whose name ends with KEY, TOKEN, SECRET, PASSWORD, CREDENTIALS or
    WEBHOOK_URL, such as NASA_API_KEY, AWS_SECRET_ACCESS_KEY and dlt's own, or the password of an
    address; plain, or written as in an address.
    """
    load_env_file()
    named = [(name, secret) for name, secret in os.environ.items() if _SECRET.search(name)]
    # Who answers for a webhook may repeat what was asked for, which is its address less the host.
    named += [
        (name, secret.partition("://")[2].partition("/")[2])
        for name, secret in named
        if name.endswith("WEBHOOK_URL")
    ]
    # An address, such as that of Dagster's database, holds a password, which stands alone elsewhere.
    named += [
        # Of a short one the signs around it: it would be found in texts that have nothing to do with it.
        (name, unquote(password) if len(password) >= _SHORTEST_SECRET else f":{password}@")
        for name, address in os.environ.items()
        if (password := _password(address)) is not None
    ]
    secrets = {
        secret
        for name, secret in named
        if len(secret) >= _SHORTEST_SECRET
        and not (name in VARIABLES and secret == VARIABLES[name].default)
        and not _is_path(secret)  # where a key is kept is no secret
    }
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        for written in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]):
            text = text.replace(written, "***")
    return text


def _is_path(text: str) -> bool:
    with suppress(OSError, ValueError):  # too long for one: the error would tell the secret
        return Path(text).exists()
    return False


def _password(address: str) -> str | None:
    with suppress(ValueError):  # no address at all
        return urlsplit(address).password
    return None


def is_default(name: str) -> bool:
    """Tells whether a setting is what it is without the environment's help."""
    return value(name) == VARIABLES[name].default


def workspace_root() -> Path:
    """Returns the folder that holds workspace.yaml: at or above the working folder, else this file.

    A package installed outside any workspace takes the working folder.
    """
    working_folder = Path.cwd()
    for folder in (working_folder, *working_folder.parents, *Path(__file__).resolve().parents):
        if (folder / "workspace.yaml").is_file():
            return folder
    return working_folder


def seconds(name: str) -> float:
    """Returns a setting that is a number of seconds.

    Raises:
        ValueError: it is none; the message names the variable.
    """
    try:
        return float(value(name))
    except ValueError:
        raise ValueError(f"{name} is {value(name)!r}; it must be a number of seconds") from None


def whole_number(name: str) -> int:
    """Returns a setting that is a whole number, 0 or more.

    Raises:
        ValueError: it is none; the message names the variable.
    """
    text = value(name)
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ValueError(f"{name} is {text!r}; it must be a whole number, 0 or more")
    return int(text)


def path(name: str) -> Path:
    """Returns a setting that is a path; a relative one starts at the workspace root."""
    return workspace_root() / Path(value(name)).expanduser()


def drop_folder() -> str:
    """Returns the drop folder's address; a relative local one starts at the workspace root."""
    address = value("DROP_FOLDER")
    return address if "://" in address else str(path("DROP_FOLDER"))
