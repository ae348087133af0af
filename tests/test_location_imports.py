"""What importing a code location costs beyond `import dagster, dagster_dlt, dlt`: counted, not timed.

Each code server, each run and each `etl` command that loads a location pays for it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import duckdb
import pytest

from shared.cli.locations import code_locations
from shared.sources.csv.values import PLAIN_FORMAT

_COUNT = """
import json, sys
import dagster, dagster_dlt, dlt
dlt.Schema("any")  # dlt imports requests when it first resolves its configuration
first = set(sys.modules)
import importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
print(json.dumps(sorted(set(sys.modules) - first)))
"""

ALLOWED = {"dagster", "dagster_dlt", "dagster_shared", "dlt", "dotenv", "filelock", "xxhash"}
"""Packages outside of the standard library, of which a location may import more modules."""

MAX_MODULES = 60
"""Modules of these packages; most are Dagster's for the private names in `dagster_internals`."""


def _imported(*modules: str, paths: Sequence[str] = ()) -> list[str]:
    """Return the modules that importing some modules adds in a new process."""
    command = [sys.executable, "-c", _COUNT, *modules]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    imported: list[str] = json.loads(done.stdout.splitlines()[-1])
    return imported


@pytest.mark.parametrize("module", code_locations().values())
def test_importing_a_location_imports_no_library_that_only_loads_need(module: str) -> None:
    own = {"shared", module.partition(".")[0]}
    others = [
        name
        for name in _imported(module)
        if (top := name.partition(".")[0]) not in own and top.lstrip("_") not in _STANDARD
    ]
    assert {name.partition(".")[0] for name in others} <= ALLOWED
    assert len(others) <= MAX_MODULES, others


@pytest.mark.filterwarnings("ignore:Answers file template:DeprecationWarning")  # copier
@pytest.mark.parametrize("style", ["code", "component"])
def test_a_location_of_etl_new_imports_none_of_them_either(
    root: Path, tmp_path: Path, style: str
) -> None:
    new = import_module("shared.cli.new")
    names = {source: f"{style}_{source}_etl" for source in ("list", "csv", "api")}
    paths = [
        str(new._render(tmp_path / name, name[:-4], root, source=source, style=style) / "src")
        for source, name in names.items()
    ]
    imported = _imported(*(f"{name}.definitions" for name in names.values()), paths=paths)
    others = {name.partition(".")[0] for name in imported}
    of_yaml = {"jinja2", "markupsafe", "pydantic"}
    assert {each for each in others if each.lstrip("_") not in _STANDARD} <= {
        *(ALLOWED | of_yaml),
        *("shared", *names.values()),
    }


_STANDARD = {name.lstrip("_") for name in sys.stdlib_module_names}


def test_duckdb_accepts_each_date_format_that_is_not_checked_with_it() -> None:
    form = "%Y%y%m%d%H%M%S%f aZ_09./:,-"
    assert PLAIN_FORMAT.fullmatch(form)
    with duckdb.connect() as connection:
        for text in [form, *(f"%{letter}" for letter in "YymdHMSf"), *" aZ_09./:,-"]:
            connection.execute("SELECT try_strptime('', ?)", [text])
    assert not PLAIN_FORMAT.fullmatch("%Y-%q")
