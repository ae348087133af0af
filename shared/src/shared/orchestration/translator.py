"""The one place for asset keys, groups, kinds, owners and dependencies."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster_dlt import DagsterDltTranslator
from dlt.extract import DltResource

from shared import warehouse
from shared.orchestration.dagster_internals import DltResourceTranslatorData, declared_loads
from shared.orchestration.metadata import declared_columns
from shared.warehouse.replacement.dispositions import planned_disposition

SAMPLE_PARTITIONS = "sample_partitions"
"""Metadata of a partitioned asset: the partitions of its sample data, each a key or a range
`first...last`. `etl run` materializes these."""

LOADED_WITH = "loaded_with"
"""Metadata of the asset of a nested or companion table: the asset that is loaded by the same resource."""

WEEKLY_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7))
"""For tables that are loaded manually or irregularly."""

DAILY_BY_7AM_FRESHNESS = dg.FreshnessPolicy.cron("0 7 * * *", lower_bound_delta=timedelta(hours=7))
"""For daily tables: loaded between midnight and 07:00 UTC, every day."""


def asset_key(dataset: str, name: str) -> dg.AssetKey:
    """Return the key of a table's asset: the dataset and the table, as they are named in the warehouse.

    Args:
        dataset: the dataset's name; `Shop-Data` is `shop_data` in the warehouse.
        name: the table's name, or that of a resource with no other table; `OrderItems` is `order_items`.
    """
    return dg.AssetKey([warehouse.normalize_name(dataset), warehouse.normalize_name(name)])


@dataclass
class WarehouseTranslator(DagsterDltTranslator):
    """Translates a dlt resource to an asset that has the name of its table in the warehouse.

    Resources with one table are one asset. A resource whose tables depend on its rows is an asset that
    has the resource's name. Nested tables, companion tables and the tables of rows are assets if they are
    declared: by the source, or in `related_tables`. The metadata of their root lists the others.

    Attributes:
        deps: upstream asset keys, by table, or by resource; a resource that is not a key has none. A
            nested table depends on its parent, another related table on what its root depends on.
        related_tables: more tables that a resource fills, by table, or by resource:
            `{"orders": ["orders__lines"]}`. Needed only for tables that the source does not declare.
        owner: the team, as `team:<name>`.
        automation_condition: when Dagster materializes the assets automatically.
        freshness_policy: when Dagster reports the tables as stale; by default a week after the last load.
        sample_partitions: see `SAMPLE_PARTITIONS`.
    """

    owner: str
    deps: Mapping[str, Sequence[dg.AssetKey]] = field(default_factory=dict)
    related_tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    automation_condition: dg.AutomationCondition[Any] | None = None
    freshness_policy: dg.FreshnessPolicy = WEEKLY_FRESHNESS
    sample_partitions: Sequence[str] = ()
    _specs: dict[dg.AssetKey, dg.AssetSpec] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def get_asset_spec(self, data: DltResourceTranslatorData) -> dg.AssetSpec:
        """Return the spec, without the placeholder dependency that dagster-dlt adds.

        Raises:
            ValueError: the resource has no pipeline.
            DeclarationError: the pipeline was created by `dlt.pipeline()`.
            LoadPlanError: a hint of the resource is a function of the row; see `known_schema`.
            DagsterInvalidDefinitionError: Dagster does not accept the table's name.
        """
        if data.pipeline is not None:
            warehouse.require_spec(data.pipeline)
        spec = super().get_asset_spec(data)
        if data.pipeline is None:
            raise ValueError(
                f"Resource {data.resource.name} has no pipeline: pass dlt_pipeline to @dlt_assets."
            )
        resource = data.resource
        dataset, name = data.pipeline.dataset_name, warehouse.table_of(resource)
        table = next(iter(warehouse.declared_tables(resource).values()))
        metadata = {
            **spec.metadata,
            "dagster/table_name": f"{dataset}.{name}",
            **declared_columns(table),
        }
        if resource.has_dynamic_table_name:
            del metadata["dagster/table_name"]
        if self.sample_partitions:
            metadata[SAMPLE_PARTITIONS] = list(self.sample_partitions)
        key = _valid_key(dataset, name, resource)
        spec = spec.replace_attributes(
            key=key,
            description=table["description"],
            group_name=dataset,
            deps=self.deps.get(resource.name) or self.deps.get(name, []),
            owners=[self.owner],
            kinds={"dlt", warehouse.warehouse_type()},
            tags={**spec.tags, "write_disposition": planned_disposition(data.resource)},
            automation_condition=self.automation_condition,
            freshness_policy=self.freshness_policy,
            metadata=metadata,
        )
        # Dagster accepts several specs with one key only if they are equal: the first resource decides.
        return self._specs.setdefault(key, spec)

    def get_related_specs(
        self, data: DltResourceTranslatorData, root: dg.AssetSpec
    ) -> Iterator[dg.AssetSpec]:
        """Yield the specs of the related tables of a resource; they are loaded whenever its root is.

        They have neither an automation condition nor a freshness policy: what is due is the root.

        Args:
            data: the resource and its pipeline.
            root: the spec of the resource's asset.
        """
        resource, pipeline = data.resource, warehouse.require_spec(data.pipeline)
        own, *others = (tables := warehouse.declared_tables(resource))
        named = self.related_tables.get(resource.name) or self.related_tables.get(own, ())
        names = sorted({*others, *map(warehouse.normalize_name, named)} - {own})
        for name in names:
            _valid_key(pipeline.dataset_name, name, resource)
            key = dg.AssetKey([*root.key.path[:-1], name])
            parent = max(
                (t for t in (own, *names) if name.startswith(f"{t}__")), key=len, default=""
            )
            deps: Iterable[Any] = root.deps
            if parent:
                deps = [dg.AssetKey([*root.key.path[:-1], parent])]
            table = tables.get(name, {})
            yield root.replace_attributes(
                key=key,
                description=table.get("description") or _describe(name, parent, own),
                deps=self.deps.get(name) or deps,
                automation_condition=None,
                freshness_policy=None,
                metadata={
                    **{k: v for k, v in root.metadata.items() if k != "dagster/column_schema"},
                    "dagster/table_name": f"{pipeline.dataset_name}.{name}",
                    **declared_columns(table),
                    LOADED_WITH: dg.MetadataValue.asset(root.key),
                },
            )


def _describe(table: str, parent: str, root: str) -> str:
    """Return the description of a related table that declares none."""
    if parent:
        field = table.removeprefix(f"{parent}__")
        return f"The list `{field}` of each row of {parent}: one row for each item."
    return f"Rows that the load of {root} puts into a table of their own."


def reject_lost_dependencies(assets: Iterable[object]) -> None:
    """Reject dependencies and related tables that no asset has.

    Raises:
        DagsterInvalidDefinitionError: `deps` or `related_tables` names neither a table nor a resource,
            or `deps` names one of several resources of a table.
    """
    for translator, tables in _tables_by_translator(assets):
        for name in translator.related_tables:
            if name not in tables:
                raise dg.DagsterInvalidDefinitionError(
                    f"related_tables names {name!r}, and there is no such table or resource; there is "
                    f"{', '.join(sorted(tables))}."
                )
        for name, upstream in translator.deps.items():
            if name not in tables:
                raise dg.DagsterInvalidDefinitionError(
                    f"deps names {name!r}, and there is no such table or resource; there is "
                    f"{', '.join(sorted(tables))}."
                )
            key, known = tables[name]
            if not set(upstream) <= known:
                raise dg.DagsterInvalidDefinitionError(
                    f"deps names {name!r}, one of several resources of the table {key.path[-1]}: state the "
                    f"dependencies by table, deps={{{key.path[-1]!r}: [...]}}."
                )


_Tables = dict[str, tuple[dg.AssetKey, AbstractSet[dg.AssetKey]]]


def _tables_by_translator(
    assets: Iterable[object],
) -> Iterable[tuple[WarehouseTranslator, _Tables]]:
    """Return the asset and its dependencies of each table and resource that a translator translates."""
    found: dict[int, tuple[WarehouseTranslator, _Tables]] = {}
    for definition in assets:
        for source, pipeline, translator in declared_loads(definition):
            if not isinstance(translator, WarehouseTranslator):
                continue
            _, tables = found.setdefault(id(translator), (translator, {}))
            for resource in source.selected_resources.values():
                table = warehouse.table_of(resource)
                key = dg.AssetKey([pipeline.dataset_name, table])
                deps: AbstractSet[dg.AssetKey] = definition.asset_deps[key]  # type: ignore[attr-defined]
                tables |= {table: (key, deps), resource.name: (key, deps)}
            for key, upstream in definition.asset_deps.items():  # type: ignore[attr-defined]
                tables.setdefault(key.path[-1], (key, upstream))  # a related table
    return found.values()


def _valid_key(dataset: str, table: str, resource: DltResource) -> dg.AssetKey:
    """Return the key of a resource's table, in which Dagster accepts letters, digits and `_` only."""
    for name in (dataset, table):
        if re.search(r"\W", name, re.ASCII):
            raise dg.DagsterInvalidDefinitionError(
                f"Resource {resource.name!r} loads the table {dataset}.{table}, and Dagster accepts only "
                "the letters a to z, digits and _ in the name of an asset. Give the resource such a "
                "table_name, or the pipeline such a dataset_name."
            )
    return dg.AssetKey([dataset, table])
