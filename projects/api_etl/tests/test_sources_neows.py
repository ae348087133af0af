"""The NeoWs source and its test server: both follow the rules of the API."""

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from api_etl.recorded.objects import catalog, detail_of, synthetic_days
from api_etl.recorded.server import INVALID_KEY, Fault, NeowsServer, recorded_days
from shared import settings
from shared.sources.neows import (
    NeowsClient,
    NotFoundError,
    neows,
    neows_catalog,
    neows_sentry_objects,
)
from shared.sources.neows.columns import (
    DAY_COLUMNS,
    OBJECT_COLUMNS,
    SENTRY_APPROACH_COLUMNS,
    SENTRY_COLUMNS,
)
from shared.sources.neows.feed import MAX_WINDOW_DAYS, date_windows
from shared.sources.protocol import RetryLaterError

KEY = "a-key-that-must-stay-secret"


def objects(*days: str) -> list[dict[str, Any]]:
    """Return the rows of the table of objects."""
    return rows(neows(days), OBJECT_COLUMNS)


def rows(source: Iterable[Any], columns: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows that a source yields with these columns."""
    return [row for table in source for row in table.to_pylist() if row.keys() == set(columns)]


def first_window(client: NeowsClient) -> int:
    """Request the recorded days of 2025 and return the number of objects."""
    return sum(map(len, client.feed(date(2025, 3, 10), date(2025, 3, 17)).values()))


@given(st.lists(st.dates(date(2015, 9, 1), date(2016, 9, 1)), max_size=60))
def test_windows_cover_each_day_once_and_never_exceed_the_maximum(days: list[date]) -> None:
    covered: list[date] = []
    for first, last in date_windows([day.isoformat() for day in days]):
        assert 1 <= (last - first).days + 1 <= MAX_WINDOW_DAYS
        covered += [first + timedelta(days=n) for n in range((last - first).days + 1)]
    assert covered == sorted(set(days))


def test_eleven_years_need_the_fewest_windows() -> None:
    start = date(2015, 9, 1)
    days = [(start + timedelta(days=n)).isoformat() for n in range(4100)]
    assert len(list(date_windows(days))) == 513


def test_every_recorded_object_has_the_declared_types(neows_server: NeowsServer) -> None:
    days = recorded_days()
    rows = objects(*days)
    assert len(rows) == sum(map(len, days.values())) == 240
    assert len(neows_server.requests) == 3
    types = {"date": date, "text": str, "double": float, "bool": bool, "timestamp": datetime}
    for row in rows:
        assert row.keys() == OBJECT_COLUMNS.keys()
        for name, value in row.items():
            if value is None:
                assert name in ("id", "is_sentry_object", "sentry_data", "unmapped_fields")
            else:
                assert type(value) is types[str(OBJECT_COLUMNS[name]["data_type"])], name
        assert row["close_approach_at"].date() == row["close_approach_date"]


def test_numbers_and_times_equal_those_of_the_feed(neows_server: NeowsServer) -> None:
    (row,) = (row for row in objects("2025-03-10") if row["name"] == "(2015 BY512)")
    assert row["close_approach_at"] == datetime(2025, 3, 10, 12, 23, tzinfo=UTC)
    assert row["miss_distance_lunar"] == 172.4956549178
    assert row["relative_velocity_kilometers_per_second"] == 17.3279837746
    assert row["estimated_diameter_meters_max"] == 299.2540100804
    assert row["is_potentially_hazardous_asteroid"] is False


def test_years_without_a_field_load_into_the_same_columns(neows_server: NeowsServer) -> None:
    for name in ("is_sentry_object", "id"):
        assert {row[name] for row in objects("2015-04-01")} == {None}
        assert None not in {row[name] for row in objects("2018-12-06")}
    assert {row["sentry_data"] is None for row in objects("2025-03-10")} <= {True, False}


def test_fields_without_a_column_are_kept(neows_server: NeowsServer) -> None:
    (first, *_) = neows_server.days["2025-03-10"]
    assert {row["unmapped_fields"] for row in objects(*recorded_days())} == {None}
    approach = {**first["close_approach_data"][0], "seen_from": "Hilo"}
    neows_server.days["2025-03-10"] = [
        {**first, "spin": {"hours": 2.5}, "close_approach_data": [approach]}
    ]
    (row,) = objects("2025-03-10")
    assert json.loads(row["unmapped_fields"]) == {
        "spin": {"hours": 2.5},
        "close_approach_data.seen_from": "Hilo",
    }


@pytest.mark.parametrize(
    "path",
    [
        ("estimated_diameter", "parsecs"),
        ("estimated_diameter", "feet", "estimated_diameter_mean"),
        ("close_approach_data", "miss_distance", "parsecs"),
        ("close_approach_data", "relative_velocity", "knots"),
        ("orbital_data", "eccentricity"),
    ],
)
def test_nested_fields_without_a_column_are_kept(
    neows_server: NeowsServer, path: tuple[str, ...]
) -> None:
    item = json.loads(json.dumps(neows_server.days["2025-03-10"][0]))
    place = item
    for name in path[:-1]:
        place = place.setdefault(name, {})
        place = place[0] if isinstance(place, list) else place
    place[path[-1]] = "1"
    neows_server.days["2025-03-10"] = [item]
    (row,) = objects("2025-03-10")
    kept = json.loads(row["unmapped_fields"])
    assert kept == {".".join(path): "1"} or kept == {path[0]: {path[1]: "1"}}


@pytest.mark.parametrize("missing", [None, {}])
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("estimated_diameter", "estimated_diameter_feet_max"),
        ("relative_velocity", "relative_velocity_miles_per_hour"),
        ("miss_distance", "miss_distance_lunar"),
    ],
)
def test_the_values_of_a_missing_group_are_null(
    neows_server: NeowsServer, name: str, column: str, missing: object
) -> None:
    (first, second, *_) = json.loads(json.dumps(neows_server.days["2025-03-10"]))
    (first if name in first else first["close_approach_data"][0])[name] = missing
    neows_server.days["2025-03-10"] = [first, second]
    assert [row[column] is None for row in objects("2025-03-10")] == [True, False]


def test_the_key_is_sent_only_in_a_header(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_API_KEY", KEY)
    rows = objects("2025-03-10")
    ((url, headers),) = neows_server.requests
    assert headers["X-Api-Key"] == KEY
    assert KEY not in url
    assert KEY not in str(rows)  # the server echoes it in its links, as NASA does


@pytest.mark.parametrize("wrong", ["two\nlines", "not-ascii-é"])
def test_a_key_that_is_invalid_in_a_header_is_rejected_and_not_repeated(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("NASA_API_KEY", wrong)
    with pytest.raises(Exception, match="set it again") as caught:
        NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 10))
    assert wrong not in str(caught.value)
    assert not neows_server.requests


def test_a_key_read_from_a_file_may_end_with_a_line_break(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_API_KEY", f" {KEY}\n")
    objects("2025-03-10")
    assert neows_server.requests[0][1]["X-Api-Key"] == KEY


def test_a_redirect_is_not_followed_with_the_key(neows_server: NeowsServer) -> None:
    neows_server.failure = (302, "text/html", "")
    with pytest.raises(Exception, match="status 302"):
        NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 10))
    assert len(neows_server.requests) == 1


def test_a_missing_value_is_null(neows_server: NeowsServer) -> None:
    (first, *rest) = neows_server.days["2025-03-10"]
    incomplete = {name: first[name] for name in first.keys() - {"absolute_magnitude_h"}}
    neows_server.days["2025-03-10"] = [incomplete, *rest]
    row, *others = objects("2025-03-10")
    assert row["absolute_magnitude_h"] is None
    assert None not in {other["absolute_magnitude_h"] for other in others}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"absolute_magnitude_h": "faint"}, "faint"),
        ({"is_sentry_object": "no"}, "no"),
        ({"name": 5}, "int"),
        ({"neo_reference_id": None}, "neo_reference_id is missing"),
        ({"close_approach_data": []}, "values"),
        ({"estimated_diameter": 3}, "3"),
        ({"velocity": "fast"}, "fast"),
        ({"velocity": "NaN"}, "relative_velocity_miles_per_hour is not a finite number"),
        ({"close_approach_date": "today"}, "today"),
        ({"epoch_date_close_approach": 1.5}, "truncated"),
        ({"epoch_date_close_approach": 2**70}, "1180591620717411303424|out of|overflow"),
    ],
)
def test_a_value_of_another_type_is_an_error_with_day_and_object(
    neows_server: NeowsServer, change: dict[str, Any], message: str
) -> None:
    (first, *rest) = neows_server.days["2025-03-10"]
    changed = json.loads(json.dumps(first))
    (approach,) = changed["close_approach_data"]
    if "velocity" in change:
        approach["relative_velocity"]["miles_per_hour"] = change["velocity"]
    elif any("approach" in name and name in approach for name in change):
        approach |= change
    else:
        changed |= change
    neows_server.days["2025-03-10"] = [*rest, changed]
    with pytest.raises(Exception, match=f"2025-03-10: the object .*{message}"):
        objects("2025-03-10")


def test_the_error_about_an_object_without_an_id_has_only_the_start_of_it(
    neows_server: NeowsServer,
) -> None:
    (first, *rest) = neows_server.days["2025-03-10"]
    unnamed = {name: value for name, value in first.items() if name != "neo_reference_id"}
    neows_server.days["2025-03-10"] = [*rest, unnamed]
    with pytest.raises(Exception, match=r"2025-03-10: the object .*neo_reference_id") as error:
        objects("2025-03-10")
    assert len(str(error.value)) < 1_500
    assert "close_approach_date_full" not in str(error.value)


def test_the_default_key_is_the_demo_key(neows_server: NeowsServer) -> None:
    objects("2025-03-10")
    assert neows_server.requests[0][1]["X-Api-Key"] == "DEMO_KEY"


def test_a_day_without_objects_is_valid(neows_server: NeowsServer) -> None:
    neows_server.days["2025-03-11"] = []
    assert {str(row["close_approach_date"]) for row in objects("2025-03-10", "2025-03-11")} == {
        "2025-03-10"
    }
    assert objects("2025-03-11") == []


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ((503, "text/html", "<html>Service unavailable</html>"), "status 503"),
        ((200, "text/html", "<html>Maintenance</html>"), "not as NeoWs describes"),
        ((200, "application/json", ""), "not as NeoWs describes"),
        ((200, "application/json", '{"element_count": 0}'), "not as NeoWs describes"),
        ((200, "application/json", "[]"), "not as NeoWs describes"),
    ],
)
def test_a_response_that_is_not_a_feed_is_an_error_with_window_and_status(
    neows_server: NeowsServer, failure: tuple[int, str, str], message: str
) -> None:
    neows_server.failure = failure
    with pytest.raises(Exception, match=message) as caught:
        NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 11))
    assert "2025-03-10 to 2025-03-11" in str(caught.value)


def test_an_outage_is_retried_before_it_fails(neows_server: NeowsServer) -> None:
    neows_server.failure = (503, "text/html", "")
    with pytest.raises(Exception, match="503"):
        NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 10))
    assert len(neows_server.requests) == 5


def test_the_error_for_a_reached_limit_has_the_wait_and_is_not_retried(
    neows_server: NeowsServer,
) -> None:
    neows_server.limit = 0
    with pytest.raises(Exception, match=r"2025-03-10 to 2025-03-10: .*used up for 3600 s more"):
        NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 10))
    assert len(neows_server.requests) == 1


def test_the_error_for_a_rejected_key_names_the_variable_and_not_the_key(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_API_KEY", INVALID_KEY)
    with pytest.raises(Exception, match="set NASA_API_KEY") as caught:
        NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 10))
    assert INVALID_KEY not in str(caught.value)


def test_an_unreachable_server_is_an_error_with_the_window(
    tmp_warehouse: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME__REQUEST_MAX_ATTEMPTS", "1")
    with pytest.raises(Exception, match="for 2025-03-10 to 2025-03-10: NeoWs could not be reached"):
        NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 10))


def get_feed(server: NeowsServer, **query: str) -> requests.Response:
    return requests.get(f"{server.url}/feed", params=query, timeout=5)


def test_the_server_accepts_at_most_eight_dates(neows_server: NeowsServer) -> None:
    eight = {"start_date": "2025-03-10", "end_date": "2025-03-17", "api_key": KEY}
    assert get_feed(neows_server, **eight).json()["element_count"] == 113
    nine = get_feed(neows_server, **{**eight, "end_date": "2025-03-18"})
    assert nine.status_code == 400
    assert nine.json()["error_message"].endswith("The Feed date limit is only 7 Days")


def test_the_server_reorders_swapped_dates(neows_server: NeowsServer) -> None:
    swapped = {"start_date": "2025-03-17", "end_date": "2025-03-10", "api_key": KEY}
    assert get_feed(neows_server, **swapped).json()["element_count"] == 113


def test_the_server_omits_an_empty_day_and_repeats_the_key(neows_server: NeowsServer) -> None:
    neows_server.days["2025-03-10"] = []
    response = get_feed(neows_server, start_date="2025-03-10", end_date="2025-03-11", api_key=KEY)
    assert list(response.json()["near_earth_objects"]) == ["2025-03-11"]
    assert KEY in response.json()["links"]["self"]


def test_the_server_returns_404_for_a_day_without_a_recording(
    neows_server: NeowsServer,
) -> None:
    response = get_feed(neows_server, start_date="2024-01-01", end_date="2024-01-01", api_key=KEY)
    assert response.status_code == 404
    assert "no recording of 2024-01-01" in response.json()["error_message"]


def test_the_server_counts_down_its_limit(neows_server: NeowsServer) -> None:
    neows_server.limit = 1
    window = {"start_date": "2025-03-10", "end_date": "2025-03-10", "api_key": KEY}
    response = get_feed(neows_server, **window)
    assert (response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Remaining"]) == (
        "1",
        "0",
    )
    over = get_feed(neows_server, **window)
    assert (over.status_code, over.headers["Retry-After"]) == (429, "3600")
    assert over.json()["error"]["code"] == "OVER_RATE_LIMIT"


@pytest.mark.parametrize(("key", "code"), [("", "API_KEY_MISSING"), ("INVALID", "API_KEY_INVALID")])
def test_the_server_rejects_a_missing_or_wrong_key(
    neows_server: NeowsServer, key: str, code: str
) -> None:
    response = get_feed(neows_server, start_date="2025-03-10", end_date="2025-03-10", api_key=key)
    assert (response.status_code, response.json()["error"]["code"]) == (403, code)


def test_the_server_reports_an_invalid_date(neows_server: NeowsServer) -> None:
    response = get_feed(neows_server, start_date="yesterday", api_key=KEY)
    assert response.status_code == 400
    assert "Expected format (yyyy-mm-dd)" in json.loads(response.text)["error_message"]


HTML = "<html><body>Service unavailable</body></html>"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, content_type="text/html", body=HTML),
        Fault(status=500, body=""),
        Fault(status=503, body=HTML, headers={"Retry-After": "1"}),
        Fault(content_type="text/html", body=HTML),
        Fault(body=""),
        Fault(body="[]"),
        Fault(body='{"element_count": 0}'),
        Fault(truncate_at=0),
        Fault(truncate_at=5000),
        Fault(delay=1.5),
        Fault(chunk_delay=0.2),
    ],
    ids=str,
)
def test_a_failed_response_is_requested_again(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setenv("RUNTIME__REQUEST_TIMEOUT", "1")
    neows_server.faults.append(fault)
    assert first_window(NeowsClient()) == 113
    assert len(neows_server.requests) == 2


def test_a_permanent_failure_is_an_error_with_status_window_and_attempt(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME__REQUEST_MAX_ATTEMPTS", "3")
    neows_server.failure = (502, "text/html", HTML)
    message = r"/feed for 2025-03-10 to 2025-03-17: status 502 \(attempt 3 of 3\)"
    with pytest.raises(Exception, match=message):
        first_window(NeowsClient())
    assert len(neows_server.requests) == 3


def test_attempts_wait_a_random_part_of_the_backoff(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0.2")
    neows_server.failure = (503, "text/html", HTML)
    waits = set()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(Exception, match="attempt 5 of 5"):
            first_window(NeowsClient())
        waits.add(round(time.monotonic() - started, 2))
    assert len(waits) > 1
    assert max(waits) < 0.2 + 0.4 + 0.8 + 1.6 + 1


def test_an_api_that_requests_a_long_wait_is_not_retried(neows_server: NeowsServer) -> None:
    neows_server.faults.append(Fault(status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(RetryLaterError, match="a retry in 3600 s") as caught:
        first_window(NeowsClient())
    assert caught.value.retry_after == 3600
    assert len(neows_server.requests) == 1


def test_a_response_with_a_wrong_number_of_objects_is_rejected(neows_server: NeowsServer) -> None:
    feed = {"element_count": 2, "near_earth_objects": {"2025-03-10": [{}]}}
    neows_server.faults.append(Fault(body=json.dumps(feed)))
    with pytest.raises(Exception, match="has 1 objects but element_count is 2"):
        first_window(NeowsClient())


def test_a_response_without_a_list_of_objects_is_rejected(neows_server: NeowsServer) -> None:
    feed = {"element_count": 1, "near_earth_objects": {"2025-03-10": {"id": "1"}}}
    neows_server.faults.append(Fault(body=json.dumps(feed)))
    with pytest.raises(Exception, match="no list of objects for 2025-03-10"):
        first_window(NeowsClient())


def test_a_response_with_other_days_is_rejected(neows_server: NeowsServer) -> None:
    feed = {"element_count": 1, "near_earth_objects": {"2025-03-18": [{}]}}
    neows_server.faults.append(Fault(body=json.dumps(feed)))
    with pytest.raises(Exception, match="days outside it: 2025-03-18"):
        first_window(NeowsClient())


def test_each_day_has_its_number_of_objects(neows_server: NeowsServer) -> None:
    neows_server.days["2025-03-11"] = []
    days = rows(neows(["2025-03-10", "2025-03-11", "2018-12-06"]), DAY_COLUMNS)
    counts = {str(row["close_approach_date"]): row["element_count"] for row in days}
    assert counts == {
        "2018-12-06": len(recorded_days()["2018-12-06"]),
        "2025-03-10": 15,
        "2025-03-11": 0,
    }


def test_the_url_of_the_impact_risk_has_no_query(neows_server: NeowsServer) -> None:
    item = dict(neows_server.days["2025-03-10"][0])
    url = "http://api.nasa.gov/neo/rest/v1/neo/sentry/2101955"
    item |= {"is_sentry_object": True, "sentry_data": f"{url}?api_key=somebody-elses"}
    neows_server.days["2025-03-10"] = [item]
    (row,) = objects("2025-03-10")
    assert row["sentry_data"] == url


def test_objects_of_all_years_load_into_the_same_columns(neows_server: NeowsServer) -> None:
    for first in (date(2015, 9, 1), date(2018, 11, 28), date(2024, 4, 28)):
        days = synthetic_days(first, 60)
        assert days == {**synthetic_days(first, 30), **synthetic_days(first + timedelta(30), 30)}
        neows_server.days = days
        loaded = objects(*days)
        assert sorted(row["neo_reference_id"] for row in loaded) == sorted(catalog(days.values()))
        assert {row["unmapped_fields"] for row in loaded} == {None}
        sent = [item for items in days.values() for item in items]
        assert {row["sentry_data"] is None for row in loaded} == {
            "sentry_data" not in item for item in sent
        }
        assert {row["id"] is None for row in loaded} <= {"id" not in item for item in sent}


def test_the_client_waits_for_the_limit_if_the_wait_is_short(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_MAX_WAIT_SECONDS", "30")
    neows_server.limit, neows_server.hour = 2, 1.5
    client = NeowsClient()
    assert [first_window(client) for _ in range(4)] == [113] * 4
    assert neows_server.statuses.count(200) == 4
    assert neows_server.statuses.count(429) <= 4


def test_a_limit_that_is_lowered_is_noticed(neows_server: NeowsServer) -> None:
    client = NeowsClient()
    first_window(client)
    neows_server.limit = 1
    for _ in range(3):
        with pytest.raises(RetryLaterError):
            first_window(client)
    assert neows_server.statuses == [200, 429]


def test_the_error_with_the_demo_key_states_its_limit(neows_server: NeowsServer) -> None:
    neows_server.limit = 0
    with pytest.raises(RetryLaterError, match="DEMO_KEY allows 30 requests an hour and 50 a day"):
        first_window(NeowsClient())


def test_ten_runs_learn_from_one_rejected_request_that_the_limit_is_reached(
    neows_server: NeowsServer,
) -> None:
    neows_server.limit = 60

    def send_ten_requests(_: int) -> int:
        client, count = NeowsClient(), 0
        try:
            for _ in range(10):
                first_window(client)
                count += 1
        except RetryLaterError:
            pass
        return count

    with ThreadPoolExecutor(10) as runs:
        assert sum(runs.map(send_ten_requests, range(10))) == 60
    assert neows_server.statuses.count(200) == 60
    assert neows_server.statuses.count(429) <= 3


def test_a_limit_without_a_stated_wait_is_retried_after_ten_minutes(
    neows_server: NeowsServer,
) -> None:
    neows_server.faults.append(Fault(status=429))
    with pytest.raises(RetryLaterError) as caught:
        first_window(NeowsClient())
    assert 590 < caught.value.retry_after <= 600


def test_a_hanging_request_delays_the_others_at_most_by_its_timeout(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME__REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("RUNTIME__REQUEST_MAX_ATTEMPTS", "5")
    neows_server.faults.extend([Fault(delay=5)] * 3)
    clients = [NeowsClient() for _ in range(3)]
    with ThreadPoolExecutor(3) as runs:
        assert list(runs.map(first_window, clients)) == [113] * 3


def test_a_damaged_file_of_the_limit_is_ignored(
    neows_server: NeowsServer, tmp_warehouse: Path
) -> None:
    first_window(NeowsClient())
    (state,) = tmp_warehouse.glob("warehouse.limits/*.json")
    ahead = time.time() + 9999
    for text in ("", "[]", '{"remaining"', json.dumps({"resets_at": ahead, "observed_at": ahead})):
        state.write_text(text)
        assert first_window(NeowsClient()) == 113


def test_each_key_has_its_own_limit(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Path
) -> None:
    neows_server.limit = 0
    for key, requests_made in (("DEMO_KEY", 1), (KEY, 2), (KEY, 2)):
        monkeypatch.setenv("NASA_API_KEY", key)
        with pytest.raises(RetryLaterError):
            first_window(NeowsClient())
        assert len(neows_server.requests) == requests_made
    states = list(tmp_warehouse.glob("warehouse.limits/*.json"))
    assert len(states) == 2
    assert not any(KEY in f"{state} {state.read_text()}" for state in states)


def test_the_maximum_wait_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASA_MAX_WAIT_SECONDS", "soon")
    with pytest.raises(ValueError, match="NASA_MAX_WAIT_SECONDS is 'soon'"):
        settings.get_seconds("NASA_MAX_WAIT_SECONDS")


def sentry(server: NeowsServer) -> dict[str, list[str]]:
    """Return the SPK-IDs of the Sentry objects of the recorded days."""
    return {
        day: [item["neo_reference_id"] for item in items if item.get("is_sentry_object")]
        for day, items in server.days.items()
        if day >= "2025"
    }


def test_a_sentry_object_is_loaded_with_its_orbit_and_its_approaches(
    neows_server: NeowsServer,
) -> None:
    ids_by_day = sentry(neows_server)
    days = sorted(ids_by_day)
    source = neows_sentry_objects(days, lambda _: ids_by_day)
    tables = list(source)
    objects_of_days = rows(tables, SENTRY_COLUMNS)
    assert sorted((str(row["day"]), row["neo_reference_id"]) for row in objects_of_days) == sorted(
        (day, spk_id) for day in days for spk_id in ids_by_day[day]
    )
    assert objects_of_days
    row = objects_of_days[0]
    item = catalog(neows_server.days.values())[row["neo_reference_id"]]
    orbit = detail_of(item)["orbital_data"]
    assert row["eccentricity"] == float(orbit["eccentricity"])
    assert row["first_observation_date"] == date(2015, 1, 19)
    assert row["orbit_class_type"] == "APO"
    assert row["orbit_class_range"] == orbit["orbit_class"]["orbit_class_range"]
    assert json.loads(row["unmapped_fields"]) == {"designation": row["name"].strip("()")}
    approaches = rows(tables, SENTRY_APPROACH_COLUMNS)
    assert len(approaches) == 2 * len(objects_of_days)
    assert {approach["orbiting_body"] for approach in approaches} == {"Earth", "Venus"}


def test_an_object_of_two_days_is_requested_once_and_a_removed_one_is_left_out(
    neows_server: NeowsServer,
) -> None:
    (sentry_id, *_) = (spk_id for ids in sentry(neows_server).values() for spk_id in ids)
    ids_by_day = {"2025-03-10": [sentry_id, "1"], "2025-03-11": [sentry_id]}
    loaded = rows(neows_sentry_objects(list(ids_by_day), lambda _: ids_by_day), SENTRY_COLUMNS)
    assert [row["neo_reference_id"] for row in loaded] == [sentry_id, sentry_id]
    assert len(neows_server.requests) == 2
    with pytest.raises(NotFoundError, match="object 1"):
        NeowsClient().object("1")


def test_a_page_of_the_catalog_is_typed(neows_server: NeowsServer) -> None:
    (response, pages) = NeowsClient().browse(0)
    assert (len(response), pages) == (20, 12)
    neows_server.faults.append(Fault(body='{"near_earth_objects": []}'))
    with pytest.raises(Exception, match="page 3: the response has no number of pages"):
        NeowsClient().browse(3)
    assert neows_catalog().resources["catalog"].name == "catalog"


LIVE_KEY = os.environ.get("NASA_LIVE_API_KEY", "")


@pytest.mark.skipif(
    not LIVE_KEY, reason="sends a request to NASA, with the key in NASA_LIVE_API_KEY"
)
def test_nasa_still_responds_in_the_recorded_shape(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_API_KEY", LIVE_KEY)
    monkeypatch.setenv("NASA_BASE_URL", settings.SETTINGS["NASA_BASE_URL"].default)
    live = NeowsClient().feed(date(2025, 3, 10), date(2025, 3, 17))
    recorded = {day: items for day, items in recorded_days().items() if day >= "2025"}
    assert live.keys() == recorded.keys()
    loaded = shape([item for items in live.values() for item in items])
    assert loaded == shape([item for items in recorded.values() for item in items])
    assert {row["unmapped_fields"] for row in objects(*recorded)} == {None}


def shape(value: Any) -> Any:
    """Return the types in a JSON value; of a list, the types of all its members."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items() if name != "links"}
    if isinstance(value, list):
        members = [shape(member) for member in value]
        if all(isinstance(member, dict) for member in members):
            return {name: kind for member in members for name, kind in member.items()}
        return members
    return "number" if type(value) in (int, float) else type(value).__name__


def test_the_shape_of_a_recorded_object_is_computed() -> None:
    (item, *_) = recorded_days()["2025-03-10"]
    assert shape([item])["close_approach_data"]["epoch_date_close_approach"] == "number"
    assert shape([item])["estimated_diameter"]["feet"]["estimated_diameter_max"] == "number"
    assert "links" not in shape([item])
