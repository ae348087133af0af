"""Dagster's partitions of every kind load exactly, with the stock pattern of dagster-dlt."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltSource

from shared import warehouse
from shared.orchestration.partitions import adjoining_batches, partition_key, partitions_of
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.partitions import time_window

SPEC = warehouse.pipeline("shop_pipeline", "shop")
TIMESTAMP: Any = {"occurred_at": {"data_type": "timestamp", "partition": True}}
pytestmark = pytest.mark.usefixtures("tmp_warehouse")


def events_between(keys: Sequence[str]) -> DltSource:
    """Return a source of one event per hour in the partitions' window, with the window's start."""
    window = time_window(keys)

    def rows() -> Iterator[dict[str, object]]:
        assert window
        at, end = (bound.astimezone(UTC) for bound in window)
        while at < end:
            yield {"occurred_at": at, "loaded_from": f"from {window.start:%Y-%m-%d}"}
            at += timedelta(hours=1)

    resource = dlt.resource(rows, name="events", columns=TIMESTAMP)
    return DltSource(dlt.Schema("shop"), "shop", [resource])


def asset_of(
    partitions: dg.PartitionsDefinition[Any],
    body: Callable[..., Any],
    source: DltSource | None = None,
) -> dg.AssetsDefinition:
    @dlt_assets(
        dlt_source=source or events_between([]),
        dlt_pipeline=SPEC,
        dagster_dlt_translator=WarehouseTranslator("team:test"),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        name="events",
    )
    def events(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from body(context, dlt)

    return events


def run(
    asset: dg.AssetsDefinition, first: str, last: str | None = None
) -> dg.ExecuteInProcessResult:
    tags = (
        {}
        if last is None
        else {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
    )
    return dg.materialize(
        [asset],
        partition_key=first if last is None else None,
        tags=tags,
        resources={"dlt": WarehouseDltResource()},
    )


def load_window(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context, events_between(partitions_of(context)))


def hours_stored() -> int:
    (row,) = warehouse.query(
        "SELECT count(*) AS rows, count(DISTINCT occurred_at) AS hours FROM shop.events"
    )
    assert row["rows"] == row["hours"]
    return int(row["rows"])


@pytest.mark.parametrize(
    ("partitions", "key", "hours", "then", "all_hours"),
    [
        (dg.HourlyPartitionsDefinition("2025-03-09-00:00"), "2025-03-09-05:00", 1, None, 1),
        (
            dg.DailyPartitionsDefinition("2025-03-08", timezone="America/New_York"),
            *("2025-03-09", 23, "2025-03-10", 47),
        ),
        (dg.WeeklyPartitionsDefinition("2025-03-02"), "2025-03-02", 168, "2025-03-09", 336),
        (
            dg.MonthlyPartitionsDefinition("2025-01-01"),
            "2025-02-01",
            28 * 24,
            "2025-03-01",
            59 * 24,
        ),
        (
            dg.TimeWindowPartitionsDefinition(
                start="2025-03-03-07:30",
                fmt="%Y-%m-%d-%H:%M",
                cron_schedule="30 7 * * 1-5",
                timezone="Europe/Berlin",
            ),
            *("2025-03-07-07:30", 72, "2025-03-10-07:30", 96),
        ),
    ],
    ids=["hour", "day of 23 hours", "week", "month", "cron, over a weekend"],
)
def test_a_time_window_is_replaced_as_a_whole_and_alone(
    partitions: dg.TimeWindowPartitionsDefinition,
    key: str,
    hours: int,
    then: str | None,
    all_hours: int,
) -> None:
    asset = asset_of(partitions, load_window)
    assert run(asset, key).success
    assert hours_stored() == hours
    if then:
        assert run(asset, then).success
        assert run(asset, key, then).success  # a backfill of both in one run
    assert run(asset, key).success
    assert hours_stored() == all_hours


def test_each_cell_of_two_dimensions_is_replaced_alone() -> None:
    partitions = dg.MultiPartitionsDefinition(
        {
            "day": dg.DailyPartitionsDefinition("2025-03-09", end_date="2025-03-12"),
            "region": dg.StaticPartitionsDefinition(["eu", "us"]),
        }
    )

    def load_cell(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        (cell,) = partitions_of(context)
        yield from dlt.run(
            context, cells([{"day": cell.dimensions["day"], "region": cell.dimensions["region"]}])
        )

    def cells(rows: list[dict[str, object]]) -> DltSource:
        columns: Any = {
            "day": {"data_type": "date", "partition": True},
            "region": {"data_type": "text", "partition": True},
        }
        resource = dlt.resource(rows, name="events", columns=columns)
        return DltSource(dlt.Schema("shop"), "shop", [resource])

    asset = asset_of(partitions, load_cell, cells([]))
    for cell in ("2025-03-09|eu", "2025-03-09|us", "2025-03-10|eu", "2025-03-09|eu"):
        result = run(asset, cell)
    assert warehouse.query("SELECT day::VARCHAR AS day, region FROM shop.events ORDER BY 1, 2") == [
        {"day": "2025-03-09", "region": "eu"},
        {"day": "2025-03-09", "region": "us"},
        {"day": "2025-03-10", "region": "eu"},
    ]
    (event,) = result.asset_materializations_for_node("events")
    assert event.metadata["replaced"].value == "day, region 2025-03-09|eu"


def test_a_run_with_look_back_loads_the_partitions_before_it_again() -> None:
    def load(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        partitions = partitions_of(context, look_back=2)
        yield from dlt.run(context, events_between(partitions), partitions=partitions)

    asset = asset_of(dg.DailyPartitionsDefinition("2025-03-09"), load)
    loaded_from = "SELECT DISTINCT loaded_from[6:] AS day FROM shop.events ORDER BY 1"
    for day, first in (("2025-03-09", "2025-03-09"), ("2025-03-13", "2025-03-11")):
        assert run(asset, day).success
        assert first in [row["day"] for row in warehouse.query(loaded_from)]
    assert hours_stored() == (1 + 3) * 24
    assert run(
        asset, "2025-03-12"
    ).success  # from the tenth: the hours of the eleventh are replaced
    assert [row["day"] for row in warehouse.query(loaded_from)] == [
        "2025-03-09", "2025-03-10", "2025-03-11"
    ]  # fmt: skip


def test_look_back_without_an_order_in_time_is_refused() -> None:
    def load(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context, partitions=partitions_of(context, look_back=1))

    asset = asset_of(dg.StaticPartitionsDefinition(["eu"]), load)
    with pytest.raises(ValueError, match="look_back needs partitions with time windows"):
        run(asset, "eu")


def feed_with_cursor(upto: int) -> DltSource:
    """Return a source whose cursor is in the signature, as dlt documents it, with an event a day."""

    @dlt.resource(name="events", write_disposition="append")
    def rows(
        at: dlt.sources.incremental[datetime] = dlt.sources.incremental(  # noqa: B008 - as dlt documents it
            "occurred_at", initial_value=datetime(2025, 1, 1, tzinfo=UTC)
        ),
    ) -> Iterator[list[dict[str, object]]]:
        yield [
            {"occurred_at": datetime(2025, 3, day, 12, tzinfo=UTC)} for day in range(1, upto + 1)
        ]

    return DltSource(dlt.Schema("shop"), "shop", [rows])


def test_a_cursor_reads_the_window_of_each_run_in_any_order() -> None:
    def load(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context)  # the asset's own source, for all runs of this process

    asset = asset_of(dg.DailyPartitionsDefinition("2025-03-01"), load, feed_with_cursor(upto=9))
    for day in ("2025-03-05", "2025-03-03", "2025-03-05"):
        assert run(asset, day).success
    assert run(asset, "2025-03-06", "2025-03-08").success
    stored = warehouse.query(
        "SELECT extract(day FROM occurred_at) AS day FROM shop.events ORDER BY 1"
    )
    assert [row["day"] for row in stored] == [3, 5, 6, 7, 8]


def test_a_cursor_over_partitions_that_do_not_adjoin_is_refused() -> None:
    definition = dg.DailyPartitionsDefinition("2025-03-01")
    keys = [partition_key(definition, day) for day in ("2025-03-01", "2025-03-03")]
    plan = warehouse.plan_load(SPEC, feed_with_cursor(upto=9), keys)
    with pytest.raises(warehouse.LoadPlanError, match="do not adjoin"):
        warehouse.load(plan)


def test_batches_of_a_cursor_adjoin() -> None:
    definition = dg.DailyPartitionsDefinition("2025-03-01")
    keys = [partition_key(definition, f"2025-03-0{day}") for day in (1, 2, 4, 5, 6)]
    assert list(adjoining_batches(keys, 2, split=True)) == [keys[:2], keys[2:4], keys[4:]]
    assert list(adjoining_batches(keys, 3, split=False)) == [keys[:3], keys[3:]]
