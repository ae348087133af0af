"""How rows become tables: dlt's relational normalizer, without silent changes of names and values.

dlt finds it by the path of this module, which the stored schema has; see `with_normalizers`. A conversion
that would change a value is refused. To dlt the value then has another type than its column, so that the
schema contract decides: by default nothing is loaded.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any, NoReturn

import dlt
from dlt.common.data_types import TDataType
from dlt.common.json import custom_pua_decode
from dlt.common.normalizers.json import TNormalizedRowIterator, helpers, relational
from dlt.common.schema import Schema
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import new_table
from dlt.extract import DltSource

from shared.warehouse.dlt_internals import FlatteningNormalizer
from shared.warehouse.errors import LoadPlanError, RowValueError, show_value
from shared.warehouse.rows import naming
from shared.warehouse.rows.conversions import is_exact, limited_columns, problem_of
from shared.warehouse.rows.widening import NarrowColumnError, is_new, wider_type


class DataItemNormalizer(FlatteningNormalizer):
    """Dlt's relational normalizer; it refuses names that collide and values that a column would change.

    Raises:
        RowValueError: a row has two names of one column, no value for a column that is not nullable, or
            a value beyond the limits of its column.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        self._limited: dict[str, dict[str, TColumnSchema]] = {}
        self._name = lru_cache(maxsize=None)(
            partial(helpers.normalize_identifier, self.schema, self.naming)
        )
        self._path = lru_cache(maxsize=None)(self.naming.shorten_fragments)
        self._is_json = lru_cache(maxsize=None)(partial(helpers.is_nested_type, self.schema))
        self._current: Any = None

    def extend_table(self, table_name: str) -> None:
        """Extend a table, as dlt calls it when a table or its columns change."""
        self._limited.clear()
        self._is_json.cache_clear()
        super().extend_table(table_name)

    def normalize_data_item(
        self, item: Any, load_id: str, table_name: str
    ) -> TNormalizedRowIterator:
        """Yield the rows of an item, its own and the nested ones, with their tables."""
        rows = super().normalize_data_item(item, load_id, table_name)
        descend: Any = None
        try:
            while True:
                found = rows.send(descend)
                self._current = found
                limited = self._limited.get(found[0][0])
                if limited is None:
                    limited = self._limited[self._table] = limited_columns(self._columns())
                if limited:
                    self._check_limits(limited)
                descend = yield found
        except StopIteration:
            return

    def coerce_type(self, to_type: TDataType, from_type: TDataType, value: Any) -> Any:
        """Convert a value to the type of its column.

        Raises:
            ValueError: it cannot be converted, or the conversion would change it.
        """
        try:
            converted = super().coerce_type(to_type, from_type, value)
            exact = to_type == from_type or is_exact(to_type, from_type, value, converted)
        except (ValueError, SyntaxError):
            exact = False
        if not exact:
            name = self._column_of(value, to_type)
            if name and is_new(self._table, name):
                raise self._narrow(name, wider_type(to_type, from_type))
            if name and (to_type, from_type) == ("timestamp", "text"):
                # dlt would parse it again, as the first value of a column for texts, and fail.
                self._refuse(name, value, "does not fit microseconds, or is not a timestamp")
            raise ValueError(value)
        limited = to_type == from_type and to_type in ("decimal", "time")
        if limited and (name := self._column_of(value, None)):
            # It is the first value of a column, whose limits are not in the schema yet.
            self._check({"name": name, "data_type": to_type}, value)
        return converted

    def reject_collisions(self, table: str, row: Mapping[str, Any], level: int) -> None:
        """Raise if two names of a row are one column, or two lists one nested table."""
        names: dict[str, str] = {}
        stack: list[tuple[Mapping[str, Any], int, tuple[str, ...], str]] = [(row, level, (), "")]
        while stack:
            current, depth, path, prefix = stack.pop()
            for raw, value in current.items():
                blank = not raw or raw.isspace()
                name = self.EMPTY_KEY_IDENTIFIER if blank else self._name(raw)
                column = self._path(*path, name)
                kind = type(value)
                nested = kind in (dict, list) and not self._is_json(table, column, depth)
                if nested and kind is dict:
                    stack.append((value, depth - 1, (*path, name), f"{prefix}{raw}."))
                    continue
                key = f"table {table}__{column}" if nested else f"column {column}"
                if key in names:
                    raise RowValueError(
                        table,
                        f"{key} would have the values of {names[key]!r} and of {prefix + raw!r}",
                        "Rename or remove one of them in the resource, or with add_map.",
                    )
                names[key] = prefix + raw

    @property
    def _table(self) -> str:
        """The table of the current row."""
        return str(self._current[0][0])

    @property
    def _row(self) -> dict[str, Any]:
        """The current row, with the values of dlt's JSON until they are converted."""
        row: dict[str, Any] = self._current[1]
        return row

    def _check_limits(self, limited: Mapping[str, TColumnSchema]) -> None:
        row = self._row
        for name, column in limited.items():
            value = row.get(name)
            if value is not None:
                self._check(column, value)
            elif not column.get("nullable", True) and not self._is_empty():
                self._refuse(name, value, "has no value")

    def _is_empty(self) -> bool:
        """Return whether dlt requests the columns of a table without rows, by an empty row."""
        return all(name.startswith("_dlt") for name in self._row)

    def _check(self, column: TColumnSchema, value: Any) -> None:
        problem = problem_of(column, value)
        if problem is None:
            return
        name = str(column["name"])
        if is_new(self._table, name):
            raise self._narrow(name, "text")
        self._refuse(name, value, problem)

    def _refuse(self, name: str, value: Any, problem: str) -> NoReturn:
        row = {
            name: custom_pua_decode(other)
            for name, other in self._row.items()
            if not name.startswith("_dlt")
        }
        what = f"column {name}: {show_value(custom_pua_decode(value))} {problem}"
        advice = "Convert or remove it in the resource or with add_map, or declare another type."
        if value is None:
            key = ", is in the primary key" * bool(self._columns()[name].get("primary_key"))
            what = f"column {name} {problem}{key} and is not nullable"
            advice = "Remove such rows, or give them a value, in the resource or with add_map."
        raise RowValueError(self._table, f"{what}, in row {show_value(row)}", advice)

    def _columns(self) -> Mapping[str, TColumnSchema]:
        return self.schema.tables.get(self._table, {"columns": {}})["columns"]

    def _column_of(self, value: Any, data_type: TDataType | None) -> str:
        """Return the column of a value of the current row, by the column's type, or ""."""
        for name, other in self._row.items():
            known = self._columns().get(name, {}).get("data_type")
            if other is value and known in (None, data_type):
                return name
        return ""

    def _narrow(self, column: str, data_type: TDataType) -> NarrowColumnError:
        known = self.schema.tables.get(self._table)
        tables = [
            known or new_table(self._table, self.naming.shorten_fragments(*self._current[0][1]))
        ]
        while parent := tables[-1].get("parent"):
            tables.append(self.schema.tables[parent])
        return NarrowColumnError(tables, column, data_type)


def with_normalizers(schema: Schema) -> Schema:
    """Return a schema that writes names and converts values as this package does.

    A schema with another naming convention or normalizer than dlt's default is returned unchanged, and so
    is one for which a setting names a convention. Tables with rows keep their names: this convention
    does not change what `snake_case` wrote. dlt's `update_normalizers` would refuse it nevertheless.
    """
    stored: Any = schema.to_dict(bump_version=False)
    normalizers = deepcopy(stored["normalizers"])
    if schema.naming.name() == "snake_case" and dlt.config.get("schema.naming") is None:
        normalizers["names"] = naming.__name__
    if normalizers["json"]["module"] == relational.__name__:
        normalizers["json"]["module"] = __name__
    if normalizers == stored["normalizers"]:
        return schema
    stored = deepcopy({**stored, "normalizers": normalizers})
    return Schema.from_stored_schema(stored)


def without_normalizers(schema: Schema) -> Schema:
    """Return a schema in its stored form: with dlt's names for what `with_normalizers` changed.

    So programs of plain dlt, which do not have this package, can read it.
    """
    stored: Any = schema.to_dict()
    normalizers = deepcopy(stored["normalizers"])
    if normalizers["names"] == naming.__name__:
        normalizers["names"] = "snake_case"
    if normalizers["json"]["module"] == __name__:
        normalizers["json"]["module"] = relational.__name__
    if normalizers == stored["normalizers"]:
        return schema
    stored = deepcopy({**stored, "normalizers": normalizers})
    return Schema.from_dict(stored)


def reject_colliding_columns(source: DltSource) -> None:
    """Stop a load that declares two names for one column of a table.

    Raises:
        LoadPlanError: it names both.
    """
    names = source.schema.naming
    for resource in source.selected_resources.values():
        known: dict[str, str] = {}
        for raw in resource.columns if isinstance(resource.columns, dict) else ():
            column = names.normalize_path(raw)
            if known.setdefault(column, raw) != raw:
                raise LoadPlanError(
                    f"{resource.name} declares {known[column]!r} and {raw!r}, which are both the column "
                    f"{column} in the warehouse. Rename or remove one of them."
                )
