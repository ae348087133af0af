"""This workspace: as many code locations, each a copy of simple_etl's, loaded as `dagster dev` does.

With `empty` each location has no definitions, and only imports Dagster, dagster-dlt and dlt.
"""

import json
import os
import sys
import time
from pathlib import Path

many, folder, *how = sys.argv[1:]
os.environ["DAGSTER_HOME"] = folder

import duckdb
import psutil
from dagster._core.instance import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

Path(folder, "dagster.yaml").write_text("telemetry: {enabled: false}\n")
EMPTY = "import dagster, dagster_dlt, dlt\n\ndefs = dagster.Definitions()\n"
Path(folder, "empty.py").write_text(EMPTY)
LOCATION = (
    f"python_file: {{relative_path: {folder}/empty.py"
    if "empty" in how
    else "python_module: {module_name: simple_etl.definitions"
)
Path(folder, "workspace.yaml").write_text(
    "load_from:\n"
    + "".join(f"- {LOCATION}, location_name: location_{n}}}\n" for n in range(int(many)))
)
began = time.perf_counter()
with (
    DagsterInstance.get() as instance,
    WorkspaceProcessContext(
        instance, WorkspaceFileTarget([str(Path(folder, "workspace.yaml"))])
    ) as workspace,
):
    entries = workspace.create_request_context().get_code_location_entries()
    failed = [name for name, entry in entries.items() if entry.load_error]
    assert len(entries) == int(many), entries.keys()
    assert not failed, failed
    seconds = time.perf_counter() - began
    # The proportional set size counts shared memory once.
    mine = psutil.Process()
    memory = sum(each.memory_full_info().pss for each in mine.children(recursive=True))
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS FROM range(?)", [int(many)])
print(json.dumps({"seconds": seconds, "peak_mb": memory / 2**20}))
