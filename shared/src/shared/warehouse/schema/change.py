"""One change of a table in a schema of dlt, and what it means for code that was written before it."""

import re
import shlex
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any, get_args

import yaml
from dlt.common.data_types import TDataType
from dlt.common.schema import Schema
from dlt.common.schema.utils import get_nested_tables

from shared.sources.protocol import COMPANION_TABLES_HINT
from shared.warehouse.errors import MigrationError
from shared.warehouse.rows.normalizer import with_normalizers

RENAMED_COLUMNS_HINT = "x-renamed-columns"
"""A table hint: the new name of each column that was renamed, by its old name."""

RENAMED_FROM_HINT = "x-renamed-from"
"""A table hint: the names that the table had before."""

_TYPE = re.compile(r"(\w+)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?")


@dataclass(frozen=True)
class TableChange:
    """One change: exactly one of `rename_to`, `data_type`, `nullable`, `drop` and `reuse_name`.

    Attributes:
        dataset: the dataset.
        table: the table.
        column: the column; None to rename the table.
        rename_to: the new name of the column or the table.
        data_type: the column's new type, as dlt names it, such as `double` or `decimal(18,4)`.
        nullable: whether the column may be NULL.
        drop: whether the column is dropped.
        reuse_name: a former name, of the table or a column, that something new may have.
    """

    dataset: str
    table: str
    column: str | None = None
    rename_to: str | None = None
    data_type: str | None = None
    nullable: bool | None = None
    drop: bool = False
    reuse_name: str | None = None

    @property
    def qualified_table(self) -> str:
        """The table with its dataset."""
        return f"{self.dataset}.{self.table}"

    @property
    def kind(self) -> str:
        """What is changed: a column or a table."""
        return "column" if self.column else "table"

    @property
    def command(self) -> str:
        """The command that makes the change."""
        words = ["etl", "migrate", self.qualified_table]
        for option, value in (
            ("--column", self.column),
            ("--rename-to", self.rename_to),
            ("--type", self.data_type),
            ("--reuse-name", self.reuse_name),
        ):
            words += [option, value] if value else []
        if self.nullable is not None:
            words.append("--nullable" if self.nullable else "--not-null")
        return shlex.join([*words, *(["--drop"] if self.drop else [])])


def change_schema(schema: Schema, change: TableChange) -> Schema:
    """Return a schema with a change, as its next version.

    Raises:
        MigrationError: the change is not possible, whatever the rows are.
    """
    stored: Any = deepcopy(schema.to_dict())
    if change.reuse_name:
        _forget_name(stored["tables"][change.table], change)
    elif change.column is None:
        _rename_table(stored["tables"], schema, change)
    else:
        if change.column.startswith("_dlt_"):
            raise MigrationError(f"{change.column} is a column of dlt, which loads need as it is.")
        table = stored["tables"][change.table]
        if change.column not in table["columns"]:
            raise MigrationError(
                f"{change.qualified_table} has no column {change.column}; it has "
                f"{', '.join(name for name in table['columns'] if not name.startswith('_dlt_'))}."
            )
        _change_column(table, schema, change)
    return Schema.from_dict(stored)


def _change_column(table: dict[str, Any], schema: Schema, change: TableChange) -> None:
    name = str(change.column)
    columns: dict[str, Any] = table["columns"]
    hints = columns[name]
    if change.rename_to:
        new = _normalized(
            change.rename_to, with_normalizers(schema).naming.normalize_identifier(change.rename_to)
        )
        table["columns"] = {
            (new if key == name else key): ({**value, "name": new} if key == name else value)
            for key, value in columns.items()
        }
        renamed = dict(table.get(RENAMED_COLUMNS_HINT, {}))
        renamed = {old: (new if to == name else to) for old, to in renamed.items()}
        _set(
            table,
            RENAMED_COLUMNS_HINT,
            {key: to for key, to in {**renamed, name: new}.items() if key != to},
        )
    elif change.drop:
        del columns[name]
        renamed = table.get(RENAMED_COLUMNS_HINT, {})
        _set(table, RENAMED_COLUMNS_HINT, {old: to for old, to in renamed.items() if to != name})
    else:
        before = dict(hints)
        if change.nullable is not None:
            hints["nullable"] = change.nullable
        else:
            for size in ("precision", "scale", "timezone"):
                hints.pop(size, None)
            hints |= parse_type(str(change.data_type))
        if hints == before:
            what = change.data_type or ("nullable" if change.nullable else "not nullable")
            raise MigrationError(f"{change.qualified_table}.{name} is {what} already.")


def _rename_table(tables: dict[str, Any], schema: Schema, change: TableChange) -> None:
    """Rename a table and those nested in it; the resource that loads it keeps its name, and its state."""
    old, new = change.table, str(change.rename_to)
    _normalized(new, with_normalizers(schema).naming.normalize_table_identifier(new))
    if parent := tables[old].get("parent"):
        raise MigrationError(
            f"{change.qualified_table} is nested in {parent}, and is named after it: rename that table."
        )
    names = {}
    for nested in get_nested_tables(schema.tables, old):
        name = str(nested["name"])
        if name != old and not name.startswith(f"{old}__"):
            raise MigrationError(f"{name} is nested in {old}, and its name is shortened.")
        names[name] = _normalized(
            renamed := new + name.removeprefix(old),
            with_normalizers(schema).naming.normalize_tables_path(renamed),
        )
    former = [name for name in [*tables[old].get(RENAMED_FROM_HINT, []), old] if name != new]
    _set(tables[old], RENAMED_FROM_HINT, former)
    for name, table in list(tables.items()):
        if table.get("parent") in names:
            table["parent"] = names[table["parent"]]
        for reference in table.get("references", []):
            target = reference["referenced_table"]
            reference["referenced_table"] = names.get(target, target)
        if companions := table.get(COMPANION_TABLES_HINT):
            table[COMPANION_TABLES_HINT] = [names.get(item, item) for item in companions]
        if name in names:
            del tables[name]
            tables[names[name]] = {**table, "name": names[name]}


def _forget_name(table: dict[str, Any], change: TableChange) -> None:
    former, renamed = table.get(RENAMED_FROM_HINT, []), table.get(RENAMED_COLUMNS_HINT, {})
    if change.reuse_name not in (*former, *renamed):
        raise MigrationError(
            f"{change.reuse_name} is not a former name of {change.qualified_table} or of its columns."
        )
    _set(table, RENAMED_FROM_HINT, [name for name in former if name != change.reuse_name])
    kept = {old: new for old, new in renamed.items() if old != change.reuse_name}
    _set(table, RENAMED_COLUMNS_HINT, kept)


def _set(table: dict[str, Any], hint: str, value: Any) -> None:
    """Set a hint, or remove it if it says nothing."""
    table.pop(hint, None)
    if value:
        table[hint] = value


def _normalized(name: str, normalized: str) -> str:
    if name != normalized:
        raise MigrationError(f"{name} is not a name that loads can use; {normalized} is.")
    return name


def parse_type(text: str) -> dict[str, Any]:
    """Return dlt's hints of a type such as `double` or `decimal(18,4)`.

    Raises:
        MigrationError: dlt has no such type.
    """
    parts = _TYPE.fullmatch(text.strip())
    if not parts or parts[1] not in get_args(TDataType):
        raise MigrationError(
            f"{text} is not a type of dlt; it must be one of {', '.join(get_args(TDataType))}, with a "
            "precision and a scale if it needs them: decimal(18,4)."
        )
    sizes = zip(("precision", "scale"), parts.groups()[1:], strict=True)
    return {"data_type": parts[1], **{size: int(value) for size, value in sizes if value}}


def format_type(hints: Mapping[str, Any]) -> str:
    """Return a column's type as `parse_type` reads it."""
    sizes = [str(hints[size]) for size in ("precision", "scale") if hints.get(size) is not None]
    return str(hints["data_type"]) + (f"({','.join(sizes)})" if sizes else "")


def describe_difference(before: Schema, after: Schema) -> Iterator[str]:
    """Yield the lines that differ between two versions of a schema."""
    yield f"schema {after.name}, version {before.stored_version} to {after.stored_version}"
    old, new = (
        yaml.safe_dump(
            {
                name: table
                for name, table in schema.tables.items()
                if table != other.tables.get(name)
            },
            sort_keys=False,
        ).splitlines()
        for schema, other in ((before, after), (after, before))
    )
    for line in unified_diff(old, new, n=2, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield line


def renamed_columns(table: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the new name of each renamed column of a table, by its old name."""
    return table.get(RENAMED_COLUMNS_HINT) or {}


def renamed_tables(schema: Schema) -> Mapping[str, str]:
    """Return the new name of each renamed table of a schema, by its old name."""
    return {
        old: str(table["name"])
        for table in schema.tables.values()
        for old in table.get(RENAMED_FROM_HINT) or ()  # type: ignore[attr-defined]
    }
