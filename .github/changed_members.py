"""Print, as JSON, the workspace members that a change can affect: the test matrix of CI.

A member is affected if one of its files changed, or a file that all members use: `shared/`, the sample
data, the lock, the workspace's pyproject.toml, or the workflows. The members come from the workspace's
pyproject.toml, so a new member needs no edit here. A project with its own lock is a member here as well.

Usage: python .github/changed_members.py [--deployed] [BASE]. Without BASE, or with an unknown one, it prints
all members. With --deployed it prints the names of the locations of deploy/workspace.yaml among them; a file
that the images have in common affects all of these.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMON = ("shared/", "data/", "uv.lock", "pyproject.toml", ".github/")


def members() -> dict[str, str]:
    """Return the package name of each member, by folder."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    files = sorted(
        file for pattern in workspace["members"] for file in ROOT.glob(f"{pattern}/pyproject.toml")
    )
    return {
        file.parent.relative_to(ROOT).as_posix(): tomllib.loads(file.read_text())["project"]["name"]
        for file in files
    }


def affected(changed: list[str]) -> list[dict[str, str]]:
    """Return folder and package of the members that the changed files affect."""
    affects_all = any(path.startswith(COMMON) for path in changed)
    return [
        {"folder": folder, "package": package}
        for folder, package in members().items()
        if affects_all or any(path.startswith(f"{folder}/") for path in changed)
    ]


def changed_since(base: str) -> list[str]:
    """Return the paths that differ from the merge base with `base`; if it is unknown, one that affects all."""
    diff = subprocess.run(
        ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return diff.stdout.split("\0") if base and diff.returncode == 0 else ["uv.lock"]


def affected_locations(changed: list[str]) -> list[str]:
    """Return the deployed locations whose images the changed files affect."""
    workspace = (ROOT / "deploy" / "workspace.yaml").read_text()
    affects_all = any(path.startswith(("deploy/", "environments.toml")) for path in changed)
    folders = {member["folder"] for member in affected(changed)}
    return [
        name
        for name in re.findall(r"location_name: (\w+)", workspace)
        if affects_all or f"projects/{name}" in folders
    ]


if __name__ == "__main__":
    arguments = sys.argv[1:]
    find = affected_locations if "--deployed" in arguments else affected
    base = "".join(argument for argument in arguments if argument != "--deployed")
    sys.stdout.write(json.dumps(find(changed_since(base))))
