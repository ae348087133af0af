"""Checks of the loaded days, each with its severity and the reason for it.

They read the whole table, because a later load may have damaged an earlier day.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from api_etl.partitions import SAMPLE_PARTITIONS
from shared import settings, warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.translator import asset_key

OBJECTS = asset_key("nasa_neo", "near_earth_objects")
DUE_HOUR = 7
"""The hour, UTC, by which yesterday must be loaded."""
RECENT_DAYS = 28
_TOLERANCE = 0.02  # smaller differences between the shares of a few weeks mean nothing
_SIGMAS = 4
_MAX_EXAMPLES = 5

_ERROR, _WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@dataclass(frozen=True)
class Check:
    """A check of the loaded days.

    Attributes:
        description: what must be true, and what a failure means.
        severity: ERROR if rows are wrong, WARN if a person should look.
        find_failures: returns the first few failures; empty if the check passes.
        find_exemption: returns why the check does not apply now; empty if it does.
    """

    description: str
    severity: dg.AssetCheckSeverity
    find_failures: Callable[[], list[str]]
    find_exemption: Callable[[], str] = str


def _query_failures(sql: str) -> Callable[[], list[str]]:
    """Return a function that runs a query and returns its column `failure`."""
    return lambda: [
        str(row["failure"]) for row in warehouse.query(f"{sql} ORDER BY 1 LIMIT {_MAX_EXAMPLES}")
    ]


COUNTS_SQL = """
    SELECT close_approach_date::VARCHAR || ': ' || coalesce(loaded, 0)::VARCHAR || ' rows, NASA sent '
        || coalesce(element_count::VARCHAR, 'no such day') AS failure
    FROM nasa_neo.near_earth_objects_days
    FULL JOIN (
        SELECT close_approach_date, count(*) AS loaded FROM nasa_neo.near_earth_objects GROUP BY 1
    ) AS objects USING (close_approach_date)
    WHERE coalesce(loaded, 0) IS DISTINCT FROM element_count
"""

CONVERSIONS = (
    # Some numbers of 2015 have two digits, so conversions differ by half of the last digit.
    ("miss_distance_kilometers", "miss_distance_miles", 1.609344, 2),
    ("miss_distance_kilometers", "miss_distance_astronomical", 149_597_870.7, 10),
    ("miss_distance_lunar", "miss_distance_astronomical", 389, 0),
    ("relative_velocity_kilometers_per_hour", "relative_velocity_kilometers_per_second", 3600, 20),
    ("relative_velocity_kilometers_per_hour", "relative_velocity_miles_per_hour", 1.609344, 0.02),
    ("estimated_diameter_meters_max", "estimated_diameter_kilometers_max", 1000, 6),
    ("estimated_diameter_meters_max", "estimated_diameter_miles_max", 1609.344, 10),
    ("estimated_diameter_meters_max", "estimated_diameter_feet_max", 0.3048, 0.02),
)
"""Columns with one quantity in two units: the first is the second times the factor. The last number is
the largest rounding difference, in the unit of the first."""

UNITS_SQL = " UNION ALL ".join(
    f"""
    SELECT close_approach_date::VARCHAR || ' ' || name || ': {one} ' || {one}::VARCHAR
        || ', {other} ' || {other}::VARCHAR AS failure
    FROM nasa_neo.near_earth_objects
    WHERE abs({one} - {other} * {factor}) > {rounding} + 1e-4 * abs({one})
    """
    for one, other, factor, rounding in CONVERSIONS
)

EPOCH_SQL = """
    SELECT close_approach_date::VARCHAR || ' ' || name || ': '
        || (close_approach_at AT TIME ZONE 'UTC')::VARCHAR AS failure
    FROM nasa_neo.near_earth_objects
    WHERE (close_approach_at AT TIME ZONE 'UTC')::DATE <> close_approach_date
"""

UNMAPPED_SQL = """
    SELECT unmapped_fields, min(close_approach_date)::VARCHAR AS since
    FROM nasa_neo.near_earth_objects WHERE unmapped_fields IS NOT NULL GROUP BY 1
"""

SHARES_SQL = """
    SELECT
        count(*) FILTER (WHERE recent) AS objects,
        avg(hazardous) FILTER (WHERE recent) AS share,
        avg(hazardous) FILTER (WHERE NOT recent) AS history
    FROM (
        SELECT is_potentially_hazardous_asteroid::INTEGER::DOUBLE AS hazardous,
            close_approach_date > max(close_approach_date) OVER () - CAST(? AS INTEGER) AS recent
        FROM nasa_neo.near_earth_objects
    ) AS objects
"""


def _unmapped_fields() -> list[str]:
    """Return the fields that have no column, with the first day of each."""
    since: dict[str, str] = {}
    for row in warehouse.query(UNMAPPED_SQL):
        for field in json.loads(row["unmapped_fields"]):
            since[field] = min(since.get(field, row["since"]), row["since"])
    return [f"{field}, since {day}" for field, day in sorted(since.items())][:_MAX_EXAMPLES]


def _unusual_share() -> list[str]:
    """Compare the share of hazardous objects in the last weeks with the share before."""
    (row,) = warehouse.query(SHARES_SQL, [RECENT_DAYS])
    if row["share"] is None or row["history"] is None:
        return []  # there is no history yet
    history, share = row["history"], row["share"]
    by_chance = _SIGMAS * (history * (1 - history) / row["objects"]) ** 0.5
    if abs(share - history) <= _TOLERANCE + by_chance:
        return []
    return [f"{share:.1%} of the last {RECENT_DAYS} days' objects, and {history:.1%} before"]


def due_day(now: datetime) -> date:
    """Return the latest day that must be loaded: yesterday, or before 07:00 UTC the day before."""
    return (now.astimezone(UTC) - timedelta(days=1, hours=DUE_HOUR)).date()


def _missing_yesterday() -> list[str]:
    due = due_day(datetime.now(UTC))
    sql = "SELECT 1 FROM nasa_neo.near_earth_objects_days WHERE close_approach_date = ?"
    return [] if warehouse.query(sql, [due]) else [f"{due} is not loaded: run its partition"]


def _only_sample_days() -> str:
    """Return a reason if there is no API key and only the days of the sample are loaded."""
    if not settings.is_default("NASA_API_KEY"):
        return ""
    sample = [days.split("...") for days in SAMPLE_PARTITIONS]
    sql = "SELECT close_approach_date::VARCHAR AS day FROM nasa_neo.near_earth_objects_days"
    if not all(
        any(first <= row["day"] <= last for first, last in sample) for row in warehouse.query(sql)
    ):
        return ""
    return (
        "passed: NASA_API_KEY is not set and only sample days are loaded, so yesterday is not due"
    )


CHECKS: dict[str, Check] = {
    "element_count_equals_rows": Check(
        "Each day has as many rows as NASA sent objects; otherwise rows are lost or duplicated.",
        _ERROR,
        _query_failures(COUNTS_SQL),
    ),
    "units_agree": Check(
        "Values in kilometers, miles, au and lunar distances agree; otherwise a column is mapped wrongly.",
        _ERROR,
        _query_failures(UNITS_SQL),
    ),
    "epoch_agrees_with_date": Check(
        "The timestamp of an approach is on its day, UTC; the day, which is the partition, is correct.",
        _WARN,
        _query_failures(EPOCH_SQL),
    ),
    "hazardous_share": Check(
        "The share of hazardous objects is as in the past; otherwise NASA may have a new rating.",
        _WARN,
        _unusual_share,
    ),
    "no_unmapped_fields": Check(
        "Each field that NASA sends has a column; other fields are stored in unmapped_fields.",
        _WARN,
        _unmapped_fields,
    ),
    "yesterday_is_loaded": Check(
        "Yesterday is loaded by 07:00 UTC; otherwise a run is missing or late. Without NASA_API_KEY the "
        "check passes while only the days of the sample are loaded.",
        _WARN,
        _missing_yesterday,
        _only_sample_days,
    ),
}


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(name, asset=OBJECTS, description=check.description)
        for name, check in CHECKS.items()
    ],
    can_subset=True,
)
def near_earth_objects_checks(
    context: dg.AssetCheckExecutionContext,
) -> Iterator[dg.AssetCheckResult]:
    """Check all loaded days."""
    for name, check in CHECKS.items():
        if dg.AssetCheckKey(OBJECTS, name) not in context.selected_asset_check_keys:
            continue
        exemption = check.find_exemption()
        failures = [] if exemption else check.find_failures()
        metadata: dict[str, Any] = {"examples": dg.MetadataValue.json(failures)} if failures else {}
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not failures,
            severity=check.severity,
            description="; ".join(failures) or exemption or "passed",
            metadata=metadata,
        )


OBJECT_OF_DAY = ["close_approach_date", "neo_reference_id"]
(
    unique_asteroids,
    unique_objects,
    unique_days,
    unique_sentry_objects,
    unique_catalog,
) = (
    build_unique_rows_check(asset_key("nasa_neo", table), columns)
    for table, columns in {
        "asteroids": OBJECT_OF_DAY,
        "near_earth_objects": OBJECT_OF_DAY,
        "daily_summary": ["close_approach_date"],
        "sentry_objects": ["day", "neo_reference_id"],
        "catalog": ["neo_reference_id"],
    }.items()
)
