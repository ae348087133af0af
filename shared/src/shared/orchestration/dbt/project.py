"""A dbt project on disk, and its manifest: what dbt knows about its models, which Dagster's assets need.

The manifest is a build product in the project's folder `target/`, which git ignores. It is parsed again when
a file of the project changed since. Parsing reads the project's files only: no warehouse and no secret.
"""

import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtProject
from filelock import FileLock

from shared import settings
from shared.redaction import redact

EXECUTABLE = Path(sysconfig.get_path("scripts")) / "etl-dbt"
"""dbt, as `shared.orchestration.dbt_process` starts it."""

QUIET = {
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DBT_USE_COLORS": "false",
}
_FINGERPRINT = "fingerprint"
_NOT_READ = {"target", "logs", "dbt_packages", "__pycache__"}
_PARSED_WITH = {"WAREHOUSE_TYPE": "duckdb", "ETL_DBT_PATH": ":memory:"}
"""The manifest has the names that code declares, so it is the same for every warehouse."""


def dbt_project(project_dir: Path) -> DbtProject:
    """Return the dbt project of a folder, with a manifest of its present files.

    If the manifest is missing or a file changed since, dbt parses the project, which takes seconds. An image
    has the manifest from its build.

    Raises:
        DagsterInvalidDefinitionError: dbt cannot parse the project; the message names the file, if dbt does.
    """
    project = DbtProject(project_dir)
    try:
        _update_manifest(project)
    except OSError as error:
        raise dg.DagsterInvalidDefinitionError(
            f"The manifest of the dbt project {_shown(project_dir)} is missing or older than its files, and "
            f"cannot be written: {error}. Parse it when the image is built, by importing the location."
        ) from None
    return project


def _update_manifest(project: DbtProject) -> None:
    """Parse the project if its files are not those of the manifest."""
    target = project.project_dir / project.target_path
    fingerprint = _fingerprint(project.project_dir)
    if _is_current(target, fingerprint):
        return
    target.mkdir(exist_ok=True)
    with FileLock(target / "manifest.lock"):  # several processes import the location
        if not _is_current(target, fingerprint):
            _parse(project, target)
            (target / _FINGERPRINT).write_text(fingerprint)


def _is_current(target: Path, fingerprint: str) -> bool:
    file = target / _FINGERPRINT
    return file.is_file() and file.read_text() == fingerprint


def _fingerprint(project_dir: Path) -> str:
    """Return a hash of the project's files, and of the version of dbt."""
    digest = hashlib.sha256(version("dbt-core").encode())
    for file in sorted(project_dir.rglob("*")):
        name = file.relative_to(project_dir)
        if _NOT_READ.isdisjoint(name.parts) and file.is_file():
            digest.update(f"{name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _parse(project: DbtProject, target: Path) -> None:
    """Write the manifest.

    Raises:
        DagsterInvalidDefinitionError: dbt cannot parse the project.
    """
    folder = Path(tempfile.mkdtemp(dir=target))
    try:
        done = subprocess.run(  # noqa: S603 - dbt of this environment
            [EXECUTABLE, "parse", "--quiet", "--no-partial-parse"],
            cwd=project.project_dir,
            env={
                **os.environ,
                **QUIET,
                **_PARSED_WITH,
                "DBT_PROJECT_DIR": str(project.project_dir),
                "DBT_PROFILES_DIR": str(project.profiles_dir),
                "DBT_TARGET_PATH": str(folder),
                "DBT_LOG_PATH": str(folder),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise dg.DagsterInvalidDefinitionError(_parse_error(project.project_dir, done))
        (folder / project.manifest_path.name).replace(project.manifest_path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse_error(project_dir: Path, done: "subprocess.CompletedProcess[str]") -> str:
    """Return dbt's message in one line."""
    text = " ".join((done.stdout + done.stderr).split()).removeprefix("Encountered an error: ")
    return redact(
        f"dbt cannot parse the project {_shown(project_dir)}: {text or 'it printed nothing'}. Correct the "
        "file, then run uv run dagster definitions validate -w workspace.yaml."
    )


def _shown(project_dir: Path) -> str:
    root = settings.workspace_root()
    return str(project_dir.relative_to(root) if project_dir.is_relative_to(root) else project_dir)
