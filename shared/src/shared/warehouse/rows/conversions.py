"""Which values fit a column unchanged: conversions between types that lose nothing, and limits of a type.

dlt converts a value of another type wherever Python can: 2 to true, `0x1F` to 31, and a timestamp to the
day that it has in UTC. `is_exact` says which of its conversions keep the value; docs/names-and-values.md
has them as a table.
"""

import re
from collections.abc import Callable, Mapping
from datetime import time
from decimal import Decimal, InvalidOperation
from typing import Any

from dlt.common.arithmetics import DEFAULT_NUMERIC_PRECISION, DEFAULT_NUMERIC_SCALE
from dlt.common.data_types import TDataType
from dlt.common.json import custom_pua_decode
from dlt.common.schema.typing import TColumnSchema
from dlt.common.time import ensure_datetime

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_FRACTION = re.compile(r"\.(\d*?)0*(?:\D|$)")  # of a second, without zeros at its end
_OFFSET_OF_TIME = re.compile(r"[zZ+-]")
_MICROSECONDS = 6


def is_exact(to_type: TDataType, from_type: TDataType, value: Any, converted: Any) -> bool:
    """Return whether dlt's conversion kept a value."""
    rule = _RULES.get((to_type, from_type))
    return rule is None or rule(value, converted)


def problem_of(column: TColumnSchema, value: Any) -> str | None:
    """Return why a value that dlt would load into a column would change, or None.

    Args:
        column: a column of `limited_columns`.
        value: the value as dlt's JSON has it, not None.
    """
    check = _LIMITS.get(str(column.get("data_type")))
    return check(column, value) if check else None


def limited_columns(columns: Mapping[str, TColumnSchema]) -> dict[str, TColumnSchema]:
    """Return the columns whose values `problem_of` must check, without those that dlt fills."""
    return {
        name: column
        for name, column in columns.items()
        if not name.startswith("_dlt") and not _is_filled_by_dlt(column) and _is_limited(column)
    }


def _is_filled_by_dlt(column: Mapping[str, Any]) -> bool:
    return bool(column.get("x-valid-from") or column.get("x-valid-to"))


def _is_limited(column: TColumnSchema) -> bool:
    data_type, precision = column.get("data_type"), column.get("precision")
    if not column.get("nullable", True) or data_type in ("decimal", "time"):
        return True
    return precision is not None and (
        data_type == "bigint" or (data_type == "timestamp" and precision < _MICROSECONDS)
    )


def _is_number(text: str, number: Any) -> bool:
    """Return whether a text is a number in decimal notation, and equal to one of another type."""
    plain = text.strip()
    return bool(_NUMBER.fullmatch(plain)) and _equals(Decimal(plain), number)


def _equals(decimal: Any, number: Any) -> bool:
    return bool(decimal == (Decimal(repr(number)) if isinstance(number, float) else number))


def _is_int64(value: Any, converted: int) -> bool:
    del value
    return -(2**63) <= converted < 2**63


def _is_midnight(value: Any, converted: Any) -> bool:
    del converted
    timestamp = ensure_datetime(value)
    return not timestamp.utcoffset() and timestamp.time() == time()


def _has_microseconds(text: str, converted: Any) -> bool:
    del converted
    return _fraction_digits(text) <= _MICROSECONDS


def _fraction_digits(text: str) -> int:
    found = _FRACTION.search(text)
    return len(found[1]) if found else 0


_RULES: Mapping[tuple[str, str], Callable[[Any, Any], bool]] = {
    **dict.fromkeys(
        [("bool", number) for number in ("bigint", "double", "decimal", "wei")],
        lambda value, _: value in (0, 1),
    ),
    **dict.fromkeys([("bigint", number) for number in ("double", "decimal", "wei")], _is_int64),
    ("bigint", "text"): lambda text, number: _is_number(text, number) and _is_int64(text, number),
    **dict.fromkeys([(number, "text") for number in ("double", "decimal", "wei")], _is_number),
    ("double", "bigint"): lambda value, number: int(number) == value,
    **dict.fromkeys([("double", number) for number in ("decimal", "wei")], _equals),
    **dict.fromkeys(
        [("date", kind) for kind in ("text", "timestamp", "bigint", "double")], _is_midnight
    ),
    ("timestamp", "text"): _has_microseconds,
    ("time", "text"): lambda text, converted: (
        not _OFFSET_OF_TIME.search(text) and _has_microseconds(text, converted)
    ),
}
"""Conversions of dlt that change some values, and which they keep. The others change none."""


def _limit_of_decimal(column: TColumnSchema, value: Any) -> str | None:
    precision = column.get("precision") or DEFAULT_NUMERIC_PRECISION
    scale = column.get("scale")
    scale = DEFAULT_NUMERIC_SCALE if scale is None and not column.get("precision") else scale or 0
    if isinstance(value, str) and "e" not in value and "E" not in value:
        whole, _, fraction = value.partition(".")
        if len(fraction) <= scale and len(whole) <= precision - scale:
            return None  # as nearly all values are
    value = custom_pua_decode(value)
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        return None  # another type, for which the contract decides
    if number.is_finite() and number:
        _, digits, exponent = number.normalize().as_tuple()
        assert isinstance(exponent, int)
        fits = -exponent <= scale and len(digits) + exponent <= precision - scale
    else:
        fits = number.is_finite()
    return None if fits else f"does not fit decimal({precision}, {scale})"


def _limit_of_integer(column: TColumnSchema, value: Any) -> str | None:
    bits = column.get("precision")
    if not isinstance(value, int) or bits is None:
        return None
    return None if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) else f"does not fit {bits} bits"


def _limit_of_timestamp(column: TColumnSchema, value: Any) -> str | None:
    precision = column.get("precision")
    if precision is None or not isinstance(value, str) or _fraction_digits(value) <= precision:
        return None
    return f"has more than the {precision} digits of a second that the column has"


def _limit_of_time(column: TColumnSchema, value: Any) -> str | None:
    del column
    value = custom_pua_decode(value)
    with_offset = isinstance(value, time) and value.tzinfo is not None
    return "has an offset, which the column does not store" if with_offset else None


_LIMITS: Mapping[str, Callable[[TColumnSchema, Any], str | None]] = {
    "decimal": _limit_of_decimal,
    "bigint": _limit_of_integer,
    "timestamp": _limit_of_timestamp,
    "time": _limit_of_time,
}
