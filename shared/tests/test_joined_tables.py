"""Small Arrow tables of one resource are joined, unless something else takes them one by one."""

from collections.abc import Callable, Iterator
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.extract import DltResource, DltSource

from shared.warehouse.rows.joined_tables import MAX_ROWS, join_tables


def numbers(first: int, rows: int = 2) -> pa.Table:
    return pa.table({"n": pa.array(range(first, first + rows), pa.int64())})


def source_of(*resources: DltResource) -> DltSource:
    return dlt.source(lambda: resources, name="tables")()


def items_of(source: DltSource, name: str = "items") -> list[Any]:
    join_tables(source)
    return list(source.resources[name])


def resource_of(*items: Any) -> DltResource:
    def generate() -> Iterator[Any]:
        yield from items

    return dlt.resource(generate, name="items")


def test_small_tables_of_one_schema_become_one() -> None:
    (table,) = items_of(source_of(resource_of(*(numbers(2 * n) for n in range(100)))))
    assert table["n"].to_pylist() == list(range(200))


def test_rows_and_their_order_stay_and_other_items_pass() -> None:
    batch = numbers(2).to_batches()[0]
    text = pa.table({"n": ["x"]})
    large = numbers(6, MAX_ROWS)
    items = items_of(
        source_of(resource_of(numbers(0), batch, {"n": 4}, numbers(5, 1), large, text, numbers(0)))
    )
    assert [item if isinstance(item, dict) else len(item) for item in items] == [
        4,
        {"n": 4},
        1,
        MAX_ROWS,
        1,
        2,
    ]
    assert items[0]["n"].to_pylist() == [0, 1, 2, 3]
    assert items[4].schema == text.schema


def test_a_joined_table_has_a_limit() -> None:
    half = MAX_ROWS // 2 + 1
    tables = items_of(source_of(resource_of(*(numbers(0, half) for _ in range(3)))))
    assert [len(table) for table in tables] == [half] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda resource: resource.add_map(lambda table: table),
        lambda resource: resource.add_limit(10),
        lambda resource: resource.apply_hints(table_name=lambda _: "other"),
    ],
    ids=["a step", "a limit", "a dynamic name"],
)
def test_what_takes_tables_one_by_one_gets_them_so(
    change: Callable[[DltResource], object],
) -> None:
    resource = resource_of(numbers(0), numbers(2))
    change(resource)
    assert len(items_of(source_of(resource))) == 2


def test_a_transformer_gets_the_tables_of_its_resource() -> None:
    parent = resource_of(numbers(0), numbers(2))

    @dlt.transformer(data_from=parent)
    def rows(table: pa.Table) -> int:
        return len(table)

    assert items_of(source_of(parent, rows), "rows") == [2, 2]


def test_the_source_of_an_asset_can_be_used_again() -> None:
    resource = resource_of(numbers(0), numbers(2))
    for _ in range(2):
        assert len(items_of(source_of(resource).clone())) == 1
    assert len(list(resource)) == 2
