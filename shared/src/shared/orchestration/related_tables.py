"""The assets of nested and companion tables: each table that a resource fills beside its own is one.

They belong to the `@dlt_assets` of their root, so one step materializes all of them (dagster#21090).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from shared.orchestration.dagster_internals import DltResourceTranslatorData, declared_loads
from shared.orchestration.translator import LOADED_WITH, WarehouseTranslator


def with_related_tables(assets: Iterable[Any]) -> list[Any]:
    """Return a location's assets, in which each `@dlt_assets` also has those of its related tables.

    Raises:
        DagsterInvalidDefinitionError: `related_tables` names the own table of a resource.
    """
    return [_extend(asset) for asset in assets]


def _extend(asset: Any) -> Any:
    specs = list(_related_specs(asset))
    if not specs:
        return asset
    # `@dlt_assets` makes one asset for each resource, and has no argument for more.
    return dg.multi_asset(
        name=asset.op.name,
        specs=[*asset.specs, *specs],
        can_subset=True,
        partitions_def=asset.partitions_def,
        backfill_policy=asset.backfill_policy,
        op_tags=asset.op.tags,
        hooks=set(asset.hook_defs),
        pool=asset.op.pool,
    )(asset.op.__wrapped__)


def _related_specs(asset: Any) -> Iterator[dg.AssetSpec]:
    found: dict[dg.AssetKey, dg.AssetSpec] = {}
    for source, pipeline, translator in declared_loads(asset):
        if not isinstance(translator, WarehouseTranslator):
            return
        specs = {spec.key: spec for spec in asset.specs}
        for resource in source.selected_resources.values():
            data = DltResourceTranslatorData(resource=resource, pipeline=pipeline)
            root = specs[translator.get_asset_spec(data).key]
            for spec in translator.get_related_specs(data, root):
                if spec.key not in specs:
                    found.setdefault(spec.key, spec)
                elif LOADED_WITH not in specs[spec.key].metadata:
                    raise dg.DagsterInvalidDefinitionError(
                        f"related_tables names {spec.key.path[-1]!r} for {root.key.path[-1]!r}, and a "
                        "resource loads it as its own table. Remove it from related_tables."
                    )
    yield from found.values()


def roots_of_related(assets: dg.AssetsDefinition) -> dict[dg.AssetKey, dg.AssetKey]:
    """Return the root's asset of each related table that has an asset, also if it is not selected."""
    return {
        spec.key: spec.metadata[LOADED_WITH].value
        for spec in assets.specs
        if LOADED_WITH in spec.metadata
    }


def selected_roots(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> set[dg.AssetKey]:
    """Return the assets whose resources a step loads: those selected, and the roots of related tables."""
    roots = roots_of_related(context.assets_def)
    return {roots.get(key, key) for key in context.selected_asset_keys}
