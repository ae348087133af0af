"""Arrow values become those of the declared columns; a value that would change rejects its row."""

import base64
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, TypeVar

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import duckdb
from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as pc
from shared.sources.files.format import Batch, FileFormat, RejectedRow, show
from shared.sources.files.json_text import DECODER, dump_json
from shared.sources.quoting import quote

Item = TypeVar("Item")

_FIRST_INSTANT = datetime.min.replace(tzinfo=UTC)
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)
_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?", re.ASCII)


def check_rows(table: "pa.Table", file_format: FileFormat) -> "tuple[pa.Table, dict[int, str]]":
    """Return the rows that load, with the types of the table, and why each other row does not.

    Args:
        table: rows with some types; a column that is not there is NULL.
        file_format: what they must be.
    """
    reasons: defaultdict[int, list[str]] = defaultdict(list)
    fitting: list[pa.Array] = []
    present = {*table.column_names}
    for field, (name, hints) in zip(file_format.schema, file_format.columns.items(), strict=True):
        values = table.column(name).combine_chunks() if name in present else pa.nulls(len(table))
        try:
            fitting.append(fit(values, field.type, hints))
        except (ValueError, RecursionError):
            for index in _misfits(values, field.type, hints):
                value, kind = show(python_value(values[index])), _type_name(hints)
                reasons[index].append(f"column {name}: {value} does not fit {kind}")
        if not field.nullable and values.null_count:
            for index in pc.indices_nonzero(values.is_null()).to_pylist():
                reasons[index].append(f"column {name}: the value is missing")
    if reasons:
        good: Sequence[int] = [index for index in range(len(table)) if index not in reasons]
        typed, _ = check_rows(
            table.take(pa.array(good, pa.int64())), replace(file_format, rules={})
        )
    else:
        good = range(len(table))
        typed = pa.Table.from_arrays(fitting, schema=file_format.schema)
    if broken := _broken_rules(typed, file_format.rules):
        reasons |= {good[index]: problems for index, problems in broken.items()}
        typed = typed.filter(pa.array(index not in broken for index in range(len(typed))))
    return typed, {index: "; ".join(reasons[index]) for index in sorted(reasons)}


def check_parsed(
    items: Iterable[tuple[int, Item]],
    parse: Callable[[Item], dict[str, Any]],
    raw: Callable[[Item], str],
    file_format: FileFormat,
) -> Batch:
    """Return the rows of items that are parsed one by one.

    Args:
        items: each with its number in the file.
        parse: returns the values of an item, with the types of `parsed_schema`. It raises `ValueError`
            if the row must not load.
        raw: returns the text of an item.
        file_format: what the rows must be.
    """
    rows: list[dict[str, Any]] = []
    places: list[tuple[int, Item]] = []
    rejected: list[RejectedRow] = []
    for number, item in items:
        try:
            rows.append(parse(item))
            places.append((number, item))
        except RecursionError:
            rejected.append(RejectedRow((number,), "it is nested too deeply", raw(item)))
        except ValueError as error:
            rejected.append(RejectedRow((number,), str(error), raw(item)))
    checked, reasons = check_rows(
        pa.Table.from_pylist(rows, parsed_schema(file_format)), file_format
    )
    rejected += [
        RejectedRow((places[index][0],), reason, raw(places[index][1]))
        for index, reason in reasons.items()
    ]
    return Batch(checked, sorted(rejected))


def parsed_schema(file_format: FileFormat) -> "pa.Schema":
    """Return the types that parsed values have before `check_rows`."""
    kinds = {name: str(hints["data_type"]) for name, hints in file_format.columns.items()}
    parsed = {"bigint": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
    return pa.schema([(name, parsed.get(kind, pa.string())) for name, kind in kinds.items()])


def require_int64(value: int) -> int:
    """Return an integer; raise `ValueError` if it has more than 64 bits."""
    if not -(2**63) <= value < 2**63:
        raise ValueError(value)
    return value


def exact_double(value: float | Decimal) -> float:
    """Return a number as a double; raise `ValueError` for an integer or an infinity that it cannot have."""
    number = float(value)
    if not math.isfinite(number) or (isinstance(value, int) and int(number) != value):
        raise ValueError(value)
    return number


def _broken_rules(table: "pa.Table", rules: Mapping[str, str]) -> dict[int, list[str]]:
    problems: dict[int, list[str]] = {}
    if not rules:
        return problems
    with duckdb.connect() as connection:
        # A space in the name keeps it different from a column's.
        rows = table.append_column("the row", pa.array(range(len(table)), pa.int64()))
        connection.register("rows", rows)
        for name, rule in rules.items():
            query = f'SELECT "the row", {quote(name)} FROM rows WHERE NOT ({rule}\n)'
            try:
                broken = connection.execute(query).fetchall()
            except duckdb.Error as error:
                raise ValueError(f"the rule {rule} of column {name} fails: {error}") from None
            for index, value in broken:
                message = f"column {name}: {show(value)} breaks the rule {rule}"
                problems.setdefault(index, []).append(message)
    return problems


def python_value(value: "pa.Scalar") -> object:
    """Return a value as an object of Python; its number or bytes if there is no such object."""
    try:
        return value.as_py()
    except (ValueError, OverflowError):  # nanoseconds, years after 9999, text that is not UTF-8
        return getattr(value, "value", None) or value.as_buffer().to_pybytes()


def _misfits(
    values: "pa.Array", target: "pa.DataType", hints: TColumnSchema, first: int = 0
) -> Iterator[int]:
    """Yield the positions of the values that do not fit."""
    try:
        fit(values, target, hints)
    except (ValueError, RecursionError):
        half = len(values) // 2
        if not half:
            yield first
            return
        yield from _misfits(values[:half], target, hints, first)
        yield from _misfits(values[half:], target, hints, first + half)


def fit(values: "pa.Array", target: "pa.DataType", hints: TColumnSchema) -> "pa.Array":
    """Return values in another type, each unchanged.

    Raises:
        ValueError: a value would change. Arrow's errors are of this type.
    """
    source, types = values.type, pa.types
    if hints["data_type"] == "json":
        return pa.array(map(_json, values), target)
    if types.is_string(source) and (types.is_time(target) or types.is_binary(target)):
        parse = _time if types.is_time(target) else _base64
        return pa.array(
            [None if text is None else parse(text) for text in values.to_pylist()], target
        )
    if isinstance(source, pa.UuidType):
        return pa.array([value and str(value) for value in values.to_pylist()], target)
    if types.is_decimal(target):
        return _decimals(values, target)
    if types.is_timestamp(source) and types.is_date(target):
        # Arrow drops the time of the day.
        utc = values.cast(pa.timestamp(source.unit, source.tz and "UTC"))
        values = utc.cast(target)
        if values.cast(utc.type).fill_null(0) != utc.fill_null(0):
            raise ValueError("a time other than midnight")
    result = values.cast(target)
    if types.is_date(target) or types.is_timestamp(target):
        zone = UTC if types.is_timestamp(target) and target.tz else None
        first, last = (
            pa.scalar(day.replace(tzinfo=zone), target) for day in (_FIRST_INSTANT, _LAST_INSTANT)
        )
        inside = pc.and_(pc.greater_equal(result, first), pc.less_equal(result, last))
        if not pc.all(inside, min_count=0).as_py():
            raise ValueError("a day that Python does not have")
    if types.is_string(target):
        result.validate(full=True)  # Arrow reads text that is not UTF-8
    return result


def _decimals(values: "pa.Array", target: "pa.DataType") -> "pa.Array":
    """Return numbers, or texts of numbers, as decimals; Arrow's own casts overflow without an error."""
    source, types = values.type, pa.types
    if types.is_integer(source):
        values = values.cast(pa.decimal256(76, target.scale))  # casts by value, not by type
    elif types.is_decimal(source) and types.is_decimal128(target) and source.scale < target.scale:
        values = values.cast(pa.decimal128(38, source.scale)).cast(pa.decimal256(76, target.scale))
    result = values.cast(target)
    if types.is_string(source):
        numbers = [Decimal(text) for text in values.to_pylist() if text is not None]
        if any(n and n.adjusted() >= target.precision - target.scale for n in numbers):
            raise ValueError("more digits than the type has")
    return result


def _json(scalar: "pa.Scalar") -> str | None:
    try:
        value = scalar.as_py(maps_as_pydicts="strict")
    except KeyError as error:
        raise ValueError(str(error)) from None
    if value is None:
        return None
    if isinstance(value, str):
        DECODER.decode(value)
        return value
    return dump_json(value)


def _time(text: str) -> time:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return time.fromisoformat(text)


def _base64(text: str) -> bytes:
    return base64.b64decode(text.encode(), validate=True)


def _type_name(hints: TColumnSchema) -> str:
    if hints["data_type"] == "decimal":
        return f"decimal({hints.get('precision') or 38}, {hints.get('scale') or 0})"
    return str(hints["data_type"])
