"""Locks the newest dlt, Dagster and DuckDB, including those that the version ranges do not allow yet.

It removes the upper bounds of these packages in this checkout, upgrades them in `uv.lock`, and prints a Markdown
table of the versions. What the packages require of each other still counts: all dagster packages stay at
one release. CI's job `newest` runs this in a checkout that is thrown away. On your machine, `git restore .`
undoes it.

Usage: uv run --no-project .github/newest_versions.py
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = r"dagster(?:-[a-z0-9-]+)?|dlt|duckdb"
RANGE = re.compile(rf"""(["'](?:{PACKAGES})(?:\[[^]]*\])?>=[^,"']+),<[^"']+""")
DECLARED_IN = (
    "shared/pyproject.toml",
    "projects/*/pyproject.toml",
    "shared/src/shared/cli/templates/**/pyproject.toml*",  # so that `etl new` follows
)


def remove_upper_bounds(root: Path) -> list[Path]:
    """Remove the upper bounds of the packages and return the changed files."""
    changed = []
    for file in sorted(path for pattern in DECLARED_IN for path in root.glob(pattern)):
        content = file.read_text()
        unbounded = RANGE.sub(r"\1", content)
        if unbounded != content:
            file.write_text(unbounded)
            changed.append(file)
    return changed


def locked_versions(root: Path) -> dict[str, str]:
    """Return the locked version of each of the packages."""
    packages = tomllib.loads((root / "uv.lock").read_text())["package"]
    return {
        package["name"]: package["version"]
        for package in packages
        if re.fullmatch(PACKAGES, package["name"])
    }


def format_table(before: dict[str, str], after: dict[str, str]) -> str:
    """Return the versions as a Markdown table, with changed ones in bold."""
    lines = ["| package | locked | newest |", "|---|---|---|"]
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, "-"), after.get(name, "-")
        lines.append(f"| {name} | {old} | {new if new == old else f'**{new}**'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Locks the newest versions and prints the table."""
    before = locked_versions(ROOT)
    if not remove_upper_bounds(ROOT):
        sys.exit("No version range has an upper bound. Have the pyproject.toml files changed?")
    upgrades = [f"--upgrade-package={name}" for name in before]
    subprocess.run(["uv", "lock", "--quiet", *upgrades], cwd=ROOT, check=True)
    sys.stdout.write(format_table(before, locked_versions(ROOT)))


if __name__ == "__main__":
    main()
