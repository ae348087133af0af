# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["dlt[duckdb]==1.31.*", "pandas", "numpy"]
# ///
"""A tutorial's way: pandas reads the file, dlt gets dictionaries and keeps its defaults."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pandas as pd

file, folder = sys.argv[1:]


@dlt.resource(name="items", write_disposition="replace")
def items() -> Iterator[Any]:
    """Yield the rows of the file."""
    yield pd.read_csv(file).to_dict(orient="records")


began = time.perf_counter()
dlt.pipeline(
    "course",
    pipelines_dir=folder,
    destination=dlt.destinations.duckdb(str(Path(folder) / "warehouse.duckdb")),
    dataset_name="bench",
).run(items())
print(json.dumps({"seconds": time.perf_counter() - began}))
