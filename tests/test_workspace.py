"""The workspace: three locations that load without side effects and do not disturb each other."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from shared import settings
from shared.cli.locations import code_locations, interpreters
from shared.orchestration.dataset_owners import find_conflicts, table_owners
from shared.orchestration.translator import LOADED_WITH
from support.processes import python

LOCATIONS = tuple(name for name in code_locations() if name not in interpreters())

IMPORT_WATCHED = """
import json, os, sys

seen = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        seen.append([event, str(arguments)])
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"):
        if "__pycache__" not in str(arguments):
            seen.append([event, str(arguments)])
    elif event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else 0
        if writes and "__pycache__" not in str(path) and str(path) != os.devnull:
            seen.append([event, str(path)])

find = os._Environ.__getitem__

def look(environ, name):
    if name in ("NASA_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "WAREHOUSE_PATH"):
        seen.append(["environ", name])
    return find(environ, name)

sys.addaudithook(watch)
os._Environ.__getitem__ = look
import %s.definitions
print(json.dumps(seen))
"""


def definitions(location: str) -> dg.Definitions:
    module = __import__(f"{location}.definitions", fromlist=["defs"])
    assert isinstance(module.defs, dg.Definitions)
    return module.defs


def test_workspace_yaml_dg_toml_and_the_folders_list_the_same_locations(root: Path) -> None:
    projects = {path.parent.name for path in (root / "projects").glob("*/pyproject.toml")}
    dg_projects = tomllib.loads((root / "dg.toml").read_text())["workspace"]["projects"]
    assert code_locations() == {name: f"{name}.definitions" for name in projects}
    assert {project["path"] for project in dg_projects} == {f"projects/{name}" for name in projects}
    for name in projects:
        project = tomllib.loads((root / "projects" / name / "pyproject.toml").read_text())
        assert project["tool"]["dg"]["project"] == {
            "root_module": name,
            "code_location_target_module": f"{name}.definitions",
        }


def test_every_project_writes_to_the_workspace_instance(root: Path) -> None:
    expected = yaml.safe_load(
        (root / "dagster.yaml").read_text().replace(".dagster/", "../../.dagster/")
    )
    for project in (root / "projects").glob("*/pyproject.toml"):
        assert yaml.safe_load((project.parent / "dagster.yaml").read_text()) == expected


@pytest.mark.parametrize("location", LOCATIONS)
def test_loading_a_location_touches_no_network_no_disk_and_no_secret(
    tmp_path: Path, location: str
) -> None:
    script = tmp_path / "load.py"
    script.write_text(IMPORT_WATCHED.replace("%s", location))
    before = sorted(tmp_path.rglob("*"))
    loaded = subprocess.run(
        # -B: the location is not responsible for the bytecode that Python writes.
        [sys.executable, "-B", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(loaded.stdout) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_asset_keys_and_pipeline_names_are_unique_over_the_workspace() -> None:
    keys: Counter[str] = Counter()
    pipelines: dict[str, set[str]] = {}
    for location in LOCATIONS:
        for spec in definitions(location).resolve_all_asset_specs():
            keys[spec.key.to_user_string()] += 1
            pipeline = spec.metadata.get("dagster_dlt/pipeline")
            if pipeline is not None:
                name = pipeline.pipeline_name
                assert pipeline.dataset_name == spec.key.path[0]
                pipelines.setdefault(name, set()).add(location)
    assert {key for key, count in keys.items() if count > 1} == set()
    assert {name: owners for name, owners in pipelines.items() if len(owners) > 1} == {}
    assert {"simple_pipeline", "csv_pipeline", "nasa_neo_pipeline"} <= pipelines.keys()


def test_no_two_pipelines_of_the_workspace_write_into_one_table() -> None:
    owners = [
        owner for name in LOCATIONS for owner in table_owners(name, definitions(name).assets or ())
    ]
    assert find_conflicts(owners) == []
    assert {"load_dict", "share_prices", "asteroids"} <= {owner.table for owner in owners}


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_table_has_a_description_an_owner_a_freshness_policy_and_a_check(
    location: str,
) -> None:
    defs = definitions(location)
    checked = {key.asset_key for key in defs.resolve_asset_graph().asset_check_keys}
    for spec in defs.resolve_all_asset_specs():
        name = spec.key.to_user_string()
        assert spec.description, name
        assert spec.description[0].isupper(), name
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.group_name == spec.key.path[0], name
        is_root = (
            LOADED_WITH not in spec.metadata
        )  # a related table is due and checked with its root
        assert spec.key in checked or not is_root, name
        links = spec.metadata["dagster/code_references"].value.code_references
        assert [link.label for link in links] == [None, "README.md"], name
        if "dlt" in spec.kinds:
            assert bool(spec.freshness_policy) == is_root, name
            assert spec.tags["write_disposition"], name


@pytest.mark.parametrize("location", LOCATIONS)
def test_each_schedule_sensor_and_job_has_a_description_and_is_off_by_default(
    location: str,
) -> None:
    repository = definitions(location).get_repository_def()
    automation: list[Any] = [*repository.schedule_defs, *repository.sensor_defs]
    jobs: list[Any] = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    assert automation
    for item in (*automation, *jobs):
        assert item.description, item.name
    assert {item.default_status.value for item in automation} == {"STOPPED"}


def test_definitions_stay_short(root: Path) -> None:
    for file in root.glob("projects/*/src/*/definitions.py"):
        assert len(file.read_text().splitlines()) <= 12, file


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_location_runs_its_steps_in_the_run_s_process(location: str) -> None:
    assert definitions(location).executor is dg.in_process_executor
    assert set(definitions(location).resources or {}) == {"dlt"}


def validate(workspace: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [python(), "-m", "dagster", "definitions", "validate", "-w", str(workspace)]
    return subprocess.run(
        command,
        cwd=workspace.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_dagster_validates_all_three_locations(
    root: Path, process_environment: dict[str, str]
) -> None:
    done = validate(root / "workspace.yaml", process_environment)
    assert done.returncode == 0, done.stderr
    for location in LOCATIONS:
        assert f"Validation successful for code location {location}" in done.stderr + done.stdout


def test_a_location_that_raises_at_import_leaves_the_others_working(
    root: Path, tmp_path: Path, process_environment: dict[str, str]
) -> None:
    broken = tmp_path / "broken" / "csv_etl"
    shutil.copytree(root / "projects" / "csv_etl" / "src" / "csv_etl", broken)
    (broken / "definitions.py").write_text("raise RuntimeError('a bug of the csv team')\n")
    shutil.copy(root / "workspace.yaml", tmp_path)
    workspace: dict[str, Any] = yaml.safe_load((tmp_path / "workspace.yaml").read_text())
    workspace["load_from"][1]["python_module"]["working_directory"] = str(broken.parent)
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    done = validate(tmp_path / "workspace.yaml", process_environment)
    output = done.stderr + done.stdout
    assert done.returncode != 0
    assert "a bug of the csv team" in output
    assert "Validation successful for code location simple_etl" in output
    assert "Validation successful for code location api_etl" in output
    assert "Validation successful for code location csv_etl" not in output


def test_env_example_lists_every_variable_with_its_working_default(root: Path) -> None:
    lines = (root / ".env.example").read_text().splitlines()
    listed = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert listed == {name: entry.default for name, entry in settings.SETTINGS.items()}
    comments = {line.removeprefix("# ") for line in lines}
    assert {entry.description for entry in settings.SETTINGS.values()} <= comments


def test_a_source_that_imports_dagster_is_a_lint_error(root: Path) -> None:
    linted = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--select",
            "TID251",
            "--stdin-filename",
            "shared/src/shared/sources/x.py",
            "-",
        ],
        input="import dagster\n",
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 1
    assert "Sources are pure dlt" in linted.stdout
