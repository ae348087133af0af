"""The checks of the loaded days pass on NASA's data, and each fails for its own reason."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from api_etl import chart, checks
from api_etl.definitions import defs
from api_etl.recorded.objects import synthetic_days
from api_etl.recorded.server import NeowsServer
from shared import warehouse

Results = dict[str, tuple[bool, str, str]]


@pytest.fixture(autouse=True)
def _api_key(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a key. Without one, yesterday is not due while only sample days are loaded."""
    monkeypatch.setenv("NASA_API_KEY", "key-of-a-team")


def load(instance: dg.DagsterInstance, *days: str) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("nasa_neo_job").execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": days[0],
            "dagster/asset_partition_range_end": days[-1],
        },
    )


def run_checks(instance: dg.DagsterInstance) -> Results:
    """Run only the checks."""
    result = defs.resolve_job_def("nasa_neo_checks_job").execute_in_process(instance=instance)
    return results(result)


def results(result: dg.ExecuteInProcessResult) -> Results:
    return {
        check.check_name: (check.passed, check.severity.value, check.description or "")
        for check in result.get_asset_check_evaluations()
    }


def change(sql: str) -> None:
    with duckdb.connect(str(warehouse.duckdb_path())) as connection:
        connection.execute(sql)


def test_recorded_days_pass_all_checks_except_that_yesterday_is_loaded(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    neows_server.days["2025-03-12"] = []
    for days in (("2018-12-06", "2018-12-12"), ("2025-03-10", "2025-03-17")):
        result = load(instance, *days)
        assert result.success
    seen = results(result)
    assert seen.keys() == {*checks.CHECKS, "rows_are_unique"}
    assert {name for name, (passed, *_) in seen.items() if not passed} == {"yesterday_is_loaded"}


def test_the_old_format_and_synthetic_days_pass_too(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    neows_server.days |= synthetic_days(date(2018, 9, 1), 60)
    old = neows_server.days["2015-04-01"]
    neows_server.days["2018-10-30"] = [
        {
            **item,
            "close_approach_data": [
                {
                    **item["close_approach_data"][0],
                    "close_approach_date": "2018-10-30",
                    "epoch_date_close_approach": 1540900800000,
                }
            ],
        }
        for item in old
    ]
    assert load(instance, "2018-09-01", "2018-10-30").success
    failed = {name for name, (passed, *_) in run_checks(instance).items() if not passed}
    assert failed == {"yesterday_is_loaded"}


WRONG = [
    (
        "DELETE FROM nasa_neo.near_earth_objects WHERE name = '(2015 BY512)'",
        "element_count_equals_rows",
        "ERROR",
        "2025-03-10: 14 rows, NASA sent 15",
    ),
    (
        (
            "UPDATE nasa_neo.near_earth_objects_days SET close_approach_date = '2025-03-09' "
            "WHERE close_approach_date = '2025-03-10'"
        ),
        "element_count_equals_rows",
        "ERROR",
        "2025-03-10: 15 rows, NASA sent no such day",
    ),
    (
        (
            "UPDATE nasa_neo.near_earth_objects SET miss_distance_miles = miss_distance_kilometers "
            "WHERE name = '(2015 BY512)'"
        ),
        "units_agree",
        "ERROR",
        "2025-03-10 (2015 BY512): miss_distance_kilometers 66336716",
    ),
    (
        (
            "UPDATE nasa_neo.near_earth_objects SET relative_velocity_kilometers_per_hour = 17 "
            "WHERE name = '(2015 BY512)'"
        ),
        "units_agree",
        "ERROR",
        "relative_velocity_kilometers_per_second 17.3",
    ),
    (
        (
            "UPDATE nasa_neo.near_earth_objects SET close_approach_at = '2025-03-11 00:00:00+00' "
            "WHERE name = '(2015 BY512)'"
        ),
        "epoch_agrees_with_date",
        "WARN",
        "2025-03-10 (2015 BY512): 2025-03-11",
    ),
    (
        (
            """UPDATE nasa_neo.near_earth_objects SET unmapped_fields = '{"spin": 2}' """
            "WHERE name = '(2015 BY512)'"
        ),
        "no_unmapped_fields",
        "WARN",
        "spin, since 2025-03-10",
    ),
]
"""What makes a check fail: a change of the tables, the check, its severity, and the reason it names."""


def test_each_check_fails_for_its_own_reason(
    neows_server: NeowsServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert load(instance, "2025-03-10", "2025-03-11").success
    loaded = shutil.copy(warehouse.duckdb_path(), tmp_path / "loaded.duckdb")
    for wrong, check, severity, reason in WRONG:
        shutil.copy(loaded, warehouse.duckdb_path())
        change(wrong)
        seen = run_checks(instance)
        failed = {name for name, (passed, *_) in seen.items() if not passed}
        assert failed == {check, "yesterday_is_loaded"}, wrong
        assert seen[check][1] == severity
        assert reason in seen[check][2]


def test_an_unusual_share_of_hazardous_objects_is_reported(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    neows_server.days = synthetic_days(date(2025, 1, 1), 88)
    assert load(instance, *sorted(neows_server.days)).success
    assert run_checks(instance)["hazardous_share"][0]
    change(
        "UPDATE nasa_neo.near_earth_objects SET is_potentially_hazardous_asteroid = true "
        "WHERE close_approach_date > '2025-03-20'"
    )
    passed, severity, reason = run_checks(instance)["hazardous_share"]
    assert (passed, severity) == (False, "WARN")
    assert "of the last 28 days' objects, and 10." in reason or "9." in reason


@pytest.mark.parametrize(
    ("hour", "due"), [(0, date(2026, 11, 22)), (6, date(2026, 11, 22)), (7, date(2026, 11, 23))]
)
def test_yesterday_is_due_at_seven(hour: int, due: date) -> None:
    assert checks.due_day(datetime(2026, 11, 24, hour, 30, tzinfo=UTC)) == due


def test_yesterday_without_objects_is_loaded(
    neows_server: NeowsServer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "due_day", lambda _: date(2025, 3, 11))
    neows_server.days["2025-03-11"] = []
    assert load(instance, "2025-03-10", "2025-03-10").success
    passed, severity, reason = run_checks(instance)["yesterday_is_loaded"]
    assert (passed, severity, reason) == (
        False,
        "WARN",
        "2025-03-11 is not loaded: run its partition",
    )
    assert load(instance, "2025-03-11", "2025-03-11").success
    assert run_checks(instance)["yesterday_is_loaded"][0]


def test_without_a_key_yesterday_is_not_due_while_only_sample_days_are_loaded(
    neows_server: NeowsServer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NASA_API_KEY")
    assert load(instance, "2025-03-10", "2025-03-17").success
    seen = run_checks(instance)
    assert {name for name, (passed, *_) in seen.items() if not passed} == set()
    assert "NASA_API_KEY is not set" in seen["yesterday_is_loaded"][2]
    neows_server.days["2025-03-18"] = []  # a day that is not in the sample
    assert load(instance, "2025-03-18", "2025-03-18").success
    assert not run_checks(instance)["yesterday_is_loaded"][0]


def test_the_chart_is_a_file_and_is_in_the_metadata_of_its_day_only(
    neows_server: NeowsServer, instance: dg.DagsterInstance, tmp_warehouse: Path
) -> None:
    result = load(instance, "2025-03-10", "2025-03-17")
    assert result.success
    assert chart.path() == tmp_warehouse / "closest_approaches.png"
    assert chart.path().read_bytes().startswith(b"\x89PNG")
    charts = {
        event.partition: event.materialization.metadata["chart"].value
        for event in result.get_asset_materialization_events()
        if "chart" in event.materialization.metadata
    }
    assert charts.keys() == {"2025-03-17"}
    assert str(charts["2025-03-17"]).startswith("![closest approaches](data:image/png;base64,iVBOR")


def test_an_approach_without_a_timestamp_is_not_drawn(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    (approach,) = neows_server.days["2025-03-10"][0]["close_approach_data"]
    item = {**neows_server.days["2025-03-10"][0], "name": None}
    item["close_approach_data"] = [{**approach, "epoch_date_close_approach": None}]
    neows_server.days["2025-03-10"] = [item]
    assert load(instance, "2025-03-10", "2025-03-10").success


def test_weeks_without_objects_are_drawn_too(
    neows_server: NeowsServer, instance: dg.DagsterInstance
) -> None:
    neows_server.days["2025-03-10"] = []
    assert load(instance, "2025-03-10", "2025-03-10").success
    assert chart.path().read_bytes().startswith(b"\x89PNG")


def test_the_schedule_at_seven_runs_only_the_checks() -> None:
    schedule = defs.get_repository_def().get_schedule_def("nasa_neo_due_at_seven")
    assert (schedule.cron_schedule, schedule.job_name) == ("0 7 * * *", "nasa_neo_checks_job")
    job = defs.resolve_job_def("nasa_neo_checks_job")
    assert not job.asset_layer.selected_asset_keys
