"""What tests of the command line share: `etl`, started as a user does."""

import subprocess
import sys
from pathlib import Path


def etl(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `etl` in the workspace of the fixture `etl_environment`."""
    return subprocess.run(
        [sys.executable, "-m", "shared.cli", *arguments],
        cwd=workspace(environment),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def workspace(environment: dict[str, str]) -> Path:
    """Returns the folder of that workspace."""
    return Path(environment["WAREHOUSE_PATH"]).parent / "workspace"
