"""This workspace: `database_source` through its own pipeline.

With `incremental` the first load of an incremental table; with `nothing_new` what is timed is the next one,
which finds nothing.
"""

import os
import sys
import time

source, folder, kind, *how = sys.argv[1:]
from database_target import Target

target = Target(source, folder, kind)
os.environ["SOURCES__SHOP__CREDENTIALS"] = source
os.environ["WAREHOUSE_PATH"] = str(target.file)
if kind == "postgres":
    os.environ["WAREHOUSE_TYPE"] = "postgres"
    os.environ["ETL_ENVIRONMENT"] = "production"
    os.environ["DESTINATION__WAREHOUSE__CREDENTIALS"] = target.url

from shared import warehouse
from shared.sources.database.source import database_source
from shared.sources.database.table import Table

orders = Table("orders", mode="incremental" if how else "full", key="id")
declared = warehouse.pipeline("bench", dataset_name="bench")


def load() -> None:
    warehouse.load(warehouse.plan_load(declared, database_source([orders], "shop")))


if "nothing_new" in how:
    load()
began, spent = time.perf_counter(), time.process_time() if "nothing_new" in how else 0
load()
seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - spent
target.report(seconds, cpu_seconds)
