# /// script
# requires-python = "==3.11.*"
# dependencies = ["tap-csv-folder==0.0.1a1", "target-duckdb==0.8.0"]
# ///
"""A Singer tap piped into a Singer target, with their defaults."""

import json
import subprocess
import sys
import time
from pathlib import Path

file, folder = map(Path, sys.argv[1:])
programs = Path(sys.executable).parent
(folder / "in").mkdir()
(folder / "in" / "items.csv").symlink_to(file)
tap = {
    "filesystem": "local",
    "path": str(folder / "in"),
    "read_mode": "merge",
    "stream_name": "items",
}
target = {"path": str(folder / "warehouse.duckdb"), "default_target_schema": "bench"}
(folder / "tap.json").write_text(json.dumps(tap))
(folder / "target.json").write_text(json.dumps(target))
began = time.perf_counter()
with subprocess.Popen(
    [programs / "tap-csv-folder", "--config", folder / "tap.json"],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
) as reading:
    subprocess.run(
        [programs / "target-duckdb", "-c", folder / "target.json"],
        stdin=reading.stdout,
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
        check=True,
    )
assert reading.returncode == 0, "the tap failed"
print(json.dumps({"seconds": time.perf_counter() - began}))
