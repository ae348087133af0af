"""The NeoWs source and the server its tests ask: the API's rules, kept on both sides."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from shared.sources.neows import OBJECT_COLUMNS, WIDEST_WINDOW_DAYS, fetch_feed, neows, windows
from shared.testing.neows_server import INVALID_KEY, NeowsServer, recorded_days

KEY = "a-key-that-must-stay-secret"


def objects(*days: str) -> list[dict[str, Any]]:
    return [row for table in neows(days) for row in table.to_pylist()]


@given(st.lists(st.dates(date(2015, 9, 1), date(2016, 9, 1)), max_size=60))
def test_windows_cover_each_day_once_and_are_never_too_wide(days: list[date]) -> None:
    covered: list[date] = []
    for first, last in windows([day.isoformat() for day in days]):
        assert 1 <= (last - first).days + 1 <= WIDEST_WINDOW_DAYS
        covered += [first + timedelta(days=n) for n in range((last - first).days + 1)]
    assert covered == sorted(set(days))


def test_eleven_years_take_no_more_requests_than_the_window_allows() -> None:
    start = date(2015, 9, 1)
    days = [(start + timedelta(days=n)).isoformat() for n in range(4100)]
    assert len(list(windows(days))) == 513


def test_every_recorded_object_arrives_typed(neows_server: NeowsServer) -> None:
    days = recorded_days()
    rows = objects(*days)
    assert len(rows) == sum(map(len, days.values())) == 240
    assert len(neows_server.requests) == 3
    types = {"date": date, "text": str, "double": float, "bool": bool, "timestamp": datetime}
    for row in rows:
        assert row.keys() == OBJECT_COLUMNS.keys()
        for name, value in row.items():
            if value is None:
                assert name in ("id", "is_sentry_object", "sentry_data", "further_fields")
            else:
                assert type(value) is types[str(OBJECT_COLUMNS[name]["data_type"])], name
        assert row["close_approach_at"].date() == row["close_approach_date"]


def test_numbers_and_times_are_those_of_the_feed(neows_server: NeowsServer) -> None:
    (row,) = (row for row in objects("2025-03-10") if row["name"] == "(2015 BY512)")
    assert row["close_approach_at"] == datetime(2025, 3, 10, 12, 23, tzinfo=UTC)
    assert row["miss_distance_lunar"] == 172.4956549178
    assert row["relative_velocity_kilometers_per_second"] == 17.3279837746
    assert row["estimated_diameter_meters_max"] == 299.2540100804
    assert row["is_potentially_hazardous_asteroid"] is False


def test_years_that_lack_a_field_land_in_the_same_columns(neows_server: NeowsServer) -> None:
    for name in ("is_sentry_object", "id"):
        assert {row[name] for row in objects("2015-04-01")} == {None}
        assert None not in {row[name] for row in objects("2018-12-06")}
    assert {row["sentry_data"] is None for row in objects("2025-03-10")} <= {True, False}


def test_what_no_column_takes_is_kept(neows_server: NeowsServer) -> None:
    (first, *_) = neows_server.days["2025-03-10"]
    assert {row["further_fields"] for row in objects(*recorded_days())} == {None}
    approach = {**first["close_approach_data"][0], "seen_from": "Hilo"}
    neows_server.days["2025-03-10"] = [
        {**first, "spin": {"hours": 2.5}, "close_approach_data": [approach]}
    ]
    (row,) = objects("2025-03-10")
    assert json.loads(row["further_fields"]) == {"spin": {"hours": 2.5}, "seen_from": "Hilo"}


def test_the_key_travels_in_a_header_only(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_API_KEY", KEY)
    rows = objects("2025-03-10")
    ((address, headers),) = neows_server.requests
    assert headers["X-Api-Key"] == KEY
    assert KEY not in address
    assert KEY not in str(rows)  # the server echoes it in its links, as NASA does


@pytest.mark.parametrize("wrong", ["two\nlines", "not-ascii-é"])
def test_a_key_that_no_header_can_carry_is_refused_without_repeating_it(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("NASA_API_KEY", wrong)
    with pytest.raises(Exception, match="set it again") as caught:
        fetch_feed(date(2025, 3, 10), date(2025, 3, 10))
    assert wrong not in str(caught.value)
    assert not neows_server.requests


def test_a_key_read_from_a_file_may_end_with_a_line_break(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_API_KEY", f" {KEY}\n")
    objects("2025-03-10")
    assert neows_server.requests[0][1]["X-Api-Key"] == KEY


def test_a_redirect_carries_the_key_nowhere(neows_server: NeowsServer) -> None:
    neows_server.failure = (302, "text/html", "")
    with pytest.raises(Exception, match="status 302"):
        fetch_feed(date(2025, 3, 10), date(2025, 3, 10))
    assert len(neows_server.requests) == 1


def test_a_missing_value_is_null(neows_server: NeowsServer) -> None:
    (first, *rest) = neows_server.days["2025-03-10"]
    lacking = {name: first[name] for name in first.keys() - {"absolute_magnitude_h"}}
    neows_server.days["2025-03-10"] = [lacking, *rest]
    row, *others = objects("2025-03-10")
    assert row["absolute_magnitude_h"] is None
    assert None not in {other["absolute_magnitude_h"] for other in others}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"absolute_magnitude_h": "faint"}, "faint"),
        ({"is_sentry_object": "no"}, "no"),
        ({"name": 5}, "int"),
        ({"neo_reference_id": None}, "neo_reference_id is missing"),
        ({"close_approach_data": []}, "values"),
        ({"estimated_diameter": 3}, "3"),
        ({"velocity": "fast"}, "fast"),
        ({"velocity": "NaN"}, "relative_velocity_miles_per_hour is no number"),
        ({"close_approach_date": "today"}, "today"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_day_and_object(
    neows_server: NeowsServer, change: dict[str, Any], told: str
) -> None:
    (first, *rest) = neows_server.days["2025-03-10"]
    changed = json.loads(json.dumps(first))
    (approach,) = changed["close_approach_data"]
    if "velocity" in change:
        approach["relative_velocity"]["miles_per_hour"] = change["velocity"]
    elif "close_approach_date" in change:
        approach |= change
    else:
        changed |= change
    neows_server.days["2025-03-10"] = [*rest, changed]
    with pytest.raises(Exception, match=f"2025-03-10: the object .*{told}"):
        objects("2025-03-10")


def test_without_a_key_the_demo_key_is_sent(neows_server: NeowsServer) -> None:
    objects("2025-03-10")
    assert neows_server.requests[0][1]["X-Api-Key"] == "DEMO_KEY"


def test_a_day_without_objects_is_no_error(neows_server: NeowsServer) -> None:
    neows_server.days["2025-03-11"] = []
    assert {str(row["close_approach_date"]) for row in objects("2025-03-10", "2025-03-11")} == {
        "2025-03-10"
    }
    assert objects("2025-03-11") == []


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ((503, "text/html", "<html>Service unavailable</html>"), "status 503"),
        ((200, "text/html", "<html>Maintenance</html>"), "not a NeoWs feed"),
        ((200, "application/json", ""), "not a NeoWs feed"),
        ((200, "application/json", '{"element_count": 0}'), "not a NeoWs feed"),
        ((200, "application/json", "[]"), "not a NeoWs feed"),
    ],
)
def test_an_answer_that_is_no_feed_is_an_error_with_window_and_status(
    neows_server: NeowsServer, failure: tuple[int, str, str], told: str
) -> None:
    neows_server.failure = failure
    with pytest.raises(Exception, match=told) as caught:
        fetch_feed(date(2025, 3, 10), date(2025, 3, 11))
    assert "2025-03-10 to 2025-03-11" in str(caught.value)


def test_an_outage_is_retried_before_it_is_an_error(neows_server: NeowsServer) -> None:
    neows_server.failure = (503, "text/html", "")
    with pytest.raises(Exception, match="503"):
        fetch_feed(date(2025, 3, 10), date(2025, 3, 10))
    assert len(neows_server.requests) == 5


def test_a_used_up_limit_names_the_wait_and_is_not_retried(neows_server: NeowsServer) -> None:
    neows_server.limit = 0
    with pytest.raises(Exception, match=r"run again in 2870 s"):
        fetch_feed(date(2025, 3, 10), date(2025, 3, 10))
    assert len(neows_server.requests) == 1


def test_a_refused_key_says_which_variable_to_set_and_does_not_repeat_it(
    neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASA_API_KEY", INVALID_KEY)
    with pytest.raises(Exception, match="set NASA_API_KEY") as caught:
        fetch_feed(date(2025, 3, 10), date(2025, 3, 10))
    assert INVALID_KEY not in str(caught.value)


def test_an_unreachable_server_is_an_error_with_the_window(
    warehouse_folder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME__REQUEST_MAX_ATTEMPTS", "1")
    with pytest.raises(Exception, match="could not be reached for 2025-03-10 to 2025-03-10"):
        fetch_feed(date(2025, 3, 10), date(2025, 3, 10))


def ask(server: NeowsServer, **query: str) -> requests.Response:
    return requests.get(f"{server.url}/feed", params=query, timeout=5)


def test_the_server_takes_eight_dates_and_no_more(neows_server: NeowsServer) -> None:
    eight = {"start_date": "2025-03-10", "end_date": "2025-03-17", "api_key": KEY}
    assert ask(neows_server, **eight).json()["element_count"] == 113
    nine = ask(neows_server, **{**eight, "end_date": "2025-03-18"})
    assert nine.status_code == 400
    assert nine.json()["error_message"].endswith("The Feed date limit is only 7 Days")


def test_the_server_reorders_swapped_dates(neows_server: NeowsServer) -> None:
    swapped = {"start_date": "2025-03-17", "end_date": "2025-03-10", "api_key": KEY}
    assert ask(neows_server, **swapped).json()["element_count"] == 113


def test_the_server_leaves_out_an_empty_day_and_echoes_the_key(neows_server: NeowsServer) -> None:
    neows_server.days["2025-03-10"] = []
    answer = ask(neows_server, start_date="2025-03-10", end_date="2025-03-11", api_key=KEY)
    assert list(answer.json()["near_earth_objects"]) == ["2025-03-11"]
    assert KEY in answer.json()["links"]["self"]


def test_the_server_never_passes_off_an_unrecorded_day_as_an_empty_one(
    neows_server: NeowsServer,
) -> None:
    answer = ask(neows_server, start_date="2024-01-01", end_date="2024-01-01", api_key=KEY)
    assert answer.status_code == 404
    assert "no recording of 2024-01-01" in answer.json()["error_message"]


def test_the_server_counts_down_its_limit(neows_server: NeowsServer) -> None:
    neows_server.limit = 1
    window = {"start_date": "2025-03-10", "end_date": "2025-03-10", "api_key": KEY}
    answer = ask(neows_server, **window)
    assert (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]) == (
        "1",
        "0",
    )
    over = ask(neows_server, **window)
    assert (over.status_code, over.headers["Retry-After"]) == (429, "2870")
    assert over.json()["error"]["code"] == "OVER_RATE_LIMIT"


@pytest.mark.parametrize(("key", "code"), [("", "API_KEY_MISSING"), ("INVALID", "API_KEY_INVALID")])
def test_the_server_refuses_a_missing_or_wrong_key(
    neows_server: NeowsServer, key: str, code: str
) -> None:
    answer = ask(neows_server, start_date="2025-03-10", end_date="2025-03-10", api_key=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)


def test_the_server_says_what_is_wrong_with_a_date(neows_server: NeowsServer) -> None:
    answer = ask(neows_server, start_date="yesterday", api_key=KEY)
    assert answer.status_code == 400
    assert "Expected format (yyyy-mm-dd)" in json.loads(answer.text)["error_message"]
