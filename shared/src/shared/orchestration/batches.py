"""A run in batches of partitions: what is pending, how far it is, and when it is retried."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg

from shared.orchestration.partitions import PARTITION_METADATA
from shared.sources.protocol import RetryLaterError

ONLY_MISSING = "etl/only_missing"
"""The run tag that leaves out partitions which any run has materialized before."""

MAX_RETRIES = 100
"""How often a run comes back to an upstream that takes no more requests for now."""


def latest_metadata(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[str, Any]:
    """Return what an asset's latest materialization says of each of its partitions."""
    event = context.instance.get_latest_materialization_event(key)
    latest = event.asset_materialization if event else None
    metadata = latest.metadata if latest else {}
    return {name: metadata[name] for name in PARTITION_METADATA if name in metadata}


def pending_partitions(context: dg.AssetExecutionContext) -> list[str]:
    """Return the run's partitions without those that it need not load any more."""
    loaded: set[str] = set()
    if context.run.tags.get(ONLY_MISSING) == "true":
        loaded |= set.intersection(
            *(
                context.instance.get_materialized_partitions(key)
                for key in context.selected_asset_keys
            )
        )
    loaded |= _loaded_in_this_run(context).keys()
    return [partition for partition in context.partition_keys if partition not in loaded]


def _loaded_in_this_run(context: dg.AssetExecutionContext) -> dict[str, Mapping[str, Any]]:
    """Return the partitions that an earlier try of the step has loaded, for all of its assets.

    Each has the metadata of its materialization, with the run's progress.
    """
    loaded: dict[dg.AssetKey, dict[str, Mapping[str, Any]]] = {
        key: {} for key in context.selected_asset_keys
    }
    cursor, more = None, context.retry_number > 0
    while more:
        page = context.instance.get_records_for_run(
            context.run.run_id, cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        cursor, more = page.cursor, page.has_more
        for record in page.records:
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
    """Log, and return, the request that Dagster retries the step later.

    A try that has loaded something uses up none of the `MAX_RETRIES`.
    """
    context.log.warning(
        "%s %s Dagster tries again in %.0f s.", why, progress.summary(), why.retry_after
    )
    free = context.retry_number if loaded else 0
    return dg.RetryRequested(max_retries=free + MAX_RETRIES, seconds_to_wait=why.retry_after)


@dataclass
class BatchProgress:
    """How far a run in batches is.

    Attributes:
        total: the partitions it is to load.
        completed: those that have loaded.
        rows: the rows they brought, of all resources.
        requests: the requests they took, where the source counts them.
        completed_before: those of `completed` that loaded in an earlier try.
    """

    total: int
    completed: int = 0
    rows: int = 0
    requests: int = 0
    completed_before: int = 0
    started_at: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, context: dg.AssetExecutionContext, pending: Sequence[str]) -> "BatchProgress":
        """Return the progress at the start of a try."""
        loaded = _loaded_in_this_run(context)
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

    def add_batch(self, loaded: Sequence[str], results: Sequence[Any]) -> None:
        """Add a batch."""
        self.completed += len(loaded)
        for result in results:
            metadata = result.metadata or {}
            self.rows += metadata["rows_loaded"]
            self.requests += metadata.get("requests", 0)

    def summary(self) -> str:
        """Return how far the run is, and what remains at this pace."""
        remaining = self.total - self.completed
        text = f"{self.completed:,} of {self.total:,} partitions, {self.rows:,} rows"
        if self.completed == self.completed_before or not remaining:
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
        """Return the same for Dagster."""
        return {
            "run_partitions": self.completed,
            "run_partitions_left": self.total - self.completed,
            "run_rows_loaded": self.rows,
            **({"run_requests": self.requests} if self.requests else {}),
        }
