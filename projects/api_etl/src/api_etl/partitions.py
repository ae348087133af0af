"""One partition a day, from the first day the pipeline keeps."""

import dagster as dg

daily = dg.DailyPartitionsDefinition(start_date="2015-09-01")

SAMPLE_PARTITIONS = ["2018-12-06...2018-12-12", "2025-03-10...2025-03-17"]
"""The days recorded in the bundled NeoWs server."""
