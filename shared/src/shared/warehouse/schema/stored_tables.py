"""Compare the tables of a load with the warehouse before anything is loaded."""

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import dlt
from dlt.common.schema import Schema
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import get_nested_tables, get_root_table
from dlt.destinations.job_client_impl import SqlJobClientBase, SqlJobClientWithStagingDataset
from dlt.extract import DltSource

from shared.warehouse.errors import LoadPlanError, SchemaContractError
from shared.warehouse.locks.base import Log
from shared.warehouse.schema.change import TableChange
from shared.warehouse.schema.sync import allow_null
from shared.warehouse.scope import PARTITION_COLUMN


def restore_dropped(
    client: Any, pipeline: dlt.Pipeline, source: DltSource, tables: Collection[str], log: Log
) -> None:
    """Create tables and columns again that somebody dropped by hand.

    dlt compares the warehouse with a schema only when it stores a new version of that schema.

    Args:
        client: the client of the destination, with the schema of the load.
        pipeline: the pipeline, with normalized packages.
        source: what was extracted.
        tables: the tables of the packages.
        log: receives what is created again.

    Raises:
        LoadPlanError: a dropped table has a cursor: its older rows would not come back.
        SchemaContractError: a new column may not be NULL, and the table has rows.
    """
    if not isinstance(client, SqlJobClientBase):
        return
    dataset = pipeline.dataset_name
    schema = client.schema
    missing = {name: columns for name, columns in _missing(client, tables) if columns}
    stored = client.get_stored_schema(schema.name) if missing else None
    if stored is None:
        return
    known = Schema.from_stored_schema(json.loads(stored.schema)).tables
    dropped = []
    for name, columns in missing.items():
        exists, _ = client.get_storage_table(name)
        if exists:
            _reject_required(client, dataset, name, columns)
            if any(column["name"] == "_dlt_load_id" for column in columns):
                allow_null(pipeline, name, "_dlt_load_id")  # plain dlt loaded Arrow tables
        known_columns = known[name]["columns"] if name in known else {}
        lost = [str(column["name"]) for column in columns if column["name"] in known_columns]
        if not lost:
            continue  # new, so dlt creates it
        if not exists:
            _reject_cursor(schema, dataset, name, source)
        dropped.append(name)
        what = (
            f"the columns {', '.join(lost)} of {dataset}.{name}" if exists else f"{dataset}.{name}"
        )
        log(
            f"Creating {what} again, which the warehouse no longer has; the dropped values stay lost."
        )
    if dropped and client.get_stored_schema_by_hash(schema.stored_version_hash) is not None:
        client.update_stored_schema(only_tables=dropped, force=True)
    _clean_up(client, dropped, missing)


def _clean_up(client: Any, dropped: Collection[str], missing: Collection[str]) -> None:
    if dropped:
        _drop_staging(client)
    for name in dropped:
        _delete_orphans(client, name, missing)


def _drop_staging(client: Any) -> None:
    """Drop the staging dataset, which each load fills: its tables have the old columns."""
    if isinstance(client, SqlJobClientWithStagingDataset):
        with client.with_staging_dataset():
            if client.is_storage_initialized():
                client.drop_storage()


def _delete_orphans(client: Any, table: str, missing: Collection[str]) -> None:
    """Delete the nested rows of a table without rows: a merge finds those to replace by their roots."""
    for nested in get_nested_tables(client.schema.tables, table)[1:]:
        name = str(nested["name"])
        if name not in missing and not client.row_count(table):
            client.sql_client.execute_sql(
                f"DELETE FROM {client.sql_client.make_qualified_table_name(name)}"
            )


def _missing(client: Any, tables: Collection[str]) -> Iterator[tuple[str, list[TColumnSchema]]]:
    """Yield the columns that the warehouse does not have, by table, nested tables included."""
    schema: Schema = client.schema
    names = {
        str(nested["name"])
        for table in tables
        if table in schema.tables
        for nested in get_nested_tables(schema.tables, table)
    }
    case_sensitive = client.capabilities.generates_case_sensitive_identifiers()
    for name, columns in client.stored_columns(sorted(names)):
        yield name, schema.get_new_table_columns(name, columns, case_sensitive)


def _reject_required(
    client: Any, dataset: str, table: str, columns: Sequence[TColumnSchema]
) -> None:
    """Reject a new column without NULL: the rows that the table has would have no value for it."""
    required = [
        str(column["name"])
        for column in columns
        if not column.get("nullable", True) and column["name"] != "_dlt_load_id"
    ]
    rows = client.row_count(table) if required else 0
    if rows and PARTITION_COLUMN in required:
        raise LoadPlanError(
            f"{dataset}.{table} has {rows} row{'s' * (rows > 1)} of loads without partitions, which would "
            "stay beside those of the partitions; nothing was loaded. Load by partition into a new "
            f"table, or drop the table and load all of its partitions: DROP TABLE {dataset}.{table}."
        )
    if rows and required[0].startswith("_dlt_"):
        root = get_root_table(client.schema.tables, table)["name"]
        raise LoadPlanError(
            f"{dataset}.{table} has {rows} row{'s' * (rows > 1)} without {required[0]}, by which this "
            f"write disposition finds the nested rows of {dataset}.{root}; nothing was loaded. Drop "
            f"both tables, and load all rows again: DROP TABLE {dataset}.{table}."
        )
    if rows:
        later = TableChange(dataset, table, required[0], nullable=False)
        raise SchemaContractError(
            f"{dataset}.{table} has {rows} row{'s' * (rows > 1)} and no column {required[0]}, which the "
            "code declares as never NULL: these rows have no value for it; nothing was loaded. Declare "
            f"it nullable, load, fill the older rows, then run: {later.command}"
        )


def _reject_cursor(schema: Schema, dataset: str, table: str, source: DltSource) -> None:
    """Reject a load that would bring only the rows after the cursor of a dropped table."""
    name = str(get_root_table(schema.tables, table).get("resource"))
    step: Any = source.resources[name].incremental if name in source.resources else None
    cursor = getattr(step, "incremental", step)
    if cursor is not None and cursor.end_value is None:
        raise LoadPlanError(
            f"{dataset}.{table} was dropped from the warehouse, and the cursor {cursor.cursor_path} of "
            f"{name} goes on after its last row: the older rows would be missing; nothing was loaded. "
            'Load all rows again with dlt.run(..., refresh="drop_resources").'
        )
