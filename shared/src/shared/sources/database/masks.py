"""Masks: what is done to the values of a column before they are written anywhere.

A column that must not be read at all is in `Table.exclude`. The other masks work on each batch in memory,
between the database and the first file. Their errors name the column and never a value.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar, Literal, Protocol, cast

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc

MIN_KEY_CHARS = 32  # a shorter key could be guessed, and then each value as well

MASKED_MESSAGE = (
    "The message is not shown, because it may have a value of a masked column; the log of the database "
    "server has it."
)
"""What an error of a database says instead of its message, while rows of a table with masks are read."""

_NUMBERS = ("bigint", "decimal", "double", "wei")


class MaskError(ValueError):
    """A mask does not fit its column or has no key. The message has the next step, and no value."""


class Mask(Protocol):
    """Changes the values of a column in memory, before a file or the warehouse has them.

    Equal values become equal values, and NULL stays NULL. A mask is a frozen dataclass: its `repr` is
    part of `fingerprint`.
    """

    @property
    def hides_order(self) -> bool:
        """Whether two values may become equal, so that the column cannot be a key."""

    @property
    def needs_key(self) -> bool:
        """Whether `apply` uses the key."""

    def hints(self, hints: TColumnSchema) -> TColumnSchema:
        """Return dlt's hints of the masked column.

        Raises:
            MaskError: the mask is not for columns of this type.
        """

    def apply(self, values: "pa.Array", key: bytes) -> "pa.Array":
        """Return the masked values, in the type of the masked hints."""


@dataclass(frozen=True)
class Constant:
    """Replaces each value that is not NULL by one text.

    Attributes:
        value: the text.
    """

    value: str = "***"
    hides_order: ClassVar[bool] = True
    needs_key: ClassVar[bool] = False

    def hints(self, hints: TColumnSchema) -> TColumnSchema:
        """Return the hints of a text column."""
        return _text_hints(hints)

    def apply(self, values: "pa.Array", key: bytes) -> "pa.Array":
        """Return the text for each value that is not NULL."""
        del key
        return pc.if_else(values.is_valid(), pa.scalar(self.value), pa.scalar(None, pa.string()))


@dataclass(frozen=True)
class Hash:
    """Replaces each value by its HMAC-SHA256 with a secret key, as 64 hexadecimal digits.

    Equal values have equal hashes, in all tables that are masked with the same key, so joins work. What
    is hashed is a text in UTF-8:

    - `text` and `json`: the text, as the database returns it.
    - `bigint`, `decimal` and `wei`: the decimal digits without an exponent and without zeros at the end
      of the fraction; so 7 and 7.00 are equal.
    - `double`: the shortest digits that read back as the same number, as Python's `repr` writes them.
    - `bool`: `true` or `false`.
    - `date`: `2024-01-31`. `time`: `23:59:59.123456`.
    - `timestamp`: `2024-01-31T23:59:59.123456`; with a time zone, in UTC and with `Z` at the end.
    - `binary`: not a text, but its bytes.
    """

    hides_order: ClassVar[bool] = False
    needs_key: ClassVar[bool] = True

    def hints(self, hints: TColumnSchema) -> TColumnSchema:
        """Return the hints of a text column."""
        return _text_hints(hints)

    def apply(self, values: "pa.Array", key: bytes) -> "pa.Array":
        """Return the hash of each value that is not NULL."""
        keyed = hmac.new(key, digestmod=hashlib.sha256)
        zone = b""
        if pa.types.is_timestamp(values.type) and values.type.tz:
            # A timestamp with a time zone is stored in UTC; this drops the zone.
            values, zone = values.cast(pa.timestamp(values.type.unit)), b"Z"

        def digest(value: Any) -> str:
            copy = keyed.copy()
            copy.update(value if isinstance(value, bytes) else _text_of(value).encode() + zone)
            return copy.hexdigest()

        return _map_distinct(values, digest, pa.string())


@dataclass(frozen=True)
class Truncate:
    """Leaves the first part of each value. A value that is not longer than that stays what it is.

    Exactly one of the attributes is given.

    Attributes:
        characters: of a text, how many of its first characters stay.
        unit: of a date or a timestamp, that it becomes the start of its month or year; with a time zone,
            in UTC.
        step: of a number, that it becomes a multiple of this, toward zero.
    """

    characters: int | None = None
    unit: Literal["month", "year"] | None = None
    step: int | None = None
    hides_order: ClassVar[bool] = True
    needs_key: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Reject what says nothing or too much.

        Raises:
            MaskError: not exactly one attribute is given, or it does not truncate.
        """
        given = [value for value in (self.characters, self.unit, self.step) if value is not None]
        valid = (
            (self.characters is None or self.characters >= 0)
            and self.unit in (None, "month", "year")
            and (self.step is None or self.step > 1)
        )
        if len(given) != 1 or not valid:
            raise MaskError(
                f"{self} must have exactly one of: characters, 0 or more; unit, month or year; "
                "step, an integer above 1."
            )

    def hints(self, hints: TColumnSchema) -> TColumnSchema:
        """Return the hints unchanged, for a column of a type that it truncates."""
        types = {
            "characters": ("text",),
            "unit": ("date", "timestamp"),
            "step": _NUMBERS,
        }
        (name,) = (name for name in types if getattr(self, name) is not None)
        if hints.get("data_type") not in types[name]:
            raise MaskError(f"{self} is for columns of the type {' or '.join(types[name])}")
        return hints

    def apply(self, values: "pa.Array", key: bytes) -> "pa.Array":
        """Return the first part of each value."""
        del key
        if self.characters is not None:
            return pc.utf8_slice_codeunits(values, 0, self.characters)
        if self.unit is not None:
            has_zone = pa.types.is_timestamp(values.type) and values.type.tz
            in_utc = values.cast(pa.timestamp(values.type.unit, "UTC")) if has_zone else values
            return pc.floor_temporal(in_utc, unit=self.unit).cast(values.type)
        step = self.step or 1
        if pa.types.is_integer(values.type):
            wide = pa.uint64() if pa.types.is_unsigned_integer(values.type) else pa.int64()
            # The quotient of integers is rounded toward zero.
            steps = pc.divide(values.cast(wide), pa.scalar(step, wide))
            return pc.multiply(steps, pa.scalar(step, wide)).cast(values.type)
        if pa.types.is_floating(values.type):
            return pc.multiply(pc.trunc(pc.divide(values, float(step))), float(step))
        # The arithmetic of Decimal rounds to 28 digits; that of int is exact.
        return _map_distinct(
            values,
            lambda value: Decimal(abs(int(value)) // step * step).copy_sign(value),
            values.type,
        )


def masked_hints(
    columns: Mapping[str, TColumnSchema], masks: Mapping[str, Mask], table: str = ""
) -> dict[str, TColumnSchema]:
    """Return dlt's hints of the columns of a table, changed where a column is masked.

    Args:
        columns: the hints, by column.
        masks: by column.
        table: the table and its server, for errors.

    Raises:
        MaskError: a masked column is not in the table, or its mask is not for its type.
    """
    _require_columns(masks, list(columns), table)
    hints = dict(columns)
    for name, mask in masks.items():
        try:
            hints[name] = mask.hints(columns[name])
        except MaskError as error:
            data_type = columns[name].get("data_type")
            raise MaskError(
                f"{_place(table, name)}: {error}, and this is {data_type}. Choose another mask, such as "
                "Hash() or Constant(), or exclude the column."
            ) from None
    return hints


def apply_masks(
    batch: "pa.RecordBatch", masks: Mapping[str, Mask], key: bytes, table: str = ""
) -> "pa.RecordBatch":
    """Return a batch with its masked columns; the others are not copied.

    Args:
        batch: rows as they were read.
        masks: by column.
        key: from `mask_key`.
        table: the table and its server, for errors.

    Raises:
        MaskError: a masked column is not in the batch, or a mask fails on a value.
    """
    _require_columns(masks, batch.schema.names, table)
    for name, mask in masks.items():
        position = batch.schema.get_field_index(name)
        field = batch.schema.field(position)
        masked, failure = None, ""
        try:
            masked = mask.apply(batch.column(position), key)
        except Exception as error:  # noqa: BLE001 - any message may have a value, so none is passed on
            failure = type(error).__name__
        if (
            masked is None
        ):  # outside of `except`, so that the error with the value is not its context
            raise MaskError(
                f"{_place(table, name)}: {mask} fails on a value of the type {field.type} ({failure}). "
                "Choose another mask, or exclude the column."
            )
        batch = batch.set_column(
            position, pa.field(name, masked.type, nullable=field.nullable), masked
        )
    return batch


def mask_key(masks: Mapping[str, Mask], key: str | None, setting: str, table: str = "") -> bytes:
    """Return the key of the masks, or no bytes if none of them needs one.

    Args:
        masks: by column.
        key: the secret.
        setting: its name for dlt, such as `sources.shop.mask_key`, for the error.
        table: the table and its server, for the error.

    Raises:
        MaskError: there is no key, or it is too short.
    """
    masked = [name for name, mask in masks.items() if mask.needs_key]
    if not masked:
        return b""
    if not key or len(key) < MIN_KEY_CHARS:
        raise MaskError(
            f"{_place(table, *masked)}: the mask needs a secret key of {MIN_KEY_CHARS} characters or "
            f"more. Create one: python -c 'import secrets; print(secrets.token_hex(32))'. Write it into "
            f"secrets.toml as {setting}, or into the environment as {setting.upper().replace('.', '__')}. "
            "With another key, the same value has another hash."
        )
    return key.encode()


def fingerprint(masks: Mapping[str, Mask], key: bytes) -> str:
    """Return a text that differs if the masks or their key differ; neither can be read from it.

    Loads that add to rows of earlier loads compare it: those rows have been masked in the same way, or the
    table must be loaded in full.
    """
    declared = repr(sorted(masks.items())).encode()
    return hmac.new(key, declared, hashlib.sha256).hexdigest()[:16]


def _require_columns(masks: Mapping[str, Mask], columns: list[str], table: str) -> None:
    missing = [name for name in masks if name not in columns]
    if missing:
        raise MaskError(
            f"{_place(table, *missing)} is masked, but there is no such column. The columns are "
            f"{', '.join(columns)}; capitals matter."
        )


def _place(table: str, *columns: str) -> str:
    return f"{table}: column {', '.join(columns)}" if table else f"Column {', '.join(columns)}"


def _text_hints(hints: TColumnSchema) -> TColumnSchema:
    other = ("data_type", "precision", "scale", "timezone")
    kept = {name: value for name, value in hints.items() if name not in other}
    return cast("TColumnSchema", {**kept, "data_type": "text"})


def _map_distinct(
    values: "pa.Array", function: Callable[[Any], Any], data_type: "pa.DataType"
) -> "pa.Array":
    """Call a function once for each distinct value that is not NULL."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    results = [None if value is None else function(value) for value in distinct]
    return pa.array(results, data_type).take(encoded.indices)


def _text_of(value: Any) -> str:
    """Return what is hashed of a value; see `Hash`."""
    match value:
        case str():
            text = value
        case bool():
            text = str(value).lower()
        case int():
            text = str(value)
        case float():
            text = repr(value + 0.0)  # -0.0 equals 0.0
        case Decimal():
            text = f"{value:f}"
            text = text.rstrip("0").rstrip(".") if "." in text else text
        case datetime() | time():
            text = value.isoformat(timespec="microseconds")
        case date():
            text = value.isoformat()
        case _:
            raise TypeError(f"{type(value).__name__} has no text form")
    return text
