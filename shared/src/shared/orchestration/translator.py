"""The one place for asset keys, groups, kinds, owners and dependencies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import cleandoc
from typing import Any

import dagster as dg
from dagster_dlt import DagsterDltTranslator

from shared import warehouse
from shared.orchestration.dagster_internals import DltResourceTranslatorData
from shared.warehouse.dispositions import planned_disposition

SAMPLE_PARTITIONS = "sample_partitions"
"""Metadata of a partitioned asset: the partitions of its sample data, each a key or a range
`first...last`. `etl run` materializes these."""

WEEKLY_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7))
"""For tables that are loaded manually or irregularly."""

DAILY_BY_7AM_FRESHNESS = dg.FreshnessPolicy.cron("0 7 * * *", lower_bound_delta=timedelta(hours=7))
"""For daily tables: loaded between midnight and 07:00 UTC, every day."""


def asset_key(dataset: str, name: str) -> dg.AssetKey:
    """Return the key of a table's asset: the dataset and the table, as they are named in the warehouse."""
    return dg.AssetKey([dataset, name])


@dataclass
class WarehouseTranslator(DagsterDltTranslator):
    """Translates a dlt resource to an asset that has the name of its table.

    Attributes:
        deps: upstream asset keys, by resource name; a resource that is not a key has none.
        owner: the team, as `team:<name>`.
        automation_condition: when Dagster materializes the assets automatically.
        freshness_policy: when Dagster reports the tables as stale; by default a week after the last load.
        sample_partitions: see `SAMPLE_PARTITIONS`.
    """

    owner: str
    deps: Mapping[str, Sequence[dg.AssetKey]] = field(default_factory=dict)
    automation_condition: dg.AutomationCondition[Any] | None = None
    freshness_policy: dg.FreshnessPolicy = WEEKLY_FRESHNESS
    sample_partitions: Sequence[str] = ()

    def get_asset_spec(self, data: DltResourceTranslatorData) -> dg.AssetSpec:
        """Return the spec, without the placeholder dependency that dagster-dlt adds."""
        spec = super().get_asset_spec(data)
        if data.pipeline is None:
            raise ValueError(
                f"Resource {data.resource.name} has no pipeline: pass dlt_pipeline to @dlt_assets."
            )
        dataset = data.pipeline.dataset_name
        table = data.resource.compute_table_schema()
        # The first paragraph of a docstring describes the table; the rest is for programmers.
        description = str(table.get("description") or cleandoc(spec.description or ""))
        return spec.replace_attributes(
            key=asset_key(dataset, data.resource.name),
            description=description.partition("\n\n")[0],
            group_name=dataset,
            deps=self.deps.get(data.resource.name, []),
            owners=[self.owner],
            kinds={"dlt", warehouse.warehouse_type()},
            tags={**spec.tags, "write_disposition": planned_disposition(data.resource)},
            automation_condition=self.automation_condition,
            freshness_policy=self.freshness_policy,
            metadata={**spec.metadata, SAMPLE_PARTITIONS: list(self.sample_partitions)}
            if self.sample_partitions
            else spec.metadata,
        )
