"""Environments: each has its own tables, under the same asset keys, with the limits of its profile."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import psycopg2
import pytest
from dagster_dlt import dlt_assets

from shared import environments, settings, warehouse
from shared.orchestration.default_status import with_default_status
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.database.table import Table
from shared.testing.source_database import SourceDatabase

SPEC = warehouse.pipeline("items_pipeline", dataset_name="csv_data")

PROFILES = """
[local]
[dev]
[production]
schedules_on = ["nightly*", "automation_sensor"]
[preview]
alerts_webhook = ""
max_partitions = 2
max_database_rows = 3
defer_to = "production"
"""


@dlt.source(name="items")
def items(*numbers: int, tables: tuple[str, ...] = ("items",)) -> Any:
    """Return rows with nested ones."""
    rows = [{"id": number, "tags": [{"tag": "a"}]} for number in numbers]
    return [dlt.resource(rows, name=table, write_disposition="replace") for table in tables]


def load(*numbers: int, tables: tuple[str, ...] = ("items",)) -> warehouse.LoadResult:
    return warehouse.load(warehouse.plan_load(SPEC, items(*numbers, tables=tables)))


def ids(table: str = "items") -> list[int]:
    return [row["id"] for row in warehouse.query(f"SELECT id FROM csv_data.{table} ORDER BY id")]


@pytest.fixture
def enter(any_warehouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A workspace with profiles; the function changes the environment."""
    assert any_warehouse
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / environments.FILE).write_text(PROFILES)
    monkeypatch.chdir(tmp_path)
    return lambda name: monkeypatch.setenv("ETL_ENVIRONMENT", name)


def test_environments_do_not_share_a_row(enter: Any) -> None:
    for number, name in enumerate(["production", "dev", "pr-1"]):
        enter(name)
        load(number)
    for number, name in enumerate(["production", "dev", "pr-1"]):
        enter(name)
        assert ids() == [number]
        assert warehouse.query("SELECT csv_data.items.id FROM csv_data.items") == [{"id": number}]
        (table, nested) = warehouse.list_tables()
        assert (table.dataset, table.name, nested.name) == ("csv_data", "items", "items__tags")


def test_what_an_environment_does_not_have_is_read_from_the_one_that_it_defers_to(
    enter: Any,
) -> None:
    enter("production")
    load(1, tables=("items", "others"))
    enter("pr-1")
    assert ids() == ids("others") == [1], "before it has any table"
    missing = ("csv_data", "missing")
    assert warehouse.find_tables([missing]) == {missing: None}
    load(2)
    assert ids() == [2]
    assert ids("others") == [1]
    joined = "SELECT i.id AS own, o.id AS deferred FROM csv_data.items i, csv_data.others o WHERE i.id > ?"
    assert warehouse.query(joined, [0]) == [{"own": 2, "deferred": 1}]
    assert warehouse.query("SELECT id FROM CSV_DATA.Others") == [{"id": 1}]
    assert {table.name for table in warehouse.list_tables()} == {"items", "items__tags"}
    places = warehouse.find_tables([("csv_data", "items"), ("csv_data", "others")])
    assert places["csv_data", "items"] != places["csv_data", "others"]
    enter("dev")
    with pytest.raises((warehouse.QueryError, FileNotFoundError)):
        ids("others")
    enter("production")
    assert ids() == [1], "a preview does not write into production"


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_drop_leaves_nothing_of_a_writer_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETL_ENVIRONMENT", "pr-1")
    load(1)
    file = warehouse.duckdb_path()
    killed = (
        f"import duckdb, os; c = duckdb.connect({str(file)!r}).execute('CREATE TABLE rest AS SELECT 1 AS x')"
        "; os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", killed], check=False)
    rest = file.with_name(f"{file.name}.wal")
    assert rest.exists()
    assert warehouse.drop_environment("pr-1") == [str(file)]
    assert not rest.exists()
    load(2)
    assert ids() == [2]
    assert warehouse.find_tables([("main", "rest")]) == {("main", "rest"): None}


def test_what_another_program_creates_under_the_lock_is_dropped(
    postgres_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETL_ENVIRONMENT", "pr-1")
    with (
        warehouse.write_lock(["pr_1__mart"]),
        psycopg2.connect(postgres_warehouse) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE pr_1__mart.weeks AS SELECT 1 AS week")
    connection.close()
    assert warehouse.drop_environment("pr-1") == ["pr_1__mart"]


def test_a_drop_removes_the_tables_of_one_environment_and_never_those_of_production(
    enter: Any,
) -> None:
    for name in ("production", "pr-1", "pr-12"):
        enter(name)
        load(1)
    assert [each.name for each in warehouse.list_environments()] == ["pr-1", "pr-12"]
    enter("production")
    (dropped,) = warehouse.drop_environment("pr-1")
    assert "pr_1" in dropped
    assert [each.name for each in warehouse.list_environments()] == ["pr-12"]
    assert warehouse.drop_environment("pr-1") == []
    with pytest.raises(warehouse.WarehouseConfigError, match="production is not dropped"):
        warehouse.drop_environment("production")
    assert ids() == [1]
    enter("pr-12")
    assert ids() == [1]


def test_a_dataset_of_production_with_the_name_of_a_preview_is_not_dropped(
    enter: Any, any_warehouse: str, tmp_path: Path
) -> None:
    if any_warehouse == "duckdb":
        (tmp_path / "warehouse_pr_1.duckdb").write_bytes(b"a file of somebody")
    else:
        enter("production")
        spec = warehouse.pipeline("other", dataset_name="pr_1__csv_data")
        warehouse.load(warehouse.plan_load(spec, items(7)))
        enter("pr-1")
        with pytest.raises(warehouse.WarehouseConfigError, match="pr_1__csv_data has tables that"):
            load(8)
    enter("pr-2")
    assert warehouse.list_environments() == []
    assert warehouse.drop_environment("pr-1") == []
    if any_warehouse == "duckdb":
        assert (tmp_path / "warehouse_pr_1.duckdb").exists()
    else:
        enter("production")
        assert warehouse.query("SELECT id FROM pr_1__csv_data.items") == [{"id": 7}]
        listed = {table.dataset for table in warehouse.list_tables()}
        assert listed == {"pr_1__csv_data"}, "the refused load has not marked it"


def test_a_load_during_a_drop_ends_and_the_next_load_creates_the_tables_again(enter: Any) -> None:
    enter("pr-1")
    load(1)
    errors: list[BaseException] = []

    def load_many() -> None:
        try:
            for number in range(3):
                load(number)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    writer = threading.Thread(target=load_many)
    writer.start()
    while writer.is_alive():
        warehouse.drop_environment("pr-1")
    writer.join()
    assert errors == []
    load(5)
    assert ids() == [5]


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("pr-123", "pr_123"),
        ("pr_123", "pr_123_"),
        ("local-ann", "local_ann_"),
        ("feature/ünï", "feature_uni_"),
        ("Feature-X", "feature_x_"),
        ("a" * 80, "a" * 17 + "_"),
        ("1; DROP", "1_drop_"),
    ],
)
def test_any_name_becomes_a_part_of_a_name_in_sql(name: str, identifier: str) -> None:
    actual = environments.to_identifier(name)
    assert re.fullmatch(
        re.escape(identifier) + r"(?<=_)[0-9a-f]{6}|" + re.escape(identifier), actual
    )
    assert len(actual) <= 24


def test_names_that_differ_only_in_lost_characters_stay_different() -> None:
    names = [
        "feature/x",
        "feature-x",
        "Feature/x",
        "feature.x",
        "féature/x",
        "feature/x ",
        "feature_x",
    ]
    assert len({*map(environments.to_identifier, names)}) == len(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prod", "did you mean production"),
        ("Production", "did you mean production"),
        ("produciton", "did you mean production"),
        ("live", "did you mean production"),
        ("stagin", "did you mean staging"),
        ("ü/", None),
        ("///", "must have a letter"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_read(
    name: str, message: str | None, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETL_ENVIRONMENT", name)
    if message is None:
        assert environments.current().identifier.startswith("u_")
        return
    with pytest.raises(warehouse.WarehouseConfigError, match=message):
        load(1)
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=message):
        with_default_status(dg.Definitions())
    assert not list(tmp_warehouse.glob("warehouse*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dev", "is not TOML"),
        ("[dev]\nmax_rows = 1", r"dev\.max_rows: Extra inputs"),
        ("[dev]\nmax_database_rows = 'many'", r"dev\.max_database_rows"),
        ("[dev]\nmax_partitions = 0", r"dev\.max_partitions"),
        ("[dev]\ndefer_to = 'nowhere'", r"dev\.defer_to: 'nowhere' is not another environment"),
        ("[dev]\ndefer_to = 'dev'", r"dev\.defer_to"),
        ("[dev]\nalerts_webhook = 'CHANNEL'", r"dev\.alerts_webhook"),
        ("dev = 1", "dev"),
    ],
)
def test_a_wrong_file_names_the_key(
    text: str, message: str, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_warehouse / "workspace.yaml").touch()
    (tmp_warehouse / environments.FILE).write_text(text)
    monkeypatch.chdir(tmp_warehouse)
    with pytest.raises(warehouse.WarehouseConfigError, match=message):
        load(1)


def test_a_server_that_others_use_needs_a_named_environment(
    postgres_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ETL_ENVIRONMENT")
    with pytest.raises(warehouse.WarehouseConfigError, match="ETL_ENVIRONMENT=production"):
        load(1)
    with pytest.raises(warehouse.WarehouseConfigError, match="ETL_ENVIRONMENT is not set"):
        ids()
    monkeypatch.setenv("ETL_ENVIRONMENT", "local")
    monkeypatch.setenv("LOGNAME", "ann")
    load(1)
    assert ids() == [1]
    with psycopg2.connect(postgres_warehouse) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM local_ann__csv_data.items")
        assert cursor.fetchall() == [(1,)]
    connection.close()
    monkeypatch.setenv("LOGNAME", "bob")
    with pytest.raises(warehouse.QueryError):
        ids()
    load(2)
    assert warehouse.drop_environment("local") == ["local_bob__csv_data"]
    monkeypatch.setenv("LOGNAME", "ann")
    assert ids() == [1]


def test_a_layout_of_dlt_for_names_is_refused(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_NAME_LAYOUT", "dev_ann_%s")
    with pytest.raises(warehouse.WarehouseConfigError, match="Unset it, and set ETL_ENVIRONMENT"):
        load(1)
    assert not list(tmp_warehouse.glob("warehouse.working/*"))


def test_a_name_that_postgres_would_cut_is_refused(
    postgres_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres_warehouse
    monkeypatch.setenv("ETL_ENVIRONMENT", "pr-1")
    spec = warehouse.pipeline("p", dataset_name="d" * 50)
    with pytest.raises(warehouse.WarehouseConfigError, match="longer than the 63 characters"):
        warehouse.load(warehouse.plan_load(spec, items(1)))


def test_nothing_changes_for_someone_who_sets_nothing(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ETL_ENVIRONMENT", raising=False)
    load(1)
    assert ids() == [1]
    assert (tmp_warehouse / "warehouse.duckdb").exists()
    for profile in environments.declared().values():
        assert profile.alerts_webhook in {"", *settings.SETTINGS}


def test_schedules_and_sensors_are_on_where_the_profile_names_them(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_warehouse / "workspace.yaml").touch()
    (tmp_warehouse / environments.FILE).write_text(PROFILES)
    monkeypatch.chdir(tmp_warehouse)

    @dg.asset(
        partitions_def=dg.DailyPartitionsDefinition("2025-01-01"),
        automation_condition=dg.AutomationCondition.eager(),
    )
    def rows() -> None: ...

    job = dg.define_asset_job("job", selection="*")
    schedules: list[Any] = [
        dg.build_schedule_from_partitioned_job(job, name="nightly_rows"),
        dg.ScheduleDefinition(name="nightly_all", cron_schedule="@daily", target="*"),
        dg.ScheduleDefinition(name="hourly", cron_schedule="@hourly", target="*"),
    ]
    sensor = dg.AutomationConditionSensorDefinition("automation_sensor", target="*")
    for sensors, name, on in (
        ([sensor], "production", {"nightly_rows", "nightly_all", "automation_sensor"}),
        ([], "production", {"nightly_rows", "nightly_all"}),
        ([sensor], "pr-1", set()),
    ):
        monkeypatch.setenv("ETL_ENVIRONMENT", name)
        defs = with_default_status(
            dg.Definitions([rows], jobs=[job], schedules=schedules, sensors=sensors)
        )
        repository = defs.get_repository_def()
        every: list[Any] = [*repository.schedule_defs, *repository.sensor_defs]
        assert {each.name for each in every if each.default_status.value == "RUNNING"} == on


def test_a_run_with_more_partitions_than_the_environment_allows_loads_nothing(
    enter: Any, instance: dg.DagsterInstance
) -> None:
    @dlt_assets(
        dlt_source=items(),
        dlt_pipeline=SPEC,
        dagster_dlt_translator=WarehouseTranslator(owner="team:a"),
        partitions_def=dg.DailyPartitionsDefinition("2025-01-01"),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context, items(1))

    def run(last: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [assets],
            instance=instance,
            resources={"dlt": WarehouseDltResource()},
            tags={
                "dagster/asset_partition_range_start": "2025-01-01",
                "dagster/asset_partition_range_end": last,
            },
            raise_on_error=False,
        )

    enter("pr-1")
    failed = run("2025-01-03")
    (failure,) = failed.get_step_failure_events()
    assert "loads at most 2" in str(failure.step_failure_data.error)
    for name, last in (("pr-1", "2025-01-02"), ("dev", "2025-01-03")):
        enter(name)
        (failure,) = run(last).get_step_failure_events()  # of the next check
        assert "marks no partition column" in str(failure.step_failure_data.error)


def test_an_environment_with_a_row_limit_reads_so_many_rows_of_each_table_and_moves_no_slot(
    enter: Any, shop: SourceDatabase
) -> None:
    from shared.sources.database.source import database_source

    shop.run("CREATE TABLE orders (id int PRIMARY KEY, note text)")
    shop.run("INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 10) AS s(n)")
    spec = warehouse.pipeline("shop_pipeline", dataset_name="shop")

    def load_orders(mode: Any) -> int:
        source = database_source([Table("orders", mode=mode, key="id")], "shop")
        warehouse.load(warehouse.plan_load(spec, source))
        return int(warehouse.query("SELECT count(*) AS n FROM shop.orders")[0]["n"])

    for mode in ("full", "incremental", "mirror"):
        enter(f"pr-{mode}")
        assert load_orders(mode) == 3
        assert load_orders(mode) == 3
    enter("pr-changes")
    with suppress(Exception):
        load_orders("changes")
    assert shop.run("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    enter("dev")
    assert load_orders("incremental") == 10
