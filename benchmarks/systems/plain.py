"""dlt and dagster-dlt alone, as their documentation shows them: the rows of a small file in a list.

With `dagster` as an asset's run. The virtual environment is that of the workspace, whose DuckDB 2.0 has no
`fetchmany` for dlt's `read_csv_duckdb`.
"""

import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dlt

file, folder, *how = sys.argv[1:]


@dlt.source
def bench() -> object:
    with Path(file).open() as lines:
        rows = list(csv.DictReader(lines))
    return dlt.resource(rows, name="items", write_disposition="replace")


pipeline = dlt.pipeline(
    "bench",
    pipelines_dir=folder,
    destination=dlt.destinations.duckdb(str(Path(folder) / "warehouse.duckdb")),
    dataset_name="bench",
)
began = time.perf_counter()
if "dagster" in how:
    import dagster as dg
    from dagster_dlt import DagsterDltResource, dlt_assets

    @dlt_assets(dlt_source=bench(), dlt_pipeline=pipeline)
    def items(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
        yield from dlt.run(context=context)

    assert dg.materialize([items], resources={"dlt": DagsterDltResource()}).success
else:
    pipeline.run(bench())
took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time()}
print(json.dumps(took))
