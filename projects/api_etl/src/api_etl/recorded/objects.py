"""The objects of the NeoWs server: recorded days, and synthetic days of any year."""

import json
import random
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

_MILLISECONDS_PER_DAY = 24 * 3600 * 1000
_KILOMETERS_PER_AU = 149_597_870.7
_LUNAR_DISTANCES_PER_AU = 389  # NASA's conversion
_KILOMETERS_PER_MILE = 1.609344
_METERS_PER_FOOT = 0.3048


@cache
def recorded_days() -> Mapping[str, list[dict[str, Any]]]:
    """Return the recorded objects by day: 2015-04-01 to 06, 2018-12-06 to 12, 2025-03-10 to 17."""
    days: dict[str, list[dict[str, Any]]] = {}
    for feed in (files("api_etl.recorded") / "days").iterdir():
        days |= json.loads(feed.read_text())["near_earth_objects"]
    return days


def synthetic_days(first: date, days: int, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return days of synthetic objects, 0 to 30 per day, in the format that NASA used at that time.

    A day always has the same objects. About 1 in 10 is hazardous and 1 in 30 is a Sentry object; 1 day
    in 40 has none.
    """
    dates = (first + timedelta(days=n) for n in range(days))
    return {day.isoformat(): _synthetic_day(day, seed) for day in dates}


def _synthetic_day(day: date, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(f"{seed} {day}")
    count = 0 if rng.random() < 1 / 40 else rng.randint(1, 30)
    return [_synthetic_object(day, n, rng) for n in range(count)]


def _synthetic_object(day: date, n: int, rng: random.Random) -> dict[str, Any]:
    """Return an object in the format of the feed of its day."""
    spk_id = str(3_000_000 + (day - date(2000, 1, 1)).days * 100 + n)
    kilometers = round(rng.lognormvariate(-2.2, 1.0), 10)
    meters = kilometers * 1000
    item: dict[str, Any] = {
        "links": {"self": f"http://api.nasa.gov/neo/rest/v1/neo/{spk_id}?api_key=REDACTED"},
        "neo_reference_id": spk_id,
        "name": f"({day.year} {rng.choice('ABCDEFGH')}{rng.choice('ABCDEFGH')}{n})",
        "nasa_jpl_url": f"https://ssd.jpl.nasa.gov/tools/sbdb_lookup.html#/?sstr={spk_id}",
        "absolute_magnitude_h": round(rng.uniform(17, 29), 2),
        "estimated_diameter": {
            unit: {
                "estimated_diameter_min": round(size, 10),
                "estimated_diameter_max": round(size * 2.236, 10),
            }
            for unit, size in (
                ("kilometers", kilometers),
                ("meters", meters),
                ("miles", kilometers / _KILOMETERS_PER_MILE),
                ("feet", meters / _METERS_PER_FOOT),
            )
        },
        "is_potentially_hazardous_asteroid": rng.random() < 1 / 10,
        "close_approach_data": [_synthetic_approach(day, rng)],
    }
    if day < date(2018, 10, 1):
        item["orbital_data"] = None
    else:
        item |= {"id": spk_id, "is_sentry_object": rng.random() < 1 / 30}
    if day >= date(2024, 5, 1) and item["is_sentry_object"]:
        item["sentry_data"] = (
            f"http://api.nasa.gov/neo/rest/v1/neo/sentry/{spk_id}?api_key=REDACTED"
        )
    return item


def _synthetic_approach(day: date, rng: random.Random) -> dict[str, Any]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    approach_at = midnight + timedelta(minutes=rng.randrange(24 * 60))
    au = round(0.5 * 0.002 ** (rng.random() ** 3), 10)
    speed = rng.uniform(2, 35)
    digits = 2 if day < date(2018, 10, 1) else 10
    approach = {
        "close_approach_date": day.isoformat(),
        "epoch_date_close_approach": int(approach_at.timestamp() * 1000),
        "relative_velocity": {
            "kilometers_per_second": f"{speed:.{digits}f}",
            "kilometers_per_hour": f"{speed * 3600:.{digits}f}",
            "miles_per_hour": f"{speed * 3600 / _KILOMETERS_PER_MILE:.{digits}f}",
        },
        "miss_distance": {
            "astronomical": f"{au:.10f}",
            "lunar": f"{au * _LUNAR_DISTANCES_PER_AU:.10f}",
            "kilometers": f"{au * _KILOMETERS_PER_AU:.9f}",
            "miles": f"{au * _KILOMETERS_PER_AU / _KILOMETERS_PER_MILE:.9f}",
        },
        "orbiting_body": "Earth",
    }
    if day >= date(2019, 3, 1):
        approach["close_approach_date_full"] = approach_at.strftime("%Y-%b-%d %H:%M")
    return approach


def detail_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of a feed in the format of /neo/{id}: with orbit and all approaches."""
    rng = random.Random(item["neo_reference_id"])
    detail = deepcopy(dict(item))
    (approach,) = detail["close_approach_data"]
    second = deepcopy(approach)
    day = date.fromisoformat(approach["close_approach_date"]) + timedelta(days=400)
    second |= {
        "close_approach_date": day.isoformat(),
        "epoch_date_close_approach": approach["epoch_date_close_approach"]
        + 400 * _MILLISECONDS_PER_DAY,
        "orbiting_body": "Venus",
    }
    second.pop("close_approach_date_full", None)
    axis, eccentricity = rng.uniform(0.7, 3), rng.uniform(0.05, 0.6)
    detail["close_approach_data"] = [approach, second]
    detail |= {
        "designation": detail["name"].strip("()"),
        "orbital_data": {
            "orbit_id": str(rng.randint(1, 300)),
            "orbit_determination_date": "2025-03-01 06:12:44",
            "first_observation_date": "2015-01-19",
            "last_observation_date": "2025-02-11",
            "data_arc_in_days": 3676,
            "observations_used": rng.randint(20, 2000),
            "orbit_uncertainty": str(rng.randint(0, 9)),
            "minimum_orbit_intersection": f"{rng.uniform(0, 0.05):.7f}",
            "jupiter_tisserand_invariant": f"{rng.uniform(2, 6):.3f}",
            "epoch_osculation": "2460800.5",
            "eccentricity": f"{eccentricity:.16f}",
            "semi_major_axis": f"{axis:.16f}",
            "inclination": f"{rng.uniform(0, 40):.14f}",
            "ascending_node_longitude": f"{rng.uniform(0, 360):.13f}",
            "orbital_period": f"{365.25 * axis**1.5:.12f}",
            "perihelion_distance": f"{axis * (1 - eccentricity):.16f}",
            "perihelion_argument": f"{rng.uniform(0, 360):.13f}",
            "aphelion_distance": f"{axis * (1 + eccentricity):.16f}",
            "perihelion_time": "2460888.1843",
            "mean_anomaly": f"{rng.uniform(0, 360):.13f}",
            "mean_motion": f"{0.9856 / axis**1.5:.16f}",
            "equinox": "J2000",
            "orbit_class": {
                "orbit_class_type": "APO",
                "orbit_class_description": "Near-Earth asteroid orbits similar to that of 1862 Apollo",
                "orbit_class_range": "a (semi-major axis) > 1.0 AU; q (perihelion) < 1.017 AU",
            },
        },
    }
    return detail


def catalog(days: Iterable[Iterable[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the distinct objects of some days by SPK-ID, sorted by it."""
    objects = {item["neo_reference_id"]: item for items in days for item in items}
    return {spk_id: objects[spk_id] for spk_id in sorted(objects)}
