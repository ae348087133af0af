"""The `dg` command line works in each project: what it scaffolds is loaded, and it checks components."""

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster
import pytest

from shared import warehouse
from support.processes import PROGRAMS, python

COMPONENT = "shared.orchestration.component.WarehouseLoadComponent"
DEFS_YAML = f"""\
type: {COMPONENT}

attributes:
  source: simple_etl.orders.orders_source
  dataset: shop
  owner: team:shop
  partitions:
    type: daily
    start: "2025-03-10"
  checks:
    unique:
      orders: [day]
"""
SOURCE = '''\
"""Orders, a row for each day."""

import dlt


@dlt.source
def orders_source(days):
    return dlt.resource([{"day": day} for day in days], name="orders")
'''

Dg = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow  # each `dg` process takes about 5 CPU seconds


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of simple_etl in a workspace that has nothing else."""
    copy = tmp_path / "workspace" / "projects" / "simple_etl"
    ignored = shutil.ignore_patterns("__pycache__", ".dagster", "tests")
    shutil.copytree(root / "projects" / "simple_etl", copy, ignore=ignored)
    (tmp_path / "workspace" / ".venv").symlink_to(sys.prefix)
    return copy


@pytest.fixture
def dg(project: Path, process_environment: dict[str, str]) -> Dg:
    """Run a `dg` command in the project."""
    environment = {**process_environment, "PYTHONPATH": str(project / "src"), "NO_COLOR": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["COLUMNS"] = "400"

    def run(*arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python(), str(PROGRAMS / "dg"), *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return run


def files(folder: Path) -> set[str]:
    """Return the files of a workspace, without the virtual environment."""
    found = [path for path in folder.rglob("*") if ".venv" not in path.parts and path.is_file()]
    return {path.relative_to(folder).as_posix() for path in found}


def test_what_dg_scaffolds_is_in_the_project_and_is_loaded(project: Path, dg: Dg) -> None:
    workspace = project.parents[1]
    before = files(workspace)
    dg("scaffold", "defs", "dagster.asset", "numbers.py")
    dg("scaffold", "defs", "dagster.schedule", "nightly.py")
    dg("scaffold", "defs", "dagster_dlt.DltLoadCollectionComponent", "stock")
    created = files(workspace) - before
    defs = "projects/simple_etl/src/simple_etl/defs"
    assert {f"{defs}/numbers.py", f"{defs}/nightly.py", f"{defs}/stock/defs.yaml"} <= created
    assert {name for name in created if not name.startswith("projects/simple_etl/")} == set()

    listed = json.loads(dg("list", "defs", "--json").stdout)
    keys = {asset["asset_key"] for asset in listed["assets"]}
    assert keys >= {"simple/load_dict", "numbers", "hello_world"}
    assert [schedule["name"] for schedule in listed["schedules"]] == ["nightly"]
    assert {name for name in files(workspace) - before if not name.startswith(defs)} == set()


def test_dg_checks_and_documents_the_component(project: Path, dg: Dg) -> None:
    package = project / "src" / "simple_etl"
    (package / "orders.py").write_text(SOURCE)
    file = package / "defs" / "orders" / "defs.yaml"
    file.parent.mkdir()

    file.write_text(DEFS_YAML)
    assert COMPONENT in dg("list", "components").stdout
    inspected = dg("utils", "inspect-component", COMPONENT, "--description").stdout
    assert "parameter without a default gets the run's partitions" in inspected
    listed = json.loads(dg("list", "defs", "--json").stdout)
    assert {asset["asset_key"] for asset in listed["assets"]} == {"simple/load_dict", "shop/orders"}

    file.write_text(DEFS_YAML.replace("type: daily", "type: yearly"))
    (line,) = (
        line for line in dg("check", "yaml", fails=True).stdout.splitlines() if ".yaml:" in line
    )
    assert f"{file}:8 - {COMPONENT} attributes.partitions.type" in line
    assert (
        "'yearly' is not one of ['hourly', 'daily', 'weekly', 'monthly', 'cron', 'static', 'dynamic', 'multi']"
        in line
    )

    file.write_text(DEFS_YAML.replace("orders.orders_source", "orders.order_source"))
    failed = dg("check", "defs", fails=True)
    message = f"{file}: attributes.source: 'simple_etl.orders.order_source' does not exist"
    assert "All component YAML validated successfully." in failed.stdout
    assert message in failed.stdout + failed.stderr

    shutil.rmtree(package / "defs")
    failed = dg("check", "defs", "--no-check-yaml", fails=True)
    assert f"{package / 'defs' / '__init__.py'} is missing: create" in failed.stdout + failed.stderr


def load(package: str, instance: dagster.DagsterInstance) -> list[object]:
    """Load the sample of a rendered project, and return what its assets and checks are."""
    name = package.removesuffix("_etl")
    defs: dagster.Definitions = importlib.import_module(f"{package}.definitions").defs
    days = {
        "dagster/asset_partition_range_start": "2025-03-10",
        "dagster/asset_partition_range_end": "2025-03-12",
    }
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, tags=days)
    assert result.success
    assert warehouse.query(f"SELECT count(*) AS n FROM {name}.{name}") == [{"n": 5}]
    (spec,) = defs.resolve_all_asset_specs()
    sample = spec.metadata["sample_partitions"]
    checks = [check.check_name for check in result.get_asset_check_evaluations()]
    described = (spec.key.path, spec.owners, spec.kinds, spec.partitions_def, spec.freshness_policy)
    return [*(repr(value).replace(name, "") for value in described), sample, checks]


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.filterwarnings("ignore:Answers file template:DeprecationWarning")  # copier
@pytest.mark.parametrize("source", ["list", "csv", "api"])
def test_a_component_of_etl_new_loads_the_same_as_the_code(
    source: str,
    root: Path,
    tmp_path: Path,
    instance: dagster.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = importlib.import_module("shared.cli.new")
    loaded = []
    for style in ("code", "component"):
        name = f"{style}_{source}"
        project = new._render(tmp_path / f"{name}_etl", name, root, source=source, style=style)
        monkeypatch.syspath_prepend(str(project / "src"))
        package = project / "src" / project.name
        assert (package / "assets.py").exists() == (style == "code")
        assert (package / "defs" / name / "defs.yaml").exists() == (style == "component")
        loaded.append(load(project.name, instance))
    assert loaded[0] == loaded[1]
