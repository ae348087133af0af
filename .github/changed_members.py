"""Prints, as JSON, the workspace members that a change can affect: CI's test matrix.

A member is affected when a file of its own changed, or one that all stand on: `shared/`, the sample, the lock, the
workspace's pyproject.toml, or the workflows. Members come from the workspace's own list, so a new one
needs no edit here; one that left the workspace's lock for its own stands in a member's place, so it is tested too.

Usage: python .github/changed_members.py [BASE], with all members where BASE is left out or unknown.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMON = ("shared/", "data/", "uv.lock", "pyproject.toml", ".github/")


def members() -> dict[str, str]:
    """Returns each member's package name, by its folder."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    files = sorted(
        file for pattern in workspace["members"] for file in ROOT.glob(f"{pattern}/pyproject.toml")
    )
    return {
        file.parent.relative_to(ROOT).as_posix(): tomllib.loads(file.read_text())["project"]["name"]
        for file in files
    }


def affected(changed: list[str]) -> list[dict[str, str]]:
    """Returns folder and package of the members that changed files affect."""
    everyone = any(path.startswith(COMMON) for path in changed)
    return [
        {"folder": folder, "package": package}
        for folder, package in members().items()
        if everyone or any(path.startswith(f"{folder}/") for path in changed)
    ]


def changed_since(base: str) -> list[str]:
    """Returns the paths that differ from where the branch left `base`; all, if that is unknown."""
    diff = subprocess.run(
        ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return diff.stdout.split("\0") if base and diff.returncode == 0 else ["uv.lock"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(affected(changed_since("".join(sys.argv[1:])))))
