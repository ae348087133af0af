"""A masked value is gone before anything is written, and equal values stay equal."""

import hashlib
import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from dlt.common.schema.typing import TColumnSchema
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.sources.database.masks import (
    Constant,
    Hash,
    Mask,
    MaskError,
    Truncate,
    apply_masks,
    fingerprint,
    mask_key,
    masked_hints,
)

KEY = b"0123456789abcdef0123456789abcdef"
MARKER = "marker-of-a-secret-value"

DECIMAL = pa.decimal128(38, 10)
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]))),
    "bigint": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "double": (pa.float64(), st.floats()),
    "bool": (pa.bool_(), st.booleans()),
    "decimal": (DECIMAL, st.decimals(-(10**27), 10**27, places=10)),
    "wei": (pa.decimal256(76, 0), st.integers(-(10**75), 10**75).map(Decimal)),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "timestamp": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "naive timestamp": (pa.timestamp("us"), st.datetimes()),
    "binary": (pa.binary(), st.binary()),
}


def column(draw: Any, kind: str) -> pa.Array:
    """Return an array with NULLs and with values that occur several times."""
    arrow_type, values = VALUES[kind]
    chosen = draw(st.lists(values, min_size=1, max_size=5))
    rows = draw(st.lists(st.sampled_from([*chosen, None]), min_size=1, max_size=12))
    return pa.array(rows, arrow_type)


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal, NaN and NaN as well."""
    both = isinstance(left, float) and isinstance(right, float)
    return bool(left == right or (both and math.isnan(left) and math.isnan(right)))


def assert_equal_stays_equal(before: pa.Array, after: pa.Array) -> None:
    values, masked = before.to_pylist(), after.to_pylist()
    assert [value is None for value in values] == [value is None for value in masked]
    for index, value in enumerate(values):
        for other, result in zip(values, masked, strict=True):
            if same(value, other):
                assert same(masked[index], result)


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_equal_values_of_any_type_have_equal_hashes_and_others_have_not(
    kind: str, data: st.DataObject
) -> None:
    values = column(data.draw, kind)
    masked = Hash().apply(values, KEY)
    assert masked.type == pa.string()
    assert_equal_stays_equal(values, masked)
    hashes = [value for value in masked.to_pylist() if value is not None]
    assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in hashes)
    distinct: list[Any] = []
    for value in values.to_pylist():
        if value is not None and not any(same(value, other) for other in distinct):
            distinct.append(value)
    assert len(set(hashes)) == len(distinct)


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_constant_has_nothing_of_any_value(kind: str, data: st.DataObject) -> None:
    values = column(data.draw, kind)
    masked = Constant("hidden").apply(values, b"")
    assert masked.type == pa.string()
    assert masked.to_pylist() == [None if v is None else "hidden" for v in values.to_pylist()]


TEXT_FORMS = [
    (MARKER, pa.string(), MARKER),
    ("Grüße", pa.large_string(), "Grüße"),
    (-42, pa.int16(), "-42"),
    (2**64 - 1, pa.uint64(), "18446744073709551615"),
    (1.5, pa.float64(), "1.5"),
    (1e-7, pa.float64(), "1e-07"),
    (100.0, pa.float64(), "100.0"),
    (-0.0, pa.float64(), "0.0"),
    (True, pa.bool_(), "true"),
    (Decimal("7.00"), pa.decimal128(10, 2), "7"),
    (Decimal("0.0000000001"), DECIMAL, "0.0000000001"),
    (Decimal(0), DECIMAL, "0"),
    (Decimal(-1200), DECIMAL, "-1200"),
    (date(1, 1, 31), pa.date32(), "0001-01-31"),
    (time(1, 2, 3), pa.time64("us"), "01:02:03.000000"),
    ("2024-01-31T23:59:59.000005", pa.timestamp("us"), "2024-01-31T23:59:59.000005"),
    ("2024-01-31T00:00:00", pa.timestamp("s"), "2024-01-31T00:00:00.000000"),
    (
        datetime(2024, 1, 31, 1, tzinfo=timezone(timedelta(hours=2))),
        pa.timestamp("us", "Europe/Berlin"),
        "2024-01-30T23:00:00.000000Z",
    ),
]


@pytest.mark.parametrize(("value", "arrow_type", "text"), TEXT_FORMS)
def test_each_type_is_hashed_by_its_stated_text(
    value: Any, arrow_type: pa.DataType, text: str
) -> None:
    expected = hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()
    values = pa.array([value], None if isinstance(value, str) else arrow_type).cast(arrow_type)
    assert Hash().apply(values, KEY).to_pylist() == [expected]


def test_another_key_gives_other_hashes() -> None:
    values = pa.array([MARKER])
    assert Hash().apply(values, KEY) != Hash().apply(values, KEY[::-1])


def test_a_slice_a_dictionary_and_a_column_of_nulls_are_masked_as_their_values() -> None:
    values = pa.array(["a", None, "b", "a", "c"])
    expected = Hash().apply(values, KEY)
    assert Hash().apply(values.slice(1, 3), KEY).equals(expected.slice(1, 3))
    assert Hash().apply(values.dictionary_encode(), KEY).equals(expected)
    for empty in (pa.nulls(2, pa.string()), pa.array([], pa.string()), pa.nulls(2)):
        assert Hash().apply(empty, KEY).to_pylist() == [None] * len(empty)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), characters=st.integers(0, 4))
def test_of_a_text_only_the_first_characters_stay(data: st.DataObject, characters: int) -> None:
    values = column(data.draw, "text")
    masked = Truncate(characters=characters).apply(values, b"")
    assert_equal_stays_equal(values, masked)
    assert masked.to_pylist() == [
        None if value is None else value[:characters] for value in values.to_pylist()
    ]


@pytest.mark.parametrize("kind", ["date", "timestamp", "naive timestamp"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_of_a_date_only_the_month_or_the_year_stays(kind: str, data: st.DataObject) -> None:
    values = column(data.draw, kind)
    month = Truncate(unit="month").apply(values, b"")
    year = Truncate(unit="year").apply(values, b"")
    assert month.type == year.type == values.type
    assert_equal_stays_equal(values, month)
    midnight = {"hour": 0, "minute": 0, "second": 0, "microsecond": 0} if kind != "date" else {}
    for value, in_month, in_year in zip(
        *map(pa.Array.to_pylist, (values, month, year)), strict=True
    ):
        assert in_month == (value and value.replace(day=1, **midnight))
        assert in_year == (value and value.replace(month=1, day=1, **midnight))


def test_a_timestamp_is_truncated_in_utc() -> None:
    new_year = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))  # it is still 2023 in UTC
    values = pa.array([new_year], pa.timestamp("us", "Europe/Berlin"))
    assert Truncate(unit="year").apply(values, b"").to_pylist() == [
        datetime(2023, 1, 1, tzinfo=UTC)
    ]


@pytest.mark.parametrize("kind", ["bigint", "unsigned", "decimal", "wei"])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), step=st.integers(2, 10**6))
def test_a_number_becomes_a_multiple_of_the_step(kind: str, data: st.DataObject, step: int) -> None:
    values = column(data.draw, kind)
    masked = Truncate(step=step).apply(values, b"")
    assert masked.type == values.type
    assert_equal_stays_equal(values, masked)
    for value, result in zip(values.to_pylist(), masked.to_pylist(), strict=True):
        if value is not None:
            assert int(result) == result
            assert int(result) % step == 0
            # abs() of a Decimal rounds to 28 digits
            assert abs(int(result)) <= abs(int(value)) < abs(int(result)) + step


@pytest.mark.parametrize(
    ("value", "expected"), [(1999.9, 1000.0), (-1999.9, -1000.0), (math.inf, math.inf)]
)
def test_a_double_becomes_a_multiple_of_the_step(value: float, expected: float) -> None:
    assert Truncate(step=1000).apply(pa.array([value, None]), b"").to_pylist() == [expected, None]


def test_a_step_may_be_larger_than_the_type() -> None:
    assert Truncate(step=10**6).apply(pa.array([7], pa.int16()), b"").to_pylist() == [0]


BATCH = pa.record_batch(
    {
        "id": pa.array([1, 2, 3]),
        "email": pa.array([MARKER, None, MARKER]),
        "salary": pa.array([Decimal("1234.56"), None, Decimal("99.00")], pa.decimal128(10, 2)),
        "born": pa.array([date(1987, 6, 5), None, date(1987, 6, 30)]),
    }
)
COLUMNS: dict[str, TColumnSchema] = {
    "id": {"name": "id", "data_type": "bigint", "nullable": False, "primary_key": True},
    "email": {"name": "email", "data_type": "text", "precision": 200, "nullable": True},
    "salary": {"name": "salary", "data_type": "decimal", "precision": 10, "scale": 2},
    "born": {"name": "born", "data_type": "date"},
}
MASKS: dict[str, Mask] = {
    "id": Hash(),
    "email": Truncate(characters=2),
    "salary": Constant(),
    "born": Truncate(unit="year"),
}


def test_a_batch_keeps_its_columns_and_has_the_types_of_the_masked_hints() -> None:
    masked, hints = apply_masks(BATCH, MASKS, KEY), masked_hints(COLUMNS, MASKS)
    assert masked.schema.names == BATCH.schema.names == list(hints)
    assert [hints[name].get("data_type") for name in hints] == ["text", "text", "text", "date"]
    assert [str(kind) for kind in masked.schema.types] == [
        "string",
        "string",
        "string",
        "date32[day]",
    ]
    assert (hints["id"]["primary_key"], hints["id"]["nullable"]) == (True, False)
    assert "scale" not in hints["salary"]
    assert masked.column("born").to_pylist() == [date(1987, 1, 1), None, date(1987, 1, 1)]
    assert masked.column("salary").to_pylist() == ["***", None, "***"]
    assert MARKER not in repr(masked.to_pydict())


def test_a_column_without_a_mask_is_not_copied() -> None:
    masked = apply_masks(BATCH, {"email": Hash()}, KEY)
    before, after = BATCH.column("id").buffers()[1], masked.column("id").buffers()[1]
    assert before is not None
    assert after is not None
    assert before.address == after.address


def test_a_mask_of_a_column_that_is_not_read_is_an_error() -> None:
    masks = {"Email": Hash()}
    error = r"Column Email is masked, .*columns are id, email, salary, born; capitals matter"
    with pytest.raises(MaskError, match=error):
        masked_hints(COLUMNS, masks)
    with pytest.raises(MaskError, match=error):
        apply_masks(BATCH, masks, KEY)


@pytest.mark.parametrize(
    ("column_name", "mask", "types"),
    [
        ("id", Truncate(characters=2), "text"),
        ("email", Truncate(unit="year"), "date or timestamp"),
        ("born", Truncate(step=10), "bigint or decimal or double or wei"),
    ],
)
def test_a_mask_for_another_type_is_an_error(column_name: str, mask: Mask, types: str) -> None:
    place = rf"orders of host/shop: column {column_name}: .*{types}.*exclude the column"
    with pytest.raises(MaskError, match=place):
        masked_hints(COLUMNS, {column_name: mask}, "orders of host/shop")


@pytest.mark.parametrize(
    "create",
    [
        Truncate,
        lambda: Truncate(characters=1, step=2),
        lambda: Truncate(characters=-1),
        lambda: Truncate(step=1),
        lambda: Truncate(unit="day"),  # type: ignore[arg-type]
    ],
)
def test_a_truncation_that_truncates_nothing_is_an_error(create: Callable[[], Truncate]) -> None:
    with pytest.raises(MaskError, match="must have exactly one of"):
        create()


@dataclass(frozen=True)
class FailingMask:
    """A mask of a team, whose error has the value."""

    hides_order: ClassVar[bool] = False
    needs_key: ClassVar[bool] = False

    def hints(self, hints: TColumnSchema) -> TColumnSchema:
        return hints

    def apply(self, values: pa.Array, key: bytes) -> pa.Array:
        del key
        raise KeyError(values.to_pylist())


@pytest.mark.parametrize("mask", [FailingMask(), Truncate(unit="year"), Hash()])
def test_an_error_of_a_mask_has_no_value(mask: Mask) -> None:
    batch = pa.record_batch({"email": pa.array([[MARKER]], pa.list_(pa.string()))})
    with pytest.raises(MaskError, match=r"Column email: .*exclude the column") as error:
        apply_masks(batch, {"email": mask}, KEY)
    assert MARKER not in str(error.value)
    assert error.value.__context__ is None
    assert error.value.__cause__ is None


def test_a_key_is_required_only_by_a_mask_that_uses_it() -> None:
    assert mask_key({"email": Constant()}, None, "sources.shop.mask_key") == b""
    assert mask_key(MASKS, KEY.decode(), "sources.shop.mask_key") == KEY


@pytest.mark.parametrize("key", [None, "", "short-key"])
def test_without_a_long_key_there_is_no_load(key: str | None) -> None:
    with pytest.raises(MaskError, match=r"Column id: .*32 characters") as error:
        mask_key(MASKS, key, "sources.shop.mask_key")
    message = str(error.value)
    assert "sources.shop.mask_key" in message
    assert "SOURCES__SHOP__MASK_KEY" in message
    assert not key or key not in message


def test_the_fingerprint_differs_with_the_masks_and_the_key_and_has_neither() -> None:
    known = fingerprint(MASKS, KEY)
    assert known == fingerprint(dict(reversed(MASKS.items())), KEY)
    others = {
        fingerprint(MASKS, KEY[::-1]),
        fingerprint({**MASKS, "email": Truncate(characters=3)}, KEY),
        fingerprint({name: MASKS[name] for name in ("id", "email")}, KEY),
        fingerprint({}, b""),
    }
    assert known not in others
    assert len(others) == 4
    assert KEY.decode() not in known
