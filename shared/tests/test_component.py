"""WarehouseLoadComponent loads the same as `@dlt_assets`, and its errors name the file and the key."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import dlt
import pytest
from dlt.extract import DltResource

from shared import warehouse
from shared.orchestration.component import WarehouseLoadComponent
from shared.orchestration.resource import WarehouseDltResource
from shared.sources.partitions import PartitionKey

ORDERS = "test_component.orders_source"
ATTRIBUTES: dict[str, Any] = {"source": ORDERS, "dataset": "shop", "owner": "team:shop"}
DAILY = {"partitions": {"type": "daily", "start": "2025-03-10"}}

requested: list[list[str]] = []


@dlt.source(name="orders")
def orders_source(days: Sequence[str], price: int = 1) -> DltResource:
    """Has one order for each requested day, and records which days are requested in one load."""

    @dlt.resource(
        columns={"day": {"data_type": "text", "partition": True}},
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def orders() -> Iterator[dict[str, Any]]:
        requested.append(list(days))
        yield from ({"day": day, "price": price} for day in days)

    return orders


@dlt.source(name="customers")
def customers_source() -> DltResource:
    """Has no parameter, so a run loads everything."""
    return dlt.resource([{"id": 1}, {"id": 2}], name="customers", write_disposition="replace")


@dlt.source(name="regions")
def regions_source(days: Sequence[str], region: str) -> DltResource:
    """Has two parameters without a default, and so needs an argument."""
    return dlt.resource([{"day": day, "region": region} for day in days], name="regions")


@dlt.source(name="regions_of_day")
def regions_of_day_source(cells: Sequence[PartitionKey]) -> DltResource:
    """Has a row for each cell of the dimensions `day` and `region`."""
    columns: Any = {
        "day": {"data_type": "date", "partition": True},
        "region": {"data_type": "text", "partition": True},
    }
    rows = [dict(cell.dimensions) for cell in cells]
    return dlt.resource(rows, name="regions", columns=columns)


def no_source() -> None:
    """Is a function, and returns no source."""


@pytest.fixture(autouse=True)
def module_on_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dotted path finds this module, as it finds the modules of a project."""
    monkeypatch.setitem(__import__("sys").modules, "test_component", request.module)
    requested.clear()


def build(**attributes: Any) -> dg.Definitions:
    given = {key: value for key, value in {**ATTRIBUTES, **attributes}.items() if value is not None}
    component = WarehouseLoadComponent.from_attributes_dict(attributes=given)
    return dg.Definitions.merge(
        dg.build_defs_for_component(component),
        dg.Definitions(resources={"dlt": WarehouseDltResource()}),
    )


def run(defs: dg.Definitions, instance: dg.DagsterInstance, *partitions: str) -> None:
    tags = {}
    if partitions:
        tags = {
            "dagster/asset_partition_range_start": partitions[0],
            "dagster/asset_partition_range_end": partitions[-1],
        }
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, tags=tags).success


def prices() -> dict[str, int]:
    rows = warehouse.query("SELECT day, price FROM shop.orders ORDER BY day")
    return {row["day"]: row["price"] for row in rows}


@pytest.mark.usefixtures("tmp_warehouse")
def test_the_source_gets_the_partitions_of_the_run_and_a_rerun_replaces_only_them(
    instance: dg.DagsterInstance,
) -> None:
    run(build(**DAILY), instance, "2025-03-10", "2025-03-12")
    run(build(**DAILY, arguments={"price": 7}), instance, "2025-03-11", "2025-03-11")
    assert requested == [["2025-03-10", "2025-03-11", "2025-03-12"], ["2025-03-11"]]
    assert prices() == {"2025-03-10": 1, "2025-03-11": 7, "2025-03-12": 1}


@pytest.mark.usefixtures("tmp_warehouse")
def test_batches_and_partition_values(instance: dg.DagsterInstance) -> None:
    static = {"partitions": {"type": "static", "keys": ["north", "south", "west"]}}
    run(build(**static, partitions_per_batch=2), instance, "north", "west")
    assert requested == [["north", "south"], ["west"]]
    run(build(**static, partition_value="{key}.csv"), instance, "north")
    assert requested[-1] == ["north.csv"]
    assert prices() == {"north": 1, "north.csv": 1, "south": 1, "west": 1}


@pytest.mark.usefixtures("tmp_warehouse")
def test_windows_of_a_cron_schedule_with_look_back(instance: dg.DagsterInstance) -> None:
    workdays = {"type": "cron", "cron": "0 0 * * 1-5", "start": "2025-03-06", "format": "%Y-%m-%d"}
    run(build(partitions=workdays, look_back=2), instance, "2025-03-10", "2025-03-10")
    assert requested == [["2025-03-06", "2025-03-07", "2025-03-10"]]
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"look_back: needs .* time windows"):
        build(partitions={"type": "static", "keys": ["north"]}, look_back=1)


@pytest.mark.usefixtures("tmp_warehouse")
def test_partitions_of_two_dimensions(instance: dg.DagsterInstance) -> None:
    dimensions = {
        "day": {"type": "daily", "start": "2025-03-10"},
        "region": {"type": "static", "keys": ["north", "south"]},
    }
    defs = build(
        source="test_component.regions_of_day_source",
        partitions={"type": "multi", "dimensions": dimensions},
    )
    job = defs.resolve_implicit_global_asset_job_def()
    for key in ("2025-03-10|north", "2025-03-10|south", "2025-03-10|north"):
        assert job.execute_in_process(instance=instance, partition_key=key).success
    assert warehouse.query("SELECT day::VARCHAR AS day, region FROM shop.regions ORDER BY 2") == [
        {"day": "2025-03-10", "region": "north"},
        {"day": "2025-03-10", "region": "south"},
    ]
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"partitions\.dimensions"):
        build(partitions={"type": "multi", "dimensions": {}})


def test_a_source_with_an_argument_and_partitions() -> None:
    source = "test_component.regions_source"
    defs = build(**DAILY, source=source, arguments={"region": "north"})
    assert [spec.key.path for spec in defs.resolve_all_asset_specs()] == [["shop", "regions"]]


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_source_without_parameters_loads_everything(instance: dg.DagsterInstance) -> None:
    defs = build(source="test_component.customers_source", checks={"unique": {"customers": ["id"]}})
    run(defs, instance)
    assert warehouse.query("SELECT count(*) AS n FROM shop.customers") == [{"n": 2}]


def test_the_attributes_are_those_of_the_code() -> None:
    defs = build(
        **DAILY,
        deps={"orders": ["shop/customers"]},
        automation="@daily",
        stale_after_hours=36,
        sample_partitions=["2025-03-10"],
        checks={"unique": {"orders": ["day"]}, "max_rejected_ratio": {"orders": 0.1}},
    )
    (spec,) = (
        spec
        for spec in defs.resolve_all_asset_specs()
        if spec.key == dg.AssetKey(["shop", "orders"])
    )
    assert spec.owners == ["team:shop"]
    assert [dep.asset_key.path for dep in spec.deps] == [["shop", "customers"]]
    assert spec.automation_condition
    assert spec.freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))
    assert spec.metadata["sample_partitions"] == ["2025-03-10"]
    assert spec.partitions_def == dg.DailyPartitionsDefinition("2025-03-10", timezone="UTC")
    checks = [spec.name for check in defs.asset_checks or () for spec in check.check_specs]
    assert sorted(checks) == ["rejected_rows", "rows_are_unique"]


@pytest.mark.parametrize(
    ("kind", "start", "first"),
    [
        ("hourly", "2025-03-10-05:00", "2025-03-10-05:00"),
        ("daily", "2025-03-10", "2025-03-10"),
        ("weekly", "2025-03-10", "2025-03-16"),
        ("monthly", "2025-03-01", "2025-03-01"),
    ],
)
def test_time_partitions_in_a_time_zone(kind: str, start: str, first: str) -> None:
    defs = build(partitions={"type": kind, "start": start, "timezone": "Europe/Berlin"})
    (spec,) = defs.resolve_all_asset_specs()
    assert isinstance(spec.partitions_def, dg.TimeWindowPartitionsDefinition)
    assert spec.partitions_def.timezone == "Europe/Berlin"
    assert spec.partitions_def.get_first_partition_key() == first


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"source": "nowhere.source"}, "attributes.source: 'nowhere.source' does not exist"),
        ({"source": "test_component.nope"}, "'test_component.nope' does not exist"),
        ({"source": "orders"}, "attributes.source: 'orders' does not exist"),
        ({"source": "test_component.ORDERS"}, "attributes.source: test_component.ORDERS is not a"),
        ({"source": "test_component.no_source"}, "no_source does not return a dlt source"),
        ({"partitions": None}, f"attributes.partitions: {ORDERS} takes partitions"),
        ({"partitions": {"type": "daily"}}, "attributes.partitions.start: daily partitions need"),
        ({"partitions": {"type": "static"}}, "attributes.partitions.keys: static partitions"),
        ({"partitions": {"type": "daily", "start": "March"}}, "attributes.partitions.start"),
        (
            {"partitions": {"type": "daily", "start": "2025-03-10", "timezone": "Mars"}},
            "attributes.partitions.start, partitions.timezone",
        ),
        ({"arguments": {"prize": 1}}, "attributes.arguments: the source has no parameter 'prize'"),
        (
            {"source": "test_component.regions_source"},
            "attributes.arguments: the source needs a value for 'region'",
        ),
        ({"deps": {"order": []}}, "attributes.deps: the source has no 'order'; it has orders"),
        ({"checks": {"unique": {"order": ["day"]}}}, "attributes.checks.unique: the source has"),
        (
            {"checks": {"max_rejected_ratio": {"order": 0.1}}},
            "attributes.checks.max_rejected_ratio: the source has no 'order'",
        ),
        ({"automation": "sometimes"}, "attributes.automation: 'sometimes' is not `eager` or a"),
        (
            {"partition_value": "{key}.csv", "partitions_per_batch": 2},
            "attributes.partitions_per_batch: not possible together with partition_value",
        ),
    ],
)
def test_an_invalid_attribute_is_one_line_with_its_key(
    attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError) as raised:
        build(**{**DAILY, **attributes})
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_wrong_partition_type_names_the_types() -> None:
    with pytest.raises(Exception, match="'cron', 'static', 'dynamic' or 'multi'"):
        build(partitions={"type": "yearly"})
