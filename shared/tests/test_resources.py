"""The dlt resource replaces a partition exactly, whatever rows it had before."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import dagster as dg
import dlt
import pytest
import requests
from adbc_driver_manager.dbapi import Cursor
from dagster_dlt import dlt_assets
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.extract import DltResource

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.redaction import redact
from shared.warehouse.errors import find_cause

Rows = dict[str, list[int]]
upstream: Rows = {}
ODD = [
    "it's {x}",
    "a;b",
    "x'); DROP TABLE numbers.daily_numbers; --",
    "ALTER SCHEMA",
    "%s",
    "é 日\u2028",
]
days = dg.StaticPartitionsDefinition(["mon", "tue", *ODD])


@dlt.source(name="numbers")
def numbers(partitions: Sequence[str], *, fail: bool = False) -> DltResource:
    """Return the rows of some days in `upstream`."""

    @dlt.resource(
        columns={
            "day": {"data_type": "text", "partition": True, "nullable": False},
            "n": {"data_type": "bigint"},
        },
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def daily_numbers() -> Iterator[Any]:
        """Numbers of a day."""
        yield dlt.mark.materialize_table_schema()
        for day in partitions:
            for n in upstream.get(day, []):
                yield {"day": day, "n": n, "parts": [{"part": n}, {"part": -n}]}
        if fail:
            raise ConnectionError("the upstream went away")

    return daily_numbers


declared = warehouse.pipeline("numbers_pipeline", dataset_name="numbers")


@dlt_assets(
    dlt_source=numbers([]),
    dlt_pipeline=declared,
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    partitions_def=days,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="by_day",
)
def by_day(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context, dlt_source=numbers(context.partition_keys))


class Options(dg.Config):
    """How the unpartitioned asset runs."""

    partitions: list[str] | None = None
    fail: bool = False


@dlt_assets(
    dlt_source=numbers([]),
    dlt_pipeline=declared,
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    name="by_config",
)
def by_config(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource, config: Options
) -> Iterator[object]:
    source = numbers(config.partitions or [], fail=config.fail)
    yield from dlt.run(context=context, dlt_source=source, partitions=config.partitions)


@pytest.fixture(autouse=True)
def _own_upstream(any_warehouse: str) -> None:
    """Run each test on each of them."""
    upstream.clear()
    upstream.update({"mon": [1, 2, 3], "tue": [4, 5]})


def run(asset: dg.AssetsDefinition, **how: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize([asset], resources={"dlt": WarehouseDltResource()}, **how)


def run_with(options: Options) -> dg.ExecuteInProcessResult:
    return run(by_config, run_config=dg.RunConfig({"by_config": options}), raise_on_error=False)


def loaded() -> Rows:
    rows = warehouse.query("SELECT day, n FROM numbers.daily_numbers ORDER BY n")
    by_day: Rows = {}
    for row in rows:
        by_day.setdefault(row["day"], []).append(row["n"])
    return by_day


def parts() -> int:
    (row,) = warehouse.query("SELECT count(*) AS n FROM numbers.daily_numbers__parts")
    return int(row["n"])


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_reloading_a_day_replaces_only_its_rows_and_a_day_without_rows_becomes_empty() -> None:
    for day in ("mon", "mon", "tue"):
        run(by_day, partition_key=day)
    assert loaded() == {"mon": [1, 2, 3], "tue": [4, 5]}
    assert parts() == 10
    upstream["mon"] = [2, 9]
    run(by_day, partition_key="mon")
    assert loaded() == {"mon": [2, 9], "tue": [4, 5]}
    assert parts() == 8
    upstream["mon"] = []
    result = run(by_day, partition_key="mon")
    assert loaded() == {"tue": [4, 5]}
    assert metadata(result)["rows_loaded"] == 0
    assert metadata(result)["dagster/row_count"] == 2


def test_a_first_day_without_rows_creates_the_table() -> None:
    upstream["mon"] = []
    assert run(by_day, partition_key="mon").success
    assert loaded() == {}


def test_a_range_of_days_is_one_run_that_loads_them_all() -> None:
    tags = {
        "dagster/asset_partition_range_start": "mon",
        "dagster/asset_partition_range_end": "tue",
    }
    result = run(by_day, tags=tags)
    assert loaded() == {"mon": [1, 2, 3], "tue": [4, 5]}
    metadata = {
        str(event.partition): event.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    rows = {day: values["dagster/partition_row_count"].value for day, values in metadata.items()}
    assert rows == {"mon": 3, "tue": 2}
    # The metadata of the whole run is on its last day only.
    assert "preview" not in metadata["mon"]
    assert metadata["tue"]["rows_loaded"].value == 5


def test_a_partition_may_have_any_name() -> None:
    upstream.update({name: [7, 8] for name in ODD})
    first, *_, last = days.get_partition_keys()
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    run(by_day, tags=tags)
    assert loaded() == upstream
    for name in ODD:
        upstream[name] = [8]
        run(by_day, partition_key=name)
        assert loaded() == upstream, name


def test_a_run_does_not_replace_the_partitions_of_the_run_before() -> None:
    run(by_day, partition_key="mon")
    run(by_day, partition_key="tue")
    upstream["tue"] = []
    run_with(Options(partitions=["tue"]))
    assert loaded() == {"mon": [1, 2, 3]}


def test_a_run_without_a_partition_loads_nothing_and_reports_it() -> None:
    result = run_with(Options())
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert "daily_numbers is loaded by day" in str(failure.step_failure_data.error)
    assert not warehouse.duckdb_path().exists()


def test_an_upstream_that_fails_partway_through_changes_nothing(tmp_warehouse: Path) -> None:
    run(by_day, partition_key="mon")
    upstream["mon"] = [7]
    assert not run_with(Options(partitions=["mon"], fail=True)).success
    assert loaded() == {"mon": [1, 2, 3]}
    run(by_day, partition_key="mon")
    assert loaded() == {"mon": [7]}


def test_a_run_deletes_its_working_folder_and_a_failed_run_its_trace(tmp_warehouse: Path) -> None:
    run(by_day, partition_key="mon")
    folders = tmp_warehouse / "warehouse.working"
    assert list(folders.iterdir()) == []
    run_with(Options(partitions=["mon"], fail=True))
    (kept,) = folders.iterdir()
    assert (kept / "numbers_pipeline" / "state.json").exists()
    assert not list(kept.rglob("trace.pickle"))


def test_a_materialization_has_the_table_and_the_row_counts() -> None:
    shown = metadata(run(by_day, partition_key="mon"))
    server = os.environ.get("DESTINATION__WAREHOUSE__CREDENTIALS", "").rpartition("/")[2]
    database = {"duckdb": "warehouse", "ducklake": "ducklake"}.get(
        warehouse.warehouse_type(), server
    )
    assert shown["dagster/table_name"] == f"{database}.numbers.daily_numbers"
    assert shown["dagster/storage_kind"] == warehouse.warehouse_type()
    assert (shown["rows_loaded"], shown["dagster/row_count"]) == (3, 3)
    columns = {column.name: column for column in shown["dagster/column_schema"].columns}
    assert (columns["day"].type, columns["day"].constraints.nullable) == ("text", False)


def test_every_row_has_the_id_of_its_load() -> None:
    run(by_day, partition_key="mon")
    loads = warehouse.query(
        "SELECT DISTINCT rows._dlt_load_id FROM numbers.daily_numbers AS rows "
        "JOIN numbers._dlt_loads AS loads ON loads.load_id = rows._dlt_load_id"
    )
    assert len(loads) == 1


@dlt.source(name="flat")
def flat(rows: list[dict[str, Any]], partition: bool) -> DltResource:
    """Return rows of one flat table, replaced by day or completely."""
    disposition: Any = {"disposition": "merge", "strategy": "delete-insert"}

    @dlt.resource(
        columns={
            "day": {"data_type": "text", "partition": partition},
            "n": {"data_type": "bigint"},
        },
        write_disposition=disposition if partition else "replace",
    )
    def flat_numbers() -> Iterator[Any]:
        """Numbers without nested tables."""
        if partition:
            yield dlt.mark.materialize_table_schema()
        yield rows

    return flat_numbers


def run_flat(
    rows: list[dict[str, Any]], *, partition: bool, **how: Any
) -> dg.ExecuteInProcessResult:
    @dlt_assets(
        dlt_source=flat(rows, partition),
        dlt_pipeline=warehouse.pipeline("flat_pipeline", dataset_name="numbers"),
        dagster_dlt_translator=WarehouseTranslator("team:test"),
        name="flat",
    )
    def asset(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context=context, partitions=["mon"] if partition else None)

    return run(asset, raise_on_error=False, **how)


def flat_rows() -> list[dict[str, Any]]:
    return warehouse.query("SELECT day, n FROM numbers.flat_numbers ORDER BY 1, 2")


@pytest.mark.parametrize("partition", [True, False])
def test_a_load_that_fails_between_delete_and_insert_keeps_the_old_rows(
    partition: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [{"day": "mon", "n": 1}]
    assert run_flat(old, partition=partition).success
    execute, copy = DuckDbSqlClient.execute_sql, Cursor.adbc_ingest

    def failing(self: DuckDbSqlClient, sql: Any, *rest: Any, **named: Any) -> Any:
        if "INSERT INTO" in str(sql) and "flat_numbers" in str(sql):
            raise ConnectionError("the disk went away")
        return execute(self, sql, *rest, **named)

    def failing_copy(self: Cursor, table: str, *rest: Any, **named: Any) -> int:
        if table == "flat_numbers":
            raise ConnectionError("the server went away")
        return copy(self, table, *rest, **named)

    monkeypatch.setattr(DuckDbSqlClient, "execute_sql", failing)
    monkeypatch.setattr(Cursor, "adbc_ingest", failing_copy)
    assert not run_flat([{"day": "mon", "n": 2}], partition=partition).success
    assert flat_rows() == old


def test_rows_outside_the_run_s_partitions_are_refused() -> None:
    assert run_flat([{"day": "mon", "n": 1}], partition=True).success
    result = run_flat([{"day": "mon", "n": 2}, {"day": "tue", "n": 3}], partition=True)
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert "1 row with day tue" in str(failure.step_failure_data.error)
    assert flat_rows() == [{"day": "mon", "n": 1}]


def test_a_source_may_change_its_name_and_its_tables() -> None:
    run(by_day, partition_key="mon")

    @dlt_assets(
        dlt_source=flat([{"day": "mon", "n": 5}], False),
        dlt_pipeline=declared,
        dagster_dlt_translator=WarehouseTranslator("team:test"),
        name="renamed",
    )
    def renamed(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context=context)

    for _ in range(2):
        shown = metadata(run(renamed))
        assert shown["dagster/row_count"] == 1
        assert [column.name for column in shown["dagster/column_schema"].columns][:2] == [
            "day",
            "n",
        ]
    assert loaded() == {"mon": [1, 2, 3]}


def test_a_first_replace_without_rows_succeeds() -> None:
    assert metadata(run_flat([], partition=False))["dagster/row_count"] == 0


def test_a_row_sent_to_another_table_is_replaced_there() -> None:
    rows: Any = dlt.mark.with_table_name([{"day": "mon", "n": 1}], "elsewhere")
    assert run_flat([{"day": "mon", "n": 1}], partition=True).success
    for _ in range(2):
        assert run_flat(rows, partition=True).success
        assert warehouse.query("SELECT day, n FROM numbers.elsewhere") == [{"day": "mon", "n": 1}]
    assert flat_rows() == []  # the source has no row for it any more
    assert run_flat([{"day": "mon", "n": 2}], partition=True).success
    assert warehouse.query("SELECT day, n FROM numbers.elsewhere") == []


def columns_of(table: str) -> list[str]:
    rows = warehouse.query(
        "SELECT column_name AS name FROM information_schema.columns WHERE table_schema = 'numbers' "
        "AND table_name = ? ORDER BY ordinal_position",
        [table],
    )
    return [row["name"] for row in rows if not row["name"].startswith("_dlt")]


def failure_message(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    return str(failure.step_failure_data.error)


@pytest.mark.parametrize(
    ("value", "type_name", "partition"),
    [("abc", "text", True), ("abc", "text", False), (1.5, "double", True), (True, "bool", True)],
)
def test_a_changed_type_fails_with_table_column_types_and_an_example_every_time(
    value: object, type_name: str, partition: bool
) -> None:
    old = [{"day": "mon", "n": 1}]
    assert run_flat(old, partition=partition).success
    for _ in range(2):
        message = failure_message(run_flat([{"day": "mon", "n": value}], partition=partition))
        assert f"numbers.flat_numbers.n is bigint and upstream sent {type_name}" in message
        assert repr(value) in message
        assert ("mon" in message) is partition or not partition
        assert flat_rows() == old
    assert columns_of("flat_numbers") == ["day", "n"]


def test_a_type_that_changes_within_the_first_load_fails_it() -> None:
    rows = [{"day": "mon", "n": 1}] * 9_000 + [{"day": "mon", "n": "one"}]
    message = failure_message(run_flat(rows, partition=True))
    assert "numbers.flat_numbers.n is bigint and upstream sent text" in message
    assert "'one'" in message


def test_a_number_written_as_text_is_loaded() -> None:
    assert run_flat([{"day": "mon", "n": "7"}], partition=True).success
    assert flat_rows() == [{"day": "mon", "n": 7}]


def test_a_new_column_is_added_and_a_missing_one_is_null() -> None:
    assert run_flat([{"day": "mon", "n": 1, "more": "x"}], partition=True).success
    assert columns_of("flat_numbers") == ["day", "n", "more"]
    assert run_flat([{"day": "mon"}], partition=True).success
    rows = warehouse.query("SELECT day, n, more FROM numbers.flat_numbers")
    assert rows == [{"day": "mon", "n": None, "more": None}]


def test_a_new_column_fails_a_resource_that_freezes_its_columns() -> None:
    @dlt.source(name="frozen")
    def frozen(row: dict[str, Any]) -> DltResource:
        return dlt.resource(
            [row],
            name="frozen_numbers",
            write_disposition="replace",
            schema_contract={"columns": "freeze", "data_type": "freeze"},
        )

    def run_frozen(row: dict[str, Any]) -> dg.ExecuteInProcessResult:
        @dlt_assets(
            dlt_source=frozen(row),
            dlt_pipeline=warehouse.pipeline("frozen_pipeline", dataset_name="numbers"),
            dagster_dlt_translator=WarehouseTranslator("team:test"),
            name="frozen",
        )
        def asset(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
            yield from dlt.run(context=context)

        return run(asset, raise_on_error=False)

    assert run_frozen({"n": 1}).success
    for _ in range(2):
        message = failure_message(run_frozen({"n": 1, "more": "x"}))
        assert "numbers.frozen_numbers has no column more" in message
        assert "'x'" in message
    assert columns_of("frozen_numbers") == ["n"]


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"day": "mon", "n": n} for n in range(count)]


@pytest.mark.parametrize("left", [0, 4])
def test_a_replace_that_would_shrink_a_table_below_half_fails_and_names_the_tag_that_allows_it(
    left: int,
) -> None:
    assert run_flat(numbered(10), partition=False).success
    result = run_flat(numbered(left), partition=False)
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    message = str(failure.step_failure_data.error)
    assert f"flat_numbers would shrink from 10 rows to {left}" in message
    assert "etl/allow_row_count_drop" in message
    assert flat_rows() == numbered(10)
    assert run_flat(
        numbered(left), partition=False, tags={"etl/allow_row_count_drop": "true"}
    ).success
    assert flat_rows() == numbered(left)


def test_a_replace_may_shrink_a_table_to_half_and_grow_it() -> None:
    for count in (10, 5, 50):
        assert run_flat(numbered(count), partition=False).success
    assert flat_rows() == numbered(50)


def test_a_day_may_shrink_to_nothing() -> None:
    assert run_flat(numbered(10), partition=True).success
    assert run_flat([], partition=True).success
    assert flat_rows() == []


def extracted(day: str, row: dict[str, Any]) -> warehouse.LoadRun:
    """Return a load that has extracted a row of a day, and not committed it yet."""
    source = flat([{"day": day, **row}], True)
    spec = warehouse.pipeline("flat_pipeline", dataset_name="numbers")
    run = warehouse.LoadRun(warehouse.plan_load(spec, source, [day]))
    run.extract()
    return run


def test_columns_that_two_concurrent_runs_add_are_known_to_later_runs() -> None:
    extracted("mon", {"n": 1}).load()
    finds_a_table = extracted("mon", {"n": 1, "notes": [{"note": "x"}, {"note": "y"}]})
    finds_a_column = extracted("tue", {"n": 2, "more": 5})
    finds_a_table.load()
    finds_a_column.load()
    assert len(warehouse.query("FROM numbers.flat_numbers__notes")) == 2
    extracted("mon", {"n": 1, "more": 6}).load()
    assert warehouse.query("FROM numbers.flat_numbers__notes") == []
    rows = warehouse.query("SELECT day, n, more FROM numbers.flat_numbers ORDER BY day")
    assert rows == [{"day": "mon", "n": 1, "more": 6}, {"day": "tue", "n": 2, "more": 5}]


def test_a_column_with_two_types_from_two_concurrent_runs_fails_the_later_run() -> None:
    extracted("mon", {"n": 1}).load()
    says_number = extracted("mon", {"n": 1, "more": 5})
    says_text = extracted("tue", {"n": 2, "more": "1.5"})
    says_number.load()
    with pytest.raises(
        warehouse.ConcurrentSchemaChangeError, match=r"flat_numbers\.more as bigint.* has text"
    ):
        says_text.load()
    assert warehouse.query("SELECT day, more FROM numbers.flat_numbers") == [
        {"day": "mon", "more": 5}
    ]


@dlt.source(name="leaky")
def leaky() -> DltResource:
    """Fail like `requests`, with the full URL in the message."""

    @dlt.resource(write_disposition="replace")
    def leaky_numbers() -> Iterator[Any]:
        key = os.environ["MARKED_API_KEY"]
        yield {"n": 1}
        try:
            requests.get(f"http://127.0.0.1:9/?{urlencode({'api_key': key})}", timeout=1)
        except requests.ConnectionError as error:
            raise ValueError(f"no answer with key {key}") from error

    return leaky_numbers


@dlt_assets(
    dlt_source=leaky(),
    dlt_pipeline=warehouse.pipeline("leaky_pipeline", dataset_name="numbers"),
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    name="leaky",
)
def leaky_asset(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context)


def test_a_secret_in_an_error_of_a_source_is_in_no_file(
    tmp_path: Path, stored_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "marked key/5f3a9c"
    monkeypatch.setenv("MARKED_API_KEY", key)
    result = run(leaky_asset, instance=stored_instance, raise_on_error=False)
    message = failure_message(result)
    assert "ValueError: no answer with key ***" in message
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "api_key=marked" not in message
    marks = [mark.encode() for mark in (key, quote(key, safe=""), quote_plus(key))]
    assert len(files) > 10, "nothing was stored to look into"
    assert not [path for path in files if any(mark in path.read_bytes() for mark in marks)]


def test_secrets_are_redacted_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "abcdefgh")
    monkeypatch.setenv("LONG_TOKEN", "abcdefgh and more")
    monkeypatch.setenv("ODD_PASSWORD", 'it\'s\n"odd" 100%')
    monkeypatch.setenv("HOME_CREDENTIALS", str(Path(__file__)))
    for text in (
        "abcdefgh and more",
        "abcdefgh%20and%20more",
        "abcdefgh+and+more",
        str(KeyError('it\'s\n"odd" 100%')),
        quote('it\'s\n"odd" 100%'),
    ):
        assert redact(f"<{text}>").replace("'", "") == "<***>"
    assert redact(f"no file {Path(__file__)}") == f"no file {Path(__file__)}"


def test_an_error_that_is_its_own_cause_is_reported() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert find_cause(first, KeyError) is None
