"""JSON without the liberties that parsers take: numbers keep their digits, keys are there once."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from shared.sources.drop_folder import shorten


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # no ValueError
        raise ValueError(f"the number {shorten(text)} has an exponent that is too large") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice in one object")
    return result


DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_float=_fraction, parse_constant=_reject_constant
)
"""Reads fractions as `Decimal`. It raises `ValueError` on NaN, and on a key that an object has twice."""


def is_strict_json(text: str) -> bool:
    """Return whether `DECODER` reads a text."""
    try:
        DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def dump_json(value: Any) -> str:
    """Return the JSON text of a value, with all digits of its decimals.

    Raises:
        ValueError: JSON has no such value.
    """
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("JSON has texts as keys, and this has others")
        return (
            "{" + ",".join(f"{_text(key)}:{dump_json(each)}" for key, each in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(dump_json, value)) + "]"
    return str(value) if isinstance(value, Decimal) else _text(value)


def _text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(str(error)) from None
