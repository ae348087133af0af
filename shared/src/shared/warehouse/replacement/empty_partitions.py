"""A load of a partition replaces its old rows also when the source has no rows for it (dlt issue 263)."""

from collections.abc import Iterable

import dlt
from dlt.common.schema import Schema
from dlt.common.storages.load_package import ParsedLoadJobFileName, create_load_id

from shared.lazy_modules import pyarrow_parquet as pq
from shared.sources.hints import arrow_schema
from shared.warehouse.dlt_internals import package_storage


def add_empty_tables(pipeline: dlt.Pipeline, schema: Schema, tables: Iterable[str]) -> None:
    """Give each table that a normalized load replaces a file without rows, if it has no file.

    dlt deletes the old rows of a table only if the load has a file for it. Resources that a team did not
    write, such as those of `rest_api`, cannot yield an empty table.
    """
    packages = package_storage(pipeline)
    load_ids = pipeline.list_normalized_load_packages()
    filled = {
        ParsedLoadJobFileName.parse(file).table_name
        for load_id in load_ids
        for file in packages.list_new_jobs(load_id)
    }
    missing = [table for table in tables if table not in filled]
    if not missing:
        return
    if not load_ids:
        load_ids = [create_load_id()]
        packages.create_package(load_ids[0], schema=schema)
        packages.save_schema_updates(load_ids[0], {})  # without it, staging tables keep old rows
    for table in missing:
        name = ParsedLoadJobFileName(table, ParsedLoadJobFileName.new_file_id(), 0, "parquet")
        file = packages.get_job_file_path(load_ids[0], "new_jobs", name.file_name())
        rows = arrow_schema(schema.get_table_columns(table)).empty_table()
        pq.write_table(rows, packages.storage.make_full_path(file))
