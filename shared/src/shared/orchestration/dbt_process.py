"""The program `etl-dbt`: dbt in the process of a run, which ends when the run's process is gone.

It imports no other module of `shared`, and Dagster neither, because it starts once per run of models.
"""

import os
import sys
import threading
import time

PARENT_VARIABLE = "ETL_DBT_PARENT"
"""The process of the run; without it, dbt does not watch any process."""

_POLL_SECONDS = 0.2


def main() -> None:
    """Run dbt with the arguments of the command line."""
    from dbt.version import __version__

    if sys.argv[1:] == ["--version"]:  # dbt's own answer asks PyPI for newer versions
        print(__version__)
        return
    if parent := os.environ.get(PARENT_VARIABLE):
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    from dbt.cli.main import cli

    cli()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: the run's locks are free then, and another may write."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
