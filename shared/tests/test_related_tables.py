"""Nested and companion tables, and tables named by the row, are assets beside the root of their load."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.dataset_owners import table_owners
from shared.orchestration.related_tables import with_related_tables
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import (
    WarehouseTranslator,
    asset_key,
    reject_lost_dependencies,
)
from shared.sources.hints import (
    REPLACE_PARTITIONS,
    CompanionTable,
    column,
    required_column,
    with_companion_tables,
)

SLOW_ON_SERVERS = True

DAYS = dg.StaticPartitionsDefinition(["mon", "tue"])
DAY = required_column("text", "The day.", partition=True)
REJECTED = CompanionTable("Rows without a number.", {"day": DAY, "why": column("text", "Why.")})
ORDERS, LINES = asset_key("shop", "orders"), asset_key("shop", "orders__lines")
TAXES, BAD = asset_key("shop", "orders__lines__taxes"), asset_key("shop", "orders_rejected")
FILES = dg.AssetKey("files")
upstream: dict[str, list[dict[str, Any]]] = {}


def order(n: int, *articles: str) -> dict[str, Any]:
    return {"n": n, "lines": [{"article": each, "taxes": [{"rate": 7}]} for each in articles]}


@dlt.source(name="shop")
def shop(days: Sequence[str]) -> Any:
    @dlt.resource(
        columns={"day": DAY, "n": column("bigint", "The number.")},
        nested_hints={
            "lines": dlt.mark.make_nested_hints(
                columns={"article": {"data_type": "text", "description": "What."}}
            )
        },
        write_disposition=REPLACE_PARTITIONS["write_disposition"],
    )
    def orders() -> Iterator[Any]:
        """Orders of a day.

        For programmers.
        """
        yield dlt.mark.materialize_table_schema()
        yield REJECTED.empty("orders_rejected")
        for day in days:
            yield [{"day": day, **row} for row in upstream.get(day, ())]

    @dlt.resource(write_disposition="replace", columns={"day": DAY})
    def visits() -> Iterator[Any]:
        yield [{"day": day, "id": 1} for day in days]

    return with_companion_tables(orders, {"orders_rejected": REJECTED}), visits


def build(
    source: Any = shop, partitions_def: Any = DAYS, batches: int = 0, **options: Any
) -> dg.AssetsDefinition:
    @dlt_assets(
        dlt_source=source([]),
        dlt_pipeline=warehouse.pipeline("shop_pipeline", "shop"),
        dagster_dlt_translator=WarehouseTranslator("team:shop", **options),
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
        name="shop",
    )
    def assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Any:
        if batches:
            yield from dlt.run_in_batches(context, source, batches)
        else:
            yield from dlt.run(
                context, source(context.partition_keys if partitions_def else ["mon"])
            )

    (extended,) = with_related_tables([assets])
    return extended  # type: ignore[no-any-return]


TABLES: dict[str, Any] = {
    "deps": {"orders": [FILES]},
    "related_tables": {"orders": ["orders__lines__taxes"]},
    "automation_condition": dg.AutomationCondition.eager(),
}


def materialize(
    instance: dg.DagsterInstance, assets: Any, selection: Any = None, *checks: Any, **tags: str
) -> tuple[dict[tuple[str, str | None], dict[str, Any]], dg.ExecuteInProcessResult]:
    """Load in a run, and return the metadata of each materialization by table and partition."""
    result = dg.materialize(
        [assets, *checks],
        instance=instance,
        selection=selection,
        resources={"dlt": WarehouseDltResource()},
        tags=tags or {},
        raise_on_error=False,
    )
    events = instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records
    materialized = [event.asset_materialization for event in events]
    return {
        (each.asset_key.path[-1], each.partition): {
            name: value.value for name, value in each.metadata.items()
        }
        for each in materialized
        if each
    }, result


ALL = {"orders", "orders__lines", "orders__lines__taxes", "orders_rejected", "visits"}
BOTH_DAYS = {
    "dagster/asset_partition_range_start": "mon",
    "dagster/asset_partition_range_end": "tue",
}


def test_each_related_table_has_a_key_a_description_columns_and_its_own_dependencies() -> None:
    assets = build(**TABLES)
    specs = {spec.key: spec for spec in assets.specs}
    assert {key.path[-1] for key in specs} == ALL
    # A nested table comes from its parent, and a companion table from where its root comes from.
    assert dict(assets.asset_deps) == {
        ORDERS: {FILES},
        LINES: {ORDERS},
        TAXES: {LINES},
        BAD: {FILES},
        asset_key("shop", "visits"): set(),
    }
    assert specs[ORDERS].description == "Orders of a day."
    assert (
        specs[LINES].description == "The list `lines` of each row of orders: one row for each item."
    )
    assert specs[BAD].description == "Rows without a number."
    assert specs[LINES].metadata["dagster/table_name"] == "shop.orders__lines"
    declared = {
        key.path[-1]: {each.name: each.type for each in metadata.columns}
        for key, spec in specs.items()
        if (metadata := spec.metadata.get("dagster/column_schema"))
    }
    assert declared == {  # before the first load
        "orders": {"day": "text", "n": "bigint"},
        "orders__lines": {"article": "text"},
        "orders_rejected": {"day": "text", "why": "text"},
        "visits": {"day": "text"},
    }
    # Only the root is due: a condition of its own would load everything a second time.
    assert specs[ORDERS].automation_condition
    assert not specs[LINES].automation_condition
    assert all(spec.owners == ["team:shop"] for spec in specs.values())


def test_a_load_materializes_every_table_of_each_partition_also_those_without_rows(
    any_warehouse: str, instance: dg.DagsterInstance
) -> None:
    upstream.clear()
    upstream["mon"] = [order(1, "a", "b"), order(2)]
    unique = build_unique_rows_check(LINES, ["article"])
    shown, result = materialize(instance, build(**TABLES), None, unique, **BOTH_DAYS)
    assert result.success
    assert shown.keys() == {(table, day) for table in ALL for day in ("mon", "tue")}
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    last = {table: shown[table, "tue"] for table in ALL}
    assert {table: metadata["dagster/row_count"] for table, metadata in last.items()} == {
        "orders": 2,
        "orders__lines": 2,
        "orders__lines__taxes": 2,
        "orders_rejected": 0,
        "visits": 2,
    }
    lines = last["orders__lines"]
    assert lines["rows_loaded"] == 2
    assert {record.data["article"] for record in lines["preview"].records} == {"a", "b"}
    columns = {each.name: each for each in lines["dagster/column_schema"].columns}
    assert columns["article"].description == "What."
    assert lines["dagster/table_name"].endswith("shop.orders__lines")
    assert lines["replaced"] == "day mon to tue, 2 of them"
    assert "related_tables" not in last["orders"]  # each has an asset
    assert not any(name.startswith("orders") for name in last["orders"])


@pytest.mark.parametrize("batches", [0, 1])
def test_a_selected_related_table_loads_its_root_and_never_half_of_it(
    batches: int, tmp_warehouse: Any, instance: dg.DagsterInstance
) -> None:
    upstream.clear()
    upstream["mon"] = [order(1, "a")]
    assets = build(**TABLES, batches=batches)
    shown, result = materialize(instance, assets, [LINES], **BOTH_DAYS)
    assert result.success
    assert shown.keys() == {(table, day) for table in ALL - {"visits"} for day in ("mon", "tue")}
    assert shown["orders", "tue"]["dagster/row_count"] == 1
    upstream["mon"] = [order(1, "a"), order(2, "b", "c")]
    shown, _ = materialize(instance, assets, [ORDERS], **BOTH_DAYS)
    assert shown["orders__lines", "tue"]["dagster/row_count"] == 3
    assert shown["orders__lines", "tue"]["preview"]
    # All partitions of the root are loaded, so nothing is missing.
    tags = {**BOTH_DAYS, "etl/only_missing": "true"}
    shown, result = materialize(instance, assets, [ORDERS, LINES], **tags)
    assert result.success
    assert not batches or "rows_loaded" not in shown["orders", "tue"]


def test_without_partitions_a_related_table_is_materialized_with_its_root(
    tmp_warehouse: Any, instance: dg.DagsterInstance
) -> None:
    def unpartitioned(_: Sequence[str]) -> DltSource:
        rows = [order(1, "a"), order(2, "b")]
        resource = dlt.resource(rows, name="orders", write_disposition="replace")
        return DltSource(dlt.Schema("shop"), "shop", [resource])

    assets = build(unpartitioned, None, related_tables={"orders": ["orders__lines"]})
    shown, result = materialize(instance, assets, [ORDERS])
    assert result.success
    assert shown.keys() == {("orders", None), ("orders__lines", None)}
    (undeclared,) = shown["orders", None]["related_tables"].records
    assert undeclared.data == {"table": "orders__lines__taxes", "rows": 2, "loaded": 2}
    tags = {"etl/full_refresh": "orders__lines"}
    shown, result = materialize(instance, assets, [LINES], **tags)
    assert result.success
    assert shown["orders__lines", None]["dagster/row_count"] == 2


def events() -> DltResource:
    rows = [{"id": 1, "type": "click", "tags": [{"tag": "a"}]}, {"id": 2, "type": "view"}]
    resource: DltResource = dlt.resource(
        rows, name="events", table_name=lambda row: f"ev_{row['type']}", write_disposition="replace"
    )
    return resource


def test_tables_named_by_the_row_are_assets_once_they_are_declared(
    tmp_warehouse: Any, instance: dg.DagsterInstance
) -> None:
    named = ["ev_click", "ev_click__tags", "ev_veiw"]
    assets = build(
        lambda _: DltSource(dlt.Schema("web"), "web", [events()]),
        None,
        related_tables={"events": named},
    )
    assert assets.asset_deps[asset_key("shop", "ev_click__tags")] == {asset_key("shop", "ev_click")}
    shown, result = materialize(instance, assets)
    assert result.success
    assert shown["events", None]["dagster/row_count"] == 2  # of all its tables
    assert [record.data["table"] for record in shown["events", None]["related_tables"].records] == [
        "ev_view"
    ]
    assert shown["ev_click", None]["dagster/row_count"] == 1
    assert shown["ev_click__tags", None]["preview"]
    # A name that no load has created is a warning: it may be wrong, or its first row is yet to come.
    assert shown["ev_veiw", None]["dagster/row_count"] == 0
    logged = [event.user_message for event in instance.all_logs(result.run_id)]
    assert any("ev_veiw has an asset and no row so far" in text for text in logged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"related_tables": {"ordrs": ["orders__lines"]}}, "related_tables names 'ordrs'"),
        ({"related_tables": {"orders": ["visits"]}}, "related_tables names 'visits' for 'orders'"),
        ({"deps": {"orders__liens": [FILES]}}, "deps names 'orders__liens'"),
    ],
)
def test_a_wrong_name_is_refused_when_the_location_loads(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=message):
        reject_lost_dependencies([build(**options)])


def test_deps_may_name_a_related_table() -> None:
    assets = build(deps={"orders_rejected": [FILES]})
    reject_lost_dependencies([assets])
    assert assets.asset_deps[BAD] == {FILES}
    assert not assets.asset_deps[ORDERS]


def test_a_related_table_has_one_owner_and_extending_twice_changes_nothing() -> None:
    assets = build(**TABLES)
    assert {owner.table for owner in table_owners("shop_etl", [assets])} == ALL
    assert with_related_tables([assets]) == [assets]
