"""The files that a company looks for first exist, and what they state is true."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def hooks(root: Path) -> dict[str, dict[str, Any]]:
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())
    return {hook["id"]: hook for repository in config["repos"] for hook in repository["hooks"]}


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        ".pre-commit-config.yaml",
        ".secrets.baseline",
        ".github/CODEOWNERS",
        ".github/dependabot.yml",
        ".devcontainer/devcontainer.json",
    ],
)
def test_the_file_exists(root: Path, name: str) -> None:
    assert (root / name).read_text().strip()


def test_the_license_is_apache_2(root: Path) -> None:
    text = (root / "LICENSE").read_text()
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_an_unreleased_section_with_renamed_names(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text()
    (start,) = re.finditer(r"^## \[Unreleased\]$", text, re.MULTILINE)
    unreleased = re.split(r"^## ", text[start.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line.split("|") for line in unreleased.splitlines() if line.startswith("| `")]
    renamed = {old.strip(): new.strip() for _, old, new, *_ in rows}
    assert renamed["`NASA_LONGEST_WAIT_SECONDS`"] == "`NASA_MAX_WAIT_SECONDS`"
    assert renamed["`etl/load_again`"] == "`etl/force_reload`"
    assert all(old != new for old, new in renamed.items())


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_the_links_lead_to_files(root: Path, name: str) -> None:
    text = (root / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (root / target).exists(), target


def test_the_hooks_take_ruff_from_the_lock(root: Path, hooks: dict[str, dict[str, Any]]) -> None:
    """No hook names a version of ruff: uv.lock does, so that the hooks and `make lint` agree."""
    assert hooks["ruff"]["entry"].startswith("uv run --frozen ruff check ")
    assert hooks["ruff-format"]["entry"].startswith("uv run --frozen ruff format ")
    assert hooks["uv-lock"]["entry"] == "uv lock --check"
    for name in ("ruff", "ruff-format", "uv-lock"):
        assert hooks[name]["language"] == "system"
        assert "additional_dependencies" not in hooks[name]
    locked = tomllib.loads((root / "uv.lock").read_text())["package"]
    assert [package["name"] for package in locked].count("ruff") == 1


def test_the_baseline_is_of_the_version_that_the_hook_runs(
    root: Path, hooks: dict[str, dict[str, Any]]
) -> None:
    baseline = json.loads((root / ".secrets.baseline").read_text())
    version = baseline["version"]
    assert hooks["detect-secrets"]["additional_dependencies"] == [f"detect-secrets=={version}"]
    assert "--baseline .secrets.baseline" in hooks["detect-secrets"]["entry"]
    # The command for a new baseline is the same version's.
    assert f"uvx detect-secrets=={version} scan" in (root / "CONTRIBUTING.md").read_text()
    for name in baseline["results"]:
        assert (root / name).exists(), f"{name} is in the baseline and no longer in the repository"


def test_ci_runs_the_hooks(root: Path) -> None:
    ci = yaml.safe_load((root / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step.get("run", "") for step in ci["jobs"]["lint"]["steps"]]
    assert any(re.match(r"uvx pre-commit@[\d.]+ run --all-files", command) for command in commands)


def test_dependabot_updates_each_lock_the_actions_and_the_images(root: Path) -> None:
    updates = yaml.safe_load((root / ".github" / "dependabot.yml").read_text())["updates"]
    watched = {(update["package-ecosystem"], update["directory"]) for update in updates}
    locks = subprocess.run(
        ["git", "ls-files", "uv.lock", "*/uv.lock"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    folders = {f"/{Path(lock).parent}".removesuffix(".") for lock in locks.stdout.split()}
    assert "/" in folders
    assert watched == {
        *(("uv", folder) for folder in folders),
        ("github-actions", "/"),
        ("docker", "/deploy"),
    }


def test_the_devcontainer_installs_what_the_lock_has(root: Path) -> None:
    text = (root / ".devcontainer" / "devcontainer.json").read_text()
    container = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert "uv sync --locked" in container["postCreateCommand"]
    assert container["forwardPorts"] == [3000]


def make(root: Path, *arguments: str) -> str:
    # Without what `make test` passes on: an inner make would print the folder it enters.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", *arguments], cwd=root, env=clean, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_make_help_lists_every_target(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    rules = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert rules == set(phony.split())
    listed = {}
    for line in make(root, "help").splitlines():
        command, name, text = line.split(maxsplit=2)
        assert command == "make"
        listed[name] = text
    assert listed.keys() == rules
    assert all(listed.values())
    assert make(root) == make(root, "help")  # nothing is installed or run by accident


@pytest.mark.skipif(shutil.which("original-awk") is None, reason="needs the awk of macOS")
def test_make_help_works_with_the_awk_of_macos(root: Path, tmp_path: Path) -> None:
    (tmp_path / "awk").symlink_to(str(shutil.which("original-awk")))
    listed = make(root, "help")
    done = subprocess.run(
        ["/bin/sh", "-c", f"PATH={tmp_path}:$PATH make help"],
        cwd=root,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == listed
