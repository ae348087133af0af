"""The partitions of a run, and what Dagster stores for each of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from shared import warehouse
from shared.orchestration.dagster_internals import is_subset
from shared.orchestration.metadata import LOADED_ROWS, ROW_HISTORY_KEY
from shared.sources.partitions import PartitionKey, TimeWindow, time_window

PARTITION_METADATA = ("dlt_load_id", ROW_HISTORY_KEY, "dagster/row_count", "dagster/table_name")
"""The metadata of a load that each of its partitions has."""

LOAD_NUMBERS = ("rows_loaded", "bytes_read", "duration_seconds")
"""The numbers of a load, which one of its partitions has, so that their sum over all events is right."""

_MAX_PARTITIONS_WITH_METADATA = 100  # with more, Dagster needs more time for each


def partitions_of(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    look_back: int = 0,
    keys: Sequence[str] | None = None,
) -> list[PartitionKey]:
    """Return the partitions of a run with their time windows and dimensions.

    Args:
        context: the run's.
        look_back: how many partitions before each of them are loaded again, because rows arrive late.
            The first partitions of the asset have fewer before them.
        keys: some of the run's partitions; by default all.

    Raises:
        ValueError: `look_back` is set, and the partitions have no order in time.
    """
    definition = context.assets_def.partitions_def
    assert definition is not None
    keys = context.partition_keys if keys is None else keys
    if look_back:
        if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
            raise ValueError(f"look_back needs partitions with time windows, not {definition}")
        every = list(definition.get_partition_keys())
        positions = {key: position for position, key in enumerate(every)}
        wanted = {
            position
            for key in keys
            for position in range(max(0, positions[key] - look_back), positions[key] + 1)
        }
        keys = [every[position] for position in sorted(wanted)]
    return [partition_key(definition, key) for key in keys]


def adjoining_batches(
    partitions: Sequence[PartitionKey], size: int, *, split: bool
) -> Iterator[list[PartitionKey]]:
    """Yield partitions in batches of a size.

    Args:
        partitions: the partitions, in order.
        size: the maximum number of partitions in a batch.
        split: whether the time windows of a batch must adjoin.
    """
    batch: list[PartitionKey] = []
    for key in partitions:
        gap = split and batch and time_window([batch[-1], key]) is None
        if batch and (gap or len(batch) == size):
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def partition_key(definition: dg.PartitionsDefinition[Any], key: str) -> PartitionKey:
    """Return a partition's key with its time window and dimensions."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        window = definition.time_window_for_partition_key(key)
        return PartitionKey(key, TimeWindow(window.start, window.end))
    if isinstance(definition, dg.MultiPartitionsDefinition):
        keys = definition.get_partition_key_from_str(key).keys_by_dimension
        dimensions = {
            dimension.name: partition_key(dimension.partitions_def, keys[dimension.name])
            for dimension in definition.partitions_defs
        }
        return PartitionKey(key, dimensions=dimensions)
    return PartitionKey(key)


def partition_row_counts(
    result: Any, load: warehouse.LoadResult, partitions: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return how many rows each partition of a table has after a load, as Dagster's metadata."""
    table = result.metadata.get("dagster/table_name", "").rpartition(".")[2]
    if table not in load.tables:  # the asset has several tables
        return {}
    replaced = load.scopes.get(table)
    rows = load.tables[table].partition_row_counts
    if replaced is None or not rows:
        return {}
    # The load's partitions are those of the run, or at the same positions.
    values = dict.fromkeys(replaced.partitions)
    by_position = (
        dict(zip(partitions, values, strict=True)) if len(values) == len(partitions) else {}
    )
    named = {key: key if key in values else by_position.get(key) for key in partitions}
    return {
        partition: {"dagster/partition_row_count": rows.get(value, 0)}
        for partition, value in named.items()
        if value is not None
    }


def report(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    result: Any,
    load: warehouse.LoadResult,
    partition_metadata: Mapping[str, Any] | None = None,
    earlier_counts: Mapping[str, dict[str, int]] | None = None,
) -> Iterator[Any]:
    """Yield a materialization, and attach its metadata to the run's last partition only.

    Dagster would store it, with preview and columns, once for each of thousands of partitions. Of an
    asset that is loaded and not selected, such as that of a nested table, the materialization is logged.

    Args:
        context: the run's.
        result: the materialization.
        load: the result of the load.
        partition_metadata: metadata for each partition.
        earlier_counts: the row counts of partitions that earlier loads of the run replaced.
    """
    is_selected = not is_subset(context) or result.asset_key in context.selected_asset_keys
    if not isinstance(context, dg.AssetExecutionContext) or not (
        context.has_partition_key or context.has_partition_key_range
    ):
        if is_selected:
            yield result
        else:
            context.log_event(dg.AssetMaterialization(result.asset_key, metadata=result.metadata))
        return
    partitions, counts = list(context.partition_keys), dict(earlier_counts or {})
    if len(partitions) <= _MAX_PARTITIONS_WITH_METADATA:
        counts |= partition_row_counts(result, load, partitions)
    # Dagster logs partitions that are not days in any order; readers of the latest event need these.
    kept = {name: result.metadata[name] for name in PARTITION_METADATA if name in result.metadata}
    kept |= partition_metadata or {}
    if not is_selected:
        for partition in partitions:
            metadata = {**kept, **counts.get(partition, {})}
            if partition == partitions[-1]:
                metadata = {**result.metadata, **metadata}
            context.log_event(
                dg.AssetMaterialization(result.asset_key, partition=partition, metadata=metadata)
            )
        return
    for partition, rows in counts.items():
        context.add_asset_metadata(rows, result.asset_key, partition)
    context.add_asset_metadata(result.metadata, result.asset_key, partitions[-1])
    yield result._replace(metadata=kept)


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
            is_last = partition == partitions[-1]
            names = (*PARTITION_METADATA, *((*LOAD_NUMBERS, LOADED_ROWS) if is_last else ()))
            metadata = {
                **progress.metadata(),
                **rows.get(partition, {}),
                **{name: result.metadata[name] for name in names if name in result.metadata},
            }
            context.log_event(
                dg.AssetMaterialization(
                    asset_key=result.asset_key, partition=partition, metadata=metadata
                )
            )
