"""What must hold of the loaded days; each check says how bad it is if it does not, and why.

They look at the whole table: a later load may have broken an earlier day.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.translator import asset_key

OBJECTS = asset_key("nasa_neo", "near_earth_objects")
DUE_HOUR = 7
"""The hour, UTC, by which yesterday is loaded."""
RECENT_DAYS = 28
_LAXITY = 0.02  # shares of a few weeks that differ by less say nothing
_SIGMAS = 4
_SHOWN = 5

_ERROR, _WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@dataclass(frozen=True)
class Promise:
    """A check: what it promises, how bad it is if broken, and what tells.

    Attributes:
        reason: why it matters.
        severity: ERROR where rows are wrong, WARN where a person should look.
        broken: returns what is wrong, the first few; nothing if all is well.
    """

    reason: str
    severity: dg.AssetCheckSeverity
    broken: Callable[[], list[str]]


def _found(sql: str) -> Callable[[], list[str]]:
    """Returns what runs a query with a column `wrong`, and returns that."""
    return lambda: [
        str(row["wrong"]) for row in warehouse.query(f"{sql} ORDER BY 1 LIMIT {_SHOWN}")
    ]


COUNTS = """
    SELECT close_approach_date::VARCHAR || ': ' || coalesce(landed, 0)::VARCHAR || ' rows, NASA sent '
        || coalesce(element_count::VARCHAR, 'no such day') AS wrong
    FROM nasa_neo.near_earth_objects_days
    FULL JOIN (
        SELECT close_approach_date, count(*) AS landed FROM nasa_neo.near_earth_objects GROUP BY 1
    ) AS objects USING (close_approach_date)
    WHERE coalesce(landed, 0) IS DISTINCT FROM element_count
"""

CONVERSIONS = (
    # Of 2015 some numbers have two digits, so that conversions are off by half of the last.
    ("miss_distance_kilometers", "miss_distance_miles", 1.609344, 2),
    ("miss_distance_kilometers", "miss_distance_astronomical", 149_597_870.7, 10),
    ("miss_distance_lunar", "miss_distance_astronomical", 389, 0),
    ("relative_velocity_kilometers_per_hour", "relative_velocity_kilometers_per_second", 3600, 20),
    ("relative_velocity_kilometers_per_hour", "relative_velocity_miles_per_hour", 1.609344, 0.02),
    ("estimated_diameter_meters_max", "estimated_diameter_kilometers_max", 1000, 6),
    ("estimated_diameter_meters_max", "estimated_diameter_miles_max", 1609.344, 10),
    ("estimated_diameter_meters_max", "estimated_diameter_feet_max", 0.3048, 0.02),
)
"""Columns that hold one quantity in two units: the first is the second times a factor, and by how
much of the first's unit rounding may put them apart."""

UNITS = " UNION ALL ".join(
    f"""
    SELECT close_approach_date::VARCHAR || ' ' || name || ': {one} ' || {one}::VARCHAR
        || ', {other} ' || {other}::VARCHAR AS wrong
    FROM nasa_neo.near_earth_objects
    WHERE abs({one} - {other} * {factor}) > {rounding} + 1e-4 * abs({one})
    """
    for one, other, factor, rounding in CONVERSIONS
)

EPOCH = """
    SELECT close_approach_date::VARCHAR || ' ' || name || ': '
        || (close_approach_at AT TIME ZONE 'UTC')::VARCHAR AS wrong
    FROM nasa_neo.near_earth_objects
    WHERE (close_approach_at AT TIME ZONE 'UTC')::DATE <> close_approach_date
"""

FURTHER = """
    SELECT unmapped_fields, min(close_approach_date)::VARCHAR AS since
    FROM nasa_neo.near_earth_objects WHERE unmapped_fields IS NOT NULL GROUP BY 1
"""

SHARES = """
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


def _further() -> list[str]:
    """Names the fields that NASA sends and no column takes, with the first day of each."""
    since: dict[str, str] = {}
    for row in warehouse.query(FURTHER):
        for field in json.loads(row["unmapped_fields"]):
            since[field] = min(since.get(field, row["since"]), row["since"])
    return [f"{field}, since {day}" for field, day in sorted(since.items())][:_SHOWN]


def _strange_share() -> list[str]:
    """Compares the hazardous share of the last weeks with that of all before."""
    (row,) = warehouse.query(SHARES, [RECENT_DAYS])
    if row["share"] is None or row["history"] is None:
        return []  # no history yet
    history, share = row["history"], row["share"]
    by_chance = _SIGMAS * (history * (1 - history) / row["objects"]) ** 0.5
    if abs(share - history) <= _LAXITY + by_chance:
        return []
    return [f"{share:.1%} of the last {RECENT_DAYS} days' objects, and {history:.1%} before"]


def due_day(now: datetime) -> date:
    """Returns the latest day that must be there: yesterday, until 07:00 UTC the day before."""
    return (now.astimezone(UTC) - timedelta(days=1, hours=DUE_HOUR)).date()


def _missing_yesterday() -> list[str]:
    due = due_day(datetime.now(UTC))
    sql = "SELECT 1 FROM nasa_neo.near_earth_objects_days WHERE close_approach_date = ?"
    return [] if warehouse.query(sql, [due]) else [f"{due} is not there; load it"]


PROMISES: dict[str, Promise] = {
    "element_count_equals_rows": Promise(
        "Each day has as many rows as NASA sent objects; else rows were lost or doubled.",
        _ERROR,
        _found(COUNTS),
    ),
    "units_agree": Promise(
        "Kilometers, miles, au and lunar distances tell the same; else a column was mistaken.",
        _ERROR,
        _found(UNITS),
    ),
    "epoch_agrees_with_date": Promise(
        "The moment of an approach is on its day, UTC; the day is the partition, so it is right.",
        _WARN,
        _found(EPOCH),
    ),
    "hazardous_share": Promise(
        "As many objects are hazardous as in the past; else NASA may rate them anew.",
        _WARN,
        _strange_share,
    ),
    "no_unmapped_fields": Promise(
        "NASA sends no field without a column; one that it does is kept in unmapped_fields.",
        _WARN,
        _further,
    ),
    "yesterday_is_loaded": Promise(
        "Yesterday is loaded by 07:00 UTC; else a run is missing or late.",
        _WARN,
        _missing_yesterday,
    ),
}


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(name, asset=OBJECTS, description=promise.reason)
        for name, promise in PROMISES.items()
    ],
    can_subset=True,
)
def near_earth_objects_checks(
    context: dg.AssetCheckExecutionContext,
) -> Iterator[dg.AssetCheckResult]:
    """Looks at all days that have been loaded."""
    for name, promise in PROMISES.items():
        if dg.AssetCheckKey(OBJECTS, name) not in context.selected_asset_check_keys:
            continue
        wrong = promise.broken()
        metadata: dict[str, Any] = {"first wrong": dg.MetadataValue.json(wrong)} if wrong else {}
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not wrong,
            severity=promise.severity,
            description="; ".join(wrong) or "all is well",
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
