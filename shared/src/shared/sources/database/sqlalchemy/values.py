"""Arrow arrays from the values of a driver: each value fits exactly, or raises."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc

_NATIVE: dict[str, type] = {
    "bigint": int,
    "double": float,
    "text": str,
    "binary": bytes,
}
"""Python's type whose values Arrow takes exactly as they are; others pass as text."""

_MAX_EXACT_FLOAT = 2**53
_ZONED = r":.*(Z|[+-]\d\d(:?\d\d)?)$"
_DIGITS_AFTER_MICROSECONDS = r"(\.\d{6})0+(\D.*)?$"


def to_arrow(values: Sequence[Any], data_type: str, arrow_type: "pa.DataType") -> "pa.Array":
    """Return values of a column in an Arrow type.

    Texts are parsed as Arrow parses them, which is strict. A timestamp without a zone is UTC if the type
    has a zone; one with a zone is an error if the type has none.

    Args:
        values: from a driver.
        data_type: dlt's type of the column.
        arrow_type: Arrow's type of the column.

    Raises:
        ValueError: a value does not fit exactly. `pa.ArrowInvalid` is one.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {_NATIVE.get(data_type)}:
        return pa.array(values, arrow_type)
    if kinds <= {bool} and data_type == "bool":
        return pa.array(values, arrow_type)
    if data_type == "binary":
        raise ValueError("it is not binary")
    texts = values if kinds <= {str} else [_text(value, data_type) for value in values]
    return _parse(pa.array(texts, pa.string()), data_type, arrow_type)


def first_misfit(values: Sequence[Any], data_type: str, arrow_type: "pa.DataType") -> int | None:
    """Return the position of the first value that does not fit; None if each fits."""
    for position, value in enumerate(values):
        try:
            to_arrow([value], data_type, arrow_type)
        except ValueError:
            return position
    return None


def _text(value: Any, data_type: str) -> str | None:
    """Return a value as the text from which it is parsed."""
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        raise ValueError("it is binary")  # noqa: TRY004 - as all values that do not fit
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        whole = data_type == "bigint" and value.is_integer() and abs(value) <= _MAX_EXACT_FLOAT
        return str(int(value)) if whole else repr(value)
    return str(value)  # dates and timestamps as ISO 8601


def _parse(texts: "pa.Array", data_type: str, arrow_type: "pa.DataType") -> "pa.Array":
    if data_type == "text":
        return texts
    if data_type == "json":
        for text in texts.to_pylist():
            if text is not None:
                orjson.loads(text)
        return texts
    if data_type == "double":
        return _doubles(texts)
    if data_type == "time":
        moments = pc.binary_join_element_wise("1970-01-01", texts, " ")
        return _without_trailing_zeros(moments).cast(pa.timestamp("us")).cast(arrow_type)
    if data_type == "timestamp":
        return _timestamps(_without_trailing_zeros(texts), arrow_type)
    if data_type == "bigint" and pc.any(pc.match_substring(texts, "x", ignore_case=True)).as_py():
        raise ValueError("it is not a decimal number")
    return texts.cast(arrow_type)


def _timestamps(texts: "pa.Array", arrow_type: "pa.DataType") -> "pa.Array":
    if arrow_type.tz is None:
        return texts.cast(arrow_type)
    zoned = pc.match_substring_regex(texts, _ZONED)
    missing = pa.scalar(None, pa.string())
    naive = pc.if_else(zoned, missing, texts).cast(pa.timestamp("us"))
    return pc.coalesce(pc.if_else(zoned, texts, missing).cast(arrow_type), naive.cast(arrow_type))


def _without_trailing_zeros(texts: "pa.Array") -> "pa.Array":
    """Return times with at most six decimals, if the others are zeros."""
    return pc.replace_substring_regex(texts, _DIGITS_AFTER_MICROSECONDS, r"\1\2")


def _doubles(texts: "pa.Array") -> "pa.Array":
    """Return floating-point numbers; one that would lose digits raises."""
    numbers = texts.cast(pa.float64())
    written = numbers.cast(pa.string())
    for position in pc.indices_nonzero(pc.not_equal(texts, written)).to_pylist():
        try:
            if Decimal(texts[position].as_py()) == Decimal(repr(numbers[position].as_py())):
                continue
        except InvalidOperation:
            pass
        raise ValueError("a floating-point number does not have so many digits")
    return numbers
