"""Near-earth objects by day, and their daily summary: an API with a window of days."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dlt
from dlt.extract import DltResource

from shared.lazy_modules import pyarrow as pa
from shared.sources.hints import (
    REPLACE_PARTITIONS,
    CompanionTable,
    arrow_schema,
    with_companion_tables,
)
from shared.sources.neows.client import NeowsClient
from shared.sources.neows.columns import DAY_COLUMNS, OBJECT_COLUMNS, SUMMARY_COLUMNS
from shared.sources.neows.rows import feed_rows, to_rows
from shared.sources.protocol import RetryLaterError, defer_partitions

MAX_WINDOW_DAYS = 8
"""Calendar dates that one /feed request may cover: the API accepts `end_date - start_date <= 7`."""

_DAY = timedelta(days=1)


@dlt.source
def neows(days: Sequence[str], table: str = "near_earth_objects") -> DltResource:
    """Load the objects that pass Earth on some days, with as few requests as the API allows.

    Args:
        days: calendar days as YYYY-MM-DD, in any order. A load replaces all rows of its days, because
            NASA revises the past: objects move to another day and disappear.
        table: the table to load into; `<table>_days` has the number of objects of each day.
    """
    days_table = f"{table}_days"
    loaded_days = CompanionTable(
        f"The days that are loaded into {table}, each with the number of objects that NASA sent.",
        DAY_COLUMNS,
    )

    @dlt.resource(name=table, columns=OBJECT_COLUMNS, **REPLACE_PARTITIONS)
    def near_earth_objects() -> Iterator[Any]:
        """The asteroids and comets that pass near Earth: when, how close, how fast, how large.

        One row for each object and day of closest approach.

        Yields an Arrow table with `OBJECT_COLUMNS` for each request, and one with `DAY_COLUMNS`; times
        are UTC. A value that NASA does not send is NULL, such as `is_sentry_object` before 2018-12.
        Fields without a column are in `unmapped_fields`.

        If the request limit is reached partway through, the remaining days are deferred if the load
        allows it.

        Raises:
            NeowsError: a response is not a feed, or a value has another type; the message names
                window, status and object, and the next step.
            RetryLaterError: the request limit is reached.
        """
        # Without an empty table, the old rows of a day without objects would stay.
        yield arrow_schema(OBJECT_COLUMNS).empty_table()
        yield loaded_days.empty(days_table)
        client = NeowsClient(dlt.current.resource_metrics())
        counts: list[dict[str, Any]] = []
        for first, last in date_windows(days):
            requested_at = datetime.now(UTC)
            try:
                feed = client.feed(first, last)
            except RetryLaterError as error:
                defer_partitions([day for day in days if day >= first.isoformat()], error)
                break
            yield to_rows([(day, item) for day in sorted(feed) for item in feed[day]], feed_rows)
            for day in (first + _DAY * n for n in range((last - first).days + 1)):
                row = {
                    "close_approach_date": day,
                    "element_count": len(feed.get(day.isoformat(), ())),
                    "requested_at": requested_at,
                }
                counts.append(row)
        rows = pa.Table.from_pylist(counts, arrow_schema(DAY_COLUMNS))
        yield dlt.mark.with_table_name(rows, days_table)

    return with_companion_tables(near_earth_objects, {days_table: loaded_days})


def date_windows(days: Iterable[str]) -> Iterator[tuple[date, date]]:
    """Yield the fewest windows of adjacent days (first and last, both included) that cover `days`."""
    dates = sorted({date.fromisoformat(day) for day in days})
    start = 0
    for end, day in enumerate(dates, 1):
        is_full = end - start == MAX_WINDOW_DAYS
        if is_full or end == len(dates) or dates[end] != day + _DAY:
            yield dates[start], day
            start = end


@dlt.source(name="neows")
def neows_summary(summarize: Callable[[], Iterable[dict[str, Any]]]) -> DltResource:
    """Load a summary row for each day, in the same schema as `neows`.

    Args:
        summarize: returns dictionaries with `SUMMARY_COLUMNS`. It runs while the load has its partition
            locks, so an older summary never replaces a newer one.
    """

    @dlt.resource(columns=SUMMARY_COLUMNS, **REPLACE_PARTITIONS)
    def daily_summary() -> Iterator[Any]:
        """The near-earth objects of a day in one row: how many, how many hazardous, the closest.

        Computed from the loaded days, without a request to NASA.
        """
        yield dlt.mark.materialize_table_schema()
        yield from summarize()

    return daily_summary
