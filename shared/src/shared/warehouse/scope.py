"""What one load replaces, and what its steps share."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import sqlglot
from dlt.common.data_writers.escape import escape_postgres_identifier
from dlt.common.schema.typing import TColumnSchema
from dlt.common.time import ensure_datetime

from shared.sources.partitions import PartitionKey, TimeWindow, merge_windows
from shared.warehouse.appends import Appends
from shared.warehouse.comments import Descriptions
from shared.warehouse.errors import LoadPlanError
from shared.warehouse.locks.base import Log, no_log

HEX_DECODE_SQL = {
    "duckdb": "decode(from_hex('{}'))",
    "postgres": "convert_from(decode('{}', 'hex'), 'UTF8')",
    "snowflake": "hex_decode_string('{}')",
    "bigquery": "safe_convert_bytes_to_string(from_hex('{}'))",
    "clickhouse": "unhex('{}')",
    "databricks": "decode(unhex('{}'), 'UTF-8')",
}
"""SQL for a text that is written in hexadecimal, by dialect."""

Escape = Callable[[str], str]

PARTITION_COLUMN = "_partition"
"""The column that a load adds to the rows of a resource that marks no partition column."""


class Bound(NamedTuple):
    """The values of a column that belong to a partition: one, or those in `[value, end)`."""

    column: str
    value: Any
    end: Any = None


@dataclass(frozen=True)
class PartitionScope:
    """The rows of a table that a load replaces: those of some partitions.

    Attributes:
        resource: the resource that loads the table.
        tables: the tables that it is known to load.
        columns: the partition column of each dimension; the name is empty if there is one dimension. A
            column that is None is the resource's cursor, which is known after the extraction.
        partitions: the partitions.
        types: the partition columns as the table has them, once they are known.
    """

    resource: str
    tables: tuple[str, ...]
    columns: Mapping[str, str | None]
    partitions: tuple[PartitionKey, ...]
    types: Mapping[str, TColumnSchema] = field(default_factory=dict)

    @property
    def column_names(self) -> list[str]:
        """The partition columns that are known."""
        return [column for column in self.columns.values() if column]

    def bounds(self, partition: PartitionKey) -> list[Bound]:
        """Return which values of each column belong to a partition.

        Raises:
            LoadPlanError: the column's type has no such values.
        """
        return [
            self._bound(column, partition.dimensions.get(dimension, partition))
            for dimension, column in self.columns.items()
            if column
        ]

    def _bound(self, column: str, key: PartitionKey) -> Bound:
        hints = self.types.get(column, {})
        data_type = str(hints.get("data_type", "text"))
        try:
            if key.window and data_type == "date":
                return Bound(column, *map(_midnight, key.window))
            if key.window and data_type == "timestamp":
                return Bound(column, *(_in_zone_of(time, hints) for time in key.window))
            return Bound(column, _PARSERS[data_type](key, hints))
        except (ArithmeticError, KeyError, ValueError) as error:
            raise LoadPlanError(
                f"{self.resource}.{column} is {data_type}, which cannot be compared with the partition "
                f"{str(key)!r} ({error}); nothing was loaded. Mark a column whose values are the keys of "
                "the partitions, or a date or timestamp in their time window."
            ) from None

    def to_sql(self, dialect: str = "duckdb", escape: Escape = escape_postgres_identifier) -> str:
        """Return the condition for these rows."""
        groups: dict[tuple[str, ...], list[Bound]] = {}
        for partition in self.partitions:
            *first, last = self.bounds(partition)
            fixed = tuple(_condition([bound], dialect, escape) for bound in first)
            groups.setdefault(fixed, []).append(last)
        conditions = [
            " AND ".join([*fixed, _condition(bounds, dialect, escape)])
            for fixed, bounds in groups.items()
        ]
        return conditions[0] if len(conditions) == 1 else f"({') OR ('.join(conditions)})"

    def excluding(self, keys: Sequence[str]) -> "PartitionScope":
        """Return the scope without some partitions."""
        return replace(self, partitions=tuple(key for key in self.partitions if key not in keys))


def _midnight(timestamp: datetime) -> date:
    if timestamp.timetz().replace(tzinfo=None) != time():
        raise ValueError(f"its window has the time {timestamp:%H:%M}, and a date has none")
    return timestamp.date()


def _in_zone_of(timestamp: datetime, hints: TColumnSchema) -> datetime:
    """Return a timestamp in the form that dlt stores: in UTC, without the zone if the column has none."""
    timestamp = ensure_datetime(timestamp).astimezone(UTC)
    return timestamp if hints.get("timezone", True) else timestamp.replace(tzinfo=None)


def _timestamp(key: str, hints: TColumnSchema) -> datetime:
    timestamp = datetime.fromisoformat(key)
    return _in_zone_of(timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC), hints)


_PARSERS: Mapping[str, Callable[[str, TColumnSchema], Any]] = {
    "text": lambda key, _: str(key),
    "bigint": lambda key, _: int(key),
    "double": lambda key, _: float(key),
    "decimal": lambda key, _: Decimal(key),
    "wei": lambda key, _: Decimal(key),
    "bool": lambda key, _: {"true": True, "false": False}[key.lower()],
    "date": lambda key, _: date.fromisoformat(key),
    "timestamp": _timestamp,
}
"""The value of a column for a partition's key, by the column's type."""


def _condition(bounds: Sequence[Bound], dialect: str, escape: Escape) -> str:
    """Return the condition of the rows that have any of the bounds of one column."""
    column = escape(bounds[0].column)
    if bounds[0].end is None:
        values = ", ".join(sql_literal(bound.value, dialect) for bound in bounds)
        return f"{column} IN ({values})"
    windows = merge_windows([TimeWindow(bound.value, bound.end) for bound in bounds])
    ranges = [
        f"{column} >= {sql_literal(start, dialect)} AND {column} < {sql_literal(end, dialect)}"
        for start, end in windows
    ]
    return ranges[0] if len(ranges) == 1 else f"(({') OR ('.join(ranges)}))"


def sql_literal(value: Any, dialect: str) -> str:
    """Return SQL for a value that survives what dlt does to the text of a merge.

    dlt splits that text at every semicolon, joins its lines, fills its braces, and uses no transaction
    if it contains ALTER SCHEMA. A file name can contain any of these.
    """
    if isinstance(value, bool | int | float | Decimal):
        return str(value).upper()
    if isinstance(value, date):
        kind = "date"
        if isinstance(value, datetime):
            kind = "timestamptz" if value.tzinfo else "timestamp"
        return f"CAST('{value.isoformat()}' AS {_type_sql(kind, dialect)})"
    if re.fullmatch(r"[\w.:/-]*", value, re.ASCII):
        return f"'{value}'"
    return HEX_DECODE_SQL[dialect].format(value.encode().hex())


@cache  # a run of a thousand days writes a thousand literals, several times
def _type_sql(kind: str, dialect: str) -> str:
    return sqlglot.exp.DataType.build(kind).sql(dialect)


@dataclass
class LoadState:
    """What the steps of one load share; dlt's clients and jobs read and update it.

    Attributes:
        partition_scopes: the rows to replace, by table.
        force_reload: whether files are read although the table has their rows, unchanged.
        log: receives what is skipped.
        working_dir: a directory of this load.
        verify_lock: raises if the load has lost its locks. Called before rows are replaced.
        pushdown_tables: the tables that the warehouse fills by a query.
        pushdown_selects: those queries, if the warehouse itself cannot run them, by name.
        fingerprints: change when the rows of those queries change.
        pre_commit_checks: raise if the rows of those queries must not be committed.
        rows_inserted: rows that those queries inserted, by table.
        memory_limits: the limits, in MB, that running jobs set for the memory of DuckDB.
        tables_in_package: all tables of the load package.
        unique_tables: tables of a merge whose rows in this load have a key each of its own.
        inserted_tables: those of them of which the table has no key yet, so nothing is replaced.
        pending_table_chains: tables that are ready to be replaced, with what that needs.
        appends: what the load appends.
        descriptions: what the tables of the load contain, by table.
        warnings: what the result shows.
    """

    partition_scopes: Mapping[str, PartitionScope] = field(default_factory=dict)
    force_reload: bool = False
    log: Log = no_log
    working_dir: Path = Path()
    verify_lock: Callable[[], None] = lambda: None
    pushdown_tables: set[str] = field(default_factory=set)
    pushdown_selects: dict[str, str] = field(default_factory=dict)
    fingerprints: list[str] = field(default_factory=list)
    pre_commit_checks: list[Callable[[], None]] = field(default_factory=list)
    rows_inserted: Counter[str] = field(default_factory=Counter)
    memory_limits: list[int] = field(default_factory=list)
    tables_in_package: set[str] = field(default_factory=set)
    unique_tables: set[str] = field(default_factory=set)
    inserted_tables: set[str] = field(default_factory=set)
    pending_table_chains: dict[str, Sequence[Any]] = field(default_factory=dict)
    appends: Appends = field(default_factory=Appends)
    descriptions: Mapping[str, Descriptions] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def tables_in_transaction(self, table: str) -> set[str]:
        """Return the tables that are replaced in one transaction with a table, itself included."""
        scope = self.partition_scopes.get(table)
        return {table} | {
            name
            for name in self.tables_in_package - self.pushdown_tables
            if scope and name in self.partition_scopes
            if self.partition_scopes[name].resource == scope.resource
        }

    def ready_together(self, table: str, pending: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
        """Note that a table is ready; return all tables of its transaction once the last one is."""
        self.pending_table_chains[table] = pending
        tables = sorted(self.tables_in_transaction(table))
        if not self.pending_table_chains.keys() >= set(tables):
            return {}
        return {name: self.pending_table_chains[name] for name in tables}
