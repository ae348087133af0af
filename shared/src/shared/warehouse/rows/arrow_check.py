"""Refuse values of Arrow tables that the warehouse would change to fit their columns.

dlt writes an Arrow table unchanged, also if a column is declared with another type: DuckDB then rounds 2.5
in a BIGINT to 2, and stores 2 as true. Rows that are not Arrow have the types of their columns already.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.schema.typing import TColumnSchema, TTableSchema

from shared.lazy_modules import dlt_pyarrow
from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_compute as compute
from shared.lazy_modules import pyarrow_parquet as pq
from shared.warehouse.errors import RowValueError, SchemaContractError, show_value


def reject_changed_values(file: str | Path, table: TTableSchema) -> None:
    """Check the columns of a Parquet file that have another type than the table's.

    Raises:
        SchemaContractError: a value would change.
    """
    parquet = pq.ParquetFile(file)
    for name, sent in dlt_pyarrow.py_arrow_to_table_schema_columns(parquet.schema_arrow).items():
        column = table["columns"].get(name, {})
        if not _differs(column, sent):
            continue
        values = parquet.read(columns=[name]).column(0)
        changed = _first_changed(values, _arrow_type({**column, "name": name}))
        if changed is not None:
            raise SchemaContractError(
                f"{table['name']}.{name} is {column['data_type']}{_limits(column)} and upstream sent "
                f"{sent['data_type']}{_limits(sent)}, such as {show_value(changed.as_py())}; nothing was "
                "loaded. Cast the column of the Arrow table, or declare another type."
            )


def reject_unstorable(
    rows: "pa.Table | pa.RecordBatch", table: str, columns: Mapping[str, TColumnSchema]
) -> None:
    """Check rows before dlt writes them, which names no table in its errors.

    Args:
        rows: some rows of a resource.
        table: the name of their table.
        columns: the columns that the resource declares.

    Raises:
        RowValueError: a value has nanoseconds, or is an integer over 64 bits in a column of integers, or
            is missing in a column that is not nullable.
    """
    for name, values in zip(rows.schema.names, rows.columns, strict=True):
        column, kind = columns.get(name, {}), values.type
        if values.null_count and not column.get("nullable", True):
            row = compute.index(compute.is_null(values), True).as_py()
            _refuse(table, f"{name} has no value and is not nullable", row)
        has_nanoseconds = (pa.types.is_timestamp(kind) or pa.types.is_time64(kind)) and (
            kind.unit == "ns"
        )
        if has_nanoseconds:
            numbers = values.cast(pa.int64())
            whole = compute.multiply(compute.divide(numbers, 1000), 1000)
            row = compute.index(compute.equal(numbers, whole), False).as_py()
            if row >= 0:
                text = values.slice(row, 1).cast(pa.string())[0]
                _refuse(table, f"{name}: {text} has nanoseconds, which the column would lose", row)
        if pa.types.is_uint64(kind) and column.get("data_type", "bigint") == "bigint":
            row = compute.index(
                compute.greater(values, pa.scalar(2**63 - 1, pa.uint64())), True
            ).as_py()
            if row >= 0:
                _refuse(table, f"{name}: {values[row]} does not fit 64 bits with a sign", row)


def _refuse(table: str, problem: str, row: int) -> NoReturn:
    raise RowValueError(
        table,
        f"column {problem}, in row {row + 1} of an Arrow table",
        "Cast the column, or remove such rows, in the resource or with add_map.",
    )


def _differs(column: TColumnSchema, sent: TColumnSchema) -> bool:
    declared, found = column.get("data_type"), sent.get("data_type")
    if declared is None or found is None or "json" in (declared, found):
        return False
    is_decimal = declared == found == "decimal" and bool(column.get("precision"))
    return declared != found or (is_decimal and _limits(column) != _limits(sent))


def _limits(column: TColumnSchema) -> str:
    precision = column.get("precision") if column.get("data_type") == "decimal" else None
    return f"({precision}, {column.get('scale') or 0})" if precision else ""


def _arrow_type(column: TColumnSchema) -> "pa.DataType":
    capabilities = DestinationCapabilitiesContext.generic_capabilities()
    return (
        dlt_pyarrow.columns_to_arrow({str(column["name"]): column}, capabilities, "UTC")
        .field(0)
        .type
    )


def _first_changed(values: "pa.ChunkedArray", data_type: "pa.DataType") -> "pa.Scalar | None":
    """Return the first value that is not the same after a cast to a type and back."""
    try:
        there_and_back = values.cast(data_type).cast(values.type)
        same = compute.fill_null(compute.equal(values, there_and_back), True)
    except pa.ArrowNotImplementedError:
        return None  # the warehouse refuses what Arrow cannot cast
    except pa.ArrowInvalid:
        present = compute.drop_null(values)
        if len(present) == 1:
            return present[0]
        half = len(present) // 2
        first = _first_changed(present[:half], data_type)
        return first if first is not None else _first_changed(present[half:], data_type)
    position = compute.index(same, False).as_py()
    return values[position] if position >= 0 else None
