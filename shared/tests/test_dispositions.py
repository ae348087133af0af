"""What a load writes follows from the write disposition and the cursor that a resource declares."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltSource
from dlt.sources.rest_api import rest_api_source

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator, asset_key
from shared.sources.hints import APPEND_EACH_RUN
from shared.warehouse.errors import LoadPlanError
from shared.warehouse.replacement.dispositions import planned_disposition, stored_cursors

SLOW_ON_SERVERS = True

SPEC = warehouse.pipeline("shop_pipeline", "shop")
Rows = list[dict[str, Any]]
ONE_TWO: Rows = [{"id": 1, "lines": [{"n": 1}]}, {"id": 2, "lines": [{"n": 2}, {"n": 3}]}]
MIRROR: Any = {"disposition": "merge", "strategy": "cdc"}
HISTORY: Any = {"disposition": "merge", "strategy": "scd2"}


def shop(rows: Any, **hints: Any) -> DltSource:
    """Return a source with the one resource `orders`."""
    return DltSource(dlt.Schema("shop"), "shop", [dlt.resource(rows, name="orders", **hints)])


def load(source: DltSource, **how: Any) -> warehouse.LoadResult:
    options = warehouse.LoadOptions(extract_arguments=how, min_row_ratio=0.5)
    return warehouse.load(warehouse.plan_load(SPEC, source, options=options))


def ids(where: str = "1 = 1") -> list[int]:
    rows = warehouse.query(f"SELECT id FROM shop.orders WHERE {where} ORDER BY 1")
    return [row["id"] for row in rows]


def cursor(**settings: Any) -> Any:
    return dlt.sources.incremental("id", **settings)


def in_signature(rows: Rows, **hints: Any) -> DltSource:
    @dlt.resource(**hints)
    def orders(after: Any = dlt.sources.incremental("id")) -> Iterator[Any]:  # noqa: B008 - as dlt documents it
        yield rows

    return DltSource(dlt.Schema("shop"), "shop", [orders])


def as_argument(rows: Rows, **hints: Any) -> DltSource:
    @dlt.resource(**hints)
    def orders(after: dlt.sources.incremental[int] | None = None) -> Iterator[Any]:
        yield rows

    return DltSource(dlt.Schema("shop"), "shop", [orders(cursor())])


def in_hints(rows: Rows, **hints: Any) -> DltSource:
    return shop(rows, incremental=cursor(), **hints)


def applied(rows: Rows, **hints: Any) -> DltSource:
    source = shop(rows, **hints)
    source.orders.apply_hints(incremental=cursor())
    return source


def of_the_parent(rows: Rows, **hints: Any) -> DltSource:
    orders = dlt.transformer(lambda items: items, name="orders", **hints)
    parent = dlt.resource(rows, name="parent", incremental=cursor())
    return DltSource(dlt.Schema("shop"), "shop", [parent | orders])


CURSORS: list[Callable[..., DltSource]] = [
    in_signature,
    as_argument,
    in_hints,
    applied,
    of_the_parent,
]


def test_a_resource_that_states_nothing_replaces_its_table(any_warehouse: str) -> None:
    for _ in range(2):
        load(shop(ONE_TWO))
        assert ids() == [1, 2]
    load(shop(ONE_TWO[1:]))
    assert ids() == [2]
    assert len(warehouse.query("SELECT * FROM shop.orders__lines")) == 2


@pytest.mark.parametrize("make", CURSORS)
@pytest.mark.parametrize("stated", [{}, {"write_disposition": "append"}])
def test_an_append_with_a_cursor_adds_each_row_once(
    any_warehouse: str, make: Callable[..., DltSource], stated: Any
) -> None:
    for rows in (ONE_TWO[:1], ONE_TWO, ONE_TWO):
        load(make(rows, **stated))
    assert ids() == [1, 2]


@pytest.mark.parametrize(
    ("hints", "reason"),
    [
        ({}, "has no cursor"),
        ({"incremental": cursor(initial_value=1, end_value=9)}, "a cursor with an end value"),
        ({"incremental": cursor(lag=1)}, "lag=1"),
        ({"incremental": cursor(on_cursor_value_missing="include")}, "on_cursor_value_missing"),
        ({"incremental": cursor(primary_key=())}, "primary_key"),
    ],
)
def test_an_append_that_would_add_rows_again_is_refused(hints: Any, reason: str) -> None:
    with pytest.raises(LoadPlanError, match="orders appends") as error:
        warehouse.plan_load(SPEC, shop(ONE_TWO, write_disposition="append", **hints))
    assert reason in str(error.value)


def test_a_resource_that_wants_duplicates_appends_each_run(any_warehouse: str) -> None:
    for _ in range(2):
        source = shop(ONE_TWO, write_disposition="append")
        source.orders.apply_hints(additional_table_hints=APPEND_EACH_RUN)
        load(source)
    assert ids() == [1, 1, 2, 2]


@pytest.mark.parametrize("how", ["replace", MIRROR, HISTORY])
@pytest.mark.parametrize("make", CURSORS)
def test_a_cursor_does_not_remove_the_rows_of_earlier_runs(
    make: Callable[..., DltSource], how: Any
) -> None:
    with pytest.raises(LoadPlanError, match=r"orders .* cursor of .* on id"):
        warehouse.plan_load(SPEC, make(ONE_TWO, write_disposition=how))


def test_the_disposition_of_the_run_counts_as_stated(any_warehouse: str) -> None:
    with pytest.raises(LoadPlanError, match="orders appends and has no cursor"):
        load(shop(ONE_TWO), write_disposition="append")
    load(shop(ONE_TWO, write_disposition="append"), write_disposition="replace")
    load(shop(ONE_TWO), write_disposition="replace")
    assert ids() == [1, 2]


@pytest.mark.parametrize("strategy", ["delete-insert", "upsert"])
def test_a_merge_by_key_updates_rows(any_warehouse: str, strategy: str) -> None:
    how: Any = {"disposition": "merge", "strategy": strategy}
    for rows in (ONE_TWO, ONE_TWO, [{"id": 2, "lines": []}, {"id": 3}]):
        load(shop(rows, write_disposition=how, primary_key="id"))
    assert ids() == [1, 2, 3]
    assert len(warehouse.query("SELECT * FROM shop.orders__lines")) == 1


def test_a_history_needs_no_key(any_warehouse: str) -> None:
    def rows(price: int) -> Rows:
        return [{"id": 1, "price": price}, {"id": 2, "price": 5}]

    for price in (10, 10, 11):
        load(shop(rows(price), write_disposition=HISTORY))
    assert ids() == [1, 1, 2]
    assert ids("_dlt_valid_to IS NULL") == [1, 2]


def test_a_cursor_that_only_the_configuration_declares_does_not_remove_rows(
    any_warehouse: str,
) -> None:
    @dlt.resource
    def orders(
        after: dlt.sources.incremental[int] = dlt.config.value,
    ) -> Iterator[Any]:
        yield ONE_TWO

    with (
        dlt.config.values({"sources.shop.orders.after.cursor_path": "id"}),
        pytest.raises(LoadPlanError, match="cursor"),
    ):
        load(DltSource(dlt.Schema("shop"), "shop", [orders]))


def test_a_position_in_the_state_does_not_remove_the_rows_of_earlier_runs(
    any_warehouse: str,
) -> None:
    @dlt.resource
    def orders() -> Iterator[Any]:
        state = dlt.current.resource_state()
        state["last"] = state.get("last", 0) + 1
        yield {"id": state["last"]}

    with pytest.raises(LoadPlanError, match=r"orders .*resource_state"):
        load(DltSource(dlt.Schema("shop"), "shop", [orders]))


def test_a_position_in_the_state_appends_once_with_the_hint(any_warehouse: str) -> None:
    @dlt.resource(write_disposition="append")
    def orders() -> Iterator[Any]:
        state = dlt.current.resource_state()
        state["last"] = state.get("last", 0) + 1
        yield {"id": state["last"]}

    orders.apply_hints(additional_table_hints=APPEND_EACH_RUN)
    for _ in range(2):
        load(DltSource(dlt.Schema("shop"), "shop", [orders]))
    assert ids() == [1, 2]


@pytest.mark.parametrize("make", CURSORS)
def test_the_asset_shows_what_a_load_does(make: Callable[..., DltSource]) -> None:
    shown = {
        planned_disposition(shop(ONE_TWO).orders): "replace",
        planned_disposition(make(ONE_TWO).orders): "append",
        planned_disposition(make(ONE_TWO, write_disposition=MIRROR).orders): "merge",
    }
    assert all(got == expected for got, expected in shown.items())


ISSUES: Any = {
    "name": "issues",
    "endpoint": {"path": "issues", "incremental": {"cursor_path": "id", "start_param": "since"}},
}
COMMENTS = {"name": "comments", "endpoint": {"path": "issues/{resources.issues.id}/comments"}}


def rest(*resources: Any) -> DltSource:
    return rest_api_source(
        {"client": {"base_url": "http://127.0.0.1:9"}, "resources": list(resources)}
    )


def test_the_cursor_of_a_rest_api_is_found_before_a_request() -> None:
    source = rest(ISSUES, COMMENTS, "customers")
    owners = {name: [*cursors] for name, cursors in stored_cursors(source).items()}
    assert owners == {"issues": ["issues"], "comments": ["issues"], "customers": []}
    plan = warehouse.plan_load(SPEC, source)
    assert plan.replaced_by_default == {"customers"}


@pytest.mark.parametrize("selected", [["issues"], ["comments"], ["comments", "customers"]])
def test_resources_that_share_a_cursor_are_loaded_together(selected: list[str]) -> None:
    source = rest(ISSUES, COMMENTS, "customers")
    options = warehouse.LoadOptions(resources=selected)
    with pytest.raises(LoadPlanError, match="Select issues, comments together"):
        warehouse.plan_load(SPEC, source, options=options)


@pytest.mark.parametrize("selected", [["issues", "comments"], ["customers"], None])
def test_a_selection_that_leaves_out_no_dependent_is_planned(selected: list[str] | None) -> None:
    options = warehouse.LoadOptions(resources=selected)
    plan = warehouse.plan_load(SPEC, rest(ISSUES, COMMENTS, "customers"), options=options)
    assert list(plan.source.selected_resources) == (selected or ["issues", "customers", "comments"])


def test_a_parent_that_is_only_extracted_for_its_child_is_no_dependent() -> None:
    source = rest({**ISSUES, "selected": False}, COMMENTS, "customers")
    options = warehouse.LoadOptions(resources=["comments"])
    plan = warehouse.plan_load(SPEC, source, options=options)
    assert list(plan.source.selected_resources) == ["comments"]


def test_a_table_that_appends_beside_a_resource_that_replaces_is_refused(
    any_warehouse: str,
) -> None:
    def rows() -> Iterator[Any]:
        hints = dlt.mark.make_hints(table_name="other", write_disposition="append")
        yield dlt.mark.with_hints({"id": 1}, hints, create_table_variant=True)

    source = DltSource(dlt.Schema("shop"), "shop", [dlt.resource(rows, name="items")])
    with pytest.raises(LoadPlanError, match=r"items fills other with the write disposition append"):
        warehouse.load(warehouse.plan_load(SPEC, source))


@pytest.mark.parametrize("strategy", ["upsert", "insert-only", "cdc"])
def test_two_rows_of_one_key_in_one_load_are_named(strategy: str, any_warehouse: str) -> None:
    merge: Any = {"disposition": "merge", "strategy": strategy}
    items = dlt.resource(
        [{"id": 1, "v": 1}, {"id": 1, "v": 2}],
        name="items",
        write_disposition=merge,
        primary_key="id",
    )
    source = DltSource(dlt.Schema("shop"), "shop", [items])
    with pytest.raises(warehouse.SchemaContractError, match="items has 2 rows with the key id 1"):
        warehouse.load(warehouse.plan_load(SPEC, source))


def test_a_position_in_the_state_of_the_source_is_not_taken_for_all_rows(
    any_warehouse: str,
) -> None:
    def rows() -> Iterator[Any]:
        dlt.current.source_state()["position"] = 2
        yield {"id": 2}

    source = DltSource(dlt.Schema("shop"), "shop", [dlt.resource(rows, name="items")])
    with pytest.raises(LoadPlanError, match=r"items .* changes dlt.current.source_state\(\)"):
        warehouse.load(warehouse.plan_load(SPEC, source))


@pytest.mark.parametrize("strategy", [None, "cdc", "scd2"])
def test_a_cursor_with_an_end_value_does_not_delete_the_rows_of_other_ranges(
    strategy: str | None,
) -> None:
    cursor: Any = dlt.sources.incremental("id", initial_value=1, end_value=3)
    merge: Any = {"disposition": "merge", "strategy": strategy} if strategy else None
    items = dlt.resource(
        [{"id": 1}], name="items", write_disposition=merge, primary_key="id", incremental=cursor
    )
    source = DltSource(dlt.Schema("shop"), "shop", [items])
    with pytest.raises(LoadPlanError, match="items"):
        warehouse.plan_load(SPEC, source)


def test_nested_rows_of_another_disposition_say_what_to_drop(any_warehouse: str) -> None:
    def load(**hints: Any) -> None:
        items = dlt.resource([{"id": 1, "k": [{"x": 1}]}], name="items", **hints)
        source = DltSource(dlt.Schema("shop"), "shop", [items])
        warehouse.load(warehouse.plan_load(SPEC, source))

    load()
    with pytest.raises(LoadPlanError, match=r"DROP TABLE shop\.items__k"):
        load(write_disposition="merge", primary_key="id")
    if any_warehouse == "duckdb":
        with warehouse.exclusive_connection() as connection:
            connection.execute("DROP TABLE shop.items__k; DROP TABLE shop.items")
        load(write_disposition="merge", primary_key="id")
        assert warehouse.query("SELECT x FROM shop.items__k") == [{"x": 1}]


def test_a_nested_table_that_appends_in_a_table_that_is_replaced_is_refused(
    any_warehouse: str,
) -> None:
    nested = dlt.mark.make_nested_hints(write_disposition="append", primary_key="x")
    items = dlt.resource([{"id": 1, "k": [{"x": 1}]}], name="items", nested_hints={"k": nested})
    source = DltSource(dlt.Schema("shop"), "shop", [items])
    with pytest.raises(
        LoadPlanError, match=r"items fills items__k with the write disposition append"
    ):
        warehouse.load(warehouse.plan_load(SPEC, source))


def test_resources_with_one_table_and_two_dispositions_are_refused() -> None:
    cursor: Any = dlt.sources.incremental("id")
    first = dlt.resource([{"id": 1}], name="first", table_name="items")
    second = dlt.resource(
        [{"id": 2}],
        name="second",
        table_name="items",
        write_disposition="append",
        incremental=cursor,
    )
    source = DltSource(dlt.Schema("shop"), "shop", [first, second])
    with pytest.raises(
        LoadPlanError, match=r"first and second load the table items, .* replace and append"
    ):
        warehouse.plan_load(SPEC, source)


def test_a_new_cursor_does_not_append_the_rows_of_earlier_loads_again(any_warehouse: str) -> None:
    def load(**hints: Any) -> None:
        items = dlt.resource([{"id": 1}, {"id": 2}], name="items", **hints)
        source = DltSource(dlt.Schema("shop"), "shop", [items])
        warehouse.load(warehouse.plan_load(SPEC, source))

    load(write_disposition="merge", primary_key="id")
    with pytest.raises(LoadPlanError, match="items now appends after a cursor on id"):
        load(write_disposition="append", incremental=dlt.sources.incremental("id"))
    after = dlt.sources.incremental("id", initial_value=2, range_start="open")
    load(write_disposition="append", incremental=after)
    assert warehouse.query("SELECT count(*) AS n FROM shop.items") == [{"n": 2}]


def test_a_run_that_selects_one_of_two_assets_with_a_cursor_is_refused(
    tmp_warehouse: object, instance: dg.DagsterInstance
) -> None:
    @dlt_assets(
        dlt_source=rest(ISSUES, COMMENTS, "customers"),
        dlt_pipeline=SPEC,
        dagster_dlt_translator=WarehouseTranslator("team:test"),
    )
    def assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context=context)

    with pytest.raises(dg.Failure, match="Select issues, comments together"):
        dg.materialize(
            [assets],
            selection=[asset_key("shop", "issues")],
            resources={"dlt": WarehouseDltResource()},
            instance=instance,
        )
