"""NASA NeoWs: every asteroid that passes near Earth, by day (https://api.nasa.gov)."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import dlt
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltResource
from dlt.sources.helpers import requests

from shared import environment

WIDEST_WINDOW_DAYS = 8
"""Calendar dates one /feed request may cover: the API accepts `end_date - start_date <= 7`."""

_UNITS_OF_DIAMETER = ("kilometers", "meters", "miles", "feet")
_UNITS_OF_VELOCITY = ("kilometers_per_second", "kilometers_per_hour", "miles_per_hour")
_UNITS_OF_DISTANCE = ("astronomical", "lunar", "kilometers", "miles")


def _column(data_type: str, description: str, **hints: Any) -> TColumnSchema:
    return {"data_type": data_type, "description": description, "nullable": True, **hints}  # type: ignore[typeddict-item]


OBJECT_COLUMNS: dict[str, TColumnSchema] = {
    "close_approach_date": _column(
        "date", "Day of the closest approach, UTC.", nullable=False, partition=True
    ),
    "neo_reference_id": _column("text", "JPL's SPK-ID of the object.", nullable=False),
    "name": _column("text", "Designation, such as (2015 BY512)."),
    "nasa_jpl_url": _column("text", "The object's page at JPL."),
    "absolute_magnitude_h": _column("double", "Absolute magnitude H."),
    **{
        f"estimated_diameter_{unit}_{bound}": _column(
            "double", f"Estimated diameter, {bound}, in {unit}."
        )
        for unit in _UNITS_OF_DIAMETER
        for bound in ("min", "max")
    },
    "is_potentially_hazardous_asteroid": _column(
        "bool", "Whether JPL calls it potentially hazardous."
    ),
    "is_sentry_object": _column(
        "bool", "Whether JPL's impact monitoring lists it; unknown before 2018-12."
    ),
    "close_approach_at": _column("timestamp", "Moment of the closest approach, UTC."),
    **{
        f"relative_velocity_{unit}": _column("double", f"Velocity relative to the body, in {unit}.")
        for unit in _UNITS_OF_VELOCITY
    },
    **{
        f"miss_distance_{unit}": _column("double", f"Distance from the body, in {unit} units.")
        if unit in ("astronomical", "lunar")
        else _column("double", f"Distance from the body, in {unit}.")
        for unit in _UNITS_OF_DISTANCE
    },
    "orbiting_body": _column("text", "The body passed; Earth in the feed."),
}
"""The columns of a table of near-earth objects, with dlt's type and a description each."""

SUMMARY_COLUMNS: dict[str, TColumnSchema] = {
    "close_approach_date": _column("date", "The day, UTC.", nullable=False, partition=True),
    "objects": _column("bigint", "Objects that passed on that day."),
    "hazardous_objects": _column("bigint", "Those of them called potentially hazardous."),
    "closest_name": _column("text", "Designation of the object that came closest."),
    "closest_lunar_distance": _column("double", "Its distance; 1 is the Moon's, 384,400 km."),
    "fastest_name": _column("text", "Designation of the fastest object."),
    "fastest_kilometers_per_second": _column("double", "Its velocity relative to Earth, in km/s."),
}
"""The columns of the daily summary."""


class NeowsError(Exception):
    """NeoWs did not answer a request with a feed."""


@dlt.source
def neows(days: Sequence[str], table: str = "near_earth_objects") -> DltResource:
    """Loads the objects that pass Earth on some days, asking in as few requests as the API allows.

    Args:
        days: calendar days as YYYY-MM-DD, in any order. Each is replaced as a whole: NASA revises
            the past, objects move and vanish.
        table: the table to load into.
    """

    @dlt.resource(
        name=table,
        columns=OBJECT_COLUMNS,
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        schema_contract={"columns": "freeze", "data_type": "freeze"},
    )
    def near_earth_objects() -> Iterator[Any]:
        """Near-earth objects, a row per object and day of closest approach.

        Yields the columns of `OBJECT_COLUMNS`; times are UTC. `is_sentry_object`, which NASA did not
        send before 2018-12, is NULL where it is missing.

        Raises:
            NeowsError: an answer was no feed, or an object lacks a field; the message names window,
                status and object, and what to do.
        """
        # Without this an empty day would load nothing, and its old rows would stay.
        yield dlt.mark.materialize_table_schema()
        for first, last in windows(days):
            yield _objects(fetch_feed(first, last))

    return near_earth_objects


@dlt.source(name="neows")
def neows_summary(summarise: Callable[[], Iterable[dict[str, Any]]]) -> DltResource:
    """Loads a summary row per day, under the same schema as `neows`.

    Args:
        summarise: returns dictionaries with the columns of `SUMMARY_COLUMNS`; asked when the load
            has its turn, so that no older summary lands after a newer one.
    """

    @dlt.resource(
        name="daily_summary",
        columns=SUMMARY_COLUMNS,
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        schema_contract={"columns": "freeze", "data_type": "freeze"},
    )
    def daily_summary() -> Iterator[Any]:
        """A day of near-earth objects in one row: how many, how many hazardous, closest, fastest."""
        yield dlt.mark.materialize_table_schema()
        yield from summarise()

    return daily_summary


def windows(days: Iterable[str]) -> Iterator[tuple[date, date]]:
    """Yields the fewest windows of adjoining days, first and last included, that cover `days`."""
    dates = sorted({date.fromisoformat(day) for day in days})
    if not dates:
        return
    first = dates[0]
    for day, following in pairwise([*dates, None]):
        assert day is not None
        full = (day - first).days + 1 == WIDEST_WINDOW_DAYS
        if full or following != day + timedelta(days=1):
            yield first, day
            if following is not None:
                first = following


def fetch_feed(first: date, last: date) -> dict[str, Any]:
    """Asks NeoWs for the days from `first` to `last` and returns the feed's `near_earth_objects`.

    The key travels in a header: in the address every error message would repeat it.

    Raises:
        NeowsError: any answer but a feed.
    """
    url = f"{environment.value('NASA_BASE_URL')}/feed"
    key = environment.value("NASA_API_KEY").strip()
    if not (key.isascii() and key.isprintable()):
        raise NeowsError("NASA_API_KEY holds characters that no key has; set it again.")
    window = {"start_date": first.isoformat(), "end_date": last.isoformat()}
    client = requests.Client(
        raise_for_status=False,
        # An exhausted limit is refilled in up to an hour; waiting here would block the run.
        status_codes=range(500, 600),
        session_attrs={
            "headers": {
                "X-Api-Key": key,
                # Else the gateway's errors follow the address, and can be HTML.
                "Accept": "application/json",
            }
        },
    )
    client.configure()
    try:
        response = client.get(url, params=window, allow_redirects=False)
    except requests.RequestException as error:
        raise NeowsError(f"NeoWs could not be reached for {first} to {last}: {error}") from None
    place = f"{url} for {first} to {last}"
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        raise NeowsError(
            f"{place}: the request limit is used up; run again in "
            f"{response.headers.get('Retry-After', 'about 3600')} s, or set NASA_API_KEY to a key of "
            "your own (1,000 requests an hour, DEMO_KEY has 30)."
        )
    if response.status_code == HTTPStatus.FORBIDDEN:
        raise NeowsError(
            f"{place}: the key was refused; set NASA_API_KEY (free at https://api.nasa.gov)."
        )
    try:
        # Links and error messages repeat the key; nothing that is stored or raised may.
        feed = json.loads(response.text.replace(key, "REDACTED"))
    except json.JSONDecodeError:
        feed = None
    if response.status_code != HTTPStatus.OK:
        reason = feed.get("error_message", "") if isinstance(feed, dict) else ""
        raise NeowsError(f"{place}: status {response.status_code}. {reason}".rstrip())
    if not isinstance(feed, dict) or "near_earth_objects" not in feed:
        raise NeowsError(f"{place}: the answer is not a NeoWs feed; run again later.")
    objects: dict[str, Any] = feed["near_earth_objects"]
    return objects


def _objects(days: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the feed's objects as typed rows; the key-bearing `links` are left behind."""
    return [_row(day, item) for day in sorted(days) for item in days[day]]


def _row(day: str, item: dict[str, Any]) -> dict[str, Any]:
    try:
        return _typed(item)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NeowsError(
            f"{day}: the object {item.get('neo_reference_id', item)!r} is not as NeoWs describes one: "
            f"{type(error).__name__} {error}. Nothing of its window was loaded."
        ) from None


def _typed(item: dict[str, Any]) -> dict[str, Any]:
    (approach,) = item["close_approach_data"]
    diameter, velocity, distance = (
        item["estimated_diameter"],
        approach["relative_velocity"],
        approach["miss_distance"],
    )
    return {
        "close_approach_date": date.fromisoformat(approach["close_approach_date"]),
        "neo_reference_id": item["neo_reference_id"],
        "name": item["name"],
        "nasa_jpl_url": item["nasa_jpl_url"],
        "absolute_magnitude_h": float(item["absolute_magnitude_h"]),
        **{
            f"estimated_diameter_{unit}_{bound}": float(
                diameter[unit][f"estimated_diameter_{bound}"]
            )
            for unit in _UNITS_OF_DIAMETER
            for bound in ("min", "max")
        },
        "is_potentially_hazardous_asteroid": item["is_potentially_hazardous_asteroid"],
        "is_sentry_object": item.get("is_sentry_object"),
        "close_approach_at": datetime.fromtimestamp(0, UTC)
        + timedelta(milliseconds=approach["epoch_date_close_approach"]),
        **{f"relative_velocity_{unit}": float(velocity[unit]) for unit in _UNITS_OF_VELOCITY},
        **{f"miss_distance_{unit}": float(distance[unit]) for unit in _UNITS_OF_DISTANCE},
        "orbiting_body": approach["orbiting_body"],
    }
