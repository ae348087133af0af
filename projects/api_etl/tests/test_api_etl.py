"""api_etl: a day in the warehouse is the day as the API returns it now."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from api_etl.assets import NasaDate
from api_etl.definitions import defs
from api_etl.recorded.server import NeowsServer, recorded_days
from shared import warehouse

KEY = "a-key-that-must-stay-secret"


def run(instance: dg.DagsterInstance, *tables: str, **how: Any) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        asset_selection=[dg.AssetKey(["nasa_neo", table]) for table in tables],
        instance=instance,
        raise_on_error=False,
        **how,
    )


def load_days(instance: dg.DagsterInstance, first: str, last: str) -> dg.ExecuteInProcessResult:
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    return run(instance, "near_earth_objects", "daily_summary", tags=tags)


def row_counts() -> dict[str, int]:
    rows = warehouse.query(
        "SELECT close_approach_date::VARCHAR AS day, count(*) AS n "
        "FROM nasa_neo.near_earth_objects GROUP BY 1 ORDER BY 1"
    )
    return {row["day"]: row["n"] for row in rows}


def recorded(first: str, last: str) -> dict[str, int]:
    days = recorded_days()
    return {day: len(days[day]) for day in sorted(days) if first <= day <= last}


@pytest.mark.parametrize("wrong", ["2025-3-10", "20250310", "2025-02-30", "yesterday", ""])
def test_an_invalid_date_is_refused_before_the_run(wrong: str) -> None:
    with pytest.raises(ValidationError):
        NasaDate(date=wrong)


def test_the_day_of_the_config_is_loaded_once(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    for day in ("2025-03-10", "2025-03-10", "2025-03-11"):
        config = {"ops": {"asteroids": {"config": {"date": day}}}}
        assert run(instance, "asteroids", run_config=config).success
    rows = warehouse.query(
        "SELECT close_approach_date::VARCHAR AS day, count(*) AS n "
        "FROM nasa_neo.asteroids GROUP BY 1 ORDER BY 1"
    )
    assert rows == [{"day": "2025-03-10", "n": 15}, {"day": "2025-03-11", "n": 12}]


def test_a_backfill_is_one_run_and_as_few_requests_as_the_window_allows(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    assert load_days(instance, "2025-03-10", "2025-03-17").success
    assert row_counts() == recorded("2025-03-10", "2025-03-17")
    assert len(neows_server.requests) == 1


def test_a_changed_day_is_replaced_and_a_missing_object_is_removed(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    load_days(instance, "2025-03-10", "2025-03-12")
    kept = neows_server.days["2025-03-11"][:3]
    neows_server.days["2025-03-11"] = kept
    load_days(instance, "2025-03-11", "2025-03-11")
    assert row_counts() == {"2025-03-10": 15, "2025-03-11": 3, "2025-03-12": 23}
    names = warehouse.query(
        "SELECT name FROM nasa_neo.near_earth_objects WHERE close_approach_date = '2025-03-11'"
    )
    assert {row["name"] for row in names} == {item["name"] for item in kept}


def test_a_day_without_rows_becomes_empty_and_passes_its_checks(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    load_days(instance, "2025-03-10", "2025-03-11")
    neows_server.days["2025-03-10"] = []
    assert load_days(instance, "2025-03-10", "2025-03-10").success
    assert row_counts() == {"2025-03-11": 12}
    (row,) = warehouse.query(
        "SELECT objects, closest_name FROM nasa_neo.daily_summary "
        "WHERE close_approach_date = '2025-03-10'"
    )
    assert row == {"objects": 0, "closest_name": None}


def test_the_summary_agrees_with_the_feed(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    load_days(instance, "2018-12-06", "2018-12-12")
    rows = warehouse.query("SELECT * FROM nasa_neo.daily_summary ORDER BY close_approach_date")
    assert len(rows) == 7
    for row in rows:
        items = recorded_days()[row["close_approach_date"].isoformat()]
        lunar = {
            item["name"]: float(item["close_approach_data"][0]["miss_distance"]["lunar"])
            for item in items
        }
        speed = {
            item["name"]: float(
                item["close_approach_data"][0]["relative_velocity"]["kilometers_per_second"]
            )
            for item in items
        }
        assert row["objects"] == len(items)
        assert row["hazardous_objects"] == sum(
            item["is_potentially_hazardous_asteroid"] for item in items
        )
        closest, fastest = min(lunar, key=lunar.__getitem__), max(speed, key=speed.__getitem__)
        assert (row["closest_name"], row["closest_lunar_distance"]) == (closest, lunar[closest])
        assert (row["fastest_name"], row["fastest_kilometers_per_second"]) == (
            fastest,
            speed[fastest],
        )


@pytest.mark.parametrize(
    "failure",
    [
        (503, "text/html", "<html>down</html>"),
        (403, "application/json", '{"error": {"code": "API_KEY_INVALID"}}'),
        (200, "application/json", '{"near_earth_objects": {"2025-03-10": [{}]}}'),
    ],
)
def test_a_failed_request_loads_nothing_and_the_key_is_in_no_file(
    neows_server: NeowsServer,
    instance: dg.DagsterInstance,
    tmp_warehouse: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    failure: tuple[int, str, str],
) -> None:
    monkeypatch.setenv("NASA_API_KEY", KEY)
    neows_server.failure = failure
    assert not load_days(instance, "2025-03-10", "2025-03-10").success
    neows_server.failure = None
    assert load_days(instance, "2025-03-10", "2025-03-10").success
    assert row_counts() == {"2025-03-10": 15}
    assert neows_server.requests[0][1]["X-Api-Key"] == KEY
    assert KEY not in "".join(capfd.readouterr())
    seen = [path for path in tmp_warehouse.rglob("*") if path.is_file()]
    assert len(seen) > 5
    assert [path for path in seen if KEY.encode() in path.read_bytes()] == []


def test_the_summary_is_automated_after_the_objects() -> None:
    graph = defs.resolve_asset_graph()
    summary = graph.get(dg.AssetKey(["nasa_neo", "daily_summary"]))
    objects = graph.get(dg.AssetKey(["nasa_neo", "near_earth_objects"]))
    assert summary.parent_keys == {objects.key}
    assert summary.automation_condition == dg.AutomationCondition.eager()
    assert objects.automation_condition == dg.AutomationCondition.on_cron("@daily")
    assert objects.backfill_policy == dg.BackfillPolicy.single_run()
    assert objects.partitions_def is not None
    assert objects.partitions_def.get_first_partition_key() == "2015-09-01"


def test_the_schedule_requests_yesterday_at_six(instance: dg.DagsterInstance) -> None:
    repository = defs.get_repository_def()
    schedule = repository.get_schedule_def("nasa_neo_at_six")
    assert schedule.cron_schedule == "0 6 * * *"
    assert schedule.job_name == "nasa_neo_job"
    now = datetime(2026, 11, 22, 6, tzinfo=UTC)
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=now, repository_def=repository
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == date(2026, 11, 21).isoformat()
