"""One location of this workspace loaded, and its asset materialized, in one process without `etl`.

The run is stored in the instance of the workspace's dagster.yaml, as that of `ours_start.py`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

root, folder = Path(__file__).parents[2], Path(sys.argv[2])
shutil.copy(root / "dagster.yaml", folder)
BODY = """
import dagster as dg
from shared.orchestration.resource import WarehouseDltResource
from simple_etl.definitions import defs

with dg.DagsterInstance.get() as instance:
    run = dg.materialize(
        defs.assets, instance=instance, resources={"dlt": WarehouseDltResource()}
    )
assert run.success
"""
variables = {"WAREHOUSE_PATH": str(folder / "warehouse.duckdb"), "DAGSTER_HOME": str(folder)}
began = time.perf_counter()
subprocess.run(
    [sys.executable, "-c", BODY], cwd=folder, env={**os.environ, **variables}, check=True
)
seconds = time.perf_counter() - began

import duckdb

with duckdb.connect(variables["WAREHOUSE_PATH"], read_only=True) as connection:
    ((rows,),) = connection.execute("SELECT count(*) FROM simple.load_dict").fetchall()
print(json.dumps({"seconds": seconds, "rows": rows}))
