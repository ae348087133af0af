"""Arrow values as the driver reads them from Postgres, in the types of their columns in the warehouse.

Postgres has values that no warehouse has, such as infinity in a column of dates, and the driver does not
check them. They are found here, where that costs less than a condition in SQL.
"""

from collections.abc import Mapping

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc
from shared.sources.database.base import Column, DatabaseError

_DAY = 86_400
_FIRST, _LAST = -719_162 * _DAY, 2_932_897 * _DAY  # year 1, and the end of year 9999, as seconds

_MAX_DECIMAL_TEXT = 41
"""How many characters 38 digits, a sign, a point and a zero before it have."""


def typed(
    batch: "pa.RecordBatch", schema: "pa.Schema", place: str, columns: Mapping[str, Column]
) -> "pa.RecordBatch":
    """Return a batch in the types of a schema.

    Args:
        batch: what the driver read.
        schema: the types of the columns in the warehouse.
        place: the table and its server, for errors.
        columns: the columns of the batch.

    Raises:
        DatabaseError: a value does not fit the type of its column, or is not a text.
    """
    arrays = [
        _typed(values, field.type, place, column)
        for values, field, column in zip(batch.columns, schema, columns.values(), strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _typed(values: "pa.Array", kind: "pa.DataType", place: str, column: Column) -> "pa.Array":
    try:
        if pa.types.is_decimal(kind):
            _require_digits(values)
        converted = values if values.type == kind else _converted(values, kind)
        _require_limits(converted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatabaseError(
            f"{place}: a value of the column {column.name} ({column.database_type}) is not a "
            f"{column.hints['data_type']} that the warehouse can have: {error}. Declare "
            f'types={{"{column.name}": {{"data_type": "text"}}}}, or a type that has all of its values.'
        ) from None
    return converted


def _converted(values: "pa.Array", kind: "pa.DataType") -> "pa.Array":
    """Return values of another type.

    Raises:
        pa.ArrowInvalid: a value would change, or it is a number of seconds or days of no stated kind.
    """
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return values.cast(kind)
    sent = values.type
    if pa.types.is_temporal(sent) != pa.types.is_temporal(kind) or pa.types.is_time(kind):
        raise pa.ArrowInvalid(f"{sent} is not {kind}")
    converted = values.cast(kind)
    # Arrow itself cuts the time of a date, and has any number as true.
    is_cut = pa.types.is_date(kind) or pa.types.is_boolean(kind)
    if is_cut and not converted.cast(sent).equals(values):
        raise pa.ArrowInvalid("it would change")
    return converted


def _require_digits(values: "pa.Array") -> None:
    """Check texts of decimals; Arrow would cut what is after the 38th digit."""
    if pa.types.is_string(values.type):
        longest = pc.max(pc.binary_length(values)).as_py()
        if longest is not None and longest > _MAX_DECIMAL_TEXT:
            raise pa.ArrowInvalid("it has more than 38 digits")


def _require_limits(values: "pa.Array") -> None:
    """Check that dates and timestamps are of the years 1 to 9999, and times before 24:00.

    Values that are further away wrap around in the driver; all of those are outside of the years.
    """
    if pa.types.is_date32(values.type):
        first, last, numbers = _FIRST // _DAY, _LAST // _DAY, pa.int32()
        text = "it is infinity, or its year is not between 1 and 9999"
    elif pa.types.is_timestamp(values.type):
        first, last, numbers = _FIRST * 1_000_000, _LAST * 1_000_000, pa.int64()
        text = "it is infinity, or its year is not between 1 and 9999"
    elif pa.types.is_time64(values.type):
        first, last, numbers, text = 0, _DAY * 1_000_000, pa.int64(), "it is 24:00"
    else:
        return
    found = pc.min_max(values.view(numbers)).as_py()
    if found["min"] is not None and not first <= found["min"] <= found["max"] < last:
        raise pa.ArrowInvalid(text)
