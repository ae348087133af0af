"""A value is loaded as it is, or nothing is loaded and the error names it; new columns widen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.extract import DltResource, DltSource

from shared import warehouse

SLOW_ON_SERVERS = True

PIPELINE = warehouse.pipeline("values_pipeline", dataset_name="typed")
NEW_YORK = timezone(timedelta(hours=-5))
MIDNIGHT = datetime.fromisoformat("2025-03-10T00:00:00")  # without a time zone
LATE = datetime(2025, 3, 10, 23, 30, tzinfo=NEW_YORK)


def source_of(rows: Any, name: str = "items", **hints: Any) -> DltSource:
    hints = {"write_disposition": "replace", **hints}

    @dlt.source(name="values")
    def values() -> DltResource:
        resource: DltResource = dlt.resource([rows], name=name, **hints)
        return resource

    return values()


def load(rows: Any, name: str = "items", **hints: Any) -> warehouse.LoadResult:
    return warehouse.load(warehouse.plan_load(PIPELINE, source_of(rows, name, **hints)))


def stored(column: str = "v", table: str = "items") -> list[Any]:
    return [row[column] for row in warehouse.query(f"SELECT {column} FROM typed.{table}")]


class Nanoseconds(datetime):
    """A timestamp like Pandas', which has nanoseconds beside its microseconds."""

    nanosecond = 789


REFUSED = "a value of another type: the contract decides"
INVALID = "an error, whatever the contract"
CASES: list[tuple[str, Any, Any]] = [
    ("bool", True, True),
    ("bool", 1, True),
    ("bool", 0.0, False),
    ("bool", "yes", True),
    ("bool", 2, REFUSED),
    ("bool", 3, REFUSED),
    ("bool", 0.5, REFUSED),
    ("bool", Decimal(3), REFUSED),
    ("bool", "2", REFUSED),
    ("bigint", 3.0, 3),
    ("bigint", "7", 7),
    ("bigint", Decimal("7.0"), 7),
    ("bigint", 2**63 - 1, 2**63 - 1),
    ("bigint", 3.5, REFUSED),
    ("bigint", "007", REFUSED),
    ("bigint", "1_000", REFUSED),
    ("bigint", "0x1F", REFUSED),
    ("bigint", 2**63, REFUSED),
    ("bigint", 2**70, REFUSED),
    ("bigint", 1e30, REFUSED),
    ("double", 3, 3.0),
    ("double", "0.1", 0.1),
    ("double", Decimal("0.1"), 0.1),
    ("double", 2**60 + 1, REFUSED),
    ("double", "0.1234567890123456789", REFUSED),
    ("double", Decimal("9007199254740993.5"), REFUSED),
    ("double", "nan", REFUSED),
    ("double", float("nan"), INVALID),
    ("double", float("-inf"), INVALID),
    ("decimal", 0.1, Decimal("0.1")),
    ("decimal", "1.50", Decimal("1.5")),
    ("decimal", 2**70, Decimal(2**70)),
    ("decimal", Decimal("1e-12"), INVALID),
    ("decimal", "1e-12", INVALID),
    ("decimal", Decimal("NaN"), INVALID),
    ("decimal", "nan", REFUSED),
    ("decimal(10, 2)", Decimal("1.50"), Decimal("1.5")),
    ("decimal(10, 2)", Decimal("1.500"), Decimal("1.5")),
    ("decimal(10, 2)", Decimal("1.005"), INVALID),
    ("decimal(10, 2)", 1.005, INVALID),
    ("decimal(10, 2)", Decimal("123456789.5"), INVALID),
    ("bigint(32)", 2**31 - 1, 2**31 - 1),
    ("bigint(32)", 2**31, INVALID),
    ("date", "2025-03-10", date(2025, 3, 10)),
    ("date", MIDNIGHT, date(2025, 3, 10)),
    ("date", "2025-03-10T00:00:00Z", date(2025, 3, 10)),
    ("date", LATE, REFUSED),
    ("date", LATE.isoformat(), REFUSED),
    ("date", MIDNIGHT.replace(hour=14), REFUSED),
    ("date", datetime(2025, 3, 10, tzinfo=NEW_YORK), REFUSED),
    ("date", 1741600000, REFUSED),
    ("timestamp", LATE, LATE),
    ("timestamp", LATE.isoformat(), LATE),
    ("timestamp", date(2025, 3, 10), datetime(2025, 3, 10, tzinfo=UTC)),
    ("timestamp", 1741600000, datetime(2025, 3, 10, 9, 46, 40, tzinfo=UTC)),
    ("timestamp", "2025-03-10T23:30:00.123456000Z", datetime(2025, 3, 10, 23, 30, 0, 123456, UTC)),
    ("timestamp", "2025-03-10T23:30:00.123456789Z", INVALID),
    ("timestamp", Nanoseconds(2025, 3, 10), INVALID),
    ("timestamp", 1741600000123, REFUSED),
    (
        "timestamp(3)",
        datetime(2025, 1, 1, 0, 0, 0, 1000, UTC),
        datetime(2025, 1, 1, 0, 0, 0, 1000, UTC),
    ),
    ("timestamp(3)", datetime(2025, 1, 1, 0, 0, 0, 1001, UTC), INVALID),
    ("time", "10:00:00", time(10)),
    ("time", "10:00:00.123456789", REFUSED),
    ("time", "10:00:00+02:00", REFUSED),
    ("time", time(10, tzinfo=NEW_YORK), INVALID),
    ("text", True, "True"),
    ("text", 2**70, str(2**70)),
    ("text", Decimal("1.50"), "1.50"),
    ("text", "größe 名前", "größe 名前"),
    ("text", "a\ud800b", INVALID),
    ("json", '{"a":1}', '{"a":1}'),
    ("json", "nope", REFUSED),
]
"""A column's declared type, a value, and what the table then has."""


def column_of(declared: str) -> Any:
    """Return the column of a type such as `decimal(10, 2)`."""
    data_type, _, limits = declared.rstrip(")").partition("(")
    numbers = [int(number) for number in limits.split(",") if number]
    return {"data_type": data_type, **dict(zip(("precision", "scale"), numbers, strict=False))}


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")  # by dlt's DuckDB client
@pytest.mark.parametrize("declared", dict.fromkeys(declared for declared, *_ in CASES))
def test_a_column_has_a_value_unchanged_or_has_it_not(declared: str) -> None:
    cases = [(v, then) for kind, v, then in CASES if kind == declared and then is not INVALID]
    load(
        [{"n": n, "v": value} for n, (value, _) in enumerate(cases)],
        columns={"v": column_of(declared)},
        schema_contract={"data_type": "evolve"},  # a refused value has a column of its own
    )
    expected = [None if then is REFUSED else then for _, then in cases]
    assert stored("v", "items ORDER BY n") == expected


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
@pytest.mark.parametrize(
    ("declared", "value"),
    [(kind, value) for kind, value, then in CASES if then is INVALID],
    ids=str,
)
def test_a_value_beyond_the_limits_of_its_column_is_named(declared: str, value: object) -> None:
    with pytest.raises(
        warehouse.RowValueError, match=r"^typed\.items, column v: .* in row .*"
    ) as caught:
        load([{"n": 1, "v": value}], columns={"v": column_of(declared)})
    assert "nothing was loaded" in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("decimal(10, 2)", Decimal("1.005")),
        ("date", LATE),
        ("bool", 2),
        ("double", float("nan")),
        ("bigint", 2**70),
    ],
)
def test_each_warehouse_refuses_the_same_values(
    any_warehouse: str, declared: str, value: object
) -> None:
    assert any_warehouse
    load([{"v": None}], columns={"v": column_of(declared)})
    with pytest.raises((warehouse.SchemaContractError, warehouse.RowValueError)):
        load([{"v": value}], columns={"v": column_of(declared)})
    assert stored() == [None]


@dataclass
class Reading:
    """An item that is not a dictionary."""

    value: float


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize(
    ("row", "path"),
    [
        ({"a": {"b": float("nan")}}, "a.b"),
        ({"a": [{"b": 1.0}, {"b": float("inf")}]}, "a.1.b"),
        ({"a": [1.0, float("nan")]}, "a.1"),
        ({"a": (1.0, Decimal("Infinity"))}, "a.1"),
        ({"a": Reading(float("nan"))}, "a.value"),
        ({"a": {"b": "a\ud800b"}}, "a.b"),
        ({"a": {1, 2}}, "a"),
    ],
    ids=["nested", "list", "numbers", "tuple", "object", "text", "set"],
)
def test_the_error_has_the_path_and_the_row_of_a_value_that_json_cannot_store(
    row: dict[str, Any], path: str
) -> None:
    with pytest.raises(warehouse.RowValueError, match=rf"items, column {path}: .* in row 3;"):
        load([{"a": None}, {"a": None}, row])


@pytest.mark.usefixtures("tmp_warehouse")
def test_the_error_names_the_partition_and_the_table_of_a_marked_item() -> None:
    column = {"day": {"data_type": "text", "partition": True}}
    disposition = {"disposition": "merge", "strategy": "delete-insert"}
    source = source_of(
        [{"day": "mon", "v": float("nan")}], columns=column, write_disposition=disposition
    )
    with pytest.raises(warehouse.RowValueError, match=r"in the run of \['mon'\]"):
        warehouse.load(warehouse.plan_load(PIPELINE, source, ["mon"]))
    marked = dlt.mark.with_table_name([{"v": float("nan")}], "others")
    with pytest.raises(warehouse.RowValueError, match=r"typed\.others, column v"):
        load(marked)


WIDENED: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
    "double": ([10, 10.5], [10.0, 10.5]),
    "decimal": ([10, Decimal("10.5")], [Decimal(10), Decimal("10.5")]),
    "large": ([2**60 + 1, 10.5], [Decimal(2**60 + 1), Decimal("10.5")]),
    "over 64 bits": ([10, 2**64], [Decimal(10), Decimal(2**64)]),
    "text": ([10, 10.5, "ten"], ["10", "10.5", "ten"]),
    "bool": ([True, 2], ["True", "2"]),
    "digits": ([Decimal("0.5"), Decimal("1e-12")], ["0.5", "1E-12"]),
    "timestamp": (
        [date(2025, 3, 10), LATE],
        [datetime(2025, 3, 10, tzinfo=UTC), LATE],
    ),
    "nanoseconds": (
        ["2025-03-10T23:30:00.123456789Z", "2025-03-10T23:30:00Z"],
        ["2025-03-10T23:30:00.123456789Z", "2025-03-10T23:30:00Z"],
    ),
}
"""The values of a column that no one declared, and what the table then has."""


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("kind", WIDENED)
def test_a_new_column_widens_until_the_values_of_its_first_load_fit(kind: str) -> None:
    values, expected = WIDENED[kind]
    load([{"n": 1, "v": value} for value in values])
    assert stored() == expected


def test_new_columns_widen_in_nested_tables_and_beside_columns_that_exist(
    any_warehouse: str,
) -> None:
    assert any_warehouse
    load([{"n": 1}])
    kids = [{"grand": [{"v": 1}]}, {"grand": [{"v": 1.5}, {"v": 2}]}]
    load([{"n": 1, "price": 1, "sizes": [1, 2.5]}, {"n": 2, "price": 1.5, "kids": kids}])
    assert sorted(stored("price")) == [1.0, 1.5]
    assert sorted(stored("value", "items__sizes")) == [1.0, 2.5]
    assert sorted(stored("v", "items__kids__grand")) == [1.0, 1.5, 2.0]


@pytest.mark.usefixtures("tmp_warehouse")
def test_the_contract_decides_about_a_column_that_is_declared_or_stored() -> None:
    for _ in range(2):  # the second time it is stored as well
        with pytest.raises(warehouse.SchemaContractError, match=r"items\.v is bigint .* double"):
            load([{"v": 10}, {"v": 10.5}], columns={"v": {"data_type": "bigint"}})
        load([{"v": 10}])
    with pytest.raises(warehouse.SchemaContractError, match=r"items\.v is bigint .* double"):
        load([{"v": 10}, {"v": 10.5}])
    evolving = {"columns": "evolve", "data_type": "evolve"}
    load([{"v": 10}, {"v": 10.5}], schema_contract=evolving)
    assert stored("v__v_double") == [None, 10.5]


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_frozen_resource_creates_the_tables_of_its_first_load_wide_enough() -> None:
    frozen = {"columns": "freeze", "data_type": "freeze"}
    rows = [{"a": 1, "kids": [{"v": 1, "w": 1}]}, {"a": 1.5, "b": 2, "kids": [{"v": 1.5}]}]
    load(rows, schema_contract=frozen)
    assert (stored("a"), stored("b")) == ([1.0, 1.5], [None, 2])
    assert (stored("v", "items__kids"), stored("w", "items__kids")) == ([1.0, 1.5], [1, None])


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("row", [{"id": None, "v": 1}, {"v": 2}], ids=["none", "absent"])
@pytest.mark.parametrize("hint", ["primary key", "not nullable"])
def test_a_row_without_a_value_for_a_key_is_named(row: dict[str, Any], hint: str) -> None:
    is_key = hint == "primary key"
    hints: Any = (
        {"primary_key": "id", "write_disposition": "merge"}
        if is_key
        else {"columns": {"id": {"data_type": "bigint", "nullable": False}}}
    )
    load([{"id": 1, "v": 1}], **hints)
    with pytest.raises(warehouse.RowValueError) as caught:
        load([{"id": 1, "v": 1}, row], **hints)
    assert "typed.items, column id has no value" in str(caught.value)
    assert ("primary key" in str(caught.value)) is is_key
    assert repr(row["v"]) in str(caught.value)


def test_arrow_tables_keep_nan_and_lose_nothing(any_warehouse: str) -> None:
    assert any_warehouse
    load(pa.table({"v": [1.0, float("nan"), None]}))
    assert [str(value) for value in stored()] == ["1.0", "nan", "None"]


UNSTORABLE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "nanoseconds": (
        pa.array([0, 1_000_000_001], pa.timestamp("ns")),
        {},
        "column v: 1970-01-01 00:00:01.000000001 has nanoseconds",
    ),
    "time with nanoseconds": (
        pa.array([0, 1], pa.time64("ns")),
        {},
        "column v: 00:00:00.000000001 has nanoseconds",
    ),
    "integer over 64 bits": (
        pa.array([1, 2**63], pa.uint64()),
        {},
        f"column v: {2**63} does not fit 64 bits",
    ),
    "no value": (
        pa.array([1, None]),
        {"columns": {"v": {"data_type": "bigint", "nullable": False}}},
        "column v has no value",
    ),
    "no key": (pa.array([1, None]), {"primary_key": "v"}, "column v has no value"),
}
"""A column of an Arrow table that no warehouse stores unchanged, hints, and the error."""


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("kind", UNSTORABLE)
def test_an_error_about_a_value_of_an_arrow_table_names_table_column_value_and_row(
    kind: str,
) -> None:
    values, hints, problem = UNSTORABLE[kind]
    with pytest.raises(warehouse.RowValueError) as caught:
        load(pa.table({"v": values}), **hints)
    assert str(caught.value).startswith(f"typed.items, {problem}")
    assert "in row 2 of an Arrow table; nothing was loaded." in str(caught.value)


@pytest.mark.usefixtures("tmp_warehouse")
def test_whole_microseconds_and_small_integers_of_wide_arrow_types_are_loaded() -> None:
    values = pa.array([1_000_000_000], pa.timestamp("ns")), pa.array([2**63 - 1], pa.uint64())
    load(pa.table(dict(zip(("at", "v"), values, strict=True))))
    assert stored() == [2**63 - 1]


ARROW: dict[str, tuple[Any, str, Any]] = {
    "fraction": (pa.array([2.5]), "bigint", None),
    "large": (pa.array([2**60 + 1]), "double", None),
    "flag": (pa.array([2]), "bool", None),
    "time": (pa.array([LATE]), "date", None),
    "rounded": (pa.array([Decimal("1.005")]), "decimal(10, 2)", None),
    "code": (pa.array(["7", "007"]), "bigint", None),
    "whole": (pa.array([2.0]), "bigint", [2]),
    "true": (pa.array([1, None, 0]), "bool", [True, None, False]),
    "midnight": (pa.array([MIDNIGHT]), "date", [date(2025, 3, 10)]),
    "narrow": (pa.array([Decimal("1.50")]), "decimal(10, 2)", [Decimal("1.5")]),
    "digits": (pa.array(["7"]), "bigint", [7]),
}
"""A column of an Arrow table, its declared type, and what the table then has: None if it is refused."""


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("kind", ARROW)
def test_a_column_of_an_arrow_table_is_loaded_unchanged_or_refused(kind: str) -> None:
    values, declared, expected = ARROW[kind]
    table, columns = pa.table({"v": values}), {"v": column_of(declared)}
    if expected is not None:
        load(table, columns=columns)
        assert stored() == expected
        return
    with pytest.raises(
        warehouse.SchemaContractError, match=r"^items\.v is .* upstream sent .* such as"
    ):
        load(table, columns=columns)
