"""Dependencies on assets of other locations, which no location can check alone."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import chain

import dagster as dg


def upstream_assets(defs: dg.Definitions) -> dict[str, list[str]]:
    """Return the assets of a location, and the assets on which each of them depends."""
    # Not `resolve_all_asset_specs`: it adds what is only referred to.
    specs = chain.from_iterable(
        asset.specs if isinstance(asset, dg.AssetsDefinition) else [asset]
        for asset in defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition | dg.AssetSpec)
    )
    return {
        spec.key.to_user_string(): [dep.asset_key.to_user_string() for dep in spec.deps]
        for spec in specs
    }


def missing_assets(locations: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Return the dependencies that no location has, each as a text that says who reads it.

    Args:
        locations: what `upstream_assets` returns for each location.
    """
    known = set(chain.from_iterable(locations.values()))
    return [
        f"{asset} of {location} reads {upstream}, which is an asset of no location."
        + "".join(f" Did you mean {name}?" for name in get_close_matches(upstream, known, 1))
        for location, assets in locations.items()
        for asset, dependencies in assets.items()
        for upstream in dependencies
        if upstream not in known
    ]
