"""NASA NeoWs: every asteroid that passes near Earth, by day (https://api.nasa.gov).

The three ways to load an API: `neows` by windows of days, `neows_catalog` by pages,
`neows_sentry_objects` by one look-up for each object.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.libs.pyarrow import columns_to_arrow
from dlt.common.schema.typing import TColumnSchema, TSchemaContractDict
from dlt.extract import DltResource

from shared.sources.neows.client import NeowsClient, NeowsError, NotFoundError
from shared.sources.protocol import COMPANION_TABLES_HINT, RetryLaterError, defer_partitions

MAX_WINDOW_DAYS = 8
"""Calendar dates one /feed request may cover: the API accepts `end_date - start_date <= 7`."""

_UNITS_OF_DIAMETER = ("kilometers", "meters", "miles", "feet")
_UNITS_OF_VELOCITY = ("kilometers_per_second", "kilometers_per_hour", "miles_per_hour")
_UNITS_OF_DISTANCE = ("astronomical", "lunar", "kilometers", "miles")

_FROZEN: TSchemaContractDict = {"columns": "freeze", "data_type": "freeze"}
_REPLACED: Any = {"disposition": "merge", "strategy": "delete-insert"}


def _column(data_type: str, description: str, **hints: Any) -> TColumnSchema:
    return {"data_type": data_type, "description": description, "nullable": True, **hints}  # type: ignore[typeddict-item]


_OBJECT_COLUMNS: dict[str, TColumnSchema] = {
    "neo_reference_id": _column("text", "JPL's SPK-ID of the object.", nullable=False),
    "name": _column("text", "Designation, such as (2015 BY512)."),
    "id": _column("text", "The SPK-ID once more, as NASA sends it since 2018-12."),
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
}
_APPROACH_COLUMNS: dict[str, TColumnSchema] = {
    "close_approach_at": _column("timestamp", "Moment of the closest approach, UTC."),
    **{
        f"relative_velocity_{unit}": _column("double", f"Velocity relative to the body, in {unit}.")
        for unit in _UNITS_OF_VELOCITY
    },
    "miss_distance_astronomical": _column("double", "Distance from the body, in au."),
    "miss_distance_lunar": _column(
        "double", "Distance from the body in lunar distances, which NASA takes as 1/389 au."
    ),
    "miss_distance_kilometers": _column("double", "Distance from the body, in kilometers."),
    "miss_distance_miles": _column("double", "Distance from the body, in miles."),
    "orbiting_body": _column("text", "The body passed; Earth in the feed."),
}
_FURTHER_FIELDS = {
    "unmapped_fields": _column(
        "text", "JSON of what NASA sends and no other column takes; NULL if nothing."
    )
}
_ORBIT_NUMBERS = {
    "data_arc_in_days": "Days between the first and the last observation.",
    "observations_used": "Observations the orbit was computed from.",
    "orbit_uncertainty": "Uncertainty of the orbit, from 0 (good) to 9.",
    "minimum_orbit_intersection": "Least distance between the orbits of object and Earth, in au.",
    "jupiter_tisserand_invariant": "Tisserand's parameter with respect to Jupiter.",
    "epoch_osculation": "Epoch of the orbit, as a Julian date (TDB).",
    "eccentricity": "Eccentricity of the orbit.",
    "semi_major_axis": "Semi-major axis, in au.",
    "inclination": "Inclination, in degrees.",
    "ascending_node_longitude": "Longitude of the ascending node, in degrees.",
    "orbital_period": "Orbital period, in days.",
    "perihelion_distance": "Least distance from the Sun, in au.",
    "perihelion_argument": "Argument of perihelion, in degrees.",
    "aphelion_distance": "Greatest distance from the Sun, in au.",
    "perihelion_time": "Time of perihelion, as a Julian date (TDB).",
    "mean_anomaly": "Mean anomaly, in degrees.",
    "mean_motion": "Mean motion, in degrees a day.",
}
_ORBIT_COLUMNS: dict[str, TColumnSchema] = {
    "orbit_id": _column("text", "JPL's name of the orbit's solution."),
    "orbit_determination_date": _column(
        "text", "When the orbit was computed, as NASA writes it: without a time zone."
    ),
    "first_observation_date": _column("date", "Day of the first observation."),
    "last_observation_date": _column("date", "Day of the last observation."),
    **{name: _column("double", told) for name, told in _ORBIT_NUMBERS.items()},
    "equinox": _column("text", "Equinox of the elements, such as J2000."),
    "orbit_class_type": _column("text", "Class of the orbit, such as APO for Apollo."),
    "orbit_class_description": _column("text", "What the class means."),
    "orbit_class_range": _column("text", "The orbits that the class takes, as formulas."),
}

OBJECT_COLUMNS: dict[str, TColumnSchema] = {
    "close_approach_date": _column(
        "date", "Day of the closest approach, UTC.", nullable=False, partition=True
    ),
    **_OBJECT_COLUMNS,
    **_APPROACH_COLUMNS,
    **_FURTHER_FIELDS,
}
"""The columns of a table of near-earth objects, with dlt's type and a description each."""

DAY_COLUMNS: dict[str, TColumnSchema] = {
    "close_approach_date": _column("date", "The day, UTC.", nullable=False, partition=True),
    "element_count": _column("bigint", "Objects that NASA sent for the day.", nullable=False),
    "requested_at": _column("timestamp", "When NASA was asked, UTC.", nullable=False),
}
"""The columns of `<table>_days`, a row for each day that was loaded, those without objects too."""

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

CATALOG_COLUMNS: dict[str, TColumnSchema] = {
    **_OBJECT_COLUMNS,
    "neo_reference_id": _column(
        "text", "JPL's SPK-ID of the object.", nullable=False, primary_key=True
    ),
    **_ORBIT_COLUMNS,
    "crawl_number": _column(
        "bigint",
        "The walk through all pages that last met the object. One that two later, finished walks did "
        "not meet has left the catalog; one alone may miss an object that moved to another page.",
        nullable=False,
    ),
    **_FURTHER_FIELDS,
}
"""The columns of the catalog, a row for each object."""

SENTRY_COLUMNS: dict[str, TColumnSchema] = {
    "day": _column("date", "The day on which it passed, UTC.", nullable=False, partition=True),
    **_OBJECT_COLUMNS,
    **_ORBIT_COLUMNS,
    **_FURTHER_FIELDS,
}
"""The columns of the Sentry objects, a row for each day and object that passed on it."""

SENTRY_APPROACH_COLUMNS: dict[str, TColumnSchema] = {
    "day": _column(
        "date", "The day whose load looked the object up, UTC.", nullable=False, partition=True
    ),
    "neo_reference_id": _column("text", "JPL's SPK-ID of the object.", nullable=False),
    "close_approach_date": _column("date", "Day of the approach, UTC."),
    **_APPROACH_COLUMNS,
    **_FURTHER_FIELDS,
}
"""The columns of `sentry_approaches`: the passes that are known, past and to come, by any planet."""


def _arrow(columns: Mapping[str, TColumnSchema]) -> pa.Schema:
    return columns_to_arrow(
        {name: {**hints, "name": name} for name, hints in columns.items()},
        DestinationCapabilitiesContext.generic_capabilities(),
        "UTC",
    )


def _struct(**fields: pa.DataType) -> pa.StructType:
    return pa.struct(list(fields.items()))


_DIAMETER = _struct(estimated_diameter_min=pa.float64(), estimated_diameter_max=pa.float64())
_OBJECT = _struct(
    neo_reference_id=pa.string(),
    id=pa.string(),
    name=pa.string(),
    nasa_jpl_url=pa.string(),
    absolute_magnitude_h=pa.float64(),
    estimated_diameter=_struct(**dict.fromkeys(_UNITS_OF_DIAMETER, _DIAMETER)),
    is_potentially_hazardous_asteroid=pa.bool_(),
    is_sentry_object=pa.bool_(),
    sentry_data=pa.string(),
)
_APPROACH = _struct(
    close_approach_date=pa.string(),
    epoch_date_close_approach=pa.float64(),  # else Arrow cuts a fraction off
    relative_velocity=_struct(**dict.fromkeys(_UNITS_OF_VELOCITY, pa.string())),
    miss_distance=_struct(**dict.fromkeys(_UNITS_OF_DISTANCE, pa.string())),
    orbiting_body=pa.string(),
)
_ORBIT_CLASS = ("orbit_class_type", "orbit_class_description", "orbit_class_range")
_ORBIT_VALUES = [name for name in _ORBIT_COLUMNS if name not in _ORBIT_CLASS]
_WRONG = (AttributeError, KeyError, OverflowError, TypeError, ValueError)

_Fields = dict[str, "_Fields | None"]


def _fields(struct: pa.StructType) -> _Fields:
    """Returns the names of a struct's fields, each with its own where it is a struct as well."""
    return {
        field.name: _fields(field.type) if pa.types.is_struct(field.type) else None
        for field in struct
    }


# What columns take, and what none need take: links repeat the key, the full date is the epoch again.
_TAKEN_OF_APPROACH: _Fields = {**_fields(_APPROACH), "close_approach_date_full": None}
_TAKEN: _Fields = {**_fields(_OBJECT), "links": None, "close_approach_data": None}
_TAKEN_WITH_ORBIT: _Fields = {
    **_TAKEN,
    "orbital_data": {
        **dict.fromkeys(_ORBIT_VALUES),
        "orbit_class": dict.fromkeys(_ORBIT_CLASS),
    },
}
_UNITS, _BOUNDS = set(_UNITS_OF_DIAMETER), set(_DIAMETER.names)
_VELOCITIES, _DISTANCES = set(_UNITS_OF_VELOCITY), set(_UNITS_OF_DISTANCE)


@dlt.source
def neows(days: Sequence[str], table: str = "near_earth_objects") -> DltResource:
    """Loads the objects that pass Earth on some days, asking in as few requests as the API allows.

    Args:
        days: calendar days as YYYY-MM-DD, in any order. Each is replaced as a whole: NASA revises
            the past, objects move and vanish.
        table: the table to load into; `<table>_days` says of each day how many objects it had.
    """
    days_table = f"{table}_days"

    @dlt.resource(
        name=table,
        columns=OBJECT_COLUMNS,
        write_disposition=_REPLACED,
        schema_contract=_FROZEN,
    )
    def near_earth_objects() -> Iterator[Any]:
        """The asteroids and comets that pass near Earth: when, how close, how fast, how large.

        A row per object and day of closest approach.

        Yields Arrow tables with the columns of `OBJECT_COLUMNS`, one for a request, and of
        `DAY_COLUMNS`; times are UTC. What NASA does not send is NULL, such as `is_sentry_object`
        before 2018-12; what it sends and no column takes is kept in `unmapped_fields`.

        Where the request limit is used up midway, the days left are for a later run if the pipeline
        loads in parts.

        Raises:
            NeowsError: an answer was no feed, or a value has another type; the message names window,
                status and object, and what to do.
            RetryLaterError: the request limit is used up.
        """
        # Without these an empty day would load nothing, and its old rows would stay.
        yield _arrow(OBJECT_COLUMNS).empty_table()
        yield from _further_table(days_table, DAY_COLUMNS)
        client = NeowsClient(dlt.current.resource_metrics())
        counts: list[dict[str, Any]] = []
        for first, last in windows(days):
            requested_at = datetime.now(UTC)
            try:
                feed = client.feed(first, last)
            except RetryLaterError as why:
                defer_partitions([day for day in days if day >= first.isoformat()], why)
                break
            found = [(day, item) for day in sorted(feed) for item in feed[day]]
            yield _read(found, _passes)
            counts += [
                {
                    "close_approach_date": day,
                    "element_count": len(feed.get(day.isoformat(), ())),
                    "requested_at": requested_at,
                }
                for day in (first + timedelta(days=n) for n in range((last - first).days + 1))
            ]
        yield dlt.mark.with_table_name(
            pa.Table.from_pylist(counts, _arrow(DAY_COLUMNS)), days_table
        )

    return near_earth_objects.apply_hints(
        additional_table_hints={COMPANION_TABLES_HINT: [days_table]}
    )


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
        write_disposition=_REPLACED,
        schema_contract=_FROZEN,
    )
    def daily_summary() -> Iterator[Any]:
        """What passed near Earth on a day, in one row: how many, how many hazardous, the closest.

        From the loaded days alone; NASA is not asked.
        """
        yield dlt.mark.materialize_table_schema()
        yield from summarise()

    return daily_summary


@dlt.source(name="neows")
def neows_catalog(pages: int = 50) -> DltResource:
    """Loads the catalog of all near-earth objects, some pages further with each run.

    The API tells nothing of what changed, so the catalog is walked page by page, without end: dlt's
    state keeps the next page, and a run that fails or is killed goes on where the last one landed.

    Args:
        pages: how many, of 20 objects each, that a run asks for. There are about 2,000.
    """

    @dlt.resource(
        name="catalog",
        columns=CATALOG_COLUMNS,
        write_disposition=_REPLACED,
        schema_contract=_FROZEN,
    )
    def catalog() -> Iterator[Any]:
        """All near-earth objects that NASA knows, with their orbits, a row each.

        A walk through the catalog without end, some pages with each run.

        Yields an Arrow table with the columns of `CATALOG_COLUMNS` for each page. Where the
        request limit is used up after a page, what came until then lands.

        Raises:
            NeowsError: an answer was no page, or a value has another type.
            RetryLaterError: the request limit is used up at the first page.
        """
        yield _arrow(CATALOG_COLUMNS).empty_table()
        state = dlt.current.resource_state()
        first, walk = state.get("next_page", 0), state.get("pass", 1)
        client = NeowsClient(dlt.current.resource_metrics())
        for page in range(first, first + pages):
            try:
                objects, in_all = client.browse(page)
            except RetryLaterError:
                if page == first:
                    raise
                return
            found = [(f"page {page}", item) for item in objects]
            yield _read(found, lambda items: _catalogd(items, walk))
            state["next_page"] = page + 1
            if page + 1 >= in_all:
                state |= {"next_page": 0, "pass": walk + 1}
                return

    return catalog


@dlt.source(name="neows")
def neows_sentry_objects(
    days: Sequence[str], passing: Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
) -> Any:
    """Looks up each Sentry object that passes on some days: those with a chance to hit Earth.

    Args:
        days: calendar days as YYYY-MM-DD; each is replaced as a whole.
        passing: returns the SPK-IDs of the Sentry objects by day; asked when the load has its turn.
    """

    @dlt.resource(selected=False)
    def days_with_objects() -> Iterator[dict[str, Any]]:
        passes = passing(days)
        for day in sorted(days):
            yield {"day": day, "spk_ids": passes.get(day, [])}

    found: dict[str, dict[str, Any] | None] = {}
    later: list[RetryLaterError] = []

    @dlt.transformer(
        data_from=days_with_objects,
        name="sentry_objects",
        columns=SENTRY_COLUMNS,
        write_disposition=_REPLACED,
        schema_contract=_FROZEN,
    )
    def sentry_objects(passed: Mapping[str, Any]) -> Iterator[Any]:
        """The objects with a chance to hit Earth (NASA's Sentry list), with their orbits.

        A row per object and day on which it passed.

        Yields Arrow tables with the columns of `SENTRY_COLUMNS` and of `SENTRY_APPROACH_COLUMNS`, one
        for each object; times are UTC. An object that NASA no longer has is left out.

        Raises:
            NeowsError: an answer was no object, or a value has another type.
            RetryLaterError: the request limit is used up.
        """
        day = passed["day"]
        if day == min(days):
            yield _arrow(SENTRY_COLUMNS).empty_table()
            yield from _further_table("sentry_approaches", SENTRY_APPROACH_COLUMNS)
        try:
            if not later:
                unknown = [spk_id for spk_id in passed["spk_ids"] if spk_id not in found]
                found.update(_look_up(unknown) if unknown else {})
        except RetryLaterError as why:
            later.append(why)
        if later:
            defer_partitions([day], later[0])
            return
        items = [item for spk_id in passed["spk_ids"] if (item := found[spk_id])]
        for item in items:
            yield _read([(day, item)], lambda items: _looked_up(items, day))
            yield dlt.mark.with_table_name(
                _read([(day, item)], lambda items: _approaches(items, day)), "sentry_approaches"
            )

    return sentry_objects.apply_hints(
        additional_table_hints={COMPANION_TABLES_HINT: ["sentry_approaches"]}
    )


def _look_up(spk_ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """Returns objects by their SPK-ID; None for one that NASA does not have."""
    client = NeowsClient(dlt.current.resource_metrics())
    found: dict[str, dict[str, Any] | None] = {}
    for spk_id in spk_ids:
        try:
            found[spk_id] = client.object(spk_id)
        except NotFoundError:
            found[spk_id] = None
    return found


def windows(days: Iterable[str]) -> Iterator[tuple[date, date]]:
    """Yields the fewest windows of adjoining days, first and last included, that cover `days`."""
    dates = sorted({date.fromisoformat(day) for day in days})
    if not dates:
        return
    first = dates[0]
    for day, following in pairwise([*dates, None]):
        assert day is not None
        full = (day - first).days + 1 == MAX_WINDOW_DAYS
        if full or following != day + timedelta(days=1):
            yield first, day
            if following is not None:
                first = following


def _further_table(name: str, columns: dict[str, TColumnSchema]) -> Iterator[Any]:
    """Yields what makes a further table of the running resource, with these columns alone.

    It begins with all hints of the resource, so its columns have to go first.
    """
    for further in ({}, columns):
        hints = dlt.mark.make_hints(table_name=name, columns=further)
        yield dlt.mark.with_hints(_arrow(columns).empty_table(), hints, create_table_variant=True)


def _read(found: list[tuple[str, Any]], rows: Callable[[list[Any]], pa.Table]) -> pa.Table:
    """Returns the objects of an answer, each with the place where it stood, as typed rows.

    Arrow takes them over as a whole: a hundred times faster than a dictionary for each row. Only
    where it cannot are they tried one by one, to name the one that is wrong.
    """
    try:
        return rows([item for _, item in found])
    except _WRONG:
        for place, item in found:
            _refuse(place, item, rows)
        raise


def _refuse(place: str, item: Any, rows: Callable[[list[Any]], pa.Table]) -> None:
    """Raises if an object is not as NeoWs describes one."""
    try:
        rows([item])
    except _WRONG as error:
        which = item.get("neo_reference_id", item) if isinstance(item, dict) else item
        raise NeowsError(
            f"{place}: the object {which!r} is not as NeoWs describes one: "
            f"{type(error).__name__} {error}. Nothing of its answer was loaded."
        ) from None


def _passes(items: list[dict[str, Any]]) -> pa.Table:
    """Returns the objects of a feed, each with the one approach it has there."""
    approaches = [approach for item in items for (approach,) in [item["close_approach_data"]]]
    columns = {
        **_object_values(items),
        **_approach_values(approaches),
        "unmapped_fields": _further(
            {}
            if _nothing_further(item, approach)
            else _untaken(item, _TAKEN)
            | _untaken(approach, _TAKEN_OF_APPROACH, "close_approach_data.")
            for item, approach in zip(items, approaches, strict=True)
        ),
    }
    return _rows(columns, OBJECT_COLUMNS)


def _catalogd(items: list[dict[str, Any]], walk: int) -> pa.Table:
    """Returns a page of the catalog."""
    columns = {
        **_object_values(items),
        **_orbit_values(items),
        "crawl_number": pa.array([walk] * len(items), pa.int64()),
        "unmapped_fields": _further(_untaken(item, _TAKEN_WITH_ORBIT) for item in items),
    }
    return _rows(columns, CATALOG_COLUMNS)


def _looked_up(items: list[dict[str, Any]], day: str) -> pa.Table:
    """Returns objects that were looked up, under the day for which they were."""
    columns = {
        "day": pa.array([day] * len(items)),
        **_object_values(items),
        **_orbit_values(items),
        "unmapped_fields": _further(_untaken(item, _TAKEN_WITH_ORBIT) for item in items),
    }
    return _rows(columns, SENTRY_COLUMNS)


def _approaches(items: list[dict[str, Any]], day: str) -> pa.Table:
    """Returns all approaches of objects that were looked up."""
    pairs = [(item, approach) for item in items for approach in item["close_approach_data"]]
    columns = {
        "day": pa.array([day] * len(pairs)),
        "neo_reference_id": pa.array([item["neo_reference_id"] for item, _ in pairs], pa.string()),
        **_approach_values([approach for _, approach in pairs]),
        "unmapped_fields": _further(
            _untaken(approach, _TAKEN_OF_APPROACH) for _, approach in pairs
        ),
    }
    return _rows(columns, SENTRY_APPROACH_COLUMNS)


def _object_values(items: list[dict[str, Any]]) -> dict[str, pa.Array]:
    known = pa.array(items, _OBJECT)
    # Its query is the key.
    address = pc.split_pattern(known.field("sentry_data"), "?", max_splits=1)
    return {
        **{name: known.field(name) for name in _OBJECT.names if name in _OBJECT_COLUMNS},
        "sentry_data": pc.list_element(address, 0),
        **{
            f"estimated_diameter_{unit}_{bound}": _member(
                known, "estimated_diameter", unit, f"estimated_diameter_{bound}"
            )
            for unit in _UNITS_OF_DIAMETER
            for bound in ("min", "max")
        },
    }


def _approach_values(approaches: list[dict[str, Any]]) -> dict[str, pa.Array]:
    passed = pa.array(approaches, _APPROACH)
    return {
        "close_approach_date": passed.field("close_approach_date"),
        "close_approach_at": passed.field("epoch_date_close_approach")
        .cast(pa.int64())
        .cast(pa.timestamp("ms", "UTC")),
        **{
            f"relative_velocity_{unit}": _member(passed, "relative_velocity", unit)
            for unit in _UNITS_OF_VELOCITY
        },
        **{
            f"miss_distance_{unit}": _member(passed, "miss_distance", unit)
            for unit in _UNITS_OF_DISTANCE
        },
        "orbiting_body": passed.field("orbiting_body"),
    }


def _member(values: pa.StructArray, *names: str) -> pa.Array:
    """Returns a field of a struct in a struct; NULL where a struct is missing."""
    return pc.struct_field(values, list(names))


def _orbit_values(items: list[dict[str, Any]]) -> dict[str, pa.Array]:
    orbits = [item.get("orbital_data") or {} for item in items]
    classes = [orbit.get("orbit_class") or {} for orbit in orbits]
    return {
        **{name: _texts(name, orbits) for name in _ORBIT_VALUES},
        **{name: _texts(name, classes) for name in _ORBIT_CLASS},
    }


def _texts(name: str, values: list[dict[str, Any]]) -> pa.Array:
    """Returns a field as texts: NASA sends numbers as texts, and some of them as numbers."""
    found = [value.get(name) for value in values]
    for each in found:
        if type(each) not in (str, int, float, type(None)):
            raise TypeError(f"{name} is {each!r}")
    return pa.array([None if each is None else str(each) for each in found], pa.string())


def _rows(values: Mapping[str, pa.Array], columns: Mapping[str, TColumnSchema]) -> pa.Table:
    """Returns a table with the columns' types; numbers and dates that come as texts are read here."""
    schema = _arrow(columns)
    arrays = [values[field.name].cast(field.type) for field in schema]
    for field, array in zip(schema, arrays, strict=True):
        if array.null_count and not field.nullable:
            raise ValueError(f"{field.name} is missing")
        if pa.types.is_floating(field.type) and pc.any(pc.invert(pc.is_finite(array))).as_py():
            raise ValueError(f"{field.name} is no number")
    return pa.Table.from_arrays(arrays, schema=schema)


def _nothing_further(item: Mapping[str, Any], approach: Mapping[str, Any]) -> bool:
    """Tells of an object like almost all others, quickly, that columns take all of it."""
    try:
        sizes = item["estimated_diameter"]
        return (
            item.keys() <= _TAKEN.keys()
            and approach.keys() <= _TAKEN_OF_APPROACH.keys()
            and approach["relative_velocity"].keys() <= _VELOCITIES
            and approach["miss_distance"].keys() <= _DISTANCES
            and sizes.keys() <= _UNITS
            and all(size.keys() <= _BOUNDS for size in sizes.values())
        )
    except (AttributeError, KeyError):
        return False


def _untaken(value: Mapping[str, Any], taken: _Fields, place: str = "") -> dict[str, Any]:
    """Returns what no column takes, each by the path where it stood; empty values are left out."""
    found: dict[str, Any] = {}
    for name, member in value.items():
        path, inside = f"{place}{name}", taken.get(name)
        if name not in taken:
            if member not in (None, {}, []):
                found[path] = member
        elif inside and isinstance(member, dict):
            found |= _untaken(member, inside, f"{path}.")
    return found


def _further(found: Iterable[Mapping[str, Any]]) -> pa.Array:
    """Returns as JSON what no column takes; NULL where that is nothing."""
    return pa.array(
        [json.dumps(each, sort_keys=True) if each else None for each in found], pa.string()
    )
