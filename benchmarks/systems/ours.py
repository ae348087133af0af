"""This workspace: `csv_source` or `file_source` through its own pipeline.

With `dagster` as an asset's run, otherwise without Dagster, as plain dlt; with `bucket` from S3;
with `postgres` into a server; with `changed` or `unchanged` what is timed is a second load of the
file.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

file, folder, *how = sys.argv[1:]
name = Path(file).name
os.environ["WAREHOUSE_PATH"] = str(Path(folder) / "warehouse.duckdb")
os.environ["DROP_FOLDER"] = str(Path(file).parent)
started = ExitStack()
if "bucket" in how:
    import fsspec

    serve = (
        "from moto.server import ThreadedMotoServer as S; s = S('127.0.0.1', port=0, verbose=False);"
        " s.start(); print(s.get_host_and_port()[1], flush=True); input()"
    )
    server = started.enter_context(
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    assert server.stdout is not None
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "benchbench"}
    bucket = fsspec.filesystem("s3")
    bucket.mkdir("bench")
    bucket.put(file, f"bench/{name}")
    os.environ["DROP_FOLDER"] = "s3://bench"
if "postgres" in how:
    from shared.testing.postgres_server import PostgresServer

    address = started.enter_context(PostgresServer(Path(folder))).warehouse()
    os.environ["WAREHOUSE_TYPE"] = "postgres"
    os.environ["ETL_ENVIRONMENT"] = "production"
    os.environ["DESTINATION__WAREHOUSE__CREDENTIALS"] = address
if "changed" in how:
    os.environ["DROP_FOLDER"] = folder
    with Path(file).open() as lines, (Path(folder) / name).open("w") as copy:
        copy.writelines(line for number, line in enumerate(lines) if number != 1)

from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltSource

from shared import warehouse
from shared.sources.csv import CsvFormat, csv_source
from shared.sources.files import JsonLinesFormat, ParquetFormat, file_source

COLUMNS: dict[str, TColumnSchema] = {
    "id": {"data_type": "bigint", "nullable": False},
    "day": {"data_type": "date"},
    "code": {"data_type": "text"},
    "price": {"data_type": "decimal", "precision": 18, "scale": 2},
    "pieces": {"data_type": "bigint"},
    "note": {"data_type": "text"},
}
FORMATS = {".jsonl": JsonLinesFormat, ".parquet": ParquetFormat}
declared = warehouse.pipeline("bench", dataset_name="bench")


def source() -> DltSource:
    if file_format := FORMATS.get(Path(file).suffix):
        return file_source([name], "items", file_format(COLUMNS))
    return csv_source([name], "items", CsvFormat(columns=COLUMNS))


def as_asset() -> Callable[[], object]:
    """Return the run of an asset; Dagster is imported for it alone."""
    import dagster as dg
    from dagster_dlt import dlt_assets

    from shared.orchestration.resource import WarehouseDltResource
    from shared.orchestration.translator import WarehouseTranslator

    @dlt_assets(
        dlt_source=source(),
        dlt_pipeline=declared,
        dagster_dlt_translator=WarehouseTranslator("team:bench"),
        name="items",
    )
    def items(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context=context, partitions=[name])

    return partial(dg.materialize, [items], resources={"dlt": WarehouseDltResource()})


def as_pipeline() -> None:
    warehouse.load(warehouse.plan_load(declared, source(), [name]))


run = as_asset() if "dagster" in how else as_pipeline
ready = "changed" in how or "unchanged" in how
if ready:
    as_pipeline()
if "changed" in how:
    shutil.copy(file, Path(folder) / name)
began, spent_before = time.perf_counter(), time.process_time() if ready else 0
run()
spent = time.process_time() - spent_before
took = time.perf_counter() - began
((counted,),) = (row.values() for row in warehouse.query("SELECT count(*) AS n FROM bench.items"))
print(json.dumps({"seconds": took, "cpu_seconds": spent, "rows": counted}))
if "bucket" in how:
    server.kill()
started.close()
