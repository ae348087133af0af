"""What Dagster shows for a load: row counts, replaced partitions, a preview and the history."""

import base64
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource

from shared import warehouse
from shared.orchestration import metadata
from shared.orchestration.code_references import with_code_references
from shared.orchestration.metadata import sparkline
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.hints import APPEND_EACH_RUN
from shared.warehouse.destinations.postgres import PostgresReplaceMixin

MAX_INLINE_CHARS = 1000  # of Markdown; Dagster shows longer text after a click
upstream: dict[str, int] = {}


@dlt.source(name="sales")
def sales(days: Sequence[str]) -> DltResource:
    """Return the number of orders of a day that `upstream` has, each with two lines."""

    @dlt.resource(
        columns={
            "day": {"data_type": "date", "partition": True, "description": "When."},
            "n": {"data_type": "bigint"},
            "price": {"data_type": "decimal", "precision": 10, "scale": 2},
            "note": {"data_type": "text", "nullable": True},
        },
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def orders() -> Iterator[Any]:
        """Orders of a day.

        One row each.
        """
        yield dlt.mark.materialize_table_schema()
        for day in days:
            for n in range(upstream.get(day, 0)):
                lines = [{"article": "a"}, {"article": "b"}]
                price = Decimal("1.50")
                row = {"day": date.fromisoformat(day), "n": n, "price": price, "lines": lines}
                yield {**row, "note": "x" * 100}

    return orders


@dlt_assets(
    dlt_source=sales([]),
    dlt_pipeline=warehouse.pipeline("sales_pipeline", dataset_name="sales"),
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    partitions_def=dg.DailyPartitionsDefinition("2025-03-10", end_date="2025-03-14"),
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="orders",
)
def orders(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context, dlt_source=sales(context.partition_keys))


def load(instance: dg.DagsterInstance, first: str, last: str = "") -> list[dict[str, Any]]:
    """Load some days and return the metadata of each."""
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last or first,
    }
    result = dg.materialize(
        [orders], instance=instance, resources={"dlt": WarehouseDltResource()}, tags=tags
    )
    return [
        {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
    ]


@pytest.mark.usefixtures("any_warehouse")
def test_a_load_shows_rows_a_preview_related_tables_and_what_it_replaced(
    instance: dg.DagsterInstance,
) -> None:
    upstream.update({"2025-03-10": 7, "2025-03-11": 2})
    load(instance, "2025-03-10")
    (shown,) = load(instance, "2025-03-11")
    assert shown["rows_loaded"] == 2
    assert shown["dagster/row_count"] == 9
    assert shown["dagster/partition_row_count"] == 2
    assert shown["replaced"] == "day 2025-03-11"
    assert shown["duration_seconds"] > 0
    assert shown["bytes_read"] > 0
    assert shown["related_tables"].records == [
        dg.TableRecord({"table": "orders__lines", "rows": 18, "loaded": 4})
    ]
    # The preview is of this load: two rows of its day, without dlt's columns.
    preview = shown["preview"] if isinstance(shown["preview"], list) else shown["preview"].records
    rows = sorted((record.data for record in preview), key=lambda row: int(row["n"]))
    assert [row["n"] for row in rows] == [0, 1]
    assert {row["day"] for row in rows} == {"2025-03-11"}
    assert rows[0]["price"] == "1.50"
    assert rows[0]["note"] == "x" * 60 + "…"
    assert set(rows[0]) == {"day", "n", "price", "note"}
    (load_id,) = warehouse.query(
        "SELECT DISTINCT _dlt_load_id AS id FROM sales.orders WHERE day = ?", [date(2025, 3, 11)]
    )
    assert shown["dlt_load_id"] == load_id["id"]
    columns = {column.name: column for column in shown["dagster/column_schema"].columns}
    assert columns["day"].description == "When."
    assert columns["_dlt_load_id"].description


@pytest.mark.usefixtures("tmp_warehouse")
def test_each_day_of_a_range_has_its_own_row_count_and_the_last_one_all_metadata(
    instance: dg.DagsterInstance,
) -> None:
    upstream.update({"2025-03-10": 3, "2025-03-11": 0, "2025-03-12": 1})
    monday, tuesday, wednesday = load(instance, "2025-03-10", "2025-03-12")
    rows = [day["dagster/partition_row_count"] for day in (monday, tuesday, wednesday)]
    assert rows == [3, 0, 1]
    assert "preview" not in monday
    assert wednesday["replaced"] == "day 2025-03-10 to 2025-03-12, 3 of them"
    assert wednesday["rows_loaded"] == 4


@pytest.mark.usefixtures("tmp_warehouse")
def test_the_chart_has_a_bar_for_each_run_and_is_shown_inline(
    instance: dg.DagsterInstance,
) -> None:
    for rows in (2, 5, 1):
        upstream["2025-03-10"] = rows
        (shown,) = load(instance, "2025-03-10")
    counts = [entry.split("=")[1] for entry in shown["row_history"].split()]
    assert counts == ["2", "5", "1"]
    assert shown["rows_over_recent_runs"].endswith(" 1 rows; 3 runs, at most 5")
    chart = sparkline([10**9] * 30)
    assert len(chart) < MAX_INLINE_CHARS
    picture = base64.b64decode(chart.partition("base64,")[2].partition(")")[0]).decode()
    assert picture.count("M") == 30


@pytest.mark.usefixtures("tmp_warehouse")
def test_rows_are_not_shown_if_the_preview_is_off(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREVIEW_ROWS", "0")
    upstream["2025-03-10"] = 3
    (shown,) = load(instance, "2025-03-10")
    assert "preview" not in shown
    assert shown["dagster/row_count"] == 3


kinds = dg.StaticPartitionsDefinition(["1", "10", "lake", "pre", "a/b"])


@dlt.source(name="by_kind")
def by_kind(values: Sequence[str]) -> DltResource:
    """Return for each kind as many rows as its position in the list."""

    @dlt.resource(
        columns={"kind": {"data_type": "text", "partition": True}},
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def things() -> Iterator[Any]:
        yield dlt.mark.materialize_table_schema()
        for place, kind in enumerate(kinds.get_partition_keys(), start=1):
            if kind in values:
                yield [{"kind": kind} for _ in range(place)]

    return things


@dlt_assets(
    dlt_source=by_kind([]),
    dlt_pipeline=warehouse.pipeline("kinds_pipeline", dataset_name="sales"),
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    partitions_def=kinds,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="things",
)
def things(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    kinds = list(reversed(context.partition_keys))  # a team may pass them in any order
    yield from dlt.run(context=context, dlt_source=by_kind(kinds), partitions=kinds)


def test_partitions_of_any_name_and_order_have_their_own_row_counts(
    tmp_warehouse: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__BUCKET_URL", str(tmp_warehouse / "lake"))
    first, *_, last = kinds.get_partition_keys()
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    for _ in range(2):
        result = dg.materialize(
            [things], instance=instance, resources={"dlt": WarehouseDltResource()}, tags=tags
        )
    events = [event.materialization for event in result.get_asset_materialization_events()]
    row_counts = {
        event.partition: event.metadata["dagster/partition_row_count"].value for event in events
    }
    assert row_counts == {"1": 1, "10": 2, "lake": 3, "pre": 4, "a/b": 5}
    # Dagster logs partitions that are not days in any order; the latest has what the next run needs.
    for event in events:
        assert event.metadata["dagster/row_count"].value == 15
        assert str(event.metadata["row_history"].value).count("=15") == 2


@dlt.source(name="log")
def log(rows: list[dict[str, Any]]) -> DltResource:
    @dlt.resource(write_disposition="append")
    def lines() -> Iterator[Any]:
        yield rows

    lines.apply_hints(additional_table_hints=APPEND_EACH_RUN)
    return lines


log_pipeline = warehouse.pipeline("log_pipeline", dataset_name="sales")


class Lines(dg.Config):
    """Return what is new since the last run."""

    numbers: list[int]


@dlt_assets(
    dlt_source=log([]),
    dlt_pipeline=log_pipeline,
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    name="lines",
)
def lines(
    context: dg.AssetExecutionContext, dlt: WarehouseDltResource, config: Lines
) -> Iterator[object]:
    yield from dlt.run(context=context, dlt_source=log([{"n": n} for n in config.numbers]))


def append(instance: dg.DagsterInstance, config: Lines) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [lines],
        instance=instance,
        resources={"dlt": WarehouseDltResource()},
        run_config=dg.RunConfig({"lines": config}),
        raise_on_error=False,
    )


@pytest.mark.usefixtures("any_warehouse")
def test_a_load_with_nothing_new_succeeds(instance: dg.DagsterInstance) -> None:
    for numbers in ([], [1, 2], []):
        assert append(instance, Lines(numbers=numbers)).success
    assert len(warehouse.query("SELECT n FROM sales.lines")) == 2


@pytest.mark.usefixtures("postgres_warehouse")
def test_a_loaded_table_that_cannot_be_described_does_not_fail_the_run(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("year 12921 is out of range")

    monkeypatch.setattr(PostgresReplaceMixin, "preview", refuse)
    result = append(instance, Lines(numbers=[1]))
    assert result.success
    logged = [event.user_message for event in instance.all_logs(result.run_id)]
    assert "lines is loaded, and cannot be described: year 12921 is out of range" in logged


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("wrong", ["five", "5.0", "-1"])
def test_an_invalid_number_of_preview_rows_fails_before_the_load(
    wrong: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREVIEW_ROWS", wrong)
    assert not append(instance, Lines(numbers=[1])).success
    assert not warehouse.duckdb_path().exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (2**60, "1152921504606846976"),
        (memoryview(b"a"), "b'a'"),
        (None, ""),
        (True, True),
        (1.5, 1.5),
    ],
)
def test_a_value_is_shown_in_a_form_that_a_browser_can_read(value: object, shown: object) -> None:
    table = metadata.table_value([{"value": value}])
    assert table.records[0].data == {"value": shown}


def references(asset: dg.AssetsDefinition) -> list[Any]:
    (linked,) = with_code_references([asset])
    (metadata,) = linked.metadata_by_key.values()
    return list(metadata["dagster/code_references"].value.code_references)


def test_an_asset_links_to_its_line_in_a_local_file_or_in_the_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REPOSITORY_URL", raising=False)
    line, readme = references(orders)
    assert Path(line.file_path) == Path(__file__)
    assert Path(readme.file_path).name == "README.md"
    monkeypatch.setenv("REPOSITORY_URL", "https://example.com/team/etl/tree/main/")
    line, readme = references(orders)
    assert line.url.startswith(
        "https://example.com/team/etl/tree/main/shared/tests/test_metadata.py#L"
    )
    assert readme.url == "https://example.com/team/etl/tree/main/shared/README.md"
