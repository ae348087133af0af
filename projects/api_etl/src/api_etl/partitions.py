"""One partition for each day, from the first day that the pipeline loads."""

import dagster as dg

daily = dg.DailyPartitionsDefinition(start_date="2015-09-01")

SAMPLE_PARTITIONS = ["2018-12-06...2018-12-12", "2025-03-10...2025-03-17"]
"""The days of the sample, which the local NeoWs server has recorded."""
