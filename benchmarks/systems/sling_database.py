# /// script
# requires-python = "==3.11.*"
# dependencies = ["sling-linux-amd64==1.4.11", "psycopg2-binary", "duckdb"]
# ///
"""Sling's command line, with its defaults. Into DuckDB it downloads DuckDB's command line first."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg2
from database_target import Target
from sling_linux_amd64 import SLING_BIN

source, folder, kind = sys.argv[1:]
target = Target(source, folder, kind)
with psycopg2.connect(target.url) as connection, connection.cursor() as cursor:
    cursor.execute("CREATE SCHEMA bench")
Path(SLING_BIN).chmod(0o755)
connections = {
    "SHOP": f"{source}?sslmode=disable",
    "BENCH": f"{target.url}?sslmode=disable",
    "HOME": folder,
}
began = time.perf_counter()
subprocess.run(
    [
        *(SLING_BIN, "run", "--mode", "full-refresh"),
        *("--src-conn", "SHOP", "--src-stream", "public.orders"),
        *("--tgt-conn", "BENCH", "--tgt-object", "bench.orders"),
    ],
    check=True,
    stdout=sys.stderr,
    env={**os.environ, **connections},
)
target.report(time.perf_counter() - began)
