"""What the NeoWs server serves: days that NASA answered, and years of made-up ones like them."""

import json
import random
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

_MILLISECONDS_A_DAY = 24 * 3600 * 1000
_KILOMETERS_AN_AU = 149_597_870.7
_LUNAR_DISTANCES_AN_AU = 389  # as NASA converts
_KILOMETERS_A_MILE = 1.609344
_METERS_A_FOOT = 0.3048


@cache
def recorded_days() -> Mapping[str, list[dict[str, Any]]]:
    """Returns the recorded objects by day: 2015-04-01 to 06, 2018-12-06 to 12, 2025-03-10 to 17."""
    days: dict[str, list[dict[str, Any]]] = {}
    for feed in (files("shared.testing") / "neows_days").iterdir():
        days |= json.loads(feed.read_text())["near_earth_objects"]
    return days


def synthetic_days(first: date, days: int, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Returns days of made-up objects, 0 to 30 each, in the shapes NASA sent at their time.

    The same day has the same objects, whichever days it is asked with. About one in ten is hazardous,
    one in thirty a Sentry object; one day in forty has none.
    """
    made = (first + timedelta(days=n) for n in range(days))
    return {day.isoformat(): _synthetic_day(day, seed) for day in made}


def _synthetic_day(day: date, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(f"{seed} {day}")
    count = 0 if chance.random() < 1 / 40 else chance.randint(1, 30)
    return [_synthetic_object(day, n, chance) for n in range(count)]


def _synthetic_object(day: date, n: int, chance: random.Random) -> dict[str, Any]:
    """Returns an object as the feed of its day has it."""
    spk_id = str(3_000_000 + (day - date(2000, 1, 1)).days * 100 + n)
    kilometers = round(chance.lognormvariate(-2.2, 1.0), 10)
    meters = kilometers * 1000
    item: dict[str, Any] = {
        "links": {"self": f"http://api.nasa.gov/neo/rest/v1/neo/{spk_id}?api_key=REDACTED"},
        "neo_reference_id": spk_id,
        "name": f"({day.year} {chance.choice('ABCDEFGH')}{chance.choice('ABCDEFGH')}{n})",
        "nasa_jpl_url": f"https://ssd.jpl.nasa.gov/tools/sbdb_lookup.html#/?sstr={spk_id}",
        "absolute_magnitude_h": round(chance.uniform(17, 29), 2),
        "estimated_diameter": {
            unit: {
                "estimated_diameter_min": round(size, 10),
                "estimated_diameter_max": round(size * 2.236, 10),
            }
            for unit, size in (
                ("kilometers", kilometers),
                ("meters", meters),
                ("miles", kilometers / _KILOMETERS_A_MILE),
                ("feet", meters / _METERS_A_FOOT),
            )
        },
        "is_potentially_hazardous_asteroid": chance.random() < 1 / 10,
        "close_approach_data": [_synthetic_approach(day, chance)],
    }
    if day < date(2018, 10, 1):
        item["orbital_data"] = None
    else:
        item |= {"id": spk_id, "is_sentry_object": chance.random() < 1 / 30}
    if day >= date(2024, 5, 1) and item["is_sentry_object"]:
        item["sentry_data"] = (
            f"http://api.nasa.gov/neo/rest/v1/neo/sentry/{spk_id}?api_key=REDACTED"
        )
    return item


def _synthetic_approach(day: date, chance: random.Random) -> dict[str, Any]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    moment = midnight + timedelta(minutes=chance.randrange(24 * 60))
    au = round(0.5 * 0.002 ** (chance.random() ** 3), 10)
    speed = chance.uniform(2, 35)
    digits = 2 if day < date(2018, 10, 1) else 10
    approach = {
        "close_approach_date": day.isoformat(),
        "epoch_date_close_approach": int(moment.timestamp() * 1000),
        "relative_velocity": {
            "kilometers_per_second": f"{speed:.{digits}f}",
            "kilometers_per_hour": f"{speed * 3600:.{digits}f}",
            "miles_per_hour": f"{speed * 3600 / _KILOMETERS_A_MILE:.{digits}f}",
        },
        "miss_distance": {
            "astronomical": f"{au:.10f}",
            "lunar": f"{au * _LUNAR_DISTANCES_AN_AU:.10f}",
            "kilometers": f"{au * _KILOMETERS_AN_AU:.9f}",
            "miles": f"{au * _KILOMETERS_AN_AU / _KILOMETERS_A_MILE:.9f}",
        },
        "orbiting_body": "Earth",
    }
    if day >= date(2019, 3, 1):
        approach["close_approach_date_full"] = moment.strftime("%Y-%b-%d %H:%M")
    return approach


def detail_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object of a feed as /neo/{id} and /neo/browse have it: with orbit and all passes."""
    chance = random.Random(item["neo_reference_id"])
    whole = deepcopy(dict(item))
    (approach,) = whole["close_approach_data"]
    later = deepcopy(approach)
    day = date.fromisoformat(approach["close_approach_date"]) + timedelta(days=400)
    later |= {
        "close_approach_date": day.isoformat(),
        "epoch_date_close_approach": approach["epoch_date_close_approach"]
        + 400 * _MILLISECONDS_A_DAY,
        "orbiting_body": "Venus",
    }
    later.pop("close_approach_date_full", None)
    axis, eccentricity = chance.uniform(0.7, 3), chance.uniform(0.05, 0.6)
    whole["close_approach_data"] = [approach, later]
    whole |= {
        "designation": whole["name"].strip("()"),
        "orbital_data": {
            "orbit_id": str(chance.randint(1, 300)),
            "orbit_determination_date": "2025-03-01 06:12:44",
            "first_observation_date": "2015-01-19",
            "last_observation_date": "2025-02-11",
            "data_arc_in_days": 3676,
            "observations_used": chance.randint(20, 2000),
            "orbit_uncertainty": str(chance.randint(0, 9)),
            "minimum_orbit_intersection": f"{chance.uniform(0, 0.05):.7f}",
            "jupiter_tisserand_invariant": f"{chance.uniform(2, 6):.3f}",
            "epoch_osculation": "2460800.5",
            "eccentricity": f"{eccentricity:.16f}",
            "semi_major_axis": f"{axis:.16f}",
            "inclination": f"{chance.uniform(0, 40):.14f}",
            "ascending_node_longitude": f"{chance.uniform(0, 360):.13f}",
            "orbital_period": f"{365.25 * axis**1.5:.12f}",
            "perihelion_distance": f"{axis * (1 - eccentricity):.16f}",
            "perihelion_argument": f"{chance.uniform(0, 360):.13f}",
            "aphelion_distance": f"{axis * (1 + eccentricity):.16f}",
            "perihelion_time": "2460888.1843",
            "mean_anomaly": f"{chance.uniform(0, 360):.13f}",
            "mean_motion": f"{0.9856 / axis**1.5:.16f}",
            "equinox": "J2000",
            "orbit_class": {
                "orbit_class_type": "APO",
                "orbit_class_description": "Near-Earth asteroid orbits similar to that of 1862 Apollo",
                "orbit_class_range": "a (semi-major axis) > 1.0 AU; q (perihelion) < 1.017 AU",
            },
        },
    }
    return whole


def catalog(days: Iterable[Iterable[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Returns the objects of some days once each, by SPK-ID and in its order."""
    found = {item["neo_reference_id"]: item for items in days for item in items}
    return {spk_id: found[spk_id] for spk_id in sorted(found)}
