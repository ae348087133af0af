"""A resource whose rows choose their tables is one asset, which reports all of its tables."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator, asset_key
from shared.warehouse.errors import LoadPlanError

SLOW_ON_SERVERS = True

EVENTS: list[dict[str, Any]] = [
    {"id": 1, "type": "click"},
    {"id": 2, "type": "click", "tags": [{"tag": "a"}]},
    {"id": 3, "type": "view"},
]
SPEC = warehouse.pipeline("events_pipeline", "web")


def table_name(event: dict[str, Any]) -> str:
    return f"ev_{event['type']}"


def by_function(**hints: Any) -> DltResource:
    resource: DltResource = dlt.resource(EVENTS, name="events", table_name=table_name, **hints)
    return resource


def by_mark(**hints: Any) -> DltResource:
    @dlt.resource(name="events", **hints)
    def events() -> Iterator[Any]:
        for event in EVENTS:
            yield dlt.mark.with_table_name(event, table_name(event))

    return events


def by_variant(**hints: Any) -> DltResource:
    @dlt.resource(name="events", **hints)
    def events() -> Iterator[Any]:
        for event in EVENTS:
            of_table = dlt.mark.make_hints(table_name=table_name(event), **hints)
            yield dlt.mark.with_hints(event, of_table, create_table_variant=True)

    return events


KINDS: list[Callable[..., DltResource]] = [by_function, by_mark, by_variant]


def web(resource: DltResource) -> DltSource:
    return DltSource(dlt.Schema("web"), "web", [resource])


def materialize(
    instance: dg.DagsterInstance, resource: DltResource, *checks: Any
) -> tuple[dict[str, Any], list[bool]]:
    """Load in a run, and return the metadata of the one asset and which checks passed."""

    @dlt_assets(
        dlt_source=web(resource),
        dlt_pipeline=SPEC,
        dagster_dlt_translator=WarehouseTranslator("team:web"),
        name="web",
    )
    def assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Any:
        yield from dlt.run(context)

    resources = {"dlt": WarehouseDltResource()}
    result = dg.materialize([assets, *checks], instance=instance, resources=resources)
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == asset_key("web", "events")
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    return metadata, [check.passed for check in result.get_asset_check_evaluations()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_that_the_resource_fills_is_shown(
    kind: Callable[..., DltResource], any_warehouse: str, instance: dg.DagsterInstance
) -> None:
    resource = kind(write_disposition="merge", primary_key="id")
    unique = build_unique_rows_check(asset_key("web", "events"), ["id"], table="ev_click")
    metadata, passed = materialize(instance, resource, unique)
    assert passed == [True]
    assert metadata["rows_loaded"] == metadata["dagster/row_count"] == 3
    assert [record.data for record in metadata["related_tables"].records] == [
        {"table": "ev_click", "rows": 2, "loaded": 2},
        {"table": "ev_click__tags", "rows": 1, "loaded": 1},
        {"table": "ev_view", "rows": 1, "loaded": 1},
    ]
    assert {record.data["id"] for record in metadata["preview ev_click"].records} == {1, 2}
    (viewed,) = metadata["preview ev_view"].records
    assert viewed.data["type"] == "view"
    for table in ("ev_click", "ev_view", "ev_click__tags"):
        assert metadata[table].columns
    assert "dagster/table_name" not in metadata  # there is no table `events`


def test_a_rerun_leaves_the_same_rows_in_each_table(any_warehouse: str) -> None:
    merge: dict[str, Any] = {"write_disposition": "merge", "primary_key": "id"}
    for hints in ({"write_disposition": "replace"}, merge):
        spec = warehouse.pipeline("events_pipeline", f"web_{hints['write_disposition']}")
        for kind in KINDS:
            for _ in range(2):
                result = warehouse.load(warehouse.plan_load(spec, web(kind(**hints))))
            assert {name: stats.row_count for name, stats in result.tables.items()} == {
                "ev_click": 2,
                "ev_click__tags": 1,
                "ev_view": 1,
            }


def test_a_cursor_adds_each_row_once_to_its_table(any_warehouse: str) -> None:
    for _ in range(2):
        cursor = dlt.sources.incremental[int]("id")
        resource = by_function(write_disposition="append", incremental=cursor)
        result = warehouse.load(warehouse.plan_load(SPEC, web(resource)))
    assert {name: stats.row_count for name, stats in result.tables.items()} == {
        "ev_click": 2,
        "ev_click__tags": 1,
        "ev_view": 1,
    }


def test_tables_of_earlier_loads_are_shown_with_the_rows_that_they_have(
    any_warehouse: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints: dict[str, Any] = {"write_disposition": "merge", "primary_key": "id"}
    materialize(instance, by_function(**hints))
    later = dlt.resource([{"id": 4, "type": "view"}], name="events", table_name=table_name, **hints)
    metadata, _ = materialize(instance, later)
    assert metadata["rows_loaded"] == 1
    assert metadata["dagster/row_count"] == 4
    listed = {record.data["table"]: record.data for record in metadata["related_tables"].records}
    assert listed["ev_click"] == {"table": "ev_click", "rows": 2, "loaded": 0}
    assert "preview ev_click" not in metadata


def test_a_first_load_without_rows_shows_no_table(
    tmp_warehouse: Any, instance: dg.DagsterInstance
) -> None:
    nothing = dlt.resource(
        [], name="events", table_name=table_name, write_disposition="merge", primary_key="id"
    )
    metadata, _ = materialize(instance, nothing)
    assert metadata["rows_loaded"] == 0
    assert "related_tables" not in metadata


def test_a_resource_that_also_fills_a_table_of_its_own_shows_both(
    any_warehouse: str, instance: dg.DagsterInstance
) -> None:
    @dlt.resource(name="events", write_disposition="replace")
    def events() -> Iterator[Any]:
        yield {"id": 9}
        yield dlt.mark.with_table_name({"id": 1}, "errors")

    metadata, _ = materialize(instance, events)
    assert [record.data for record in metadata["related_tables"].records] == [
        {"table": "events", "rows": 1, "loaded": 1},
        {"table": "errors", "rows": 1, "loaded": 1},
    ]


@pytest.mark.parametrize(
    "hints",
    [
        {"write_disposition": lambda event: event["disposition"]},
        {"write_disposition": "merge", "primary_key": lambda event: event["key"]},
    ],
)
def test_a_hint_that_decides_what_is_replaced_by_each_row_is_refused(
    hints: dict[str, Any], tmp_warehouse: Any
) -> None:
    with pytest.raises(LoadPlanError, match="events has a hint that is a function of the row"):
        warehouse.plan_load(SPEC, web(by_function(**hints)))


def test_columns_may_be_a_function_of_the_row(any_warehouse: str) -> None:
    columns = {"click": {"id": {"data_type": "text"}}, "view": {"id": {"data_type": "bigint"}}}
    resource = by_function(
        write_disposition="replace", columns=lambda event: columns[event["type"]]
    )
    warehouse.load(warehouse.plan_load(SPEC, web(resource)))
    assert warehouse.query("SELECT id FROM web.ev_click ORDER BY 1") == [{"id": "1"}, {"id": "2"}]
    assert warehouse.query("SELECT id FROM web.ev_view") == [{"id": 3}]


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
def test_a_partition_is_replaced_in_every_table_that_the_resource_has_filled(
    marked: bool, any_warehouse: str
) -> None:
    hints: Any = {"columns": {"day": {"data_type": "text", "partition": True}}} if marked else {}

    def load(day: str, *types: str) -> dict[str, int]:
        rows = [{"id": number, "type": of, "day": day} for number, of in enumerate(types)]
        events = dlt.resource(rows, name="events", table_name=table_name, **hints)
        warehouse.load(warehouse.plan_load(SPEC, web(events), [day]))
        return {table.name: table.rows for table in warehouse.list_tables()}

    assert load("mon", "click", "view") == {"ev_click": 1, "ev_view": 1}
    assert load("tue", "click") == {"ev_click": 2, "ev_view": 1}
    assert load("mon", "click", "view") == {"ev_click": 2, "ev_view": 1}
    assert load("mon", "click") == {"ev_click": 2, "ev_view": 0}
    assert load("mon") == {"ev_click": 1, "ev_view": 0}
