"""A run in batches of partitions: which are pending, the progress, and when it is retried."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg

from shared.orchestration.dagster_internals import (
    materialized_partitions,
    retry_number,
    run_records,
)
from shared.orchestration.partitions import PARTITION_METADATA
from shared.orchestration.related_tables import selected_roots
from shared.sources.protocol import RetryLaterError

ONLY_MISSING = "etl/only_missing"
"""The run tag that skips partitions which any run has materialized before."""

MAX_RETRIES = 100
"""How often a run retries when upstream accepts no more requests for now."""


def require_batch_size(partitions_per_batch: int) -> None:
    """Check that a batch has partitions.

    Raises:
        ValueError: it has none.
    """
    if partitions_per_batch < 1:
        raise ValueError(f"partitions_per_batch is {partitions_per_batch}; it must be at least 1")


def results_without_load(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
    """Yield the results of a run whose partitions are all loaded, with the latest metadata."""
    context.log.info("All partitions of the run are loaded; no request was sent.")
    # Dagster wants a nested table after its parent; the definition has them in that order.
    for key in (spec.key for spec in context.assets_def.specs):
        if key not in context.selected_asset_keys:
            continue
        event = context.instance.get_latest_materialization_event(key)
        latest = event.asset_materialization if event else None
        metadata = latest.metadata if latest else {}
        kept = {name: metadata[name] for name in PARTITION_METADATA if name in metadata}
        yield dg.MaterializeResult(asset_key=key, metadata=kept)


def pending_partitions(
    context: dg.AssetExecutionContext, loaded_earlier: Mapping[str, Any]
) -> list[str]:
    """Return the run's partitions without those that are already loaded."""
    loaded = set(loaded_earlier)
    if context.run.tags.get(ONLY_MISSING) == "true":
        loaded |= set.intersection(
            *(materialized_partitions(context.instance, key) for key in selected_roots(context))
        )
    return [partition for partition in context.partition_keys if partition not in loaded]


def loaded_in_this_run(context: dg.AssetExecutionContext) -> dict[str, Mapping[str, Any]]:
    """Return the partitions that earlier attempts of the step loaded for all of its assets.

    The values are the metadata of their materializations, with the run's progress.
    """
    loaded: dict[dg.AssetKey, dict[str, Mapping[str, Any]]] = {
        key: {} for key in selected_roots(context)
    }
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    is_retry = retry_number(context) > 0
    for record in run_records(context.instance, context.run.run_id, kind) if is_retry else ():
        event = record.asset_materialization
        if event and event.asset_key in loaded and event.partition is not None:
            values = {name: value.value for name, value in event.metadata.items()}
            loaded[event.asset_key][event.partition] = values
    in_all_assets = set.intersection(*(set(partitions) for partitions in loaded.values()))
    first = next(iter(loaded.values()))
    return {key: metadata for key, metadata in first.items() if key in in_all_assets}


def retry_request(
    context: dg.AssetExecutionContext, why: RetryLaterError, progress: "BatchProgress", loaded: bool
) -> dg.RetryRequested:
    """Log and return the request that Dagster retries the step later.

    An attempt that has loaded something does not count as one of the `MAX_RETRIES`.
    """
    context.log.warning(
        "%s %s Dagster retries in %.0f s.", why, progress.summary(), why.retry_after
    )
    free = retry_number(context) if loaded else 0
    return dg.RetryRequested(max_retries=free + MAX_RETRIES, seconds_to_wait=why.retry_after)


@dataclass
class BatchProgress:
    """The progress of a run in batches.

    Attributes:
        total: the number of partitions to load.
        completed: the number of partitions that are loaded.
        rows: the rows loaded, of all resources.
        requests: the requests sent, if the source counts them.
        completed_before: those of `completed` that an earlier attempt loaded.
    """

    total: int
    completed: int = 0
    rows: int = 0
    requests: int = 0
    completed_before: int = 0
    started_at: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, loaded: Mapping[str, Mapping[str, Any]], pending: Sequence[str]) -> "BatchProgress":
        """Return the progress at the start of an attempt, after what earlier attempts loaded."""
        latest = max(
            loaded.values(), key=lambda metadata: metadata.get("run_partitions", 0), default={}
        )
        return cls(
            total=len(loaded) + len(pending),
            completed=len(loaded),
            rows=latest.get("run_rows_loaded", 0),
            requests=latest.get("run_requests", 0),
            completed_before=len(loaded),
        )

    @property
    def has_loaded(self) -> bool:
        """Whether this attempt has loaded a partition."""
        return self.completed > self.completed_before

    def add_batch(self, loaded: Sequence[str], results: Sequence[Any]) -> None:
        """Add a batch."""
        self.completed += len(loaded)
        for result in results:
            metadata = result.metadata or {}
            self.rows += metadata["rows_loaded"]
            self.requests += metadata.get("requests", 0)

    def summary(self) -> str:
        """Return the progress as text, with the time that remains at this pace."""
        remaining = self.total - self.completed
        text = f"{self.completed:,} of {self.total:,} partitions, {self.rows:,} rows"
        if not self.has_loaded or not remaining:
            return f"{text}."
        seconds = (
            (time.monotonic() - self.started_at)
            / (self.completed - self.completed_before)
            * remaining
        )
        if self.requests:
            text += f"; about {max(1, round(self.requests / self.completed * remaining)):,} requests to go"
        return f"{text}; about {timedelta(seconds=round(seconds))} to go."

    def metadata(self) -> dict[str, Any]:
        """Return the progress as Dagster's metadata."""
        return {
            "run_partitions": self.completed,
            "run_partitions_left": self.total - self.completed,
            "run_rows_loaded": self.rows,
            **({"run_requests": self.requests} if self.requests else {}),
        }
