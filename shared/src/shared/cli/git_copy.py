"""The state of the repository before a branch, as a copy of its files."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.cli.terminal import fail


def current_branch(root: Path) -> str:
    """Return the name of the branch that is checked out; empty if it is a commit."""
    return _git(root, "branch", "--show-current").decode().strip()


def merge_base(root: Path, base: str) -> str:
    """Return the commit at which the work that is checked out left a branch.

    Raises:
        Exit: there is no such branch, or no common commit.
    """
    if _run(root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}").returncode:
        fail(
            f"There is no commit {base!r} in {root}: fetch it (git fetch origin {base}), or name another "
            "branch with --base. Nothing was loaded.",
            2,
        )
    found = _run(root, "merge-base", base, "HEAD")
    if found.returncode:
        fail(
            f"{base} and HEAD have no common commit in {root}: in a shallow clone, fetch the history (git "
            "fetch --unshallow). Nothing was loaded.",
            2,
        )
    return found.stdout.decode().strip()


@contextmanager
def copy_of(root: Path, commit: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a commit.

    It is an archive and not a worktree of git, so an interrupted preview leaves nothing in the repository.
    """
    with TemporaryDirectory(prefix="etl-preview-") as folder:
        archive = _git(root, "archive", "--format=tar", commit)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder).resolve()


def _git(root: Path, *arguments: str) -> bytes:
    done = _run(root, *arguments)
    if done.returncode:
        fail(f"git {arguments[0]} failed: {done.stderr.decode().strip() or 'no output'}")
    return done.stdout


def _run(root: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(  # noqa: S603 - with names of commits, after `--verify`
            ["git", *arguments],  # noqa: S607 - the user's git
            cwd=root,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        fail("git is not installed, and a preview compares with a commit.", 2)
