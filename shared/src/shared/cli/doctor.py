"""`etl doctor`: diagnose the workspace and suggest fixes."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any, Literal

import typer
from dotenv import dotenv_values

from shared import settings
from shared.cli.confirm import current_environment
from shared.cli.locations import (
    WorkspaceError,
    code_locations,
    declarations,
    interpreters,
    no_interpreter,
)
from shared.cli.terminal import AsJson, console, find_uv, print_json, print_note
from shared.redaction import redact

PACKAGES = ("dagster", "dagster-dlt", "dlt", "duckdb")
UI_PORT = 3000
MIN_FREE_BYTES = 10**9

_COLORS = {"ok": "green", "warning": "yellow", "error": "red"}
_LOAD = """
import dataclasses, importlib, json, sys
try:
    import dagster
    defs = importlib.import_module(sys.argv[2]).defs
    dagster.Definitions.validate_loadable(defs)
    from shared.orchestration.asset_references import upstream_assets
    from shared.orchestration.dataset_owners import table_owners
    owners = [dataclasses.asdict(owner) for owner in table_owners(sys.argv[1], defs.assets or ())]
    print("\\n" + json.dumps({"tables": owners, "upstream": upstream_assets(defs)}))
except BaseException as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
"""


@dataclass(frozen=True)
class Check:
    """The result of one check, and the fix if it is not ok."""

    name: str
    status: Literal["ok", "warning", "error"]
    message: str
    fix: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Diagnose the workspace and suggest fixes.

    A warning works, with a limit. Exits with 1 if there is an error. Prints no secrets.
    """
    checks = []
    for result in _checks():
        message, fix = (" ".join(redact(text).split()) for text in (result.message, result.fix))
        check = replace(result, message=message, fix=fix)
        checks.append(check)
        if not as_json:
            console.print(
                f"[{_COLORS[check.status]}]{check.status:<8}[/]{check.name:<13}",
                end="",
                highlight=False,
            )
            lines = [check.message, *([f"{'':<21}-> {check.fix}"] if check.fix else [])]
            console.print(*lines, sep="\n", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json([asdict(check) for check in checks])
    if not as_json:
        print_note("What failed, is missing or is stuck: uv run etl status")
    if any(check.status == "error" for check in checks):
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    """Yield the checks. The slow ones start first, in their own processes."""
    with ExitStack() as stack:
        locations: dict[str, subprocess.Popen[str] | Check] = {}
        try:
            modules, pythons = code_locations(), interpreters()
        except WorkspaceError as error:
            yield Check("locations", "error", str(error), "run etl in a clone of the workspace")
            modules = pythons = {}
        for location, module in modules.items():
            python = pythons.get(location, sys.executable)
            try:
                locations[location] = _start_process(stack, [python, "-c", _LOAD, location, module])
            except OSError as error:
                locations[location] = Check(location, "error", *no_interpreter(python, error))
        uv, lock = find_uv(), settings.workspace_root() / "uv.lock"
        # `--active` checks this environment; `--inexact` allows more packages in it.
        flags = ("--check", "--locked", "--all-packages", "--inexact", "--active")
        sync = _start_process(stack, [uv, "sync", *flags]) if uv and lock.exists() else None
        yield check_python()
        yield Check("packages", "ok", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
        yield _check_uv(uv)
        yield from check_settings()
        yield from _check_required_settings(modules.values())
        yield check_dagster_home()
        yield check_ui_port()
        yield check_disk()
        yield check_drop_folder()
        yield check_warehouse()
        if sync:
            yield _check_environment(sync)
        loaded: dict[str, Mapping[str, Any]] = {}
        for location, load in locations.items():
            yield load if isinstance(load, Check) else _check_location(location, load, loaded)
        yield from _check_datasets([table for one in loaded.values() for table in one["tables"]])
        if len(loaded) == len(modules):
            yield from _check_references({name: one["upstream"] for name, one in loaded.items()})


def _start_process(stack: ExitStack, command: list[str]) -> "subprocess.Popen[str]":
    """Start a program that is killed when the stack closes."""
    process = subprocess.Popen(  # noqa: S603 - a Python of the workspace, or uv
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if command[1] == "sync" else subprocess.DEVNULL,
        text=True,
        env={**os.environ, "VIRTUAL_ENV": sys.prefix},
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def check_python() -> Check:
    """Check that this Python is in the range that the workspace supports."""
    from packaging.specifiers import SpecifierSet  # Dagster and dlt depend on it

    current = ".".join(map(str, sys.version_info[:3]))
    supported = metadata("shared")["Requires-Python"]
    if current in SpecifierSet(supported):
        return Check("python", "ok", f"{current}, in the range {supported}")
    message = f"{current}, not in the range {supported}"
    return Check("python", "error", message, "uv sync --python 3.13")


def _check_uv(uv: str | None) -> Check:
    if uv is None:
        fix = "make run installs it into .uv/, or see https://docs.astral.sh/uv"
        return Check("uv", "warning", "not found; installed packages run without it", fix)
    done = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return Check("uv", "error", f"{uv} does not run: {done.stderr}", "install uv again")
    return Check("uv", "ok", f"{done.stdout.strip()}, {uv}")


def _check_environment(sync: "subprocess.Popen[str]") -> Check:
    output = sync.communicate()[0]
    if sync.returncode == 0:
        return Check("environment", "ok", "matches uv.lock")
    lines = [line for line in output.splitlines() if not line.startswith(("Resolved", "Checked"))]
    return Check("environment", "error", f"does not match uv.lock: {' '.join(lines)}", "uv sync")


def _check_datasets(tables: Iterable[Mapping[str, str]]) -> Iterator[Check]:
    """Check that no two locations load one table, or share a source's schema in a dataset."""
    from shared.orchestration.dataset_owners import TableOwner, find_conflicts

    owners = [TableOwner(**table) for table in tables]
    conflicts = find_conflicts(owners)
    for conflict in conflicts:
        yield Check("datasets", "error", conflict, "see docs/add-a-pipeline.md")
    if not conflicts:
        datasets = len({owner.dataset for owner in owners})
        yield Check("datasets", "ok", f"{datasets}, and each table has one pipeline")


def _check_references(upstream: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[Check]:
    """Check that each asset on which another one depends is an asset of some location."""
    from shared.orchestration.asset_references import missing_assets

    missing = missing_assets(upstream)
    for message in missing:
        fix = "correct the name; if another program loads it, declare it: dg.AssetSpec([dataset, table])"
        yield Check("dependencies", "error", message, fix)
    if not missing:
        assets = sum(map(len, upstream.values()))
        yield Check("dependencies", "ok", f"{assets} assets, and each dependency is one of them")


def _check_location(
    location: str, load: "subprocess.Popen[str]", loaded: dict[str, Mapping[str, Any]]
) -> Check:
    """Return whether a location loads, and add what it has to those that are loaded."""
    output = load.communicate()[0].strip()
    if load.returncode == 0:
        loaded[location] = json.loads(output.splitlines()[-1])
        return Check(location, "ok", "loads")
    reason = output or f"its process ended with exit code {load.returncode}"
    fix = f"fix it, or remove it from workspace.yaml; uv run etl run {location} keeps the log"
    return Check(location, "error", f"does not load: {reason}", fix)


def check_settings() -> Iterator[Check]:
    """Check the names in .env, and the settings that must be numbers."""
    file = settings.workspace_root() / ".env"
    values: Mapping[str, str | None] = dotenv_values(file) if file.is_file() else {}
    message = f".env sets {', '.join(values)}" if values else "no .env; the defaults are used"
    yield Check("settings", "ok", message)
    for name in values:
        if name not in settings.SETTINGS:
            for similar in get_close_matches(name, settings.SETTINGS, 1, cutoff=0.8):
                message = f".env sets unknown setting {name}"
                yield Check("settings", "warning", message, f"{similar}=…")
    for name in settings.SETTINGS:
        if name.endswith(("_SECONDS", "_ROWS")):
            read = settings.get_seconds if name.endswith("_SECONDS") else settings.get_int
            try:
                read(name)
            except ValueError as error:
                yield Check("settings", "error", str(error), f"correct {name}, or unset it")


def _check_required_settings(modules: Iterable[str]) -> Iterator[Check]:
    """Check the settings that locations declare in `tool.etl` of their pyproject.toml."""
    names = {name for module in modules for name in declarations(module)[1].get("settings", ())}
    for name in sorted(names):
        known = settings.SETTINGS.get(name)
        if not settings.is_default(name) if known else os.environ.get(name):
            yield Check(name, "ok", "set")
        else:
            message = f"not set. {known.description}" if known else "not set"
            yield Check(name, "warning", message, f"set {name} in .env")


def check_dagster_home() -> Check:
    """Check that Dagster finds the configuration of its instance."""
    home = Path(os.environ.get("DAGSTER_HOME", ""))
    file, name = home / "dagster.yaml", "DAGSTER_HOME"
    if not home.is_absolute():
        fix = f"unset it, or set {Path.cwd()}"
        return Check("dagster", "error", f"{name} is {str(home)!r}, not an absolute path", fix)
    if not file.is_file():
        fix = "unset it to use the workspace's dagster.yaml, or copy that file there"
        return Check("dagster", "error", f"{name} is {home}, which has no dagster.yaml", fix)
    if current_environment().has_own_file:  # `etl` sets it
        return Check("dagster", "ok", f"{file}; for dagster dev, set {name}={home}")
    return Check("dagster", "ok", str(file))


def check_drop_folder() -> Check:
    """Check that the drop folder exists, also in a bucket or on an SFTP server."""
    from shared.sources.csv import DropFolder

    try:
        folder = DropFolder(settings.drop_folder())
        found = f"CSV files: {len(folder.list())}" if folder.can_list else "which has no listing"
    except Exception as error:  # noqa: BLE001 - each storage has its own errors
        fix = "create the folder, or set DROP_FOLDER"
        return Check("drop folder", "error", str(error), fix)
    return Check("drop folder", "ok", f"{folder.url}, {found}")


def check_ui_port(port: int = UI_PORT) -> Check:
    """Check that the port of the UI is free."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            fix = f"open that UI, or uv run dagster dev -w workspace.yaml -p {port + 1}"
            return Check("UI", "warning", f"port {port} is in use, maybe by a running UI", fix)
    return Check("UI", "ok", f"port {port} is free")


def check_disk(min_free: int = MIN_FREE_BYTES) -> Check:
    """Check the free space in the folder of the warehouse file and of the runs' working folders."""
    folder = settings.get_path("WAREHOUSE_PATH")
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    message = f"{free / 10**9:,.1f} GB free in {folder}"
    if free < min_free:
        return Check("disk", "error", message, "free some space, or set WAREHOUSE_PATH")
    if not os.access(folder, os.W_OK):
        return Check("disk", "error", f"{folder} is not writable", "set WAREHOUSE_PATH")
    return Check("disk", "ok", message)


def check_warehouse() -> Check:
    """Check that the warehouse responds and is not locked."""
    from shared import warehouse

    name = location = "warehouse"
    try:
        location = warehouse.describe_location()
        warehouse.check_connection()
    except FileNotFoundError:
        message = f"{location} does not exist: nothing is loaded yet"
        return Check(name, "warning", message, "uv run etl run")
    except warehouse.LockHeldError as error:
        owner = re.search(r"held in (.+ \(PID \d+\))", str(error))
        message = f"{location} is locked by {owner[1] if owner else error}"
        seconds = settings.get("WAREHOUSE_WAIT_SECONDS")
        fix = f"wait until it ends; loads and readers wait up to {seconds} s"
        return Check(name, "warning", message, fix)
    except (warehouse.WarehouseConfigError, warehouse.WarehouseConnectionError) as error:
        return Check(name, "error", str(error), "see docs/change-the-warehouse.md")
    except Exception as error:  # noqa: BLE001 - each engine has its own errors
        return Check(name, "error", f"{location}: {error}", "restore it: docs/backup.md")
    return Check(name, "ok", f"{location} responds")
