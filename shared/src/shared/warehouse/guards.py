"""What stops a load before it writes: rows outside its partitions, and tables that would lose rows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import duckdb
from dlt.common.schema import Schema
from dlt.common.schema.typing import TColumnSchema
from dlt.common.storages.load_package import LoadPackageInfo
from dlt.extract import DltSource
from pyarrow.parquet import ParquetFile

from shared.warehouse.errors import LoadPlanError, OutOfPartitionError, RowCountDropError
from shared.warehouse.scope import PartitionScope
from shared.warehouse.windows import bound_cursor


@dataclass
class PackageContent:
    """What a load package contains.

    Attributes:
        row_counts: rows in Parquet files, by table.
        tables: all tables of the package.
        pushdown_tables: those that the warehouse fills by a query.
    """

    row_counts: Counter[str] = field(default_factory=Counter)
    tables: set[str] = field(default_factory=set)
    pushdown_tables: set[str] = field(default_factory=set)


def validate_packages(
    packages: Iterable[LoadPackageInfo], schema: Schema, scopes: Mapping[str, PartitionScope]
) -> PackageContent:
    """Count what is about to load, by table.

    Raises:
        OutOfPartitionError: a row belongs to none of the partitions that this load replaces, or a table
            merges without a key: reruns would add rows.
    """
    content = PackageContent()
    for package in packages:
        for job in package.jobs["new_jobs"]:
            table, file_format = job.job_file_info.table_name, job.job_file_info.file_format
            content.tables.add(table)
            _reject_keyless_merge(schema, table, scopes)
            if file_format == "model":
                content.pushdown_tables.add(table)
            if file_format == "parquet":
                content.row_counts[table] += ParquetFile(job.file_path).metadata.num_rows
                if table in scopes:
                    _check_partition_membership(job.file_path, table, scopes[table])
    return content


def check_row_count(table: str, *, current: int, incoming: int, min_row_ratio: float) -> None:
    """Stop a replace that looks like a truncated response.

    Raises:
        RowCountDropError: the table would keep a smaller share of its rows than `min_row_ratio`.
    """
    if incoming < min_row_ratio * current:
        raise RowCountDropError(
            f"{table} would shrink from {current} rows to {incoming}, below {min_row_ratio:.0%} of what "
            "it has; nothing was loaded. If upstream is right, run again with the tag "
            "etl/allow_row_count_drop = true."
        )


def _reject_keyless_merge(schema: Schema, table: str, scopes: Mapping[str, PartitionScope]) -> None:
    """Stop a merge that dlt would turn into an append, because nothing says what it replaces."""
    hints = schema.tables.get(table)
    if hints is None:  # dlt's own state, which another source's schema may hold
        return
    keyed = any(
        column.get("primary_key") or column.get("merge_key") or column.get("unique")
        for column in hints["columns"].values()
        if column["name"] != "_dlt_id"
    )
    merges = hints.get("write_disposition") == "merge" and not hints.get("parent")
    is_history = hints.get("x-merge-strategy") == "scd2"  # it compares complete rows
    if merges and not keyed and not is_history and table not in scopes:
        raise OutOfPartitionError(
            f"{table} merges without a key, and this run replaces none of its partitions; nothing was "
            "loaded, because a rerun would add its rows again. Give it a primary key, or its own resource with a "
            "partition column."
        )


def _duckdb_type(hints: TColumnSchema) -> str:
    """Return the type of a partition column, to compare extracted values in it."""
    data_type = str(hints["data_type"])
    if data_type == "timestamp":
        return "TIMESTAMPTZ" if hints.get("timezone", True) else "TIMESTAMP"
    return {"text": "VARCHAR", "bigint": "HUGEINT", "wei": "DECIMAL(38, 0)"}.get(
        data_type, data_type
    )


def _check_partition_membership(file: str, table: str, scope: PartitionScope) -> None:
    columns = ", ".join(f'"{column}"::VARCHAR' for column in scope.column_names)
    with duckdb.connect() as connection:
        # The extracted type can differ from the column's, for example a text that is a date.
        condition = scope.to_sql(escape=lambda name: f'"{name}"::{_duckdb_type(scope.types[name])}')
        outside = connection.execute(
            f"SELECT {columns}, count(*) FROM read_parquet(?) "
            f"WHERE ({condition}) IS NOT TRUE GROUP BY ALL ORDER BY count(*) DESC LIMIT 1",
            [file],
        ).fetchone()
    if outside:
        *values, count = outside
        found = " and ".join(
            f"{column} {value}" for column, value in zip(scope.column_names, values, strict=True)
        )
        raise OutOfPartitionError(
            f"{table}: {count} row{'s' * (count > 1)} with {found}, which is none of the "
            f"partitions this run replaces ({', '.join(scope.partitions[:5])}); nothing was loaded. "
            "Yield their rows only, or name them as well."
        )


def reject_stored_cursors(source: DltSource) -> None:
    """Stop a load of partitions with a cursor that continues from an earlier load.

    The load would delete a partition's rows and insert only those after the stored cursor, or skip the
    rows of a partition that is loaded after a later one. Parents of transformers are checked, too.

    Raises:
        LoadPlanError: a resource has a cursor without an end value.
    """
    for resource in source.resources.extracted:
        cursor = bound_cursor(resource)
        if cursor is not None and cursor.end_value is None:
            raise LoadPlanError(
                f"{resource.name} is loaded by partition and has a cursor on {cursor.cursor_path}, which skips rows "
                "that an earlier load extracted; nothing was loaded. Give it the partition's "
                "`initial_value` and `end_value`, or load it by partitions with time windows."
            )
