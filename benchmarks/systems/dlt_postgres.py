"""Plain dlt: Arrow's CSV reader into Postgres, in dlt's default format."""

import json
import sys
import time
from pathlib import Path

import dlt
from pyarrow import csv

from shared.testing.postgres_server import PostgresServer

file, folder = Path(sys.argv[1]), Path(sys.argv[2])
with PostgresServer(folder) as server:
    address = server.warehouse()
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.postgres(address),
        dataset_name="bench",
    )
    began = time.perf_counter()
    pipeline.run(csv.open_csv(file), table_name="items", write_disposition="replace")
    took = time.perf_counter() - began
    with pipeline.sql_client() as client:
        ((counted,),) = client.execute_sql("SELECT count(*) FROM bench.items")
print(json.dumps({"seconds": took, "rows": counted}))
