"""The code locations of the workspace, as Dagster reads them."""

import yaml

from shared import settings


class WorkspaceError(Exception):
    """workspace.yaml is not there, or does not list code locations; the message says so."""


def code_locations() -> dict[str, str]:
    """Returns the module of each code location in workspace.yaml, by the location's name.

    Raises:
        WorkspaceError: the file is not there, or is not as it should be.
    """
    return {name: entry["module_name"] for name, entry in _entries().items()}


def interpreters() -> dict[str, str]:
    """Returns the Python of each code location that has an environment of its own, by its name.

    A relative path starts at the workspace's root.

    Raises:
        WorkspaceError: as of `code_locations`.
    """
    return {
        name: entry["executable_path"]
        for name, entry in _entries().items()
        if "executable_path" in entry
    }


def no_interpreter(python: str, error: OSError) -> tuple[str, str]:
    """Returns that a location's own Python does not start, and how to mend it."""
    told = f"its executable_path in workspace.yaml, {python}, does not start: {error.strerror}"
    return told, "uv sync in its project, or take that line out of workspace.yaml"


def _entries() -> dict[str, dict[str, str]]:
    file = settings.workspace_root() / "workspace.yaml"
    try:
        workspace = yaml.safe_load(file.read_text())
        modules = [entry["python_module"] for entry in workspace["load_from"]]
        # Dagster takes a bare module name as well, and names the location after it.
        entries = [{"module_name": each} if isinstance(each, str) else each for each in modules]
        return {each.get("location_name", each["module_name"]): each for each in entries}
    except FileNotFoundError:
        raise WorkspaceError(
            f"There is no workspace.yaml in {file.parent} or above it; start etl in a workspace."
        ) from None
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise WorkspaceError(
            f"{file} lists no code locations as `load_from: - python_module:` does: "
            f"{type(error).__name__}: {error}"
        ) from None
