"""The Dagster instance of an environment on this machine: its runs, partitions and history.

Asset keys are the same in every environment. So environments that shared one instance would take each
other's partitions as loaded.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from shared import settings
from shared.cli.terminal import fail
from shared.environments import Environment

_FOLDER = ".dagster"


def dagster_home(environment: Environment) -> Path:
    """Return the folder for `DAGSTER_HOME`: the workspace's, or one of the environment.

    That of an environment gets a copy of the workspace's dagster.yaml, whose paths begin in it.
    """
    if not environment.has_own_file:
        return settings.workspace_root()
    root, home = settings.workspace_root(), _own_home(environment)
    home.mkdir(parents=True, exist_ok=True)
    if (file := root / "dagster.yaml").is_file():
        instance = _moved(yaml.safe_load(file.read_text()), home)
        (home / "dagster.yaml").write_text(yaml.safe_dump(instance, sort_keys=False))
    return home


@contextmanager
def only_user(environment: Environment) -> Iterator[None]:
    """Keep other previews and drops of an environment on this machine out.

    Raises:
        Exit: a preview of it runs.
    """
    if not environment.has_own_file:
        yield
        return
    home = _own_home(environment)
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "preview.lock", timeout=0):
            yield
    except Timeout:
        fail(
            f"A preview of {environment.name} runs on this machine: wait for its end, or stop it. Nothing "
            "was changed."
        )


def delete_home(environment: Environment) -> None:
    """Delete the runs and the history of an environment on this machine."""
    if environment.has_own_file:
        shutil.rmtree(_own_home(environment), ignore_errors=True)


def _own_home(environment: Environment) -> Path:
    return settings.workspace_root() / _FOLDER / "environments" / environment.identifier


def _moved(value: object, home: Path) -> object:
    """Return a part of dagster.yaml with each path in .dagster/ below the folder."""
    if isinstance(value, dict):
        return {key: _moved(each, home) for key, each in value.items()}
    if isinstance(value, str) and value.startswith(f"{_FOLDER}/"):
        return str(home / value)
    return value
