"""Share prices from dropped CSV files: one file by run config, a file for each day, and any dropped file."""

from collections.abc import Iterator, Sequence

import dagster as dg
from dagster_dlt import dlt_assets
from dlt.extract import DltSource

from csv_etl.format import SHARE_PRICES
from csv_etl.partitions import SAMPLE_DAYS, SAMPLE_FILES, by_file, daily, file_of_day
from shared import warehouse
from shared.orchestration.checks import build_rejected_rows_check, build_unique_rows_check
from shared.orchestration.dropped_files import (
    check_files,
    content_hashes,
    file_check,
    file_columns,
)
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import (
    DAILY_BY_7AM_FRESHNESS,
    SAMPLE_PARTITIONS,
    WarehouseTranslator,
    asset_key,
)
from shared.orchestration.upstream import upstream_materialization
from shared.sources.csv import OnBadRows, csv_source

pipeline = warehouse.pipeline(pipeline_name="csv_pipeline", dataset_name="csv_data", progress="log")

DATASET, OWNER = pipeline.dataset_name, "team:csv"

DESCRIPTIONS = {
    "share_prices": "Prices of a share on its trading days, from the file named in the run's config.",
    "share_prices_daily": "Prices of a share on its trading days, from the file of each day.",
    "share_prices_by_file": "Prices of a share on its trading days, from all dropped files; "
    "invalid rows are in share_prices_by_file_rejected.",
}


def share_prices_from(
    paths: Sequence[str], table: str, on_bad_rows: OnBadRows = "fail"
) -> DltSource:
    """Return the source that loads files of the drop folder into a table."""
    description = DESCRIPTIONS[table]
    return csv_source(paths, table, SHARE_PRICES, on_bad_rows, description=description)


def dropped_file(
    key: dg.AssetKey, description: str, sample_partitions: Sequence[str] = ()
) -> dg.AssetSpec:
    """Return the spec of the files that a table loads."""
    return dg.AssetSpec(
        key,
        description=description,
        group_name=DATASET,
        kinds={"csv"},
        owners=[OWNER],
        metadata={SAMPLE_PARTITIONS: list(sample_partitions), **file_columns(SHARE_PRICES)},
    )


# One file, named in the run's config.

IMPORT_FILE = asset_key(DATASET, "import_file")


class FilePath(dg.Config):
    """The file to load: a path in the drop folder."""

    path: str = SAMPLE_FILES[0]


@dg.multi_asset(
    specs=[dropped_file(IMPORT_FILE, "The file named in the run's config, checked.")],
    check_specs=[file_check(IMPORT_FILE, SHARE_PRICES)],
    name="import_file",
)
def import_file(config: FilePath) -> Iterator[dg.MaterializeResult[None]]:
    """Check the file named in the run's config."""
    yield check_files({None: config.path}, SHARE_PRICES)


@dlt_assets(
    dlt_source=share_prices_from([], "share_prices"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(OWNER, deps={"share_prices": [IMPORT_FILE]}),
    name="share_prices",
)
def share_prices(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    """Load the file that `import_file` checked."""
    imported = upstream_materialization(context, IMPORT_FILE)
    if imported is None:
        raise dg.Failure("No file is imported yet: materialize import_file with share_prices.")
    paths = list(content_hashes(imported))
    source = share_prices_from(paths, "share_prices")
    yield from dlt.run(context=context, dlt_source=source, partitions=paths)


# A file for each day.

IMPORT_DAILY_FILE = asset_key(DATASET, "import_daily_file")


@dg.multi_asset(
    specs=[dropped_file(IMPORT_DAILY_FILE, "The files of the days, checked.", SAMPLE_DAYS)],
    check_specs=[file_check(IMPORT_DAILY_FILE, SHARE_PRICES)],
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="import_daily_file",
)
def import_daily_file(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Check the files of the run's days."""
    files: dict[str | None, str] = {day: file_of_day(day) for day in context.partition_keys}
    yield check_files(files, SHARE_PRICES, context=context)


@dlt_assets(
    dlt_source=share_prices_from([], "share_prices_daily"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        OWNER,
        deps={"share_prices_daily": [IMPORT_DAILY_FILE]},
        freshness_policy=DAILY_BY_7AM_FRESHNESS,
        sample_partitions=SAMPLE_DAYS,
    ),
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="share_prices_daily",
)
def share_prices_daily(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource
) -> Iterator[object]:
    """Load the files of the run's days."""
    paths = [file_of_day(day) for day in context.partition_keys]
    source = share_prices_from(paths, "share_prices_daily")
    yield from dlt.run(context=context, dlt_source=source, partitions=paths)


# Any dropped file. The sensor in automation.py requests runs for new and changed files. Invalid rows are
# stored in share_prices_by_file_rejected, and the others load.

IMPORT_DROPPED_FILE = asset_key(DATASET, "import_dropped_file")


@dg.multi_asset(
    specs=[dropped_file(IMPORT_DROPPED_FILE, "A dropped file, checked.", SAMPLE_FILES)],
    check_specs=[file_check(IMPORT_DROPPED_FILE, SHARE_PRICES, "quarantine")],
    partitions_def=by_file,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="import_dropped_file",
)
def import_dropped_file(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Check the run's files."""
    files: dict[str | None, str] = {path: path for path in context.partition_keys}
    yield check_files(files, SHARE_PRICES, "quarantine", context=context)


@dlt_assets(
    dlt_source=share_prices_from([], "share_prices_by_file", "quarantine"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        OWNER,
        deps={"share_prices_by_file": [IMPORT_DROPPED_FILE]},
        sample_partitions=SAMPLE_FILES,
    ),
    partitions_def=by_file,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="share_prices_by_file",
)
def share_prices_by_file(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource
) -> Iterator[object]:
    """Load the run's files."""
    source = share_prices_from(context.partition_keys, "share_prices_by_file", "quarantine")
    yield from dlt.run(context=context, dlt_source=source)


# A file has each day once. A duplicate is a warning: it is for a person to see, and may be correct.
unique_prices, unique_daily_prices, unique_prices_by_file = (
    build_unique_rows_check(
        asset_key(DATASET, table), ["file_name", "date"], dg.AssetCheckSeverity.WARN
    )
    for table in DESCRIPTIONS
)
few_rejected_rows = build_rejected_rows_check(
    asset_key(DATASET, "share_prices_by_file"), max_ratio=0.05
)
