"""csv_etl: a file is loaded completely or not at all, and a reload replaces its rows."""

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from csv_etl.definitions import defs
from shared import warehouse
from shared.sources.files import source as files
from shared.warehouse.destinations.duckdb import PushdownLoadJob

HEADER = '"date","share_price","amount","spend","shift","spread"\n'
SAMPLE = Path(__file__).parents[3] / "data" / "drop"
DAYS = ("2018-01-22", "2018-01-23", "2018-01-24")


MODES = ("row by row", "pushdown")


@pytest.fixture(params=MODES)
def _each_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load small files in both ways, with and without pushdown, and into a server too."""
    if request.param == "into Postgres":
        request.getfixturevalue("postgres_warehouse")
    monkeypatch.setattr(files, "_PUSHDOWN_MIN_BYTES", 0 if request.param == "pushdown" else 10**9)


@pytest.fixture
def drop(tmp_warehouse: Path) -> Path:
    """The drop folder, with the sample's three files."""
    for day in DAYS:
        shutil.copy(SAMPLE / f"{day}.csv", tmp_warehouse / "drop")
    return tmp_warehouse / "drop"


def run(instance: dg.DagsterInstance, *assets: str, **how: Any) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(["csv_data", name]) for name in assets]
    return job.execute_in_process(
        asset_selection=keys, instance=instance, raise_on_error=False, **how
    )


def load_file(instance: dg.DagsterInstance, path: str, **how: Any) -> dg.ExecuteInProcessResult:
    config = {"ops": {"import_file": {"config": {"path": path}}}}
    return run(instance, "import_file", "share_prices", run_config=config, **how)


def load_days(instance: dg.DagsterInstance, first: str, last: str) -> dg.ExecuteInProcessResult:
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    return run(instance, "import_daily_file", "share_prices_daily", tags=tags)


def row_counts(table: str) -> dict[str, int]:
    rows = warehouse.query(f"SELECT file_name, count(*) AS n FROM csv_data.{table} GROUP BY 1")
    return {row["file_name"]: row["n"] for row in rows}


def failure(result: dg.ExecuteInProcessResult) -> str:
    return " ".join(
        str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure
    )


@pytest.mark.usefixtures("_each_mode")
def test_the_file_of_the_config_is_loaded_and_a_rerun_has_the_same_rows(
    drop: Path, instance: dg.DagsterInstance
) -> None:
    for _ in range(2):
        assert load_file(instance, "2018-01-22.csv").success
    assert row_counts("share_prices") == {"2018-01-22.csv": 8}
    assert load_file(instance, "2018-01-23.csv").success
    assert row_counts("share_prices") == {"2018-01-22.csv": 8, "2018-01-23.csv": 5}


@pytest.mark.usefixtures("_each_mode")
def test_money_is_exact(drop: Path, instance: dg.DagsterInstance) -> None:
    load_file(instance, "2018-01-22.csv")
    (row,) = warehouse.query("SELECT sum(spread) AS total FROM csv_data.share_prices")
    assert row == {"total": Decimal("2327.8543")}


def test_a_table_that_runs_alone_loads_the_file_imported_last(
    drop: Path, instance: dg.DagsterInstance
) -> None:
    assert not run(instance, "share_prices").success
    assert load_file(instance, "2018-01-24.csv").success
    (drop / "2018-01-24.csv").write_text(HEADER + "2018/10/15,1,2,3,4,5\n")
    assert run(instance, "share_prices").success
    assert row_counts("share_prices") == {"2018-01-24.csv": 1}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../warehouse.duckdb", "is not a path below the drop folder"),
        ("/etc/passwd", "is not a path below the drop folder"),
        ("missing.csv", "is not in the drop folder"),
        ("folder", "is a folder, not a file"),
    ],
)
def test_a_path_that_is_not_a_dropped_file_is_refused_before_the_load(
    drop: Path, instance: dg.DagsterInstance, path: str, why: str
) -> None:
    (drop / "folder").mkdir()
    result = load_file(instance, path)
    assert not result.success
    assert why in failure(result)
    assert not warehouse.duckdb_path().exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (HEADER + "2018/09/28,0,1,1,1,1\n", "line 2: column share_price: '0' breaks the rule"),
        (
            HEADER + "2018/09/28,1,1,1,1,1\n2018/09/28,-1,1,1,1,1\n",
            "line 3: column share_price",
        ),
        (HEADER, "has no rows"),
        ("", "empty"),
        ("a,b\n1,2\n", "the header is a, b; expected date, share_price"),
    ],
)
def test_a_file_that_fails_its_check_loads_nothing(
    drop: Path, instance: dg.DagsterInstance, content: str, why: str
) -> None:
    (drop / "bad.csv").write_text(content)
    result = load_file(instance, "bad.csv")
    assert not result.success
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.description is not None
    assert check.description.startswith("bad.csv")
    assert why in check.description
    assert not warehouse.duckdb_path().exists()


@pytest.mark.parametrize(
    ("table", "how"),
    [
        ("share_prices", {}),
        ("share_prices_daily", {"partition_key": "2018-01-22"}),
    ],
)
@pytest.mark.usefixtures("_each_mode")
def test_a_bad_file_loads_nothing_even_if_its_table_runs_alone(
    drop: Path, instance: dg.DagsterInstance, table: str, how: dict[str, str]
) -> None:
    load_file(instance, "2018-01-22.csv")
    (drop / "2018-01-22.csv").write_text(HEADER + "2018/09/28,-5,1,1,1,1\n")
    result = run(instance, table, **how)
    assert not result.success
    assert "line 2: column share_price: '-5' breaks the rule" in failure(result)


def test_a_retry_loads_the_file_of_the_run_it_retries(
    drop: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "wrong")
    first = load_file(instance, "2018-01-22.csv")
    assert "WAREHOUSE_WAIT_SECONDS is 'wrong'" in failure(first)
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "60")
    assert load_file(instance, "2018-01-23.csv").success
    repository = ReconstructableRepository.for_module("csv_etl.definitions", "defs")
    with dg.execute_job(
        repository.get_reconstructable_job("__ASSET_JOB"),
        instance=instance,
        reexecution_options=dg.ReexecutionOptions.from_failure(first.run_id, instance),
    ) as retried:
        pass
    assert retried.success
    assert row_counts("share_prices") == {"2018-01-22.csv": 8, "2018-01-23.csv": 5}


def test_a_large_file_whose_rows_are_loaded_is_skipped(
    drop: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PUSHDOWN_MIN_BYTES", 0)

    def load(rows: int = 8, **how: Any) -> str:
        result = load_file(instance, "2018-01-22.csv", **how)
        assert result.success
        (event,) = result.asset_materializations_for_node("share_prices")
        assert event.metadata["rows_loaded"].value == rows
        assert row_counts("share_prices")["2018-01-22.csv"] == rows
        (row,) = warehouse.query(
            "SELECT any_value(_dlt_load_id) AS id FROM csv_data.share_prices "
            "WHERE file_name = '2018-01-22.csv' HAVING count(DISTINCT _dlt_load_id) = 1"
        )
        return str(row["id"])

    first = load()
    assert load() == first
    load_file(instance, "2018-01-23.csv")
    assert load() == first, "another file's load changes nothing"
    again = load(tags={"etl/force_reload": "true"})
    assert again != first
    with warehouse.exclusive_connection() as connection:
        connection.execute(
            "DELETE FROM csv_data.share_prices WHERE rowid = "
            "(SELECT max(rowid) FROM csv_data.share_prices WHERE file_name = '2018-01-22.csv')"
        )
    fixed = load()
    assert fixed != again, "rows that are missing come back"
    monkeypatch.setattr(files, "_PUSHDOWN_MIN_BYTES", 10**9)
    other_way = load()
    assert other_way != fixed
    monkeypatch.setattr(files, "_PUSHDOWN_MIN_BYTES", 0)
    assert load() != other_way, "another way's load is none to rely on"
    text = (drop / "2018-01-22.csv").read_text().splitlines()
    (drop / "2018-01-22.csv").write_text("\n".join(text[:-1]))
    load(rows=7)


@pytest.mark.parametrize("_each_mode", [*MODES, "into Postgres"], indirect=True)
@pytest.mark.usefixtures("_each_mode")
def test_a_changed_file_replaces_its_rows(drop: Path, instance: dg.DagsterInstance) -> None:
    load_days(instance, *DAYS[::2])
    (drop / "2018-01-23.csv").write_text(HEADER + "2018/10/01,1,2,3,4,5\n")
    load_days(instance, DAYS[1], DAYS[1])
    assert row_counts("share_prices_daily") == {
        "2018-01-22.csv": 8,
        "2018-01-23.csv": 1,
        "2018-01-24.csv": 6,
    }


@pytest.mark.usefixtures("_each_mode")
def test_a_backfill_of_days_is_one_run(drop: Path, instance: dg.DagsterInstance) -> None:
    result = load_days(instance, DAYS[0], DAYS[2])
    assert result.success
    assert sum(row_counts("share_prices_daily").values()) == 19
    keys = {event.partition for event in result.get_asset_materialization_events()}
    assert keys == set(DAYS)


@pytest.mark.parametrize(("min_bytes", "count"), [(0, 3), (10**9, None)])
def test_a_run_says_how_many_files_duckdb_read_itself(
    drop: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    min_bytes: int,
    count: int | None,
) -> None:
    monkeypatch.setattr(files, "_PUSHDOWN_MIN_BYTES", min_bytes)
    result = load_days(instance, DAYS[0], DAYS[2])
    *_, loaded = result.get_asset_materialization_events()
    shown = loaded.materialization.metadata.get("files_pushed_down")
    assert (shown and shown.value) == count


def test_one_bad_day_stops_the_backfill_before_any_day_is_loaded(
    drop: Path, instance: dg.DagsterInstance
) -> None:
    (drop / "2018-01-23.csv").write_text(HEADER + "2018/10/01,x,2,3,4,5\n")
    assert not load_days(instance, DAYS[0], DAYS[2]).success
    assert not warehouse.duckdb_path().exists()


def test_a_day_without_a_file_is_an_error_that_names_it(
    drop: Path, instance: dg.DagsterInstance
) -> None:
    result = load_days(instance, "2018-01-25", "2018-01-25")
    assert "'2018-01-25.csv' is not in the drop folder" in failure(result)


def test_each_dropped_file_is_a_partition(drop: Path, instance: dg.DagsterInstance) -> None:
    name = "it's {x}.csv"
    shutil.copy(drop / "2018-01-22.csv", drop / name)
    instance.add_dynamic_partitions("dropped_files", [name])
    for _ in range(2):
        result = run(instance, "import_dropped_file", "share_prices_by_file", partition_key=name)
        assert result.success
    assert row_counts("share_prices_by_file") == {name: 8}


@pytest.mark.usefixtures("_each_mode")
def test_a_file_that_changes_before_its_load_is_loaded_with_its_new_content(
    drop: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PushdownLoadJob.run

    def changed_meanwhile(job: PushdownLoadJob) -> None:
        with (drop / "2018-01-22.csv").open("a") as file:
            file.write("2018/10/09,1,2,3,4,5\n")
        original(job)

    monkeypatch.setattr(PushdownLoadJob, "run", changed_meanwhile)
    pushed_down = files._PUSHDOWN_MIN_BYTES == 0
    assert run(instance, "share_prices_daily", partition_key="2018-01-22").success
    assert row_counts("share_prices_daily") == {"2018-01-22.csv": 8 + pushed_down}


def test_a_table_depends_on_its_file() -> None:
    graph = defs.resolve_asset_graph()
    for table, file in [
        ("share_prices", "import_file"),
        ("share_prices_daily", "import_daily_file"),
        ("share_prices_by_file", "import_dropped_file"),
    ]:
        parents = graph.get(dg.AssetKey(["csv_data", table])).parent_keys
        assert parents == {dg.AssetKey(["csv_data", file])}


def load_dropped(instance: dg.DagsterInstance, name: str) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions("dropped_files", [name])
    job = defs.resolve_job_def("dropped_file_job")
    return job.execute_in_process(instance=instance, partition_key=name, raise_on_error=False)


def rejected() -> list[dict[str, Any]]:
    return warehouse.query(
        "SELECT file_name, line, raw, reason FROM csv_data.share_prices_by_file_rejected "
        "ORDER BY file_name, line"
    )


@pytest.mark.parametrize("_each_mode", [*MODES, "into Postgres"], indirect=True)
@pytest.mark.usefixtures("_each_mode")
def test_a_dropped_file_loads_its_valid_rows_and_quarantines_the_others(
    drop: Path, instance: dg.DagsterInstance
) -> None:
    good = "2018/09/28,1,1,1,1,1\n"
    bad = ["2018/09/28,-1,1,1,1,1", "2018/09/28,1", '"2018/09/28,1,1,1,1,1']
    (drop / "x.csv").write_text(HEADER + (good * 10 + bad[0] + "\n") + good * 40 + bad[1] + "\n")
    for _ in range(2):
        result = load_dropped(instance, "x.csv")
        assert result.success
        assert row_counts("share_prices_by_file") == {"x.csv": 50}
        assert [(row["line"], row["raw"]) for row in rejected()] == [(12, bad[0]), (53, bad[1])]
    (check,) = (c for c in result.get_asset_check_evaluations() if c.check_name == "rejected_rows")
    assert check.passed
    assert check.description == "x.csv: 2 of 52 rows rejected (3.8%)"
    assert check.metadata["rejected"].value == 2

    (drop / "x.csv").write_text(HEADER + good * 5 + bad[2] + "\n")
    (check,) = (
        c
        for c in load_dropped(instance, "x.csv").get_asset_check_evaluations()
        if c.check_name == "rejected_rows"
    )
    assert not check.passed
    assert row_counts("share_prices_by_file") == {"x.csv": 5}
    assert [(row["line"], row["raw"]) for row in rejected()] == [(7, bad[2])]

    (drop / "x.csv").write_text(HEADER + good)
    assert load_dropped(instance, "x.csv").success
    assert row_counts("share_prices_by_file") == {"x.csv": 1}
    assert rejected() == []


@pytest.mark.usefixtures("_each_mode")
def test_a_fixed_file_does_not_change_the_rows_of_others(
    drop: Path, instance: dg.DagsterInstance
) -> None:
    shutil.copy(drop / "2018-01-22.csv", drop / "good.csv")
    assert load_dropped(instance, "good.csv").success
    for name in ("a.csv", "b.csv"):
        (drop / name).write_text(HEADER + "2018/09/28,1,1,1,1,1\n2018/09/28,x,1,1,1,1\n")
        load_dropped(instance, name)
    (drop / "a.csv").write_text(HEADER + "2018/09/28,1,1,1,1,1\n")
    load_dropped(instance, "a.csv")
    assert [row["file_name"] for row in rejected()] == ["b.csv"]
    (row,) = warehouse.query(
        "SELECT count(*) AS n FROM csv_data.share_prices_by_file_rejected AS rejected "
        "JOIN csv_data._dlt_loads AS loads ON loads.load_id = rejected._dlt_load_id"
    )
    assert row["n"] == 1, "a rejected record knows its load"


def test_another_header_is_refused_even_with_quarantine(
    drop: Path, instance: dg.DagsterInstance
) -> None:
    (drop / "x.csv").write_text("a,b\n1,2\n")
    assert not load_dropped(instance, "x.csv").success
    assert not warehouse.duckdb_path().exists()


def test_a_price_comes_from_its_column_of_the_file() -> None:
    key = dg.AssetKey(["csv_data", "share_prices_by_file"])
    spec = defs.resolve_assets_def(key).get_asset_spec(key)
    (source,) = spec.metadata["dagster/column_lineage"].deps_by_column["spend"]
    assert source == dg.TableColumnDep(dg.AssetKey(["csv_data", "import_dropped_file"]), "spend")
