"""Every command of the documents runs in a fresh clone."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api_etl.recorded.server import NeowsServer
from shared.testing.postgres_server import PostgresServer

pytestmark = pytest.mark.slow  # runs every command of the documents

NOT_RUN_HERE = ("make test", "make test-all", "make stress", "make bench", "uv run pytest .")
"""The tests themselves, which CI runs, and an hour of benchmarks."""

NO_BYTECODE = " -- UV_COMPILE_BYTECODE=0"
"""Half a minute less for `make run`: Python writes the bytecode of what it imports anyway."""

NAME, UNUSED = "orders", "documented"
"""The new pipeline of docs/add-a-pipeline.md, which a workspace may have, and its name in this test."""


def shell_blocks(document: Path) -> Iterator[list[str]]:
    """Yield the commands of each shell block, without comments."""
    for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
        lines = [re.sub(r"\s+# .*", "", line) for line in block.splitlines()]
        yield [line for line in lines if line and line.strip() not in NOT_RUN_HERE]


def documents(root: Path) -> list[Path]:
    return [root / "README.md", *sorted(root.glob("docs/*.md")), *root.glob("projects/*/README.md")]


def test_every_command_of_the_documents_runs(
    root: Path,
    clone: Path,
    shell: dict[str, str],
    warehouse_server: PostgresServer,
    start_fast: Callable[[], None],
) -> None:
    ran = []
    with NeowsServer() as server:
        for document in documents(root):
            folder = (
                clone
                if document.parent.name == "docs"
                else clone / document.parent.relative_to(root)
            )
            for commands in shell_blocks(document):
                lines = [line for line in commands if "dagster dev" not in line]
                environment = {**shell, "PWD": str(folder), "MAKEFLAGS": NO_BYTECODE}
                if document.name == "backfill.md" or document.parent.name == "api_etl":
                    environment["NASA_BASE_URL"] = server.url
                script = "set -eo pipefail\n" + "\n".join(lines)
                if document.name == "add-a-pipeline.md":
                    script = script.replace(NAME, UNUSED)
                if "postgresql://" in script:  # the page has an example
                    script = re.sub(r"postgresql://\S+", warehouse_server.warehouse(), script)
                done = subprocess.run(
                    ["bash", "-c", script],
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{document}: {script}\n{done.stdout}\n{done.stderr}"
                start_fast()
                ran += lines
    example = re.search(
        r"```python\n(.*?)```", (root / "docs/add-a-pipeline.md").read_text(), re.DOTALL
    )
    assert example
    source = clone / f"projects/{UNUSED}_etl/src/{UNUSED}_etl/source.py"
    source.write_text(example[1].replace(NAME, UNUSED))
    command = ["uv", "run", "etl", "run", f"{UNUSED}_etl"]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=clone, env=shell, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    assert re.search(rf"{UNUSED}/{UNUSED} +3 ", done.stdout)
    assert "make run" in ran
    assert len(ran) >= 15
