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
