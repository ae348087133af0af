"""What to say when upstream or the code does not fit a table, with the command that would change it."""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dlt.common.schema import Schema
from dlt.common.schema.exceptions import DataValidationError
from dlt.common.typing import VARIANT_FIELD_FORMAT

from shared.warehouse.errors import (
    MigrationError,
    SchemaContractError,
    UnknownTableError,
    WarehouseError,
    WarehouseNotFoundError,
    show_value,
)
from shared.warehouse.schema.change import (
    TableChange,
    format_type,
    renamed_columns,
    renamed_tables,
)
from shared.warehouse.schema.migrate import plan_migration

_VARIANT_SEPARATOR = "__" + VARIANT_FIELD_FORMAT % ""
_INCOMING = re.compile(r"Incoming column: (\{.*?\})\.(?: |$)", re.DOTALL)

_WIDER = {
    ("bigint", "double"): "double",
    ("bigint", "decimal"): "decimal",
    ("decimal", "double"): "double",
    ("date", "timestamp"): "timestamp",
    ("bool", "bigint"): "bigint",
}
"""The type that has the values of both, by a column's type and the type that upstream sent."""

_CHANGE_THE_CODE = "Change the resource's columns or its schema_contract if upstream is right."


def contract_violation_message(
    violation: DataValidationError,
    dataset: str,
    schema: Schema | None,
    where: str,
) -> str:
    """Return what does not fit which column, where, and what to do about it.

    Args:
        violation: what dlt raised.
        dataset: the dataset of the table.
        schema: the source's schema, with what is stored; None before the first load.
        where: the partitions that the load replaces in the table, if any.
    """
    stored = schema.tables.get(violation.table_name, {}) if schema else {}
    what, advice = _explain(violation, dataset, stored)
    return f"{what}{where}; nothing was loaded. {advice}"


def _explain(
    violation: DataValidationError, dataset: str, stored: Mapping[str, Any]
) -> tuple[str, str]:
    """Return what does not fit, and what to do about it."""
    name = violation.table_name
    table = f"{dataset}.{name}"
    model: Any = violation.table_schema
    if model is not None and not isinstance(model, dict):  # Pydantic, which names its fields
        return f"{table}: {violation}", _CHANGE_THE_CODE
    item = violation.data_item if isinstance(violation.data_item, dict) else {}
    example = f"such as {show_value(item.get(violation.column_name))}"
    # dlt would put a value of another type into its own column, named <column>__v_<type>.
    column, variant, sent = str(violation.column_name).partition(_VARIANT_SEPARATOR)
    if violation.schema_entity == "columns":
        what = f"{table} has no column {column} and upstream sent one, {example}"
        if new := renamed_columns(stored).get(column):
            return what, _renamed(TableChange(dataset, name, new, rename_to=column), column, new)
        return what, _CHANGE_THE_CODE
    columns = (violation.table_schema or {}).get("columns", {})
    if variant:
        declared = str(columns[column]["data_type"])
        what = f"{table}.{column} is {declared} and upstream sent {sent}, {example}"
        wider = _WIDER.get((declared, sent), "text")
        return what, _advise(TableChange(dataset, name, column, data_type=wider))
    incoming = _INCOMING.search(str(violation))
    if not incoming or violation.column_name not in columns:
        return str(violation), _CHANGE_THE_CODE
    return _explain_declaration(
        TableChange(dataset, name, column), columns[column], ast.literal_eval(incoming[1])
    )


def _explain_declaration(
    column: TableChange, stored: Mapping[str, Any], declared: Mapping[str, Any]
) -> tuple[str, str]:
    """Return how the declaration of a column differs from the table, and what to do about it."""
    name = f"{column.qualified_table}.{column.column}"
    sizes = ("data_type", "precision", "scale")
    if any(declared[size] != stored.get(size) for size in sizes if size in declared):
        is_other_type = declared.get("data_type", stored["data_type"]) != stored["data_type"]
        new = format_type(declared if is_other_type else {**stored, **declared})
        what = f"{name} is {format_type(stored)} and the resource's columns say {new}"
        return what, _advise(_with(column, data_type=new))
    if "nullable" in declared and declared["nullable"] != stored.get("nullable", True):
        may_be_null = bool(declared["nullable"])
        says = "may be NULL" if may_be_null else "is never NULL"
        is_now = "is never NULL" if may_be_null else "may be NULL"
        what = f"{name} {is_now} and the resource says that it {says}"
        return what, _advise(_with(column, nullable=may_be_null))
    return (
        f"{name} is {dict(stored)} and the resource's columns say {dict(declared)}",
        _CHANGE_THE_CODE,
    )


def _with(column: TableChange, **what: Any) -> TableChange:
    return TableChange(column.dataset, column.table, column.column, **what)


def _advise(change: TableChange) -> str:
    """Return the command that makes a change, if it is possible, otherwise why it is not."""
    try:
        plan_migration(change)
    except (UnknownTableError, WarehouseNotFoundError):
        return f"The table is new: declare a type that has all values, columns={{{change.column!r}: …}}."
    except MigrationError as error:
        return f"{_CHANGE_THE_CODE} The table cannot be changed: {error}"
    except (WarehouseError, OSError):  # the next load says what is wrong with the warehouse
        return _CHANGE_THE_CODE
    return f"{_CHANGE_THE_CODE} To change the table, run: {change.command}"


def _renamed(back: TableChange, old: str, new: str) -> str:
    reuse = TableChange(back.dataset, back.table, reuse_name=old)
    return (
        f"{old} was renamed to {new}: change the code; or allow a new {back.kind} {old}: "
        f"{reuse.command}; or rename it back: {back.command}"
    )


def reject_renamed(schema: Schema, dataset: str) -> None:
    """Stop a load whose code writes into a table or a column by the name that it had before.

    dlt would create it again, and the rows would be in two places.

    Raises:
        SchemaContractError: the schema has both names.
    """
    for message in _renamed_messages(schema, dataset):
        raise SchemaContractError(message)


def _renamed_messages(schema: Schema, dataset: str) -> Iterator[str]:
    for old, new in renamed_tables(schema).items():
        if old in schema.tables:
            back = TableChange(dataset, new, rename_to=old)
            yield f"The code loads the table {dataset}.{old}; nothing was loaded. {_renamed(back, old, new)}"
    for table in schema.tables.values():
        name = str(table["name"])
        for old, new in renamed_columns(table).items():
            if old in table["columns"]:
                back = TableChange(dataset, name, new, rename_to=old)
                what = f"The code or upstream sends {dataset}.{name}.{old}; nothing was loaded."
                yield f"{what} {_renamed(back, old, new)}"
