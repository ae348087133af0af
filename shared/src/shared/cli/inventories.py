"""What the locations of a workspace define, each read in its own process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from shared.cli.locations import no_interpreter
from shared.redaction import redact

_BODY = "from shared.cli.location_inventory import main; main()"


@dataclass(frozen=True)
class Inventory:
    """What a location defines; see `location_inventory.inventory`.

    Attributes:
        location: the location's name.
        package: the name of its package.
        project: the folder of its pyproject.toml; None in a wheel.
        contract: what others can depend on.
        code: the version and the modules of each asset.
        error: why the location does not load, in one line; empty if it does.
    """

    location: str
    package: str
    project: Path | None = None
    contract: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Workspace:
    """A copy of the repository, whose definitions are read.

    Attributes:
        root: its folder.
        modules: the module of each location, by the location's name.
        pythons: the Python of each location that has its own environment.
        python_path: the folders with the source, if it is another copy than the installed one.
    """

    root: Path
    modules: dict[str, str]
    pythons: dict[str, str]
    python_path: tuple[Path, ...] = ()


def read_inventories(workspace: Workspace, locations: Iterable[str]) -> dict[str, Inventory]:
    """Return what some locations of a workspace define, by location. It reads them concurrently."""
    names = list(locations)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(lambda name: _read(workspace, name), names), strict=True))


def _read(workspace: Workspace, location: str) -> Inventory:
    python = workspace.pythons.get(location, sys.executable)
    package = workspace.modules[location].partition(".")[0]
    path = os.pathsep.join(map(str, workspace.python_path))
    environment = {**os.environ, "PWD": str(workspace.root)}
    if path:
        environment["PYTHONPATH"] = path
    with TemporaryDirectory() as folder:
        file = Path(folder) / "inventory.json"
        try:
            done = subprocess.run(  # noqa: S603 - this module, with an interpreter of workspace.yaml
                [python, "-P", "-c", _BODY, workspace.modules[location], file],
                cwd=workspace.root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            return Inventory(location, package, error="; ".join(no_interpreter(python, error)))
        if not file.exists():
            last = (done.stderr.strip() or "no output").splitlines()[-1]
            ended = f"its process ended with exit code {done.returncode}: {last}"
            return Inventory(location, package, error=redact(ended))
        document = json.loads(file.read_text())
    if "error" in document:
        return Inventory(location, package, error=document["error"])
    project = document["project"] and Path(document["project"])
    return Inventory(location, package, project, document["contract"], document["code"])
