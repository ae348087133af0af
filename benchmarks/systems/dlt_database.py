# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "dlt[duckdb,postgres,parquet,sql_database]==1.31.*", "connectorx==0.4.6", "psycopg[binary]", "psycopg2-binary",
# ]
# ///
"""Plain dlt: its source `sql_database` with one of its backends, and its defaults."""

import sys
import time

import dlt
from database_target import Target
from dlt.sources.sql_database import sql_database

source, folder, kind, backend = sys.argv[1:]
target = Target(source, folder, kind)
destination = (
    dlt.destinations.postgres(target.url)
    if kind == "postgres"
    else dlt.destinations.duckdb(str(target.file))
)
pipeline = dlt.pipeline(
    "bench",
    pipelines_dir=f"{folder}/pipelines",
    destination=destination,
    dataset_name="bench",
)
began = time.perf_counter()
tables = sql_database(source, table_names=["orders"], backend=backend)
pipeline.run(tables, write_disposition="replace")
target.report(time.perf_counter() - began)
