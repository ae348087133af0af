"""What a dropped file must look like before any of it loads."""

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
"""What a file must look like."""


def file_check(asset: dg.AssetKey, on_bad_rows: OnBadRows = "fail") -> dg.AssetCheckSpec:
    """Declares the check; it blocks, so nothing lands when it fails."""
    values = f", every value fits its type, and {' and '.join(SHARE_PRICES.rules.values())}"
    told = "" if on_bad_rows == "quarantine" else values
    return dg.AssetCheckSpec(
        name="file_is_loadable",
        asset=asset,
        blocking=True,
        description=f"The header is as declared, there are rows{told}.",
    )


def check_files(
    paths: Mapping[str | None, str],
    context: dg.AssetExecutionContext | None = None,
    on_bad_rows: OnBadRows = "fail",
) -> dg.MaterializeResult[None]:
    """Checks files of the drop folder, and reports them as imported.

    The metadata `content` holds a file's SHA-256; it tells the sensor what was asked for already.

    Args:
        paths: the file of each partition, or of None where there are no partitions.
        context: the partitioned asset's, which gets each partition's metadata.
        on_bad_rows: what the table does with bad records; under `quarantine` they pass here.

    Raises:
        Failure: a path leaves the drop folder, is missing or is no file.
    """
    problems: list[str] = []
    metadata: dict[str, dict[str, str]] = {}
    with as_dagster_failure():
        drop_folder = DropFolder(settings.drop_folder())
    for partition, path in paths.items():
        with as_dagster_failure():
            # Before the check: should the file change meanwhile, the sensor will see that it did.
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
    """Returns the SHA-256 of each file that `check_files` reported, by path."""
    content = imported.metadata["content"].value
    assert isinstance(content, dict)
    return content
