"""A standing check of an asset's partitions; it reads only the Dagster instance."""

from typing import Any

import dagster as dg

from shared.orchestration.attempts import unfinished_attempts
from shared.orchestration.health import asset_problems


def build_partitions_check(
    asset: dg.AssetKey,
    partitions: dg.PartitionsDefinition[Any],
    *,
    latest: int | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetChecksDefinition:
    """Return the check that no partition of an asset has failed, and none is missing.

    It runs with each materialization of the asset; a schedule can run it alone. A window of time is
    missing only after it has ended, and what a run is loading is not missing.

    Args:
        asset: the asset's key.
        partitions: its partitions.
        latest: only the latest ones must be loaded; by default all. A failed one counts in any case.
        severity: WARN if it needs no action at once.

    Raises:
        ValueError: `latest` is less than 1.
    """
    if latest is not None and latest < 1:
        raise ValueError(f"latest is {latest}; it must be at least 1")
    counted = f"the latest {latest} partitions" if latest else "all partitions"

    @dg.asset_check(
        asset=asset,
        description=f"No partition's latest run failed, and {counted} are loaded.",
    )
    def partitions_are_loaded(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        attempts = unfinished_attempts(context.instance, asset)
        problems = list(
            asset_problems(context.instance, asset, partitions, attempts, latest=latest)
        )
        counts = {problem.kind: problem.count for problem in problems}
        return dg.AssetCheckResult(
            passed=not problems,
            severity=severity,
            description="; ".join(f"{each.kind}: {each.message}" for each in problems)
            or f"{counted} are loaded",
            metadata={kind: counts.get(kind, 0) for kind in ("failed", "missing")},
        )

    return partitions_are_loaded
