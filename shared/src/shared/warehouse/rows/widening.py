"""Widen a column that a load creates, when its first rows have values of several types.

dlt gives a new column the type of its first value: 10, and then 10.5 does not fit. The rows of a load are
extracted before they are normalized, so that they can be normalized again with a wider type. The schema
contract decides about columns that are declared or are in the warehouse, and about all columns if dlt's
`normalize.workers` starts processes.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import dlt
from dlt.common.data_types import TDataType
from dlt.common.pipeline import NormalizeInfo
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.common.schema.utils import is_complete_column
from dlt.pipeline.exceptions import PipelineStepFailed

from shared.warehouse.errors import find_cause

_WIDER: dict[tuple[str, str], TDataType] = {
    ("bigint", "double"): "double",
    ("bigint", "decimal"): "decimal",
    ("double", "bigint"): "decimal",  # an integer that double would round
    ("double", "decimal"): "decimal",
    ("date", "timestamp"): "timestamp",
}
"""The type for a column of the first type that gets a value of the second; text for all others."""

_known: ContextVar[frozenset[tuple[str, str]]] = ContextVar("known columns")


class NarrowColumnError(Exception):
    """A new column has to be wider: `normalize` gives it the type and starts again.

    Attributes:
        tables: the column's table, then the tables that it is nested in, as the load has them.
        column: its name.
        data_type: the type that it needs.
    """

    def __init__(self, tables: Sequence[TTableSchema], column: str, data_type: TDataType) -> None:
        super().__init__(tables, column, data_type)
        self.tables, self.column, self.data_type = tables, column, data_type
        self.key = (str(tables[0]["name"]), column, data_type)


def is_new(table: str, column: str) -> bool:
    """Return whether the running load creates a column, and infers its type."""
    known = _known.get(None)
    return known is not None and (table, column) not in known


def wider_type(data_type: TDataType, other: TDataType) -> TDataType:
    """Return the type for a column of one type that has to hold a value of another."""
    return _WIDER.get((data_type, other), "text")


def normalize(pipeline: dlt.Pipeline, schema: Schema) -> NormalizeInfo:
    """Normalize what a pipeline extracted, and widen new columns until their values fit.

    Args:
        pipeline: the pipeline, extracted.
        schema: its schema of the source.

    Raises:
        PipelineStepFailed: a column that is not new does not accept a value, or what else failed.
    """
    known = {
        (table_name, name)
        for table_name, table in schema.tables.items()
        for name, column in table["columns"].items()
        if is_complete_column(column)
    }
    widened: set[tuple[str, str, str]] = set()
    token = _known.set(frozenset(known))
    try:
        while True:
            try:
                return pipeline.normalize()
            except PipelineStepFailed as error:
                narrow = find_cause(error, NarrowColumnError)
                if narrow is None or narrow.key in widened:
                    raise
                widened.add(narrow.key)
            _widen(schema, narrow)
            pipeline.schemas.save_schema(schema)
    finally:
        _known.reset(token)


def _widen(schema: Schema, narrow: NarrowColumnError) -> None:
    tables: list[Any] = [{**table, "columns": {}} for table in narrow.tables]
    for table in reversed(tables):
        if table["name"] not in schema.tables:
            schema.update_table(table, normalize_identifiers=False)
    table = tables[0]
    if schema.is_new_table(table["name"]):
        # Its other columns are still to come; dlt marks the tables that it creates in the same way.
        table["x-normalizer"] = {**table.get("x-normalizer", {}), "evolve-columns-once": True}
    known = schema.tables[table["name"]]["columns"].get(narrow.column, {"name": narrow.column})
    table["columns"] = {narrow.column: {**known, "data_type": narrow.data_type}}
    schema.update_table(table, normalize_identifiers=False)
