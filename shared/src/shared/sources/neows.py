"""NASA NeoWs: every asteroid that passes near Earth, by day (https://api.nasa.gov)."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import dlt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.libs.pyarrow import columns_to_arrow
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
    "id": _column("text", "The same, as NASA sends it since 2018-12."),
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
    "sentry_data": _column("text", "The address of its impact risk; sent for Sentry objects only."),
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
    "further_fields": _column(
        "text", "JSON of what NASA sends and no other column takes; NULL if nothing."
    ),
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


def _struct(**fields: pa.DataType) -> pa.StructType:
    return pa.struct(list(fields.items()))


_ARROW_COLUMNS: pa.Schema = columns_to_arrow(
    {name: {**hints, "name": name} for name, hints in OBJECT_COLUMNS.items()},
    DestinationCapabilitiesContext.generic_capabilities(),
    "UTC",
)
_OBJECT = _struct(
    neo_reference_id=pa.string(),
    id=pa.string(),
    name=pa.string(),
    nasa_jpl_url=pa.string(),
    absolute_magnitude_h=pa.float64(),
    estimated_diameter=pa.struct(
        [
            (
                unit,
                _struct(estimated_diameter_min=pa.float64(), estimated_diameter_max=pa.float64()),
            )
            for unit in _UNITS_OF_DIAMETER
        ]
    ),
    is_potentially_hazardous_asteroid=pa.bool_(),
    is_sentry_object=pa.bool_(),
    sentry_data=pa.string(),
)
_APPROACH = _struct(
    close_approach_date=pa.string(),
    epoch_date_close_approach=pa.int64(),
    relative_velocity=_struct(**dict.fromkeys(_UNITS_OF_VELOCITY, pa.string())),
    miss_distance=_struct(**dict.fromkeys(_UNITS_OF_DISTANCE, pa.string())),
    orbiting_body=pa.string(),
)
# Links repeat the key; the full date is the epoch once more, as a text.
_TAKEN = {*_OBJECT.names, "close_approach_data", "links"}
_TAKEN_OF_APPROACH = {*_APPROACH.names, "close_approach_date_full"}


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

        Yields Arrow tables with the columns of `OBJECT_COLUMNS`, one for a request; times are UTC.
        What NASA does not send is NULL, such as `is_sentry_object` before 2018-12; what it sends and
        no column takes is kept in `further_fields`.

        Raises:
            NeowsError: an answer was no feed, or a value has another type; the message names window,
                status and object, and what to do.
        """
        # Without this an empty day would load nothing, and its old rows would stay.
        yield _ARROW_COLUMNS.empty_table()
        ask = _client()
        for first, last in windows(days):
            yield _table(fetch_feed(first, last, ask))

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


def _client() -> requests.Client:
    """Returns an HTTP client for some requests; dlt takes long to make one.

    The key travels in a header: in the address every error message would repeat it.
    """
    key = environment.value("NASA_API_KEY").strip()
    if not (key.isascii() and key.isprintable()):
        raise NeowsError("NASA_API_KEY holds characters that no key has; set it again.")
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
    return client


def fetch_feed(first: date, last: date, client: requests.Client | None = None) -> dict[str, Any]:
    """Asks NeoWs for the days from `first` to `last` and returns the feed's `near_earth_objects`.

    Args:
        first: the window's first day.
        last: its last day.
        client: one that other windows are asked for with; a new one if left out.

    Raises:
        NeowsError: any answer but a feed.
    """
    url = f"{environment.value('NASA_BASE_URL')}/feed"
    window = {"start_date": first.isoformat(), "end_date": last.isoformat()}
    client = client or _client()
    key = str(client.session.headers["X-Api-Key"])
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
        feed = orjson.loads(response.content.replace(key.encode(), b"REDACTED"))
    except orjson.JSONDecodeError:
        feed = None
    if response.status_code != HTTPStatus.OK:
        reason = feed.get("error_message", "") if isinstance(feed, dict) else ""
        raise NeowsError(f"{place}: status {response.status_code}. {reason}".rstrip())
    if not isinstance(feed, dict) or "near_earth_objects" not in feed:
        raise NeowsError(f"{place}: the answer is not a NeoWs feed; run again later.")
    objects: dict[str, Any] = feed["near_earth_objects"]
    return objects


def _table(days: dict[str, list[dict[str, Any]]]) -> pa.Table:
    """Returns the feed's objects as typed rows; the key-bearing `links` are left behind.

    Arrow takes the objects over as a whole: a hundred times faster than a dictionary for each row.
    """
    items = [item for day in sorted(days) for item in days[day]]
    try:
        return _typed(items)
    except (AttributeError, KeyError, TypeError, ValueError):
        for day in sorted(days):
            for item in days[day]:
                _refuse(day, item)
        raise


def _refuse(day: str, item: Any) -> None:
    """Raises if an object is not as NeoWs describes one."""
    try:
        _typed([item])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        which = item.get("neo_reference_id", item) if isinstance(item, dict) else item
        raise NeowsError(
            f"{day}: the object {which!r} is not as NeoWs describes one: "
            f"{type(error).__name__} {error}. Nothing of its window was loaded."
        ) from None


def _typed(items: list[dict[str, Any]]) -> pa.Table:
    approaches = [approach for item in items for (approach,) in [item["close_approach_data"]]]
    known, passed = pa.array(items, _OBJECT), pa.array(approaches, _APPROACH)
    further = [_further(item, approach) for item, approach in zip(items, approaches, strict=True)]
    columns = {
        **{name: known.field(name) for name in _OBJECT.names if name in OBJECT_COLUMNS},
        **{
            f"estimated_diameter_{unit}_{bound}": known.field("estimated_diameter")
            .field(unit)
            .field(f"estimated_diameter_{bound}")
            for unit in _UNITS_OF_DIAMETER
            for bound in ("min", "max")
        },
        "close_approach_date": passed.field("close_approach_date").cast(pa.date32()),
        "close_approach_at": passed.field("epoch_date_close_approach")
        .cast(pa.timestamp("ms", "UTC"))
        .cast(pa.timestamp("us", "UTC")),
        **{
            f"relative_velocity_{unit}": passed.field("relative_velocity").field(unit)
            for unit in _UNITS_OF_VELOCITY
        },
        **{
            f"miss_distance_{unit}": passed.field("miss_distance").field(unit)
            for unit in _UNITS_OF_DISTANCE
        },
        "orbiting_body": passed.field("orbiting_body"),
        "further_fields": pa.array(further, pa.string()),
    }
    # Numbers that come as texts are read here.
    arrays = [columns[field.name].cast(field.type) for field in _ARROW_COLUMNS]
    for field, array in zip(_ARROW_COLUMNS, arrays, strict=True):
        if array.null_count and not field.nullable:
            raise ValueError(f"{field.name} is missing")
        if pa.types.is_floating(field.type) and pc.any(pc.invert(pc.is_finite(array))).as_py():
            raise ValueError(f"{field.name} is no number")
    return pa.Table.from_arrays(arrays, schema=_ARROW_COLUMNS)


def _further(item: Mapping[str, Any], approach: Mapping[str, Any]) -> str | None:
    """Returns as JSON what NASA sends of an object and no column takes."""
    further = {name: item[name] for name in item.keys() - _TAKEN}
    further |= {name: approach[name] for name in approach.keys() - _TAKEN_OF_APPROACH}
    sent = {name: value for name, value in further.items() if value is not None}
    return json.dumps(sent, sort_keys=True) if sent else None
