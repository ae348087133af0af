"""Check Python rows before dlt writes them as JSON, which changes or refuses some of their values.

dlt stores extracted rows as JSON: NaN and infinity become NULL there, integers over 64 bits and broken
text are errors that name no column, and a Pandas timestamp loses its nanoseconds. Arrow tables are not
written as JSON, and pass unchecked.
"""

import reprlib
from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any, ClassVar, NoReturn
from uuid import UUID

import dlt
from dlt.common.json import custom_pua_encode
from dlt.extract import DltResource, DltSource
from dlt.extract.items import TableNameMeta
from dlt.extract.items_transform import ItemTransform

from shared.warehouse.errors import RowValueError
from shared.warehouse.row_normalizer import use_normalizers

_MAX_SHAPES = 10_000  # of rows whose names were checked; more are forgotten


class _InvalidValueError(Exception):
    """A value, its problem and what to do; `path` becomes the names and positions that lead to it."""

    def __init__(self, value: object, problem: str, advice: str) -> None:
        self.value, self.problem, self.advice = value, problem, advice
        self.path: list[str] = []


class CheckRows(ItemTransform[Any, dict[str, Any]]):
    """The last step of a resource. It passes rows on, with integers over 64 bits as decimals.

    A column of decimals or text stores such integers; for another column the schema contract decides.

    Raises:
        RowValueError: JSON cannot store a value or a name unchanged.
    """

    placement_affinity: ClassVar[float] = 2  # behind a cursor, which drops rows

    def __init__(self, resource: DltResource) -> None:
        super().__init__(self._check_row)
        name = resource.table_name
        self._table = name if isinstance(name, str) else resource.name
        self._rows = 0
        self._shapes: set[tuple[Any, ...]] = set()

    def __call__(self, item: Any, meta: Any = None) -> Any:
        """Return a row or a page of rows, after it was checked."""
        rows = item if isinstance(item, list) else [item]
        changed = {}
        for index, row in enumerate(rows):
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

    def _check_row(self, row: Any) -> Any:
        if isinstance(row, dict):
            return self._check_dict(row)
        is_value = (
            isinstance(row, str | float | list) or is_dataclass(row) or hasattr(row, "model_dump")
        )
        return self._check_value(row) if is_value else row

    def _check_dict(self, row: dict[Any, Any]) -> dict[Any, Any]:
        names = tuple(row)
        if names not in self._shapes:
            self._check_names(names)
        changed: dict[Any, Any] = {}
        name: Any = None
        try:
            for name, value in row.items():
                fits = _FITS.get(type(value))
                if fits is not None and fits(value):
                    continue
                checked = self._check_value(value)
                if checked is not value:
                    changed[name] = checked
        except _InvalidValueError as error:
            error.path.insert(0, str(name))
            raise
        return {**row, **changed} if changed else row

    def _check_names(self, names: tuple[Any, ...]) -> None:
        for name in names:
            if not _is_unicode(str(name)):
                raise _InvalidValueError(name, "is a name that is not valid Unicode", "Rename it")
        if len({str(name) for name in names}) < len(names):
            raise _InvalidValueError(
                names, "has names that are equal as text", "Rename one of them"
            )
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        self._shapes.add(names)

    def _check_value(self, value: Any) -> Any:
        """Return a value, or what to load instead of it."""
        fits = _FITS.get(type(value))
        if fits is not None:
            if fits(value):
                return value
            return Decimal(value) if type(value) is int else _refuse(value)
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
        table = meta.table_name if isinstance(meta, TableNameMeta) else self._table
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


_FITS: dict[type, Callable[[Any], bool]] = {
    str: lambda text: text.isascii() or _is_unicode(text),
    int: range(-(2**63), 2**63).__contains__,
    float: isfinite,
    Decimal: Decimal.is_finite,
    **dict.fromkeys([bool, type(None), datetime, date, time, UUID, bytes], lambda _: True),
}
"""Whether dlt's JSON stores a value of a type unchanged. Values of other types are looked into."""


def prepare_rows(pipeline: dlt.Pipeline, source: DltSource) -> None:
    """Check the rows of a source before they are extracted, and update schemas of earlier versions."""
    for name in pipeline.schemas:
        use_normalizers(pipeline.schemas[name])
    for resource in source.selected_resources.values():
        resource.add_step(CheckRows(resource))
