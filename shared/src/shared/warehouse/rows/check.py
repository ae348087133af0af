"""Check Python rows before dlt writes them as JSON, which changes or refuses some of their values.

dlt stores extracted rows as JSON: NaN and infinity become NULL there, integers over 64 bits and broken
text are errors that name no column, and a Pandas timestamp loses its nanoseconds. Arrow tables are not
written as JSON, and have checks of their own.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from math import isfinite
from typing import Any, ClassVar, NoReturn
from uuid import UUID

from dlt.common.json import custom_pua_encode
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltResource, DltSource
from dlt.extract.items import TableNameMeta
from dlt.extract.items_transform import ItemTransform

from shared.lazy_modules import pyarrow as pa
from shared.warehouse.errors import RowValueError
from shared.warehouse.rows.arrow_check import reject_unstorable


class _InvalidValueError(Exception):
    """A value, its problem and what to do; `path` becomes the names and positions that lead to it."""

    def __init__(self, value: object, problem: str, advice: str) -> None:
        self.value, self.problem, self.advice = value, problem, advice
        self.path: list[str] = []


class CheckRows(ItemTransform[Any, dict[str, Any]]):
    """The last step of a resource. It passes rows on, with integers over 64 bits as decimals.

    A column of decimals or text stores such integers; for another column the schema contract decides.

    Raises:
        RowValueError: JSON cannot store a value unchanged.
    """

    placement_affinity: ClassVar[float] = 2  # behind a cursor, which drops rows

    def __init__(self, resource: DltResource) -> None:
        super().__init__(self._check_row)
        name = resource.table_name
        self._table = name if isinstance(name, str) else resource.name
        self._resource = resource
        self._rows = 0

    def __call__(self, item: Any, meta: Any = None) -> Any:
        """Return a row, a page of rows or an Arrow table, after it was checked."""
        if type(item) is dict and not _unusual(item):  # as most items are
            self._rows += 1
            return item
        if isinstance(item, (pa.Table, pa.RecordBatch)):
            reject_unstorable(item, self._table_of(meta), self._columns)
            return item
        rows = item if isinstance(item, list) else [item]
        changed = {}
        for index, row in enumerate(rows):
            if type(row) is dict and not _unusual(row):
                continue
            try:
                checked = self._check_row(row)
            except _InvalidValueError as error:
                raise self._error(error, self._rows + index + 1, meta) from None
            if checked is not row:
                changed[index] = checked
        self._rows += len(rows)
        if not changed:
            return item
        rows = [changed.get(index, row) for index, row in enumerate(rows)]
        return rows if isinstance(item, list) else rows[0]

    def _table_of(self, meta: Any) -> str:
        return meta.table_name if isinstance(meta, TableNameMeta) else self._table

    @cached_property
    def _columns(self) -> Mapping[str, TColumnSchema]:
        if self._resource.has_dynamic_table_name:
            return {}
        return self._resource.compute_table_schema()["columns"]

    def _check_row(self, row: Any) -> Any:
        if isinstance(row, dict):
            return self._check_dict(row)
        is_value = (
            isinstance(row, str | float | list) or is_dataclass(row) or hasattr(row, "model_dump")
        )
        return self._check_value(row) if is_value else row

    def _check_dict(self, row: dict[Any, Any]) -> dict[Any, Any]:
        changed = {}
        for name in _unusual(row):
            try:
                checked = self._check_value(row[name])
            except _InvalidValueError as error:
                error.path.insert(0, str(name))
                raise
            if checked is not row[name]:
                changed[name] = checked
        return {**row, **changed} if changed else row

    def _check_value(self, value: Any) -> Any:
        """Return a value, or what to load instead of it."""
        kind = type(value)
        if kind is dict:
            return self._check_dict(value)
        if kind in _FITS:
            if _FITS[kind](value):
                return value
            return Decimal(value) if kind is int else _refuse(value)
        if isinstance(value, dict):
            return self._check_dict(value)
        if isinstance(value, list | tuple):
            return self._check_list(value)
        return self._check_object(value)

    def _check_list(self, values: Any) -> Any:
        checked = []
        for position, value in enumerate(values):
            try:
                checked.append(self._check_value(value))
            except _InvalidValueError as error:
                error.path.insert(0, str(position))
                raise
        changed = any(new is not old for new, old in zip(checked, values, strict=True))
        return checked if changed else values

    def _check_object(self, value: Any) -> Any:
        """Return an object of another class, or what to load instead of it."""
        if isinstance(value, str | float | Decimal):  # of a subclass
            kind = next(kind for kind in (str, float, Decimal) if isinstance(value, kind))
            return value if _FITS[kind](value) else _refuse(value)
        if getattr(value, "nanosecond", 0):
            advice = "Round it to microseconds, or declare the column as text and write it as text"
            raise _InvalidValueError(value, "has nanoseconds, which the column would lose", advice)
        try:
            plain = value.model_dump() if hasattr(value, "model_dump") else custom_pua_encode(value)
        except TypeError:
            advice = "Convert it to a value of Python's own types"
            raise _InvalidValueError(value, f"is a {type(value).__name__}", advice) from None
        checked = self._check_value(plain)
        return value if checked is plain else checked

    def _error(self, error: _InvalidValueError, number: int, meta: Any) -> RowValueError:
        table = self._table_of(meta)
        column = ".".join(error.path) or "value"
        what = f"column {column}: {reprlib.repr(error.value)} {error.problem}, in row {number}"
        return RowValueError(table, what, f"{error.advice}, in the resource or with add_map.")


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(value: Any) -> NoReturn:
    """Raise for a text or a number that JSON has not."""
    if isinstance(value, str):
        advice = "Decode it with errors='replace', or declare the column as binary and yield bytes"
        raise _InvalidValueError(value, "is not valid Unicode text", advice)
    advice = "Replace it by None, or declare the column as text and write it as text"
    raise _InvalidValueError(value, "is not a number that every warehouse has", advice)


def _unusual(row: dict[Any, Any]) -> list[Any]:
    """Return the names of values to look into: this expression is evaluated for each value."""
    return [
        name
        for name, value in row.items()
        if not (
            (value.isascii() or _is_unicode(value))
            if (kind := type(value)) is str
            else _MIN_INTEGER <= value <= _MAX_INTEGER
            if kind is int
            else isfinite(value)
            if kind is float
            else kind in _PLAIN
        )
    ]


_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
_PLAIN: frozenset[type] = frozenset([bool, type(None), datetime, date, time, UUID, bytes])
_FITS: dict[type, Callable[[Any], bool]] = {
    str: _is_unicode,
    int: lambda number: _MIN_INTEGER <= number <= _MAX_INTEGER,
    float: isfinite,
    Decimal: Decimal.is_finite,
    **{kind: lambda _: True for kind in _PLAIN},
}
"""Whether dlt's JSON stores a value of a type unchanged. Values of other types are looked into."""


def check_rows(source: DltSource) -> None:
    """Check the rows of a source before dlt writes them."""
    for resource in source.selected_resources.values():
        resource.add_step(CheckRows(resource))
