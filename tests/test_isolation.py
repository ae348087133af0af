"""A team with its own versions: the commands of docs/other-versions.md, and runs with both versions."""

import importlib.metadata
import json
import os
import re
import shutil
import sys
from pathlib import Path

import duckdb
import pytest
import yaml

from shared.cli.locations import interpreters
from support.processes import python, run_script
from support.servers import DagsterDev

pytestmark = pytest.mark.slow  # installs a second environment

VERSION_ASSETS = """
from collections.abc import Iterator
import dagster as dg
import dlt as dlt_library
from dagster_dlt import DagsterDltResource, dlt_assets
from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.translator import WarehouseTranslator, asset_key

@dlt_library.source
def version_source():
    @dlt_library.resource(write_disposition="replace")
    def version():
        yield {{"dlt": dlt_library.__version__}}
    return version

@dlt_assets(
    dlt_source=version_source(),
    dlt_pipeline=warehouse.pipeline("{name}_pipeline", "{name}"),
    dagster_dlt_translator=WarehouseTranslator(owner="team:{name}"),
    name="{name}_assets",
)
def {name}_assets(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
    yield from dlt.run(context=context)

people_are_unique = build_unique_rows_check(asset_key("{name}", "version"), ["dlt"])
"""
"""The assets of a location: they load the version of dlt that loads them."""


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """A copy of the files that the commands change or install."""
    copy = tmp_path / "clone"
    ignored = shutil.ignore_patterns(".venv", "__pycache__")
    for name in ("projects", "shared", ".github"):
        shutil.copytree(root / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "uv.lock", "workspace.yaml", "dagster.yaml"):
        shutil.copy(root / name, copy)
    return copy


@pytest.fixture
def shell(process_environment: dict[str, str]) -> dict[str, str]:
    """The environment of a shell: with uv on the PATH, and without the variables of this test run."""
    ours = ("VIRTUAL_ENV", "UV_PROJECT", "UV_COMPILE", "PYTEST_")
    clean = {
        name: value for name, value in process_environment.items() if not name.startswith(ours)
    }
    uv = Path(os.environ["UV"]).parent  # uv run sets it
    return {**clean, "PATH": f"{uv}{os.pathsep}{os.environ['PATH']}"}


def test_a_team_with_its_own_versions_runs_beside_another_team(
    root: Path,
    clone: Path,
    shell: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assets = clone / "projects" / "simple_etl" / "src" / "simple_etl" / "assets.py"
    assets.write_text(VERSION_ASSETS.format(name="simple"))

    def run(script: str) -> str:
        return run_script(script, clone, shell)

    def loaded_with(dataset: str) -> str:
        with duckdb.connect(shell["WAREHOUSE_PATH"], read_only=True) as connection:
            ((version,),) = connection.execute(f"SELECT dlt FROM {dataset}.version").fetchall()
        return str(version)

    page = (root / "docs" / "other-versions.md").read_text()
    blocks = re.findall(r"^```shell\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    etl = (
        f"{python()} -m shared.cli"  # in the environment of the other locations, which is this one
    )
    outputs = [run(block.replace("uv run etl", etl)) for block in blocks]
    assert re.search(r"simple/version +1 ", outputs[-1])
    assert loaded_with("simple").startswith("1.30.")  # in its own environment
    run("uv lock --check && uv lock --check --project projects/simple_etl")
    members = json.loads(run(f"{sys.executable} .github/changed_members.py"))
    assert "projects/simple_etl" in {member["folder"] for member in members}  # CI tests it as well
    monkeypatch.chdir(clone)
    assert interpreters() == {"simple_etl": "projects/simple_etl/.venv/bin/python"}

    # Another team has the same assets in the environment of the other locations, which is this one.
    (clone / "other_team_assets.py").write_text(VERSION_ASSETS.format(name="other_team"))
    definitions = clone / "projects" / "simple_etl" / "src" / "simple_etl" / "definitions.py"
    text = definitions.read_text()
    own_assets = text.replace("from simple_etl import assets", "import other_team_assets as assets")
    assert own_assets != text
    (clone / "other_team.py").write_text(own_assets)
    listed = yaml.safe_load((clone / "workspace.yaml").read_text())["load_from"]
    isolated = next(e for e in listed if e["python_module"]["location_name"] == "simple_etl")
    other = {"module_name": "other_team", "location_name": "other_team"}
    workspace = {"load_from": [isolated, {"python_module": other}]}
    (clone / "workspace.yaml").write_text(yaml.safe_dump(workspace))

    with DagsterDev(clone, shell, tmp_path / "dev.log") as server:
        assert server.loaded_locations() == {"simple_etl", "other_team"}
        runs = [
            server.launch("simple_etl", ["simple", "version"]),
            server.launch("other_team", ["other_team", "version"]),
        ]
        assert [server.final_status(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    assert loaded_with("simple").startswith("1.30.")
    assert loaded_with("other_team") == importlib.metadata.version("dlt") != loaded_with("simple")
