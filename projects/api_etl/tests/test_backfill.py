"""A backfill sends few requests, loads in batches, and continues after an interruption."""

from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import dagster as dg
import duckdb
import pytest

from api_etl import assets
from api_etl.definitions import defs
from api_etl.recorded.objects import synthetic_days
from api_etl.recorded.server import NeowsServer
from shared import warehouse
from shared.orchestration import batches

FIRST = date(2018, 9, 10)
OBJECTS = dg.AssetKey(["nasa_neo", "near_earth_objects"])
SUMMARY = dg.AssetKey(["nasa_neo", "daily_summary"])
SENTRY = dg.AssetKey(["nasa_neo", "sentry_objects"])


@pytest.fixture
def days(neows_server: NeowsServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Synthetic days of the server; a load takes 16 of them."""
    monkeypatch.setattr(assets, "DAYS_PER_LOAD", 16)
    neows_server.days = synthetic_days(FIRST, 56)
    return sorted(neows_server.days)


def backfill(
    instance: dg.DagsterInstance, days: list[str], *keys: dg.AssetKey, **tags: str
) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        asset_selection=list(keys or [OBJECTS]),
        instance=instance,
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": days[0],
            "dagster/asset_partition_range_end": days[-1],
            **{f"etl/{name}": value for name, value in tags.items()},
        },
    )


def row_counts() -> dict[str, int]:
    if not warehouse.duckdb_path().exists():
        return {}
    rows = warehouse.query(
        "SELECT close_approach_date::VARCHAR AS day, element_count, count(neo_reference_id) AS n "
        "FROM nasa_neo.near_earth_objects_days "
        "LEFT JOIN nasa_neo.near_earth_objects USING (close_approach_date) GROUP BY ALL"
    )
    assert all(row["element_count"] == row["n"] for row in rows)
    return {row["day"]: row["n"] for row in rows}


def sent(server: NeowsServer, days: list[str]) -> dict[str, int]:
    return {day: len(server.days[day]) for day in days}


def log_lines(result: dg.ExecuteInProcessResult, capfd: pytest.CaptureFixture[str]) -> list[str]:
    assert result.run_id
    return [line for line in capfd.readouterr().err.splitlines() if "partitions, " in line]


def metadata(instance: dg.DagsterInstance, key: dg.AssetKey, day: str) -> dict[str, Any]:
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
    )
    materialization = found.records[0].asset_materialization
    assert materialization
    return {name: value.value for name, value in materialization.metadata.items()}


def test_a_backfill_sends_a_request_for_eight_days_and_logs_its_progress(
    neows_server: NeowsServer,
    instance: dg.DagsterInstance,
    days: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = backfill(instance, days)
    assert result.success
    assert row_counts() == sent(neows_server, days)
    assert len(neows_server.requests) == 7
    lines = log_lines(result, capfd)
    assert len(lines) == 4
    assert "16 of 56 partitions, " in lines[0]
    assert "; about 5 requests to go; about 0:0" in lines[0]
    assert lines[-1].endswith("rows.")
    assert instance.get_materialized_partitions(OBJECTS) == set(days)
    rows = sum(sent(neows_server, days).values())
    last, early = metadata(instance, OBJECTS, days[-1]), metadata(instance, OBJECTS, days[0])
    assert last["run_rows_loaded"] == early["run_rows_loaded"] == last["dagster/row_count"] == rows
    assert last["run_requests"] == 7
    assert len(str(early)) < 500  # Dagster stores it for each of thousands of days
    events = instance.fetch_materializations(OBJECTS, limit=1_000).records
    loads = [
        record.asset_materialization.metadata for record in events if record.asset_materialization
    ]
    counts: list[Any] = [load["rows_loaded"].value for load in loads if "rows_loaded" in load]
    assert (len(counts), sum(counts)) == (4, rows)  # once for each batch


def test_days_loaded_before_a_failure_stay_and_only_missing_days_are_requested(
    neows_server: NeowsServer, instance: dg.DagsterInstance, days: list[str]
) -> None:
    last = neows_server.days.pop(days[40])  # the server responds with 404
    assert not backfill(instance, days).success
    done = days[:32]
    assert row_counts() == {day: len(neows_server.days[day]) for day in done}
    assert instance.get_materialized_partitions(OBJECTS) == set(done)

    neows_server.days[days[40]] = last
    neows_server.requests.clear()
    assert backfill(instance, days, only_missing="true").success
    assert row_counts() == sent(neows_server, days)
    assert len(neows_server.requests) == 3
    assert instance.get_materialized_partitions(OBJECTS) == set(days)

    assert backfill(instance, days, only_missing="true").success
    assert len(neows_server.requests) == 3


def test_an_exhausted_limit_defers_the_rest_to_a_retry(
    neows_server: NeowsServer,
    instance: dg.DagsterInstance,
    days: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NASA_MAX_WAIT_SECONDS", "0")
    neows_server.limit, neows_server.hour = 4, 15  # longer than a busy machine needs for five
    result = backfill(instance, days)
    assert result.success
    assert row_counts() == sent(neows_server, days)
    assert neows_server.statuses.count(200) == 7  # no request was repeated
    retries = [
        event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"
    ]
    assert retries
    assert neows_server.statuses.count(429) <= 1 + 2 * len(retries)
    # The metadata at the end of the run covers all of its attempts.
    last = metadata(instance, OBJECTS, days[-1])
    assert last["run_rows_loaded"] == last["dagster/row_count"]
    assert (last["run_partitions"], last["run_partitions_left"]) == (56, 0)


def test_objects_and_their_day_counts_are_loaded_together(
    neows_server: NeowsServer, instance: dg.DagsterInstance, days: list[str]
) -> None:
    one, other = next(pair for pair in pairwise(days) if len(neows_server.days[pair[0]]) > 1)
    neows_server.days[other] = neows_server.days[other][:1]
    kept = sent(neows_server, [one])
    assert backfill(instance, [one]).success
    with duckdb.connect(
        str(warehouse.duckdb_path())
    ) as connection:  # loading two days with a count fails now
        connection.execute(
            "CREATE UNIQUE INDEX i ON nasa_neo.near_earth_objects_days(element_count)"
        )
    neows_server.days[one] = neows_server.days[one][:1]
    assert not backfill(instance, [one, other]).success
    assert row_counts() == kept


def test_days_that_are_not_loaded_are_not_days_without_objects(
    neows_server: NeowsServer, instance: dg.DagsterInstance, days: list[str]
) -> None:
    assert backfill(instance, days[21:23]).success
    for key in (SENTRY, SUMMARY):
        result = backfill(instance, days[22:25], key)
        assert not result.success
        assert instance.get_materialized_partitions(key) == set()
        (failure,) = (event for event in result.all_events if event.is_step_failure)
        assert f"no {days[23]} (2 of 3 days are missing)" in str(failure.step_failure_data.error)
        assert backfill(instance, days[21:23], key).success


def test_days_before_the_limit_was_exhausted_are_loaded(
    neows_server: NeowsServer,
    instance: dg.DagsterInstance,
    days: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "MAX_RETRIES", 0)
    neows_server.limit = 5
    assert not backfill(instance, days).success
    # Two loads of two requests, and the first request of the third.
    assert row_counts() == sent(neows_server, days[:40])
    assert instance.get_materialized_partitions(OBJECTS) == set(days[:40])
    neows_server.limit = 1000
    for state in warehouse.duckdb_path().parent.glob("warehouse.limits/*.json"):
        state.unlink()
    assert backfill(instance, days, only_missing="true").success
    assert row_counts() == sent(neows_server, days)
    assert neows_server.statuses.count(200) == 7


def test_a_limit_that_is_exhausted_at_the_start_changes_nothing(
    neows_server: NeowsServer,
    instance: dg.DagsterInstance,
    days: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "MAX_RETRIES", 0)
    assert backfill(instance, days[:16]).success
    neows_server.limit = 0
    assert not backfill(instance, days).success
    assert row_counts() == sent(neows_server, days[:16])
    assert instance.get_materialized_partitions(OBJECTS) == set(days[:16])


def test_a_single_load_at_the_limit_fails_and_names_the_time_of_the_retry(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    neows_server.limit = 0
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[dg.AssetKey(["nasa_neo", "asteroids"])],
        instance=instance,
        raise_on_error=False,
    )
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    error = failure.step_failure_data.error
    while error and error.cause:
        error = error.cause
    assert error
    assert "2025-03-10 to 2025-03-10: " in error.message
    assert "used up for 3600 s more" in error.message


def test_sentry_objects_are_looked_up_for_the_days_of_their_approaches(
    neows_server: NeowsServer, instance: dg.DagsterInstance, days: list[str]
) -> None:
    days = days[21:]
    assert backfill(instance, days, OBJECTS, SENTRY).success
    expected = sorted(
        (day, item["neo_reference_id"])
        for day in days
        for item in neows_server.days[day]
        if item.get("is_sentry_object")
    )
    sql = "SELECT day::VARCHAR AS day, neo_reference_id AS id FROM nasa_neo.sentry_objects"
    assert sorted((row["day"], row["id"]) for row in warehouse.query(sql)) == expected
    assert len(expected) > 5
    (row,) = warehouse.query("SELECT count(*) AS n FROM nasa_neo.sentry_approaches")
    assert row["n"] == 2 * len(expected)

    # A day for which NASA now returns no Sentry object.
    day = expected[0][0]
    for item in neows_server.days[day]:
        item["is_sentry_object"] = False
    assert backfill(instance, [day], OBJECTS, SENTRY).success
    left = [row for row in expected if row[0] != day]
    assert sorted((row["day"], row["id"]) for row in warehouse.query(sql)) == left


def test_lookups_are_deferred_to_a_retry_too(
    neows_server: NeowsServer, instance: dg.DagsterInstance, days: list[str]
) -> None:
    days = days[24:]
    assert backfill(instance, days).success
    neows_server.limit, neows_server.hour = 4, 1
    assert backfill(instance, days, SENTRY).success
    (row,) = warehouse.query("SELECT count(*) AS n FROM nasa_neo.sentry_objects")
    requests = sum(
        bool(item.get("is_sentry_object")) for day in days for item in neows_server.days[day]
    )
    assert row["n"] == requests > 4


def walk(instance: dg.DagsterInstance) -> bool:
    job = defs.resolve_implicit_global_asset_job_def()
    key = dg.AssetKey(["nasa_neo", "catalog"])
    return job.execute_in_process(
        asset_selection=[key], instance=instance, raise_on_error=False
    ).success


def catalogd() -> dict[str, int]:
    sql = "SELECT neo_reference_id AS id, crawl_number AS walk FROM nasa_neo.catalog"
    return {row["id"]: row["walk"] for row in warehouse.query(sql)}


def test_the_catalog_continues_after_the_page_that_was_loaded_last(
    neows_server: NeowsServer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "PAGES_PER_LOAD", 5)
    ids = {item["neo_reference_id"] for items in neows_server.days.values() for item in items}
    assert walk(instance)
    assert len(catalogd()) == 100
    neows_server.failure = (400, "application/json", "{}")
    assert not walk(instance)
    neows_server.failure = None
    assert walk(instance)
    assert walk(instance)
    assert catalogd() == dict.fromkeys(ids, 1)
    pages = [int(address.partition("page=")[2]) for address, _ in neows_server.requests]
    assert pages == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11]

    # An object that is no longer in the catalog keeps the number of its last crawl.
    gone = {item["neo_reference_id"] for item in neows_server.days.pop("2015-04-01")}
    still = {item["neo_reference_id"] for items in neows_server.days.values() for item in items}
    for _ in range(3):
        assert walk(instance)
    assert {key for key, number in catalogd().items() if number == 1} == gone - still
    assert set(catalogd()) == ids


def test_pages_before_the_limit_was_exhausted_are_loaded(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    neows_server.limit = 3
    assert walk(instance)
    assert len(catalogd()) == 60
    assert not walk(instance)
    assert len(catalogd()) == 60


def test_a_backfill_does_not_change_other_days(
    neows_server: NeowsServer, instance: dg.DagsterInstance, days: list[str]
) -> None:
    before = (FIRST - timedelta(days=1)).isoformat()
    neows_server.days |= synthetic_days(FIRST - timedelta(days=1), 1, seed=1)
    assert backfill(instance, [before]).success
    assert backfill(instance, days[:20]).success
    assert row_counts() == sent(neows_server, [before, *days[:20]])
