"""The Python that starts fast, for the processes of tests: more modules, and the programs of a clone.

A test whose promise is about a fresh process uses `sys.executable` of the test's own process.
"""

from pathlib import Path

from shared.cli.preloaded import PreloadedPython
from shared.cli.preloaded.modules import DAGSTER_MODULES

MODULES = (
    *DAGSTER_MODULES,
    "dagster_dbt",
    "dagster_k8s.executor",
    "dagster_postgres",
    "dlt.destinations.impl.postgres.postgres",
    "celery.bin.celery",
    "pyarrow.parquet",  # it starts threads, so production does without
    "typer",
    "rich.console",
)


def start_programs_fast(preloaded: PreloadedPython) -> None:
    """Let the programs that are installed beside the interpreter start fast."""
    for program in Path(preloaded.interpreter).parent.iterdir():
        if program.is_symlink() or not (content := program.read_bytes()).startswith(b"#!"):
            continue
        first, end, rest = content.partition(b"\n")
        if first == f"#!{preloaded.interpreter}".encode():
            mode = program.stat().st_mode
            program.unlink()  # it may share its content with uv's cache
            program.write_bytes(f"#!{preloaded.executable}".encode() + end + rest)
            program.chmod(mode)
