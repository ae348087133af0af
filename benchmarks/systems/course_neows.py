# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["dlt[duckdb]==1.31.*"]
# ///
"""A tutorial's way: the feeds' objects as dictionaries, and dlt's defaults."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt

feeds, folder = sys.argv[1:]


@dlt.resource(name="items", write_disposition="replace")
def items() -> Iterator[Any]:
    """Yield the objects of the feeds."""
    for feed in sorted(Path(feeds).glob("*.json")):
        yield from json.loads(feed.read_text())["near_earth_objects"].values()


began = time.perf_counter()
dlt.pipeline(
    "course",
    pipelines_dir=folder,
    destination=dlt.destinations.duckdb(str(Path(folder) / "warehouse.duckdb")),
    dataset_name="bench",
).run(items())
print(json.dumps({"seconds": time.perf_counter() - began}))
