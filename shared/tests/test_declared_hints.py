"""What a resource declares now decides, whatever it declared when its table was created."""

from typing import Any

import dlt
import pytest
from dlt.extract import DltSource

from shared import warehouse

SLOW_ON_SERVERS = True

SPEC = warehouse.pipeline("shop_pipeline", "shop")
Rows = list[dict[str, Any]]


def load(rows: Rows, **hints: Any) -> None:
    source = DltSource(dlt.Schema("shop"), "shop", [dlt.resource(rows, name="orders", **hints)])
    warehouse.load(warehouse.plan_load(SPEC, source))


def stored(columns: str = "id") -> list[Any]:
    rows = warehouse.query(f"SELECT {columns} FROM shop.orders ORDER BY {columns}")
    return [row[columns] if len(row) == 1 else tuple(row.values()) for row in rows]


A, B = {"id": 1, "v": "x"}, {"id": 2, "v": "x"}
MERGE: Any = {"write_disposition": "merge"}
STRATEGIES = ["delete-insert", "upsert", "scd2", "cdc"]


def merge(strategy: str) -> Any:
    return {"write_disposition": {"disposition": "merge", "strategy": strategy}}


@pytest.mark.parametrize(
    "removed", [{"merge_key": "v"}, {"columns": {"v": {"merge_key": True}}}], ids=["key", "column"]
)
def test_a_merge_key_that_was_removed_deletes_no_rows(any_warehouse: str, removed: Any) -> None:
    load([A], primary_key="id", **MERGE, **removed)
    load([B], primary_key="id", **MERGE)
    assert stored() == [1, 2]


def test_a_column_that_was_removed_from_the_key_does_not_keep_rows_apart(
    any_warehouse: str,
) -> None:
    load([A], primary_key=["id", "v"], **MERGE)
    load([{**A, "v": "y"}], primary_key="id", **MERGE)
    assert stored("v") == ["y"]


@pytest.mark.parametrize("before", [{"primary_key": "id"}, {}], ids=["another key", "no key"])
def test_a_key_can_get_a_column_that_exists(any_warehouse: str, before: Any) -> None:
    load([A], **(MERGE if before else {}), **before)
    load([{**A, "v": "y"}, A], primary_key=["id", "v"], **MERGE)
    assert stored("v") == ["x", "y"]


@pytest.mark.parametrize("after", ["delete-insert", "upsert"])
@pytest.mark.parametrize("before", STRATEGIES)
def test_a_merge_strategy_that_was_changed_has_no_effect_any_more(
    any_warehouse: str, before: str, after: str
) -> None:
    load([A, B], primary_key="id", **merge(before))
    load([{**A, "v": "y"}], primary_key="id", **merge(after))
    load([{**A, "v": "z"}], primary_key="id", **merge(after))
    assert stored("id, v") == [(1, "z"), (2, "x")]


@pytest.mark.parametrize("before", [*map(merge, STRATEGIES), {"write_disposition": "replace"}])
def test_a_resource_that_states_nothing_any_more_replaces_its_table(
    any_warehouse: str, before: Any
) -> None:
    load([A, B], primary_key="id", **before)
    for _ in range(2):
        load([B])
        assert stored() == [2]


def test_a_contract_that_was_removed_refuses_nothing(any_warehouse: str) -> None:
    load([A], schema_contract={"columns": "freeze"})
    load([{**A, "new": 1}])
    assert stored("new") == [1]


def test_a_destination_scope_that_was_removed_deletes_no_rows(any_warehouse: str) -> None:
    scope: Any = {"disposition": "merge", "strategy": "delete-insert", "destination_scope": "1 = 1"}
    load([A], write_disposition=scope, primary_key="id")
    load([B], primary_key="id", **MERGE)
    assert stored() == [1, 2]
