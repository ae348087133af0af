# /// script
# requires-python = "==3.11.*"
# dependencies = ["ingestr==0.13.94"]
# ///
"""ingestr's command line, with its defaults."""

import json
import subprocess
import sys
import time
from pathlib import Path

file, folder = sys.argv[1:]
began = time.perf_counter()
subprocess.run(
    [
        Path(sys.executable).with_name("ingestr"),
        "ingest",
        "--yes",
        *("--source-uri", f"csv://{file}", "--source-table", "items"),
        *("--dest-uri", f"duckdb:///{folder}/warehouse.duckdb", "--dest-table", "bench.items"),
    ],
    check=True,
    stdout=sys.stderr,
)
print(json.dumps({"seconds": time.perf_counter() - began}))
