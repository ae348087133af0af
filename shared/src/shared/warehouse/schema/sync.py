"""Merge into a load's schema what other runs stored since it began."""

import json
from collections.abc import Mapping
from typing import Any

import dlt
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema

from shared.warehouse.dlt_internals import package_storage
from shared.warehouse.errors import ConcurrentSchemaChangeError
from shared.warehouse.rows.normalizer import with_normalizers, without_normalizers

COMMENTS_DIGEST_HINT = "x-comments-digest"
"""The table hint that changes with the comments of a table and of those that belong to it."""


def save_plain_schemas(pipeline: dlt.Pipeline, digests: Mapping[str, str]) -> dict[str, Schema]:
    """Write the schemas of the normalized packages as plain dlt can read them; return them by load id.

    No client is needed, so the dataset need not be locked.

    Args:
        pipeline: the pipeline, with normalized packages.
        digests: by table, a text that changes with its comments. The version of the schema then changes, too.
    """
    packages = package_storage(pipeline)
    schemas = {}
    for load_id in pipeline.list_normalized_load_packages():
        schema = without_normalizers(packages.load_schema(load_id))
        for table in schema.tables.keys() & digests.keys():
            schema.tables[table][COMMENTS_DIGEST_HINT] = digests[table]  # type: ignore[literal-required]
        packages.save_schema(load_id, schema)
        schemas[load_id] = packages.load_schema(load_id)  # it has the new version
    return schemas


def merge_stored_schema(
    pipeline: dlt.Pipeline,
    client: Any,
    schemas: Mapping[str, Schema],
    restored: Mapping[str, str | None],
) -> None:
    """Add the tables and columns that other runs stored to the packages that are about to load.

    dlt stores the schema that a run began with and what that run added. A table that a run of another
    partition added in between would be missing from the newest version, and from then on nothing would
    delete from it.

    Args:
        pipeline: the pipeline, with normalized packages.
        client: the client of the destination.
        schemas: the schemas of the packages by load id, as they will be stored. They are changed in place.
        restored: the hashes of the versions that the load began with, by schema.

    Raises:
        ConcurrentSchemaChangeError: a column has another type there, or `etl migrate` has changed it.
    """
    for load_id, schema in schemas.items():
        stored = client.get_stored_schema(schema.name)
        began_with = restored.get(schema.name)
        if stored is None or stored.version_hash in (schema.stored_version_hash, began_with):
            continue
        newest = _schema(stored)
        if base := began_with and client.get_stored_schema_by_hash(began_with):
            _reject_migrated(_schema(base), newest)
        for table in newest.data_tables(include_incomplete=True):
            _add_table(schema, table)
        package_storage(pipeline).save_schema(load_id, schema)
        pipeline.schemas.save_schema(with_normalizers(schema))


def allow_null(pipeline: dlt.Pipeline, table: str, column: str) -> None:
    """Let a column of the packages that are about to load be NULL, in rows that do not have it."""
    packages = package_storage(pipeline)
    for load_id in pipeline.list_normalized_load_packages():
        schema = packages.load_schema(load_id)
        if column in schema.tables.get(table, {}).get("columns", {}):
            schema.tables[table]["columns"][column]["nullable"] = True
            packages.save_schema(load_id, schema)
            pipeline.schemas.save_schema(with_normalizers(schema))


def _schema(stored: Any) -> Schema:
    return Schema.from_stored_schema(json.loads(stored.schema))


def _reject_migrated(base: Schema, newest: Schema) -> None:
    """Reject a load that would undo what `etl migrate` changed since it began."""
    kept = ("data_type", "precision", "scale", "nullable")
    for table in base.data_tables():
        name = str(table["name"])
        columns = newest.tables[name]["columns"] if name in newest.tables else {}
        own = {key: hints for key, hints in table["columns"].items() if not key.startswith("_dlt_")}
        for column, hints in own.items():
            now = columns.get(column)
            if now is None or any(hints.get(key) != now.get(key) for key in kept):
                raise ConcurrentSchemaChangeError(
                    f"{base.name}: {name}.{column} was changed while this run extracted; nothing was "
                    "loaded. Run it again."
                )


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
