"""`etl doctor`: looks for what keeps this workspace from running, and says how to mend it."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Literal

import typer
from dotenv import dotenv_values

from shared import settings
from shared.cli.locations import WorkspaceError, code_locations, interpreters, no_interpreter
from shared.cli.terminal import AsJson, console, print_json
from shared.redaction import redact

PACKAGES = ("dagster", "dagster-dlt", "dlt", "duckdb")
UI_PORT = 3000
MIN_FREE_BYTES = 10**9

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_LOAD = """
import importlib, sys
try:
    import dagster
    dagster.Definitions.validate_loadable(importlib.import_module(sys.argv[1]).defs)
except BaseException as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
"""


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and how to mend it where it is not well."""

    name: str
    status: Literal["ok", "warning", "error"]
    told: str
    fix: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Looks for what keeps this workspace from running, and says how to mend it.

    Exits with 1 where something is red; what is yellow works, with a limit. No secret is printed.
    """
    checks = []
    for found in _checks():
        told, fix = (" ".join(redact(text).split()) for text in (found.told, found.fix))
        check = replace(found, told=told, fix=fix)
        checks.append(check)
        if not as_json:
            console.print(
                f"[{_COLOURS[check.status]}]{check.status:<8}[/]{check.name:<13}",
                end="",
                highlight=False,
            )
            console.print(check.told, markup=False, highlight=False, soft_wrap=True)
            if check.fix:
                mend = f"{'':<21}-> {check.fix}"
                console.print(mend, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json([asdict(check) for check in checks])
    if any(check.status == "error" for check in checks):
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    """Yields the checks; those that take long are begun first, in processes of their own."""
    with ExitStack() as begun:
        locations: dict[str, subprocess.Popen[str] | Check] = {}
        try:
            modules, own = code_locations(), interpreters()
        except WorkspaceError as error:
            yield Check("locations", "error", str(error), "run etl in a clone of the workspace")
            modules = own = {}
        for location, module in modules.items():
            interpreter = own.get(location, sys.executable)
            try:
                locations[location] = _begin(begun, [interpreter, "-c", _LOAD, module])
            except OSError as error:
                locations[location] = Check(location, "error", *no_interpreter(interpreter, error))
        uv, lock = find_uv(), settings.workspace_root() / "uv.lock"
        # This very environment, whichever uv would choose; what is in it besides does no harm.
        flags = ("--check", "--locked", "--all-packages", "--inexact", "--active")
        synced = _begin(begun, [uv, "sync", *flags]) if uv and lock.exists() else None
        yield python()
        yield Check("packages", "ok", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
        yield _uv(uv)
        yield from check_settings()
        yield dagster_home()
        if "api_etl" in modules:
            yield _nasa_key()
        yield ui_port()
        yield free_space()
        yield drop_folder()
        yield warehouse_answers()
        if synced:
            yield _environment(synced)
        for location, load in locations.items():
            yield load if isinstance(load, Check) else _location(location, load)


def _begin(begun: ExitStack, command: list[str]) -> "subprocess.Popen[str]":
    """Starts a program that ends with the checks, however they end."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter, or uv
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if command[1] == "sync" else subprocess.DEVNULL,
        text=True,
        env={**os.environ, "VIRTUAL_ENV": sys.prefix},
    )
    begun.enter_context(process)
    begun.callback(process.kill)
    return process


def find_uv() -> str | None:
    """Returns uv's program: the one that started this, else the PATH's, else what make put into .uv/."""
    own = settings.workspace_root() / ".uv" / "bin" / "uv"
    found = os.environ.get("UV") or shutil.which("uv") or (str(own) if own.exists() else None)
    return shutil.which(found) if found else None


def python() -> Check:
    """Checks that Python is one that the workspace is made for."""
    from packaging.specifiers import SpecifierSet  # Dagster and dlt stand on it

    own, wanted = ".".join(map(str, sys.version_info[:3])), metadata("shared")["Requires-Python"]
    if own in SpecifierSet(wanted):
        return Check("python", "ok", f"{own}, in the range {wanted}")
    return Check("python", "error", f"{own}, not in the range {wanted}", "uv sync --python 3.13")


def _uv(uv: str | None) -> Check:
    if uv is None:
        fix = "make run puts it into .uv/, or see https://docs.astral.sh/uv"
        return Check("uv", "warning", "not found; what is installed runs without it", fix)
    asked = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    if asked.returncode:
        return Check("uv", "error", f"{uv} does not run: {asked.stderr}", "install it again")
    return Check("uv", "ok", f"{asked.stdout.strip()}, {uv}")


def _environment(synced: "subprocess.Popen[str]") -> Check:
    told = synced.communicate()[0]
    if synced.returncode == 0:
        return Check("environment", "ok", "as uv.lock has it")
    lines = [line for line in told.splitlines() if not line.startswith(("Resolved", "Checked"))]
    return Check("environment", "error", f"not as uv.lock has it: {' '.join(lines)}", "uv sync")


def _location(location: str, process: "subprocess.Popen[str]") -> Check:
    told = process.communicate()[0].strip()
    if process.returncode == 0:
        return Check(location, "ok", "loads")
    why = told or f"its process ended with exit code {process.returncode}"
    mend = (
        f"mend it, or take it out of workspace.yaml; uv run etl run {location} keeps the whole log"
    )
    return Check(location, "error", f"does not load: {why}", mend)


def check_settings() -> Iterator[Check]:
    """Checks what .env says, and the settings that must be numbers."""
    file = settings.workspace_root() / ".env"
    said: Mapping[str, str | None] = dotenv_values(file) if file.is_file() else {}
    told = f".env sets {', '.join(said)}" if said else "no .env; what is not set has its default"
    yield Check("settings", "ok", told)
    for name in said:
        if name not in settings.SETTINGS:
            for like in get_close_matches(name, settings.SETTINGS, 1, cutoff=0.8):
                yield Check("settings", "warning", f".env sets {name}, which is none", f"{like}=…")
    for name in settings.SETTINGS:
        if name.endswith(("_SECONDS", "_ROWS")):
            read = settings.get_seconds if name.endswith("_SECONDS") else settings.get_int
            try:
                read(name)
            except ValueError as error:
                yield Check("settings", "error", str(error), f"set {name}, or unset it")


def dagster_home() -> Check:
    """Checks that Dagster finds its instance's configuration."""
    home = Path(os.environ.get("DAGSTER_HOME", ""))
    file, name = home / "dagster.yaml", "DAGSTER_HOME"
    if not home.is_absolute():
        mend = f"unset it, or set {Path.cwd()}"
        return Check("dagster", "error", f"{name} is {str(home)!r}, not an absolute path", mend)
    if not file.is_file():
        mend = "unset it for the workspace's own, or copy dagster.yaml there"
        return Check("dagster", "error", f"{name} is {home}, which has no dagster.yaml", mend)
    return Check("dagster", "ok", str(file))


def _nasa_key() -> Check:
    if settings.is_default("NASA_API_KEY"):
        told = "NASA_API_KEY is DEMO_KEY: 30 requests an hour, 50 a day"
        mend = "get a key at https://api.nasa.gov and set NASA_API_KEY in .env"
        return Check("NASA", "warning", told, mend)
    return Check("NASA", "ok", "NASA_API_KEY is set")


def drop_folder() -> Check:
    """Checks that the drop folder is there, in a bucket as well."""
    from shared.sources.csv import DropFolder

    address = settings.drop_folder()
    try:
        files = DropFolder(address).list()
    except Exception as error:  # noqa: BLE001 - of whichever storage
        mend = "make the folder, or set DROP_FOLDER"
        return Check("drop folder", "error", f"{address}: {error}", mend)
    return Check("drop folder", "ok", f"{address}, CSV files: {len(files)}")


def ui_port(port: int = UI_PORT) -> Check:
    """Checks that the UI's port is free."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            mend = f"open what is there, or uv run dagster dev -w workspace.yaml -p {port + 1}"
            return Check("UI", "warning", f"port {port} is taken, maybe by a UI that runs", mend)
    return Check("UI", "ok", f"port {port} is free")


def free_space(least: int = MIN_FREE_BYTES) -> Check:
    """Checks that there is room where the warehouse's file, and the runs' working folders, stand."""
    folder = settings.get_path("WAREHOUSE_PATH")
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    told = f"{free / 10**9:,.1f} GB free in {folder}"
    if free < least:
        return Check("disk", "error", told, "make room, or set WAREHOUSE_PATH")
    if not os.access(folder, os.W_OK):
        return Check("disk", "error", f"{folder} cannot be written to", "set WAREHOUSE_PATH")
    return Check("disk", "ok", told)


def warehouse_answers() -> Check:
    """Checks that the warehouse answers and that nobody holds it."""
    from shared import warehouse

    name = where = "warehouse"
    try:
        where = warehouse.describe_location()
        warehouse.check_connection()
    except FileNotFoundError:
        told = f"{where} is not there: nothing has been loaded yet"
        return Check(name, "warning", told, "uv run etl run")
    except warehouse.LockHeldError as held:
        holder = re.search(r"held in (.+ \(PID \d+\))", str(held))
        told = f"{where} is held by {holder[1] if holder else held}"
        seconds = settings.get("WAREHOUSE_WAIT_SECONDS")
        mend = f"let it end; loads and readers wait for it, {seconds} s at most"
        return Check(name, "warning", told, mend)
    except (warehouse.WarehouseConfigError, warehouse.WarehouseConnectionError) as error:
        return Check(name, "error", str(error), "see docs/change-the-warehouse.md")
    except Exception as error:  # noqa: BLE001 - of whichever engine
        return Check(name, "error", f"{where}: {error}", "restore it as docs/backup.md says")
    return Check(name, "ok", f"{where} answers")
