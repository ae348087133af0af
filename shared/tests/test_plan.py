"""A load that would not be exact is refused, before the first request or before the first write."""

from collections.abc import Iterator, Mapping
from typing import Any

import dlt
import pytest
from dlt.extract import DltSource

from shared import warehouse
from shared.warehouse.errors import LoadPlanError

REPLACE: Any = {"disposition": "merge", "strategy": "delete-insert"}
WRITE: Any = {"write_disposition": REPLACE}
SPEC = warehouse.pipeline("shop_pipeline", "shop")
Row = dict[str, object]
MON, TUE = {"id": 1, "day": "mon"}, {"id": 2, "day": "tue"}


def shop(rows: Any, disposition: Any, partition: tuple[str, ...], **hints: Any) -> DltSource:
    """Return a source with the one resource `orders`."""
    columns: Any = {name: {"data_type": "text", "partition": True} for name in partition}
    orders = dlt.resource(
        rows, name="orders", write_disposition=disposition, columns=columns, **hints
    )
    return DltSource(dlt.Schema("shop"), "shop", [orders])


def stored() -> list[tuple[Any, ...]]:
    rows = warehouse.query("SELECT id, day FROM shop.orders ORDER BY 1")
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    ("disposition", "partition", "arguments", "reason"),
    [
        (REPLACE, ("day", "region"), {}, "marks day, region as its partition"),
        ({"disposition": "merge", "strategy": "scd2"}, ("day",), {}, "the merge strategy scd2"),
        ({"disposition": "merge", "strategy": "upsert"}, ("day",), {}, "the merge strategy upsert"),
        (REPLACE, ("day",), {"write_disposition": "append"}, "called with write_disposition"),
        (REPLACE, ("day",), {"write_disposition": "replace"}, "called with write_disposition"),
        (REPLACE, ("day",), {"refresh": "drop_data"}, "called with refresh"),
        (REPLACE, ("day",), {"primary_key": "id"}, "called with primary_key"),
    ],
)
def test_a_partitioned_load_that_a_rerun_would_change_is_refused_before_a_request(
    disposition: Any, partition: tuple[str, ...], arguments: Mapping[str, Any], reason: str
) -> None:
    def requests() -> Iterator[Row]:
        raise AssertionError("a request was sent")
        yield MON

    source = shop(requests, disposition, partition)
    options = warehouse.LoadOptions(extract_arguments=arguments)
    with pytest.raises(LoadPlanError, match="orders") as error:
        warehouse.load(warehouse.plan_load(SPEC, source, ["mon"], options))
    assert reason in str(error.value)


def test_a_key_or_a_partition_column_makes_a_partitioned_load_exact(any_warehouse: str) -> None:
    by_key = shop([MON, TUE], "merge", (), primary_key="id")
    by_day = shop([{**MON, "id": 3}], REPLACE, ("day",))
    for _ in range(2):
        warehouse.load(warehouse.plan_load(SPEC, by_key, ["mon"]))
    assert stored() == [(1, "mon"), (2, "tue")]
    for _ in range(2):
        warehouse.load(warehouse.plan_load(SPEC, by_day, ["mon"]))
    assert stored() == [(2, "tue"), (3, "mon")]


def test_a_cursor_that_skips_loaded_rows_does_not_delete_the_rows_of_a_partition(
    any_warehouse: str,
) -> None:
    cursor = dlt.sources.incremental[int]("id")
    warehouse.load(warehouse.plan_load(SPEC, shop([MON], REPLACE, ("day",)), ["mon"]))
    with_cursor = shop([MON], REPLACE, ("day",), incremental=cursor)
    with pytest.raises(LoadPlanError, match=r"orders .* a cursor on id"):
        warehouse.load(warehouse.plan_load(SPEC, with_cursor, ["mon"]))
    assert stored() == [(1, "mon")]


def test_a_cursor_in_the_signature_is_refused_too(any_warehouse: str) -> None:
    @dlt.resource(columns={"day": {"data_type": "text", "partition": True}}, **WRITE)
    def orders(
        cursor: dlt.sources.incremental[int] = dlt.sources.incremental("id"),  # noqa: B008 - as dlt documents it
    ) -> Iterator[Row]:
        yield MON

    source = DltSource(dlt.Schema("shop"), "shop", [orders])
    with pytest.raises(LoadPlanError, match=r"orders .* a cursor on id"):
        warehouse.load(warehouse.plan_load(SPEC, source, ["mon"]))


def test_the_cursor_of_a_parent_that_is_not_selected_is_refused_too(any_warehouse: str) -> None:
    parent = dlt.resource([MON], name="parent", incremental=dlt.sources.incremental("id"))
    hints: Any = {"columns": {"day": {"data_type": "text", "partition": True}}, **WRITE}
    orders = dlt.transformer(lambda item: item, name="orders", **hints)
    source = DltSource(dlt.Schema("shop"), "shop", [parent | orders])
    with pytest.raises(LoadPlanError, match=r"parent .* has a cursor on id"):
        warehouse.load(warehouse.plan_load(SPEC, source, ["mon"]))


def test_a_cursor_with_the_window_of_the_partition_is_exact(any_warehouse: str) -> None:
    window = dlt.sources.incremental[int]("id", initial_value=1, end_value=2)
    source = shop([MON, {"id": 2, "day": "mon"}], REPLACE, ("day",), incremental=window)
    for _ in range(2):
        warehouse.load(warehouse.plan_load(SPEC, source, ["mon"]))
    assert stored() == [(1, "mon")]


def test_a_resource_in_place_of_a_source_is_refused() -> None:
    resource: Any = dlt.resource([MON], name="orders")
    with pytest.raises(TypeError, match=r"return the resource from a @dlt\.source"):
        warehouse.plan_load(SPEC, resource)


@pytest.mark.parametrize("file_format", ["jsonl", "insert_values"])
def test_the_guards_check_rows_of_any_file_format(any_warehouse: str, file_format: Any) -> None:
    source = shop([TUE], REPLACE, ("day",), file_format=file_format)
    with pytest.raises(warehouse.OutOfPartitionError):
        warehouse.load(warehouse.plan_load(SPEC, source, ["mon"]))
