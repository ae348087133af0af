"""Partitions of dropped files: one for each day, or one for each file."""

import dagster as dg

daily = dg.DailyPartitionsDefinition(start_date="2018-01-22")
by_file = dg.DynamicPartitionsDefinition(name="dropped_files")

SAMPLE_DAYS = ["2018-01-22...2018-01-24"]
SAMPLE_FILES = ["2018-01-22.csv", "2018-01-23.csv", "2018-01-24.csv"]
"""The partitions of the sample in the drop folder."""


def file_of_day(day: str) -> str:
    """Return the path of a day's file in the drop folder."""
    return f"{day}.csv"
