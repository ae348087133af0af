"""The one place for what dbt's models are as assets: their keys, groups, kinds and owners."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject

from shared import warehouse
from shared.orchestration.metadata import SQL_FILE
from shared.orchestration.translator import WEEKLY_FRESHNESS


class WarehouseDbtTranslator(DagsterDbtTranslator):
    """Translates a dbt node to an asset whose key is its dataset and its table.

    So a dbt source is the asset that loads its table, in whatever location that is, and the lineage of the
    workspace is one graph. A key that a node sets in its `meta.dagster.asset_key` wins, and so do its own
    group, owners and automation condition.
    """

    def __init__(
        self,
        owner: str,
        *,
        automation_condition: dg.AutomationCondition[Any] | None = None,
        freshness_policy: dg.FreshnessPolicy | None = WEEKLY_FRESHNESS,
    ) -> None:
        """Declare what the models of a project share.

        Args:
            owner: the team, as `team:<name>`.
            automation_condition: when Dagster builds the models automatically.
            freshness_policy: when Dagster reports the tables as stale; by default a week after the last run.
        """
        super().__init__(DagsterDbtTranslatorSettings(enable_code_references=True))
        self.owner = owner
        self._automation_condition = automation_condition
        self._freshness_policy = freshness_policy
        self._keys: dict[str, dg.AssetKey] = {}

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """Return the dataset and the table, as the code declares them.

        The names in the warehouse of an environment are others; Dagster translates the manifest with the
        declared names first.
        """
        props = dbt_resource_props
        unique_id = str(props["unique_id"])
        if unique_id not in self._keys:
            own = (props.get("config", {}).get("meta") or props.get("meta") or {}).get(
                "dagster", {}
            )
            self._keys[unique_id] = (
                super().get_asset_key(props)
                if own.get("asset_key")
                else dg.AssetKey(list(table_of(props)))
            )
        return self._keys[unique_id]

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """Return the spec of a model, or of a source that a model reads."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        props = self.get_resource_props(manifest, unique_id)
        if props["resource_type"] == "source":
            return spec
        # With it, a table that a load or a .sql file makes as well is reported: see dataset_owners.
        is_own = spec.key.path == list(table_of(props))
        file = {SQL_FILE: str(props["original_file_path"])} if is_own else {}
        return spec.replace_attributes(
            owners=spec.owners or [self.owner],
            kinds={"dbt", warehouse.warehouse_type()},
            automation_condition=spec.automation_condition or self._automation_condition,
            freshness_policy=self._freshness_policy,
        ).merge_attributes(
            metadata={
                "dagster/table_name": ".".join(table_of(props)),
                "dagster/storage_kind": warehouse.warehouse_type(),
                **file,
            }
        )

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """Return the group that a model sets; by default its dataset."""
        return super().get_group_name(dbt_resource_props) or table_of(dbt_resource_props)[0]

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Return the description, without the SQL, which is linked."""
        return str(dbt_resource_props.get("description") or "")


def table_of(props: Mapping[str, Any]) -> tuple[str, str]:
    """Return the dataset and the table of a dbt node, as its manifest has them."""
    return str(props["schema"]), str(props.get("identifier") or props.get("alias") or props["name"])
