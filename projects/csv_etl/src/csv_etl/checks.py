"""The format of dropped files, and the check that each file passes before it is loaded."""

from collections.abc import Mapping

import dagster as dg
from dlt.common.schema.typing import TColumnSchema

from shared import settings
from shared.orchestration.failures import as_dagster_failure
from shared.sources.csv import CsvFormat, DropFolder, OnBadRows, validate_file


def _money(description: str, nullable: bool = True) -> TColumnSchema:
    return {
        "data_type": "decimal",
        "precision": 18,
        "scale": 4,
        "nullable": nullable,
        "description": description,
    }


_COLUMNS: dict[str, TColumnSchema] = {
    "date": {"data_type": "date", "nullable": False, "description": "Trading day."},
    "share_price": _money("Closing price of the share, in US dollars.", nullable=False),
    "amount": _money("Shares traded on the day."),
    "spend": _money("Opening price, in US dollars."),
    "shift": _money("Highest price of the day, in US dollars."),
    "spread": _money("Lowest price of the day, in US dollars."),
}

SHARE_PRICES = CsvFormat(
    columns=_COLUMNS, date_format="%Y/%m/%d", rules={"share_price": "share_price > 0"}
)
"""The format that a file must have."""


def file_check(asset: dg.AssetKey, on_bad_rows: OnBadRows = "fail") -> dg.AssetCheckSpec:
    """Return the spec of the check. It blocks: no row is loaded if it fails."""
    values = f", every value fits its type, and {' and '.join(SHARE_PRICES.rules.values())}"
    row_rules = "" if on_bad_rows == "quarantine" else values
    return dg.AssetCheckSpec(
        name="file_is_loadable",
        asset=asset,
        blocking=True,
        description=f"The header is as declared, there are rows{row_rules}.",
    )


def check_files(
    paths: Mapping[str | None, str],
    context: dg.AssetExecutionContext | None = None,
    on_bad_rows: OnBadRows = "fail",
) -> dg.MaterializeResult[None]:
    """Check files of the drop folder, and report them as imported.

    The metadata `content` has the XXH3-128 hash of each file, from which the sensor knows what is loaded.

    Args:
        paths: the file of each partition, or of None without partitions.
        context: the partitioned asset's context, which gets the metadata of each partition.
        on_bad_rows: what the table does with bad rows; with `quarantine` they pass this check.

    Raises:
        Failure: a path is outside the drop folder, is missing or is not a file.
    """
    problems: list[str] = []
    metadata: dict[str, dict[str, str]] = {}
    with as_dagster_failure():
        drop_folder = DropFolder(settings.drop_folder())
    for partition, path in paths.items():
        with as_dagster_failure():
            # Hash before the check: if the file changes meanwhile, the sensor detects it.
            content = {"content": {path: drop_folder.content_hash(path)}}
        if context is None:
            metadata |= content
        else:
            context.add_asset_metadata(content, partition_key=partition)
        problems += validate_file(path, SHARE_PRICES, on_bad_rows)
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                passed=not problems,
                description="; ".join(problems) or f"{len(paths)} checked, all loadable",
                metadata={"problems": problems, "files": len(paths)},
            )
        ],
    )


def content_hashes(imported: dg.AssetMaterialization) -> dict[str, str]:
    """Return the XXH3-128 hash of each file that `check_files` reported, by path."""
    content = imported.metadata["content"].value
    assert isinstance(content, dict)
    return content
