"""The output of the commands: results on stdout, notes and errors on stderr."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, time
from math import isfinite
from pathlib import Path
from shutil import which
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from shared import settings
from shared.redaction import redact

console = Console()
notes = Console(stderr=True)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]
"""The option that every command with a result has."""


def print_note(message: str) -> None:
    """Print a note on stderr."""
    notes.print(message, markup=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with one line on stderr. Code 1 is a failure, 2 an incorrect use.

    Raises:
        Exit: always.
    """
    line = " ".join(redact(message).split())
    notes.print(line, markup=False, highlight=False, style="red", soft_wrap=True)
    raise typer.Exit(code)


def user_path(context: typer.Context, path: str) -> Path:
    """Return the absolute path of what a user typed; the command itself runs in the workspace's folder."""
    folder: Path = context.obj
    return (folder / Path(path).expanduser()).resolve()


def find_uv() -> str | None:
    """Return the path of uv: the one that runs this, or on the PATH, or that make put into .uv/."""
    local = settings.workspace_root() / ".uv" / "bin" / "uv"
    return which(os.environ.get("UV") or "uv") or which(local)


def print_next(commands: Mapping[str, str]) -> None:
    """Print the commands that a user may try next, each with its purpose."""
    uv = "uv" if which("uv") else os.path.relpath(find_uv() or "uv")
    lines = {re.sub(r"\Auv", uv, command): purpose for command, purpose in commands.items()}
    width = max(map(len, lines))
    rows = [f"  {command:<{width}}  {purpose}" for command, purpose in lines.items()]
    console.print("\nNext:", *rows, sep="\n", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def warehouse_errors() -> Iterator[None]:
    """Turn an error of reading the warehouse into one line on stderr and exit code 1."""
    import duckdb

    from shared import warehouse

    try:
        yield
    except (
        duckdb.Error,
        FileNotFoundError,
        ValueError,
        warehouse.QueryError,
        warehouse.LockTimeoutError,
        warehouse.MigrationError,
        warehouse.WarehouseConfigError,
        warehouse.WarehouseConnectionError,
    ) as error:
        # Below its message, DuckDB repeats the query on several lines.
        fail(str(error).partition("\n\nLINE ")[0])


def print_json(document: object) -> None:
    """Print a document as indented JSON.

    Decimals are strings, so no digit is lost. Dates and times use ISO 8601. NaN and infinity are
    null. Bytes are hexadecimal.
    """
    print(json.dumps(_plain(document), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return None
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
