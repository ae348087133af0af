"""A workspace with as many code locations, each a copy of simple_etl's, until `dagster dev` shows all of them.

With `preloaded` it is `etl dev` that starts them. With `empty` each location has no definitions, and only
imports Dagster, dagster-dlt and dlt. The memory is that of all processes, with the webserver and the daemon.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import psutil
import requests

many, folder, *how = sys.argv[1:]
EMPTY = "import dagster, dagster_dlt, dlt\n\ndefs = dagster.Definitions()\n"
LOCATION = (
    f"python_file: {{relative_path: {folder}/empty.py"
    if "empty" in how
    else "python_module: {module_name: simple_etl.definitions"
)
ENTRIES = """{ workspaceOrError { ... on Workspace { locationEntries {
    loadStatus locationOrLoadError { __typename } } } } }"""


def loaded(port: int) -> bool:
    """Return whether the UI shows all locations, each without an error."""
    try:
        url = f"http://127.0.0.1:{port}/graphql"
        answer = requests.post(url, json={"query": ENTRIES}, timeout=60).json()
    except requests.RequestException:
        return False
    entries = answer["data"]["workspaceOrError"]["locationEntries"]
    states = [entry["locationOrLoadError"] for entry in entries if entry["loadStatus"] == "LOADED"]
    failed = [state for state in states if state and state["__typename"] == "PythonError"]
    assert not failed, answer
    return len(states) == int(many) and None not in states


Path(folder, "dagster.yaml").write_text("telemetry: {enabled: false}\n")
Path(folder, "empty.py").write_text(EMPTY)
Path(folder, "workspace.yaml").write_text(
    "load_from:\n"
    + "".join(f"- {LOCATION}, location_name: location_{n}}}\n" for n in range(int(many)))
)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
program = Path(sys.executable).with_name("etl" if "preloaded" in how else "dagster")
began = time.perf_counter()
with Path(folder, "log").open("w") as log:
    started = subprocess.Popen(
        [program, "dev", "-w", "workspace.yaml", "-p", str(port)],
        cwd=folder,
        env={**os.environ, "DAGSTER_HOME": folder},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
process = psutil.Process(started.pid)
running = [process]
try:
    while not loaded(port):
        assert started.poll() is None, Path(folder, "log").read_text()
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    running += process.children(recursive=True)
    # The proportional set size counts shared memory once.
    memory = sum(each.memory_full_info().pss for each in running)
finally:
    os.killpg(started.pid, signal.SIGINT)
    started.wait()
    psutil.wait_procs(running, timeout=60)
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    connection.execute("CREATE TABLE bench.items AS FROM range(?)", [int(many)])
print(json.dumps({"seconds": seconds, "peak_mb": memory / 2**20}))
