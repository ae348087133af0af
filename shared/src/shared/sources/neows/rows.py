"""NeoWs JSON as typed Arrow tables; a hundred times faster than a dictionary for each row."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import Any

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc
from shared.sources.hints import arrow_schema
from shared.sources.neows.client import NeowsError
from shared.sources.neows.columns import (
    DIAMETER_BOUNDS,
    DIAMETER_UNITS,
    DISTANCE_UNITS,
    OBJECT_COLUMNS,
    ORBIT_COLUMNS,
    SENTRY_APPROACH_COLUMNS,
    VELOCITY_UNITS,
)


@cache
def _object_type() -> "pa.StructType":
    """Return the fields of an object that become columns. Cached, because pyarrow is imported on use."""
    diameter = pa.struct({f"estimated_diameter_{bound}": pa.float64() for bound in DIAMETER_BOUNDS})
    return pa.struct(
        {
            "neo_reference_id": pa.string(),
            "id": pa.string(),
            "name": pa.string(),
            "nasa_jpl_url": pa.string(),
            "absolute_magnitude_h": pa.float64(),
            "estimated_diameter": pa.struct(dict.fromkeys(DIAMETER_UNITS, diameter)),
            "is_potentially_hazardous_asteroid": pa.bool_(),
            "is_sentry_object": pa.bool_(),
            "sentry_data": pa.string(),
        }
    )


@cache
def _approach_type() -> "pa.StructType":
    """Return the fields of an approach that become columns."""
    return pa.struct(
        {
            "close_approach_date": pa.string(),
            "epoch_date_close_approach": pa.float64(),  # as an integer, Arrow would drop a fraction
            "relative_velocity": pa.struct(dict.fromkeys(VELOCITY_UNITS, pa.string())),
            "miss_distance": pa.struct(dict.fromkeys(DISTANCE_UNITS, pa.string())),
            "orbiting_body": pa.string(),
        }
    )


_ORBIT_CLASS = ("orbit_class_type", "orbit_class_description", "orbit_class_range")
_ORBIT_VALUES = [name for name in ORBIT_COLUMNS if name not in _ORBIT_CLASS]
_ROW_ERRORS = (AttributeError, KeyError, OverflowError, TypeError, ValueError)

_Fields = dict[str, "_Fields | None"]


def _fields(struct: "pa.StructType") -> _Fields:
    """Return the names of a struct's fields, with their own fields where they are structs."""
    return {
        field.name: _fields(field.type) if pa.types.is_struct(field.type) else None
        for field in struct
    }


@cache
def _mapped_approach() -> _Fields:
    """Return the fields that have a column or repeat one: the full date is the epoch."""
    return {**_fields(_approach_type()), "close_approach_date_full": None}


@cache
def _mapped_object() -> _Fields:
    """Return the fields that have a column or repeat one: links have the key."""
    return {**_fields(_object_type()), "links": None, "close_approach_data": None}


@cache
def _mapped_with_orbit() -> _Fields:
    orbit: _Fields = {
        **dict.fromkeys(_ORBIT_VALUES),
        "orbit_class": dict.fromkeys(_ORBIT_CLASS),
    }
    return {**_mapped_object(), "orbital_data": orbit}


def to_rows(
    objects: list[tuple[str, Any]], convert: "Callable[[list[Any]], pa.Table]"
) -> "pa.Table":
    """Return the objects of a response as typed rows.

    Args:
        objects: each object, after its place in the response: a day or a page.
        convert: `feed_rows`, `detail_rows` or `approach_rows`. It gets all objects at once, and one by
            one only to find the one that is wrong.

    Raises:
        NeowsError: an object has missing or wrong values; the message names its place and SPK-ID.
    """
    try:
        return convert([item for _, item in objects])
    except _ROW_ERRORS:
        for place, item in objects:
            try:
                convert([item])
            except _ROW_ERRORS as error:
                name = item.get("neo_reference_id", item) if isinstance(item, dict) else item
                raise NeowsError(
                    f"{place}: the object {name!r:.100} is not as NeoWs describes one: "
                    f"{type(error).__name__} {error}. Nothing from its response was loaded."
                ) from None
        raise


def feed_rows(items: list[dict[str, Any]]) -> "pa.Table":
    """Return the objects of a feed with `OBJECT_COLUMNS`; each has one approach there."""
    approaches = [approach for item in items for (approach,) in [item["close_approach_data"]]]
    unmapped: Iterable[Mapping[str, Any]] = repeat({}, len(items))
    if _has_unmapped(items, _mapped_object()) or _has_unmapped(approaches, _mapped_approach()):
        unmapped = (
            _unmapped(item, _mapped_object())
            | _unmapped(approach, _mapped_approach(), "close_approach_data.")
            for item, approach in zip(items, approaches, strict=True)
        )
    return _table(
        {**_object_values(items), **_approach_values(approaches)}, unmapped, OBJECT_COLUMNS
    )


def detail_rows(
    items: list[dict[str, Any]], columns: Mapping[str, TColumnSchema], **constants: Any
) -> "pa.Table":
    """Return objects with their orbits, and columns that have the same value in all rows."""
    values = {name: pa.array([value] * len(items)) for name, value in constants.items()}
    unmapped = (_unmapped(item, _mapped_with_orbit()) for item in items)
    return _table(values | _object_values(items) | _orbit_values(items), unmapped, columns)


def approach_rows(items: list[dict[str, Any]], day: str) -> "pa.Table":
    """Return all approaches of objects with `SENTRY_APPROACH_COLUMNS`."""
    pairs = [(item, approach) for item in items for approach in item["close_approach_data"]]
    values = {
        "day": pa.array([day] * len(pairs), pa.string()),
        "neo_reference_id": pa.array([item["neo_reference_id"] for item, _ in pairs], pa.string()),
        **_approach_values([approach for _, approach in pairs]),
    }
    unmapped = (_unmapped(approach, _mapped_approach()) for _, approach in pairs)
    return _table(values, unmapped, SENTRY_APPROACH_COLUMNS)


def _object_values(items: list[dict[str, Any]]) -> "dict[str, pa.Array]":
    values = _values(items, _object_type())
    # The query of the URL has the key.
    url = pc.split_pattern(values["sentry_data"], "?", max_splits=1)
    return {**values, "sentry_data": pc.list_element(url, 0)}


def _approach_values(items: list[dict[str, Any]]) -> "dict[str, pa.Array]":
    values = _values(items, _approach_type())
    epoch_ms = values["epoch_date_close_approach"].cast(pa.int64())
    return {**values, "close_approach_at": epoch_ms.cast(pa.timestamp("ms", "UTC"))}


def _values(items: list[dict[str, Any]], struct: "pa.StructType") -> "dict[str, pa.Array]":
    """Return the values of a struct by column; NULL where a struct inside is missing."""
    array = pa.array(items, struct)
    return {
        # estimated_diameter.feet.estimated_diameter_min is estimated_diameter_feet_min.
        "_".join(path).replace("_estimated_diameter_", "_"): pc.struct_field(array, list(path))
        for path in _paths(_fields(struct))
    }


def _paths(fields: _Fields) -> Iterator[tuple[str, ...]]:
    for name, inner in fields.items():
        if inner is None:
            yield (name,)
        else:
            yield from ((name, *path) for path in _paths(inner))


def _orbit_values(items: list[dict[str, Any]]) -> "dict[str, pa.Array]":
    orbits = [item.get("orbital_data") or {} for item in items]
    classes = [orbit.get("orbit_class") or {} for orbit in orbits]
    return {name: _texts(name, orbits) for name in _ORBIT_VALUES} | {
        name: _texts(name, classes) for name in _ORBIT_CLASS
    }


def _texts(name: str, items: list[dict[str, Any]]) -> "pa.Array":
    """Return a field as texts: NASA sends most numbers as texts, and some as numbers."""
    values = [item.get(name) for item in items]
    for value in values:
        if type(value) not in (str, int, float, type(None)):
            raise TypeError(f"{name} is {value!r}")
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _table(
    values: "Mapping[str, pa.Array]",
    unmapped: Iterable[Mapping[str, Any]],
    columns: Mapping[str, TColumnSchema],
) -> "pa.Table":
    """Return a table with the columns' types; casts numbers and dates that are sent as texts."""
    texts = [json.dumps(fields, sort_keys=True) if fields else None for fields in unmapped]
    values = {**values, "unmapped_fields": pa.array(texts, pa.string())}
    schema = arrow_schema(columns)
    arrays = [values[field.name].cast(field.type) for field in schema]
    for field, array in zip(schema, arrays, strict=True):
        if array.null_count and not field.nullable:
            raise ValueError(f"{field.name} is missing")
        if pa.types.is_floating(field.type) and pc.any(pc.invert(pc.is_finite(array))).as_py():
            raise ValueError(f"{field.name} is not a finite number")
    return pa.Table.from_arrays(arrays, schema=schema)


def _has_unmapped(values: Sequence[Mapping[str, Any]], mapped: _Fields) -> bool:
    """Return whether a value has a field without a column, empty or not.

    It compares the names of all values at once, and so is much faster than `_unmapped` of each value.
    """
    return not set().union(*values) <= mapped.keys() or any(
        _has_unmapped(
            [each for value in values if isinstance(each := value.get(name), dict)], fields
        )
        for name, fields in mapped.items()
        if fields
    )


def _unmapped(value: Mapping[str, Any], mapped: _Fields, prefix: str = "") -> dict[str, Any]:
    """Return the fields without a column, by their path; empty values are left out."""
    unmapped = {}
    if not value.keys() <= mapped.keys():
        names = value.keys() - mapped.keys()
        unmapped = {f"{prefix}{n}": value[n] for n in names if value[n] not in (None, {}, [])}
    for name, fields in mapped.items():
        if fields and isinstance(member := value.get(name), dict):
            unmapped |= _unmapped(member, fields, f"{prefix}{name}.")
    return unmapped
