"""Share prices from dropped CSV files: one file by run config, a file a day, and any file dropped."""

from collections.abc import Iterator, Sequence

import dagster as dg
from dagster_dlt import dlt_assets
from dlt.extract import DltSource

from csv_etl.checks import SHARE_PRICES, check_files, content_hashes, file_check
from csv_etl.partitions import SAMPLE_DAYS, SAMPLE_FILES, by_file, daily, file_of_day
from shared import warehouse
from shared.orchestration.checks import build_rejected_rows_check, build_unique_rows_check
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import (
    DAILY_BY_7AM_FRESHNESS,
    WarehouseTranslator,
    asset_key,
    external_asset_spec,
)
from shared.sources.csv.source import OnBadRows, csv_source

pipeline = warehouse.pipeline(pipeline_name="csv_pipeline", dataset_name="csv_data", progress="log")

OWNER = "team:csv"
DESCRIPTIONS = {
    "share_prices": "Prices of a share on its trading days, from the one file that was asked for.",
    "share_prices_daily": "Prices of a share on its trading days, from the file of each day.",
    "share_prices_by_file": "Prices of a share on its trading days, from every file dropped so far; "
    "records that are not as declared stand in share_prices_by_file_rejected.",
}


def share_prices_from(
    paths: Sequence[str], table: str, on_bad_rows: OnBadRows = "fail"
) -> DltSource:
    """Returns the source that loads files of the drop folder into a table."""
    description = DESCRIPTIONS[table]
    return csv_source(paths, table, SHARE_PRICES, on_bad_rows, description=description)


def dropped_file(name: str, description: str, bundled: Sequence[str] = ()) -> dg.AssetSpec:
    """Returns the spec of the files that a table loads."""
    return external_asset_spec(
        "csv_data",
        name,
        description=description,
        kinds={"csv"},
        owner=OWNER,
        sample_partitions=bundled,
    )


# One file, named in the run's config.


class FilePath(dg.Config):
    """The file to load: a path below the drop folder."""

    path: str = SAMPLE_FILES[0]


IMPORT_FILE = dropped_file("import_file", "The file that the run's config names, checked.")


@dg.multi_asset(specs=[IMPORT_FILE], check_specs=[file_check(IMPORT_FILE.key)], name="import_file")
def import_file(config: FilePath) -> Iterator[dg.MaterializeResult[None]]:
    """Checks the file named in the run's config."""
    yield check_files({None: config.path})


@dlt_assets(
    dlt_source=share_prices_from([], table="share_prices"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(OWNER, deps={"share_prices": [IMPORT_FILE.key]}),
    name="share_prices",
)
def share_prices(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    """Loads the file that `import_file` let through."""
    paths = imported_files(context)
    yield from dlt.run(
        context=context, dlt_source=share_prices_from(paths, "share_prices"), partitions=paths
    )


def imported_files(context: dg.AssetExecutionContext) -> list[str]:
    """Returns the path that `import_file` imported for this run.

    That is in this run, or in the one it retries; a table that runs alone takes the latest import.

    Raises:
        Failure: nothing was imported yet.
    """
    for run_id in (context.run.run_id, context.run.parent_run_id, context.run.root_run_id):
        if run_id is None:
            continue
        records = context.instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
        for record in records:
            imported = record.event_log_entry.asset_materialization
            if imported and imported.asset_key == IMPORT_FILE.key:
                return list(content_hashes(imported))
    latest = context.instance.get_latest_materialization_event(IMPORT_FILE.key)
    if latest and latest.asset_materialization:
        return list(content_hashes(latest.asset_materialization))
    raise dg.Failure(
        "No file was imported yet: materialize import_file together with share_prices."
    )


# A file a day.

IMPORT_DAILY_FILE = dropped_file(
    "import_daily_file", "The files named after the days, checked.", SAMPLE_DAYS
)


@dg.multi_asset(
    specs=[IMPORT_DAILY_FILE],
    check_specs=[file_check(IMPORT_DAILY_FILE.key)],
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="import_daily_file",
)
def import_daily_file(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Checks the files of the run's days."""
    yield check_files({day: file_of_day(day) for day in context.partition_keys}, context)


@dlt_assets(
    dlt_source=share_prices_from([], table="share_prices_daily"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        OWNER,
        deps={"share_prices_daily": [IMPORT_DAILY_FILE.key]},
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
    """Loads the files of the run's days."""
    paths = [file_of_day(day) for day in context.partition_keys]
    yield from dlt.run(
        context=context, dlt_source=share_prices_from(paths, "share_prices_daily"), partitions=paths
    )


# Any file that is dropped; the sensor in automation.py asks for new and changed ones. A record that
# is not as declared stands aside, in share_prices_by_file_rejected, and the others load.

IMPORT_DROPPED_FILE = dropped_file(
    "import_dropped_file", "A file that was dropped, checked.", SAMPLE_FILES
)


@dg.multi_asset(
    specs=[IMPORT_DROPPED_FILE],
    check_specs=[file_check(IMPORT_DROPPED_FILE.key, "quarantine")],
    partitions_def=by_file,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="import_dropped_file",
)
def import_dropped_file(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Checks the run's files."""
    yield check_files({path: path for path in context.partition_keys}, context, "quarantine")


@dlt_assets(
    dlt_source=share_prices_from([], "share_prices_by_file", "quarantine"),
    dlt_pipeline=pipeline,
    dagster_dlt_translator=WarehouseTranslator(
        OWNER,
        deps={"share_prices_by_file": [IMPORT_DROPPED_FILE.key]},
        sample_partitions=SAMPLE_FILES,
    ),
    partitions_def=by_file,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="share_prices_by_file",
)
def share_prices_by_file(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource
) -> Iterator[object]:
    """Loads the run's files."""
    source = share_prices_from(context.partition_keys, "share_prices_by_file", "quarantine")
    yield from dlt.run(context=context, dlt_source=source)


# A day stands in a file once; that a file has it twice is for a person to see, not wrong in itself.
unique_prices, unique_daily_prices, unique_prices_by_file = (
    build_unique_rows_check(
        asset_key("csv_data", table), ["file_name", "date"], dg.AssetCheckSeverity.WARN
    )
    for table in DESCRIPTIONS
)
few_rejected_rows = build_rejected_rows_check(
    asset_key("csv_data", "share_prices_by_file"), max_ratio=0.05
)
