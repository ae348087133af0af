"""Merge into a load's schema what other runs stored since it began."""

import json

import dlt
from dlt.common.destination.client import WithStateSync
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema

from shared.warehouse.dlt_internals import package_storage
from shared.warehouse.errors import ConcurrentSchemaChangeError


def merge_stored_schema(pipeline: dlt.Pipeline) -> None:
    """Add the tables and columns that other runs stored to the packages that are about to load.

    dlt stores the schema that a run began with and what that run added. A table that a run of another
    partition added in between would be missing from the newest version, and from then on nothing would
    delete from it.

    Raises:
        ConcurrentSchemaChangeError: a column has another type there.
    """
    packages = package_storage(pipeline)
    for load_id in pipeline.list_normalized_load_packages():
        schema = packages.load_schema(load_id)
        with pipeline.destination_client(schema.name) as client:
            if not client.is_storage_initialized():
                return
            assert isinstance(client, WithStateSync)
            stored = client.get_stored_schema(schema.name)
        known = {schema.stored_version_hash, *schema.previous_hashes}
        if stored is None or stored.version_hash in known:
            continue
        newest = Schema.from_stored_schema(json.loads(stored.schema))
        for table in newest.data_tables(include_incomplete=True):
            _add_table(schema, table)
        packages.save_schema(load_id, schema)
        pipeline.schemas.save_schema(schema)


def _add_table(schema: Schema, stored: TTableSchema) -> None:
    name = stored["name"]
    if name not in schema.tables:
        schema.update_table(stored, normalize_identifiers=False)
        return
    columns = schema.tables[name]["columns"]
    for column, hints in stored["columns"].items():
        ours, theirs = columns.get(column, {}).get("data_type"), hints.get("data_type")
        if ours is None:
            columns[column] = hints
        elif theirs not in (None, ours):
            raise ConcurrentSchemaChangeError(
                f"{schema.name}: another run has just added {name}.{column} as {theirs}, and this run "
                f"has {ours}; nothing was loaded. Run it again; then the schema contract decides."
            )
