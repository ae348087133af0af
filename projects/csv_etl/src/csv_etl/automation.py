"""When files load automatically: a schedule for the file of the day, a sensor for dropped files."""

import dagster as dg

from csv_etl.assets import (
    IMPORT_DROPPED_FILE,
    import_daily_file,
    import_dropped_file,
    share_prices_by_file,
    share_prices_daily,
)
from csv_etl.partitions import by_file
from shared.orchestration.dropped_files import build_dropped_files_sensor

daily_file_job = dg.define_asset_job(
    "daily_file_job",
    selection=dg.AssetSelection.assets(import_daily_file, share_prices_daily),
    description="Checks and loads daily files.",
)

daily_file_schedule = dg.build_schedule_from_partitioned_job(
    daily_file_job,
    name="daily_file_schedule",
    description="Loads yesterday's file, every day at 06:00 UTC.",
    hour_of_day=6,
)

dropped_file_job = dg.define_asset_job(
    "dropped_file_job",
    selection=dg.AssetSelection.assets(import_dropped_file, share_prices_by_file),
    description="Checks and loads dropped files.",
)

dropped_files_sensor = build_dropped_files_sensor(
    IMPORT_DROPPED_FILE, by_file, job_name=dropped_file_job.name
)
