"""The code locations of the workspace, as Dagster reads them."""

import yaml

from shared import environment


def code_locations() -> dict[str, str]:
    """Returns the module of each code location in workspace.yaml, by the location's name."""
    workspace = yaml.safe_load((environment.workspace_root() / "workspace.yaml").read_text())
    modules = [entry["python_module"] for entry in workspace["load_from"]]
    # Dagster takes a bare module name as well, and names the location after it.
    entries = [{"module_name": each} if isinstance(each, str) else each for each in modules]
    return {each.get("location_name", each["module_name"]): each["module_name"] for each in entries}


def interpreters() -> dict[str, str]:
    """Returns the Python of each code location that has an environment of its own, by its name.

    A relative path starts at the workspace's root.
    """
    workspace = yaml.safe_load((environment.workspace_root() / "workspace.yaml").read_text())
    modules: list[dict[str, str] | str] = [each["python_module"] for each in workspace["load_from"]]
    entries = [each for each in modules if isinstance(each, dict) and "executable_path" in each]
    return {
        each.get("location_name", each["module_name"]): each["executable_path"] for each in entries
    }
