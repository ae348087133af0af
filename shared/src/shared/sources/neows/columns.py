"""The columns of the NeoWs tables: dlt's type, unit and description. Times are UTC."""

from dlt.common.schema.typing import TColumnSchema

from shared.sources.hints import column, required_column, with_source_fields

DIAMETER_UNITS = ("kilometers", "meters", "miles", "feet")
DIAMETER_BOUNDS = ("min", "max")
VELOCITY_UNITS = ("kilometers_per_second", "kilometers_per_hour", "miles_per_hour")
DISTANCE_UNITS = ("astronomical", "lunar", "kilometers", "miles")

_OBJECT_COLUMNS = with_source_fields(
    {
        "neo_reference_id": required_column("text", "JPL's SPK-ID of the object."),
        "name": column("text", "Designation, such as (2015 BY512)."),
        "id": column("text", "The SPK-ID again; NASA sends it since 2018-12."),
        "nasa_jpl_url": column("text", "The object's page at JPL."),
        "absolute_magnitude_h": column("double", "Absolute magnitude H."),
        **{
            f"estimated_diameter_{unit}_{bound}": column(
                "double", f"Estimated diameter, {bound}, in {unit}."
            )
            for unit in DIAMETER_UNITS
            for bound in DIAMETER_BOUNDS
        },
        "is_potentially_hazardous_asteroid": column("bool", "Whether it is potentially hazardous."),
        "is_sentry_object": column(
            "bool", "Whether JPL's Sentry list has it; NULL before 2018-12."
        ),
        "sentry_data": column("text", "The URL of its impact risk; only for Sentry objects."),
    },
    "$.",
    {
        f"estimated_diameter_{unit}_{bound}": f"estimated_diameter.{unit}.estimated_diameter_{bound}"
        for unit in DIAMETER_UNITS
        for bound in DIAMETER_BOUNDS
    },
)
_APPROACH_DATE = with_source_fields(
    {"close_approach_date": column("date", "Day of the approach, UTC.")}, "$.close_approach_data[]."
)
_APPROACH_COLUMNS = with_source_fields(
    {
        "close_approach_at": column("timestamp", "Time of the closest approach, UTC."),
        **{
            f"relative_velocity_{unit}": column(
                "double", f"Velocity relative to the body, in {unit}."
            )
            for unit in VELOCITY_UNITS
        },
        "miss_distance_astronomical": column("double", "Distance from the body, in au."),
        "miss_distance_lunar": column("double", "Distance from the body; the unit is 1/389 au."),
        "miss_distance_kilometers": column("double", "Distance from the body, in kilometers."),
        "miss_distance_miles": column("double", "Distance from the body, in miles."),
        "orbiting_body": column("text", "The body of the approach; Earth in the feed."),
    },
    "$.close_approach_data[].",
    {
        "close_approach_at": "epoch_date_close_approach",
        **{f"relative_velocity_{unit}": f"relative_velocity.{unit}" for unit in VELOCITY_UNITS},
        **{f"miss_distance_{unit}": f"miss_distance.{unit}" for unit in DISTANCE_UNITS},
    },
)
_UNMAPPED_FIELDS = {
    "unmapped_fields": column("text", "JSON of the fields that have no column, or NULL.")
}
ORBIT_COLUMNS = with_source_fields(
    {
        "orbit_id": column("text", "JPL's name of the orbit's solution."),
        "orbit_determination_date": column(
            "text", "When it was computed; NASA states no time zone."
        ),
        "first_observation_date": column("date", "Day of the first observation."),
        "last_observation_date": column("date", "Day of the last observation."),
        "data_arc_in_days": column("double", "Days between the first and the last observation."),
        "observations_used": column("double", "Observations from which the orbit was computed."),
        "orbit_uncertainty": column("double", "Uncertainty of the orbit, from 0 (good) to 9."),
        "minimum_orbit_intersection": column("double", "Minimum distance to Earth's orbit, in au."),
        "jupiter_tisserand_invariant": column("double", "Tisserand's parameter for Jupiter."),
        "epoch_osculation": column("double", "Epoch of the orbit, as a Julian date (TDB)."),
        "eccentricity": column("double", "Eccentricity of the orbit."),
        "semi_major_axis": column("double", "Semi-major axis, in au."),
        "inclination": column("double", "Inclination, in degrees."),
        "ascending_node_longitude": column("double", "Ascending node's longitude, in degrees."),
        "orbital_period": column("double", "Orbital period, in days."),
        "perihelion_distance": column("double", "Minimum distance from the Sun, in au."),
        "perihelion_argument": column("double", "Argument of perihelion, in degrees."),
        "aphelion_distance": column("double", "Maximum distance from the Sun, in au."),
        "perihelion_time": column("double", "Time of perihelion, as a Julian date (TDB)."),
        "mean_anomaly": column("double", "Mean anomaly, in degrees."),
        "mean_motion": column("double", "Mean motion, in degrees a day."),
        "equinox": column("text", "Equinox of the elements, such as J2000."),
        "orbit_class_type": column("text", "Class of the orbit, such as APO for Apollo."),
        "orbit_class_description": column("text", "What the class means."),
        "orbit_class_range": column("text", "The orbits of the class, as formulas."),
    },
    "$.orbital_data.",
    {
        f"orbit_class_{name}": f"orbit_class.orbit_class_{name}"
        for name in ("type", "description", "range")
    },
)
"""Columns of an object's orbit."""

OBJECT_COLUMNS: dict[str, TColumnSchema] = {
    **with_source_fields(
        {
            "close_approach_date": required_column(
                "date", "Day of the closest approach, UTC.", partition=True
            )
        },
        "$.close_approach_data[].",
    ),
    **_OBJECT_COLUMNS,
    **_APPROACH_COLUMNS,
    **_UNMAPPED_FIELDS,
}
"""The columns of a table of near-earth objects: one row for each object and day."""

DAY_COLUMNS: dict[str, TColumnSchema] = {
    "close_approach_date": required_column("date", "The day, UTC.", partition=True),
    "element_count": required_column("bigint", "Number of objects that NASA sent for the day."),
    "requested_at": required_column("timestamp", "Time of the request to NASA, UTC."),
}
"""The columns of `<table>_days`: one row for each loaded day, also for a day without objects."""

SUMMARY_COLUMNS = with_source_fields(
    {
        "close_approach_date": required_column("date", "The day, UTC.", partition=True),
        "objects": column("bigint", "Number of objects with an approach on that day."),
        "hazardous_objects": column("bigint", "Number of these that are potentially hazardous."),
        "closest_name": column("text", "Designation of the object that came closest."),
        "closest_lunar_distance": column("double", "Its distance; 1 is the Moon's, 384,400 km."),
        "fastest_name": column("text", "Designation of the fastest object."),
        "fastest_kilometers_per_second": column(
            "double", "Its velocity relative to Earth, in km/s."
        ),
    },
    fields={
        "objects": "neo_reference_id",
        "hazardous_objects": "is_potentially_hazardous_asteroid",
        "closest_name": "name",
        "closest_lunar_distance": "miss_distance_lunar",
        "fastest_name": "name",
        "fastest_kilometers_per_second": "relative_velocity_kilometers_per_second",
    },
)
"""The columns of the daily summary: one row for each day, from columns of the objects."""

CATALOG_COLUMNS: dict[str, TColumnSchema] = {
    **_OBJECT_COLUMNS,
    **with_source_fields(
        {
            "neo_reference_id": required_column(
                "text", "JPL's SPK-ID of the object.", primary_key=True
            )
        },
        "$.",
    ),
    **ORBIT_COLUMNS,
    "crawl_number": required_column(
        "bigint",
        "The last crawl that returned the object. If two later, complete crawls did not return it, it left "
        "the catalog; one crawl can miss an object that moved to another page.",
    ),
    **_UNMAPPED_FIELDS,
}
"""The columns of the catalog: one row for each object."""

SENTRY_COLUMNS: dict[str, TColumnSchema] = {
    "day": required_column("date", "The day of the approach, UTC.", partition=True),
    **_OBJECT_COLUMNS,
    **ORBIT_COLUMNS,
    **_UNMAPPED_FIELDS,
}
"""The columns of the Sentry objects: one row for each day and object with an approach on it."""

SENTRY_APPROACH_COLUMNS: dict[str, TColumnSchema] = {
    "day": required_column("date", "The day whose load requested the object, UTC.", partition=True),
    "neo_reference_id": required_column("text", "JPL's SPK-ID of the object."),
    **_APPROACH_DATE,
    **_APPROACH_COLUMNS,
    **_UNMAPPED_FIELDS,
}
"""The columns of `sentry_approaches`: all known past and future approaches, to any planet."""
