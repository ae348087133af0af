"""Materializations and metadata that Dagster stores for each partition of a load."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from shared import warehouse
from shared.orchestration.metadata import ROW_HISTORY_KEY

PARTITION_METADATA = ("dlt_load_id", ROW_HISTORY_KEY, "dagster/row_count", "dagster/table_name")
"""The metadata of a load that each of its partitions has."""

_MAX_PARTITIONS_WITH_METADATA = 100  # with more, Dagster needs more time for each


def partition_row_counts(
    result: Any, load: warehouse.LoadResult, partitions: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return how many rows each partition of a table has after a load, as Dagster's metadata."""
    table = result.metadata["dagster/table_name"].rpartition(".")[2]
    replaced = load.scopes.get(table)
    rows = load.tables[table].partition_row_counts
    if replaced is None or not rows.keys() <= set(replaced.partition_keys):
        return {}  # the database formats the values differently
    # A partition's key is the value of the partition column, or it is at the same position.
    values = dict.fromkeys(replaced.partition_keys)
    by_position = (
        dict(zip(partitions, values, strict=True)) if len(values) == len(partitions) else {}
    )
    named = {key: key if key in values else by_position.get(key) for key in partitions}
    return {
        partition: {"dagster/partition_row_count": rows.get(value, 0)}
        for partition, value in named.items()
        if value is not None
    }


def attach_partition_metadata(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    result: Any,
    load: warehouse.LoadResult,
    partition_metadata: Mapping[str, Any] | None = None,
    earlier_counts: Mapping[str, dict[str, int]] | None = None,
) -> Any:
    """Return a materialization, and attach its metadata to the run's last partition only.

    Dagster would store it, with preview and columns, once for each of thousands of partitions.

    Args:
        context: the run's.
        result: the materialization.
        load: the result of the load.
        partition_metadata: metadata for each partition.
        earlier_counts: the row counts of partitions that earlier loads of the run replaced.
    """
    if not isinstance(context, dg.AssetExecutionContext) or not (
        context.has_partition_key or context.has_partition_key_range
    ):
        return result
    partitions = list(context.partition_keys)
    if len(partitions) <= _MAX_PARTITIONS_WITH_METADATA:
        rows = {**(earlier_counts or {}), **partition_row_counts(result, load, partitions)}
        for partition, counts in rows.items():
            context.add_asset_metadata(counts, result.asset_key, partition)
    context.add_asset_metadata(result.metadata, result.asset_key, partitions[-1])
    # Dagster logs partitions that are not days in any order; readers of the latest event need these.
    kept = {name: result.metadata[name] for name in PARTITION_METADATA if name in result.metadata}
    return result._replace(metadata={**kept, **(partition_metadata or {})})


def log_materializations(
    context: dg.AssetExecutionContext,
    partitions: Sequence[str],
    results: Sequence[Any],
    load: warehouse.LoadResult,
    progress: Any,
) -> None:
    """Log the materialization of partitions that are loaded while the step continues."""
    for result in results:
        rows = partition_row_counts(result, load, partitions)
        for partition in partitions:
            metadata = {
                **progress.metadata(),
                **rows.get(partition, {}),
                **{name: result.metadata.get(name) for name in PARTITION_METADATA},
            }
            context.log_event(
                dg.AssetMaterialization(
                    asset_key=result.asset_key, partition=partition, metadata=metadata
                )
            )
