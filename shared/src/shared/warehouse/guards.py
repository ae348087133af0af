"""What stops a load before it writes: rows outside its partitions, and tables that would lose rows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
from dlt.common.schema import Schema
from dlt.common.storages.load_package import LoadPackageInfo
from dlt.extract import DltSource
from pyarrow.parquet import ParquetFile

from shared.warehouse.arrow_check import reject_changed_values
from shared.warehouse.errors import LoadPlanError, OutOfPartitionError, RowCountDropError
from shared.warehouse.scope import PartitionScope


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
    packages: Iterable[LoadPackageInfo], schema: Schema, scopes: dict[str, PartitionScope]
) -> PackageContent:
    """Count what is about to load, by table.

    Raises:
        OutOfPartitionError: a row belongs to none of the partitions that this load replaces, or a table
            merges without a key: reruns would add rows.
        SchemaContractError: a column of an Arrow table has another type than its table's, which would
            change a value.
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
                if table in schema.tables:  # not dlt's own state of another source
                    reject_changed_values(job.file_path, schema.tables[table])
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


def _reject_keyless_merge(schema: Schema, table: str, scopes: dict[str, PartitionScope]) -> None:
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
    if merges and not keyed and table not in scopes:
        raise OutOfPartitionError(
            f"{table} merges without a key, and this run replaces none of its partitions; nothing was "
            "loaded, because a rerun would add its rows again. Give it a primary key, or its own resource with a "
            "partition column."
        )


def _check_partition_membership(file: str, table: str, scope: PartitionScope) -> None:
    # Compare as text: a timestamp has another text in another time zone, and 05 is not the directory of 5.
    condition = scope.to_sql(escape='"{}"::VARCHAR'.format)
    with duckdb.connect() as connection:
        outside = connection.execute(
            f'SELECT "{scope.column}"::VARCHAR, count(*) FROM read_parquet(?) '
            f"WHERE ({condition}) IS NOT TRUE GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
            [file],
        ).fetchone()
    if outside:
        value, count = outside
        raise OutOfPartitionError(
            f"{table}: {count} row{'s' * (count > 1)} with {scope.column} {value}, which is none of the "
            f"partitions this run replaces ({', '.join(scope.partition_keys[:5])}); nothing was loaded. "
            "Yield their rows only, or name them as well."
        )


def reject_stored_cursors(source: DltSource, scopes: Mapping[str, PartitionScope]) -> None:
    """Stop a load by partition whose resource has a cursor that continues from an earlier load.

    The load would delete the partition's rows and insert only those after the stored cursor. A cursor
    of an unselected parent is not checked.

    Raises:
        LoadPlanError: a resource has a cursor without an end value.
    """
    resources = {scope.resource for scope in scopes.values()}
    for name, resource in source.selected_resources.items():
        step: Any = resource.incremental if name in resources else None
        cursor = getattr(step, "incremental", step)
        if cursor is not None and cursor.end_value is None:
            raise LoadPlanError(
                f"{name} is loaded by partition and has a cursor on {cursor.cursor_path}, which skips rows "
                "that an earlier load extracted; nothing was loaded. Remove the cursor, or give it the "
                "partition's `initial_value` and `end_value`."
            )
