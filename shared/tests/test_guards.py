"""A truncated answer from upstream removes nothing: less than half of a table's rows stops the load."""

from collections.abc import Sequence
from typing import Any

import dlt
import pytest
from dlt.extract import DltSource

from shared import warehouse
from shared.orchestration.metadata import shrunken_metadata, shrunken_warnings
from shared.warehouse.errors import RowCountDropError

SLOW_ON_SERVERS = True

SPEC = warehouse.pipeline("shop_pipeline", "shop")
DAY: Any = {"day": {"data_type": "text", "partition": True}}
HISTORY: Any = {"disposition": "merge", "strategy": "scd2"}
MIRROR: Any = {"disposition": "merge", "strategy": "cdc"}
BY_DAY: Any = {"disposition": "merge", "strategy": "delete-insert"}
ENDLESS: Any = {**HISTORY, "active_record_timestamp": "9999-12-31"}
SNAPSHOTS = {
    "replace": {"write_disposition": "replace"},
    "unstated": {},
    "mirror": {"write_disposition": MIRROR, "primary_key": "id"},
    "history": {"write_disposition": HISTORY},
    "endless history": {"write_disposition": ENDLESS},
}


def load(
    rows: Any, partitions: Sequence[str] = (), ratio: float = 0.5, **hints: Any
) -> warehouse.LoadResult:
    source = DltSource(dlt.Schema("shop"), "shop", [dlt.resource(rows, name="orders", **hints)])
    options = warehouse.LoadOptions(min_row_ratio=ratio)
    return warehouse.load(warehouse.plan_load(SPEC, source, partitions, options))


def rows_of(*numbers: int, day: str = "mon") -> list[dict[str, Any]]:
    return [{"id": number, "day": day} for number in numbers]


def active(hints: Any) -> list[int]:
    """Return the ids of the rows that are not closed."""
    rows = warehouse.query("SELECT * FROM shop.orders")
    open_rows = [row for row in rows if str(row.get("_dlt_valid_to"))[:4] in ("None", "9999")]
    return sorted(row["id"] for row in (open_rows if "scd2" in str(hints) else rows))


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_a_truncated_answer_removes_and_closes_nothing(any_warehouse: str, kind: str) -> None:
    hints = SNAPSHOTS[kind]
    load(rows_of(1, 2, 3), **hints)
    for truncated in (rows_of(1), []):
        if truncated or kind == "replace":  # without rows, a merge does nothing
            with pytest.raises(RowCountDropError, match=r"shop\.orders would shrink from 3 rows"):
                load(truncated, **hints)
    assert active(hints) == [1, 2, 3]
    load(rows_of(2, 3, 4), **hints)
    assert active(hints) == [2, 3, 4]
    load(rows_of(4), ratio=0, **hints)
    assert active(hints) == [4]


def test_closed_rows_of_a_history_do_not_count(any_warehouse: str) -> None:
    for first in range(4):
        load(rows_of(first, first + 1), write_disposition=HISTORY)
    assert active("scd2") == [3, 4]


def test_a_history_by_merge_key_is_not_compared_with_the_whole_table(any_warehouse: str) -> None:
    load(rows_of(1, 2, 3), write_disposition=HISTORY, merge_key="id")
    load([{"id": 1, "day": "tue"}], write_disposition=HISTORY, merge_key="id")
    assert active("scd2") == [1, 2, 3]


def test_a_partition_that_shrinks_by_more_than_half_is_loaded_with_a_warning(
    any_warehouse: str,
) -> None:
    hints: Any = {"write_disposition": BY_DAY, "columns": DAY}
    both = [*rows_of(1, 2, 3), *rows_of(4, 5, day="tue")]
    assert not load(both, ["mon", "tue"], **hints).shrunken
    result = load([*rows_of(1), *rows_of(4, day="tue")], ["mon", "tue"], **hints)
    assert result.shrunken == {"orders": {"mon": (3, 1)}}
    (warning,) = shrunken_warnings(result)
    assert warning.startswith("orders: partitions shrank by more than half: mon from 3 to 1 rows")
    (record,) = shrunken_metadata(result.shrunken["orders"])["shrunken_partitions"].records
    assert record.data == {"partition": "mon", "rows_before": 3, "rows_after": 1}
    assert active(hints) == [1, 4]


def test_a_partition_that_loses_all_rows_is_in_the_warning(any_warehouse: str) -> None:
    hints: Any = {"write_disposition": BY_DAY, "columns": DAY}
    load([*rows_of(1, 2), *rows_of(3, day="tue")], ["mon", "tue"], **hints)
    result = load(rows_of(3, day="tue"), ["mon", "tue"], **hints)
    assert result.shrunken == {"orders": {"mon": (2, 0)}}
