"""How dropped files are cut into partitions: a day each, or a file each."""

import dagster as dg

daily = dg.DailyPartitionsDefinition(start_date="2018-01-22")
by_file = dg.DynamicPartitionsDefinition(name="dropped_files_sensor")

SAMPLE_DAYS = ["2018-01-22...2018-01-24"]
SAMPLE_FILES = ["2018-01-22.csv", "2018-01-23.csv", "2018-01-24.csv"]
"""What the bundled sample in the drop folder has."""


def file_of_day(day: str) -> str:
    """Returns the path of a day's file, below the drop folder."""
    return f"{day}.csv"
