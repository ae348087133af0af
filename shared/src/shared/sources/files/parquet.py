"""Parquet files: their types are checked once, and their values where a type does not say enough."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_parquet as pq
from shared.lazy_modules import pyarrow_types as types
from shared.sources.files.format import BATCH_ROWS, Batch, FileFormat, RejectedRow, show
from shared.sources.files.sql import LAST_INSTANT, error_if, read_parquet, strict_select
from shared.sources.files.values import check_rows, python_value
from shared.sources.hints import required_column
from shared.sources.quoting import quote

_DECIMAL_DIGITS = 38  # of DuckDB's decimals


def _is_text(kind: "pa.DataType") -> bool:
    checks = types.is_string, types.is_large_string, types.is_string_view
    return any(check(kind) for check in checks)


def _is_bytes(kind: "pa.DataType") -> bool:
    views = types.is_binary_view, types.is_fixed_size_binary
    return any(check(kind) for check in (types.is_binary, types.is_large_binary, *views))


_ACCEPTED: "Mapping[str, Callable[[pa.DataType], bool]]" = {
    "text": lambda kind: _is_text(kind) or isinstance(kind, pa.UuidType),
    "bigint": lambda kind: (
        types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    ),
    "double": lambda kind: types.is_floating(kind) or types.is_integer(kind),
    "decimal": lambda kind: types.is_decimal(kind) or types.is_integer(kind),
    "bool": lambda kind: types.is_boolean(kind),  # noqa: PLW0108 - pyarrow is imported on use
    "date": lambda kind: types.is_date(kind) or types.is_timestamp(kind),
    "time": lambda kind: types.is_time(kind),  # noqa: PLW0108
    "timestamp": lambda kind: types.is_timestamp(kind),  # noqa: PLW0108
    "binary": _is_bytes,
    "json": lambda kind: _is_text(kind) or types.is_nested(kind),
}
"""The types of a file that can have values of a declared type; the values are checked."""


@dataclass(frozen=True)
class ParquetFormat(FileFormat):
    """What a Parquet file must look like; its columns may have any order.

    Types may differ if each value stays the same: whole doubles for `bigint`, `uint64` within 64 bits,
    nanoseconds that are whole microseconds, midnights for `date`, nested values for `json`.
    """

    location: ClassVar[Mapping[str, TColumnSchema]] = {
        "row_group": required_column("bigint", "The row group of the row; the first is 0."),
        "row": required_column("bigint", "The row in its file; the first is 0."),
    }

    def read(self, file: Path) -> Iterator[Batch]:
        """Yield the rows of a file; see `FileFormat.read`."""
        first = 0
        try:
            with pq.ParquetFile(file) as parquet:
                self._check_columns(parquet)
                for group in range(parquet.num_row_groups):
                    for rows in parquet.iter_batches(BATCH_ROWS, row_groups=[group]):
                        table = pa.Table.from_batches([rows])
                        checked, reasons = check_rows(table, self)
                        rejected = [
                            RejectedRow((group, first + index), reason, _raw(table, index))
                            for index, reason in reasons.items()
                        ]
                        yield Batch(checked, rejected)
                        first += len(table)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"it cannot be read as Parquet: {error}") from None

    def pushdown_select(self, file: Path, folder: Path) -> str | None:
        """Return SQL of all rows; see `FileFormat`. DuckDB reads the file if each value fits by its type."""
        return self._exact_select(file) or super().pushdown_select(file, folder)

    def _exact_select(self, file: Path) -> str | None:
        try:
            with pq.ParquetFile(file) as parquet:
                self._check_columns(parquet)
                fields, rows = parquet.schema_arrow, parquet.metadata.num_rows
        except (ValueError, pa.ArrowException, OSError):
            return None
        values = {}
        for name, target in zip(self.columns, self.schema, strict=True):
            if name not in fields.names:
                values[name] = "NULL"
            elif self.columns[name]["data_type"] == "json" or not rows:
                return None
            elif value := _exact_sql(name, _stored(fields.field(name).type), target.type):
                required = not target.nullable and fields.field(name).nullable
                values[name] = (
                    error_if(f"{quote(name)} IS NULL", value, name) if required else value
                )
            else:
                return None
        return strict_select(values, read_parquet(file, fields.names), self.rules)

    def _check_columns(self, parquet: "pq.ParquetFile") -> None:
        fields = parquet.schema_arrow
        problems = self.column_problems(fields.names)
        legacy = {
            leaf.name
            for leaf in map(parquet.schema.column, range(len(parquet.schema.names)))
            if leaf.physical_type == "INT96"
        }
        for field in fields if not problems else ():
            hints, kind = self.columns[field.name], _stored(field.type)
            declared = str(hints["data_type"])
            problem = None
            if not types.is_null(kind) and not _ACCEPTED[declared](kind):
                problem = f"which is never {declared}"
            if declared == "timestamp" and types.is_timestamp(kind):
                if hints.get("timezone", True) and kind.tz is None:
                    problem = 'without a time zone; declare "timezone": False, or write UTC'
                if not hints.get("timezone", True) and kind.tz is not None:
                    problem = 'with a time zone; do not declare "timezone": False'
            if field.name in legacy:
                problem = "stored as INT96, which has no time zone; write TIMESTAMP_MICROS"
            if problem:
                problems.append(f"column {show(field.name)} is {kind}, {problem}")
        if problems:
            raise ValueError("; ".join(problems))


def _stored(kind: "pa.DataType") -> "pa.DataType":
    return kind.value_type if types.is_dictionary(kind) else kind


def _raw(table: "pa.Table", row: int) -> str:
    values = {name: python_value(table.column(name)[row]) for name in table.column_names}
    return json.dumps(values, default=str, ensure_ascii=False)


def _exact_sql(name: str, kind: "pa.DataType", target: "pa.DataType") -> str | None:
    """Return DuckDB's SQL of a column in the declared type; None if its values need another check."""
    column = quote(name)
    if types.is_decimal(target) and not types.is_null(kind):
        return _decimal_sql(name, kind, target)
    if types.is_timestamp(kind) and types.is_timestamp(target):
        zone, plain = ("+00", "TIMESTAMPTZ") if kind.tz else ("", "TIMESTAMP")
        first, last = f"0001-01-01 00:00:00{zone}", f"{LAST_INSTANT}{zone}"
        value = f"CAST({column} AS {plain})"
        bad = f"{value} NOT BETWEEN {plain} '{first}' AND {plain} '{last}'"
        if kind.unit == "ns":
            bad += f" OR epoch_ns({column}) % 1000 <> 0"
        return error_if(bad, value, name)
    if types.is_date(kind) and types.is_date(target):
        bad = f"{column} NOT BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
        return error_if(bad, column, name)
    if types.is_float64(target) and types.is_integer(kind):
        return error_if(
            f"abs(CAST({column} AS HUGEINT)) > {2**53}", f"CAST({column} AS DOUBLE)", name
        )
    if types.is_int64(target) and types.is_integer(kind):
        return f"CAST({column} AS BIGINT)"
    is_exact = (
        (types.is_string(target) and _is_text(kind))
        or (types.is_float64(target) and types.is_floating(kind))
        or (types.is_boolean(target) and types.is_boolean(kind))
        or (types.is_time(target) and types.is_time(kind) and kind.unit != "ns")
        or (types.is_binary(target) and _is_bytes(kind))
    )
    return column if is_exact else None


def _decimal_sql(name: str, kind: "pa.DataType", target: "pa.DataType") -> str | None:
    """Return DuckDB's SQL of a column of numbers as a decimal; None if it has no such decimals."""
    scale = kind.scale if types.is_decimal(kind) else 0
    # To compare two decimals, DuckDB needs a type with the digits of both.
    digits = target.precision + max(0, scale - target.scale)
    if types.is_decimal256(kind) or digits > _DECIMAL_DIGITS:
        return None
    # The cast raises an error where the value is too large, and it rounds.
    value = f"CAST({quote(name)} AS DECIMAL({target.precision}, {target.scale}))"
    return error_if(f"{value} <> {quote(name)}", value, name) if scale > target.scale else value
