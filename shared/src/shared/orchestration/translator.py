"""The one place for asset keys, groups, kinds, owners and dependencies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import cleandoc
from typing import Any

import dagster as dg
from dagster_dlt import DagsterDltTranslator
from dagster_dlt.translator import DltResourceTranslatorData

from shared import warehouse

SAMPLE_PARTITIONS = "sample_partitions"
"""Metadata of a partitioned asset: the partitions that the bundled sample input has, each a key or a
range `first...last`. `etl run` materializes these."""


WEEKLY_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7))
"""For tables that are loaded by hand, or whenever something comes."""

DAILY_BY_7AM_FRESHNESS = dg.FreshnessPolicy.cron("0 7 * * *", lower_bound_delta=timedelta(hours=7))
"""For tables of days: loaded between midnight and 07:00 UTC, every day."""


def asset_key(dataset: str, name: str) -> dg.AssetKey:
    """Returns an asset's key: the dataset and the table, the very names it has in the warehouse."""
    return dg.AssetKey([dataset, name])


def bundled(partitions: Sequence[str]) -> dict[str, list[str]]:
    """Returns the metadata that names an asset's `SAMPLE_PARTITIONS`; none if empty."""
    return {SAMPLE_PARTITIONS: list(partitions)} if partitions else {}


def external_asset_spec(
    dataset: str,
    name: str,
    *,
    description: str,
    kinds: set[str],
    owner: str,
    sample_partitions: Sequence[str] = (),
) -> dg.AssetSpec:
    """Returns the spec of an asset that dlt does not load but a loaded table depends on."""
    return dg.AssetSpec(
        key=asset_key(dataset, name),
        description=description,
        group_name=dataset,
        kinds=kinds,
        owners=[owner],
        metadata=bundled(sample_partitions),
    )


@dataclass
class WarehouseTranslator(DagsterDltTranslator):
    """Turns a dlt resource into an asset named after the table it loads.

    Attributes:
        deps: upstream asset keys, by resource name; a resource not named here has none.
        owner: the team, as `team:<name>`.
        automation_condition: when Dagster should materialize the assets by itself.
        freshness_policy: when Dagster should call them late; a week after the last load if none.
        sample_partitions: see `SAMPLE_PARTITIONS`.
    """

    owner: str
    deps: Mapping[str, Sequence[dg.AssetKey]] = field(default_factory=dict)
    automation_condition: dg.AutomationCondition[Any] | None = None
    freshness_policy: dg.FreshnessPolicy = WEEKLY_FRESHNESS
    sample_partitions: Sequence[str] = ()

    def get_asset_spec(self, data: DltResourceTranslatorData) -> dg.AssetSpec:
        """Returns the spec; the default's dependency on a phantom upstream asset is dropped."""
        spec = super().get_asset_spec(data)
        if data.pipeline is None:
            raise ValueError(
                f"Resource {data.resource.name} has no pipeline, so no dataset to name it by."
            )
        dataset = data.pipeline.dataset_name
        table = data.resource.compute_table_schema()
        # Of a docstring the first paragraph says what the table is; the rest is for programmers.
        told = str(table.get("description") or cleandoc(spec.description or ""))
        return spec.replace_attributes(
            key=asset_key(dataset, data.resource.name),
            description=told.partition("\n\n")[0],
            group_name=dataset,
            deps=self.deps.get(data.resource.name, []),
            owners=[self.owner],
            kinds={"dlt", warehouse.warehouse_type()},
            tags={**spec.tags, "write_disposition": str(table.get("write_disposition", "append"))},
            automation_condition=self.automation_condition,
            freshness_policy=self.freshness_policy,
            metadata={**spec.metadata, **bundled(self.sample_partitions)},
        )
