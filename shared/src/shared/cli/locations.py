"""The code locations of the workspace, as Dagster reads them, and what each one declares for `etl`."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from os import environ
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

from shared import settings


class WorkspaceError(Exception):
    """workspace.yaml, or a location's pyproject.toml, is missing or invalid; the message names it."""


def code_locations(root: Path | None = None) -> dict[str, str]:
    """Return the module of each code location in workspace.yaml, by the location's name.

    Args:
        root: the folder of workspace.yaml; by default that of the workspace.

    Raises:
        WorkspaceError: the file is missing or invalid.
    """
    return {name: entry["module_name"] for name, entry in _entries(root).items()}


def interpreters() -> dict[str, str]:
    """Return the Python of each code location that has its own environment, by the location's name.

    A relative path starts at the workspace root.

    Raises:
        WorkspaceError: the file is missing or invalid.
    """
    return {
        name: entry["executable_path"]
        for name, entry in _entries().items()
        if "executable_path" in entry
    }


def no_interpreter(python: str, error: OSError) -> tuple[str, str]:
    """Return the message that a location's own Python does not start, and the fix."""
    message = f"its executable_path in workspace.yaml, {python}, does not start: {error.strerror}"
    return message, "uv sync in its project, or remove that line from workspace.yaml"


def declarations(module: str) -> tuple[Path | None, dict[str, Any]]:
    """Return the pyproject.toml of a location's project and its table `tool.etl`.

    Both are empty if the module is not in a project, for example in a wheel.
    """
    spec = find_spec(module.partition(".")[0])
    for folder in Path(spec.origin).parents if spec and spec.origin else ():
        if (file := folder / "pyproject.toml").is_file():
            table = tomllib.loads(file.read_text()).get("tool", {}).get("etl", {})
            return file, table
    return None, {}


@contextmanager
def sample(module: str) -> Iterator[str]:
    """Run what a location declares as its sample, with the environment variables that it yields.

    Yields:
        The declared message; empty if the location has no sample, or does not need it now.

    Raises:
        WorkspaceError: the table `tool.etl.sample` is invalid.
    """
    file, table = declarations(module)
    if "sample" not in table:
        yield ""
        return
    try:
        manager = resolve_name(table["sample"]["serve"])()
        message: str = table["sample"]["message"]
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise WorkspaceError(
            f'{file}: [tool.etl.sample] needs serve = "package.module:function" and message: '
            f"{type(error).__name__}: {error}"
        ) from None
    with manager as variables:
        environ.update(variables)
        yield message.format_map(variables) if variables else ""


def _entries(root: Path | None = None) -> dict[str, dict[str, str]]:
    file = (root or settings.workspace_root()) / "workspace.yaml"
    try:
        modules = [
            entry["python_module"] for entry in yaml.safe_load(file.read_text())["load_from"]
        ]
        # Dagster also accepts a bare module name, and uses it as the location's name.
        entries = [{"module_name": entry} if isinstance(entry, str) else entry for entry in modules]
        return {entry.get("location_name", entry["module_name"]): entry for entry in entries}
    except FileNotFoundError:
        raise WorkspaceError(
            f"No workspace.yaml in {file.parent} or above it; run etl in a workspace."
        ) from None
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise WorkspaceError(
            f"{file} does not list code locations in the form `load_from: - python_module:`: "
            f"{type(error).__name__}: {error}"
        ) from None
