"""The workflows are valid, their actions are pinned, and their matrices cover members and Pythons."""

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.cli.locations import code_locations

MEMBERS = {"shared", *(f"projects/{name}" for name in code_locations())}


@pytest.fixture
def workflows(root: Path) -> dict[str, dict[str, Any]]:
    return {
        file.name: yaml.safe_load(file.read_text()) for file in root.glob(".github/workflows/*")
    }


def test_actionlint_finds_nothing(root: Path) -> None:
    actionlint = Path(sys.executable).parent / "actionlint"
    files = [str(file) for file in root.glob(".github/workflows/*.yml")]
    assert files
    linted = subprocess.run(
        [actionlint, *files], cwd=root, capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_zizmor_finds_nothing(root: Path) -> None:
    """No unsafe permissions, expressions, caches or updates; each exception has its reason."""
    zizmor = Path(sys.executable).parent / "zizmor"
    checked = subprocess.run(
        [zizmor, "--offline", "--quiet", "--no-config", ".github"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_actions_are_pinned_by_commit_and_permissions_are_minimal(
    root: Path, workflows: dict[str, dict[str, Any]]
) -> None:
    for file in root.glob(".github/workflows/*.yml"):
        uses = re.findall(r"uses: (\S+)(.*)", file.read_text())
        assert uses
        for action, version in uses:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", version), action
        assert workflows[file.name]["permissions"] == {"contents": "read"}
        cancelled = "${{ github.event_name == 'pull_request' }}"
        assert workflows[file.name]["concurrency"]["cancel-in-progress"] == cancelled


def test_each_member_is_tested_on_each_python_it_declares(
    root: Path, workflows: dict[str, dict[str, Any]]
) -> None:
    assert workflows["ci.yml"]["jobs"]["member"]["strategy"]["matrix"]["python"] == [
        "3.11",
        "3.12",
        "3.13",
    ]
    for file in [*root.glob("projects/*/pyproject.toml"), root / "shared" / "pyproject.toml"]:
        assert 'requires-python = ">=3.11,<3.14"' in file.read_text()


def test_the_laptop_path_runs_on_macos_and_on_the_oldest_and_newest_python(
    workflows: dict[str, dict[str, Any]],
) -> None:
    jobs = workflows["ci.yml"]["jobs"]
    laptop = jobs["laptop"]
    pythons = jobs["member"]["strategy"]["matrix"]["python"]
    covered = {(entry["os"], entry["python"]) for entry in laptop["strategy"]["matrix"]["include"]}
    assert covered == {
        ("ubuntu-latest", pythons[-1]),
        ("macos-latest", pythons[0]),
        ("macos-latest", pythons[-1]),
    }
    assert laptop["runs-on"] == "${{ matrix.os }}"
    assert laptop["strategy"]["fail-fast"] is False
    commands = [step["run"] for step in laptop["steps"] if "run" in step]
    assert commands == ["make run", "make test"]


def test_ci_runs_the_same_make_targets_as_the_script_for_a_clean_clone(
    root: Path, workflows: dict[str, dict[str, Any]]
) -> None:
    targets = re.findall(r"^make (\S+)$", (root / ".ci" / "run").read_text(), re.MULTILINE)
    assert targets == ["lint", "test", "test-all"]
    for target in targets:
        job = workflows["ci.yml"]["jobs"][target]
        assert f"make {target}" in [step.get("run") for step in job["steps"]]


def test_the_newest_versions_may_fail_and_are_in_the_summary(
    workflows: dict[str, dict[str, Any]],
) -> None:
    jobs = workflows["ci.yml"]["jobs"]
    newest = jobs["newest"]
    assert newest["continue-on-error"] is True
    assert not any("continue-on-error" in job for name, job in jobs.items() if name != "newest")
    assert not any("newest" in job.get("needs", "") for job in jobs.values())
    lock, test, result = [step for step in newest["steps"] if "run" in step]
    assert ".github/newest_versions.py" in lock["run"]
    assert "$GITHUB_STEP_SUMMARY" in lock["run"]
    assert test["run"] == "make test"
    assert result["if"] == "always()"
    assert "$GITHUB_STEP_SUMMARY" in result["run"]
    assert "::warning" in result["run"]


def test_the_newest_versions_are_locked_without_upper_bounds(root: Path, tmp_path: Path) -> None:
    """The copy has no upper bounds for dlt, Dagster and DuckDB, and the bounds of all others."""
    script = runpy.run_path(str(root / ".github" / "newest_versions.py"))
    files = [file for pattern in script["DECLARED_IN"] for file in root.glob(pattern)]
    for file in files:
        copy = tmp_path / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    changed = script["remove_upper_bounds"](tmp_path)
    assert sorted(file.relative_to(tmp_path) for file in changed) == sorted(
        file.relative_to(root) for file in files
    )
    bound = re.compile(r'"([a-z-]+)(?:\[[a-z,]*\])?>=[^"]*<[^"]*"')
    followed = {"dagster", "dagster-dlt", "dlt", "duckdb"}
    before = {name for file in files for name in bound.findall(file.read_text())}
    after = {name for file in changed for name in bound.findall(file.read_text())}
    assert followed <= before
    assert after == {
        name for name in before if name not in followed and not name.startswith("dagster")
    }
    assert "typer" in after
    for file in changed:
        if file.suffix == ".toml":
            tomllib.loads(file.read_text())


def test_the_table_shows_the_newest_and_the_locked_versions(root: Path) -> None:
    script = runpy.run_path(str(root / ".github" / "newest_versions.py"))
    assert {"dagster", "dagster-dlt", "dlt", "duckdb"} <= script["locked_versions"](root).keys()
    table = script["format_table"]({"dlt": "1.31.0", "duckdb": "2.0.0"}, {"dlt": "1.32.0"})
    assert table.splitlines()[2:] == [
        "| dlt | 1.31.0 | **1.32.0** |",
        "| duckdb | 2.0.0 | **-** |",
    ]


def test_a_failing_member_does_not_stop_the_tests_of_others(
    workflows: dict[str, dict[str, Any]],
) -> None:
    member = workflows["ci.yml"]["jobs"]["member"]
    assert member["strategy"]["fail-fast"] is False
    assert member["strategy"]["matrix"]["member"] == (
        "${{ fromJSON(needs.members.outputs.affected) }}"
    )
    # Each member has its declared dependencies only, and its own lock if it has one.
    (run,) = [step["run"] for step in member["steps"] if "pytest" in step.get("run", "")]
    assert run.startswith('uv run --isolated --locked --project "$FOLDER" pytest "$FOLDER"')
    assert member["needs"] == "members"  # and not another job


def test_every_project_has_a_team_that_owns_it_and_a_readme(root: Path) -> None:
    lines = (root / ".github" / "CODEOWNERS").read_text().splitlines()
    owners = dict(line.split(maxsplit=1) for line in lines if not line.startswith("#"))
    projects = [path.parent.name for path in root.glob("projects/*/pyproject.toml")]
    assert projects
    for name in projects:
        assert re.fullmatch(r"@\S+/\S+", owners[f"/projects/{name}/"]), name
        assert (root / "projects" / name / "README.md").read_text().startswith(f"# {name}\n")
    teams = [owners[f"/projects/{name}/"] for name in projects]
    assert owners["*"] not in teams


def affected(root: Path, *changed: str) -> set[str]:
    script = runpy.run_path(str(root / ".github" / "changed_members.py"))
    return {member["folder"] for member in script["affected"](list(changed))}


def test_the_matrix_finds_the_workspace_s_members(root: Path) -> None:
    members = affected(root, "uv.lock")
    projects = {f"projects/{path.parent.name}" for path in root.glob("projects/*/pyproject.toml")}
    assert members == projects | {"shared"} == MEMBERS


@pytest.mark.parametrize(
    "common",
    [
        "shared/src/shared/cli/run.py",
        "data/drop/2018-01-22.csv",
        "uv.lock",
        "pyproject.toml",
        ".github/workflows/ci.yml",
    ],
)
def test_a_change_to_common_files_tests_all_members(root: Path, common: str) -> None:
    assert affected(root, common) == MEMBERS


@pytest.mark.parametrize(
    ("changed", "tested"),
    [
        (["projects/csv_etl/README.md"], {"projects/csv_etl"}),
        (["projects/csv_etl/a", "projects/api_etl/b"], {"projects/csv_etl", "projects/api_etl"}),
        (["projects/csv_etl_two/a"], set()),
        (["README.md"], set()),
        ([], set()),
    ],
)
def test_a_change_to_one_project_tests_that_project_alone(
    root: Path, changed: list[str], tested: set[str]
) -> None:
    assert affected(root, *changed) == tested


def test_the_matrix_is_read_from_git(root: Path, tmp_path: Path) -> None:
    """After a commit to csv_etl the matrix has csv_etl; with an unknown base it has all members."""
    for name in ("pyproject.toml", ".github", "projects", "shared"):
        source, target = root / name, tmp_path / name
        subprocess.run(["cp", "-r", source, target], check=True)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]

    def git(*arguments: str) -> str:
        command = ["git", *who, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".github", "projects", "pyproject.toml")
    git("commit", "-qm", "base")
    base = git("rev-parse", "HEAD")
    (tmp_path / "projects" / "csv_etl" / "é.md").write_text("new")
    git("add", "projects/csv_etl/é.md")
    git("commit", "-qm", "add")
    added = git("rev-parse", "HEAD")
    git("mv", "projects/csv_etl/é.md", "projects/api_etl/é.md")
    git("commit", "-qm", "move")

    def matrix(*base: str) -> set[str]:
        command = [sys.executable, ".github/changed_members.py", *base]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return {member["folder"] for member in json.loads(done.stdout)}

    assert matrix(added) == {"projects/csv_etl", "projects/api_etl"}
    assert matrix(base) == {"projects/api_etl"}
    assert matrix("0" * 40) == matrix() == MEMBERS
