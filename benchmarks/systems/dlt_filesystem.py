# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["dlt[duckdb,filesystem,parquet]==1.31.*", "pandas", "numpy"]
# ///
"""dlt as its documentation shows it: the filesystem source, read by DuckDB into Arrow."""

import json
import sys
import time
from pathlib import Path

import dlt
from dlt.sources.filesystem import filesystem, read_csv_duckdb

file, folder = sys.argv[1:]
files = filesystem(bucket_url=Path(file).parent.as_uri(), file_glob=Path(file).name)
rows = (files | read_csv_duckdb(use_pyarrow=True)).with_name("items")
began = time.perf_counter()
dlt.pipeline(
    "filesystem",
    pipelines_dir=folder,
    destination=dlt.destinations.duckdb(str(Path(folder) / "warehouse.duckdb")),
    dataset_name="bench",
).run(rows, write_disposition="replace")
print(json.dumps({"seconds": time.perf_counter() - began}))
