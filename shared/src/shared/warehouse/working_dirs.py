"""The working directories of loads: each load has its own, and none stays for long."""

import shutil
import tempfile
import time
from contextlib import suppress

from shared.warehouse.locks.file import duckdb_path

_KEEP_SECONDS = 7 * 24 * 3600


def create_working_dir(run_id: str) -> str:
    """Create a load's working directory, and delete what killed and failed loads left a week ago."""
    parent = duckdb_path().with_suffix(".working")
    parent.mkdir(parents=True, exist_ok=True)
    expired = time.time() - _KEEP_SECONDS
    for directory in parent.iterdir():
        with suppress(FileNotFoundError):  # another load may just have removed its directory
            if directory.stat().st_mtime < expired:
                shutil.rmtree(directory, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{run_id}-", dir=parent)
