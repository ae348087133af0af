"""This workspace: `etl run` of an asset of one of its locations.

It runs in a copy of the files that list the locations, with a new instance.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

root, folder = Path(__file__).parents[2], Path(sys.argv[2])
for file in [
    root / "workspace.yaml",
    root / "dagster.yaml",
    *root.glob("projects/*/contract.json"),
]:
    copy = folder / file.relative_to(root)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, copy)
variables = {"WAREHOUSE_PATH": str(folder / "warehouse.duckdb"), "DAGSTER_HOME": str(folder)}
began = time.perf_counter()
done = subprocess.run(
    [sys.executable, "-m", "shared.cli", "run", "simple/load_dict", "--json"],
    cwd=folder,
    env={**os.environ, **variables},
    stdout=subprocess.PIPE,
    check=True,
)
seconds = time.perf_counter() - began
(result,) = json.loads(done.stdout)
print(json.dumps({"seconds": seconds, "rows": result["rows"]}))
