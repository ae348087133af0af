"""What stops a load before it writes: rows outside its partitions, and tables that would lose rows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchema
from dlt.common.schema.utils import (
    get_active_record_timestamp,
    get_columns_names_with_prop,
    get_validity_column_names,
)
from dlt.common.storages.load_package import LoadPackageInfo
from dlt.extract import DltSource
from pyarrow.parquet import ParquetFile

from shared.redaction import redact
from shared.warehouse.dispositions import stored_cursors
from shared.warehouse.errors import LoadPlanError, OutOfPartitionError, RowCountDropError
from shared.warehouse.locks.base import Log
from shared.warehouse.scope import PartitionScope

_MIN_PARTITION_ROW_RATIO = 0.5


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


def is_snapshot(table: TTableSchema) -> bool:
    """Return whether a load of a table removes, or closes, the rows that it does not bring."""
    disposition, strategy = table.get("write_disposition"), table.get("x-merge-strategy")
    if strategy == "scd2" and get_columns_names_with_prop(table, "merge_key"):
        return False  # only the rows with the merge keys that it brings
    return disposition == "replace" or (disposition == "merge" and strategy in ("cdc", "scd2"))


def check_row_counts(
    client: Any, schema: Schema, incoming: Mapping[str, int], dataset: str, min_row_ratio: float
) -> None:
    """Stop a load before it removes, or closes, too many rows of a table; see `check_row_count`.

    Args:
        client: the client of the dataset, which is locked.
        schema: the schema of the load.
        incoming: the rows that it brings, by table.
        dataset: its name.
        min_row_ratio: the share of its rows that each table must keep.
    """
    for name, rows in incoming.items():
        table = schema.tables.get(name)
        if table is not None and not table.get("parent") and is_snapshot(table):
            is_history = table.get("x-merge-strategy") == "scd2"
            current = client.row_count(name, *([_active_rows(client, table)] if is_history else []))
            check_row_count(
                f"{dataset}.{name}", current=current, incoming=rows, min_row_ratio=min_row_ratio
            )


def _active_rows(client: Any, history: TTableSchema) -> str:
    """Return the condition for the rows of a history that are not closed."""
    valid_to = client.sql_client.escape_column_name(get_validity_column_names(history)[1])
    until = get_active_record_timestamp(history)
    return f"{valid_to} IS NULL" + (f" OR {valid_to} = '{until.isoformat()}'" if until else "")


def count_partitions(client: Any, tables: Iterable[str], log: Log) -> dict[str, dict[str, int]]:
    """Return the rows of each partition that a load replaces, by table, before it does.

    A table that is not created yet, or cannot be counted, has none.
    """
    counts = {}
    for table in tables:
        try:
            counts[table] = client.partition_counts(table)
        except DestinationUndefinedEntity:
            continue
        except Exception as error:  # noqa: BLE001 - such as a partition column that is new
            log(redact(f"The partitions of {table} cannot be counted before the load: {error}"))
    return counts


def check_row_count(table: str, *, current: int, incoming: int, min_row_ratio: float) -> None:
    """Stop a load that looks like a truncated response, before it removes or closes rows.

    Raises:
        RowCountDropError: the table would keep a smaller share of its rows than `min_row_ratio`.
    """
    if incoming < min_row_ratio * current:
        raise RowCountDropError(
            f"{table} would shrink from {current} rows to {incoming}, below {min_row_ratio:.0%} of what "
            "it has; nothing was loaded. If upstream is right, run again with the tag "
            "etl/allow_row_count_drop = true."
        )


def shrunken_partitions(
    before: Mapping[str, int], after: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    """Return the partitions that kept less than half of their rows, with the rows before and after.

    That is no error, because a small partition often is: the run warns, and people decide.

    Args:
        before: the rows of each partition that the load replaces, before it.
        after: the rows of each of them that has any, after it.
    """
    return {
        partition: (rows, after.get(partition, 0))
        for partition, rows in before.items()
        if after.get(partition, 0) < _MIN_PARTITION_ROW_RATIO * rows
    }


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
    is_history = hints.get("x-merge-strategy") == "scd2"  # it compares complete rows
    if merges and not keyed and not is_history and table not in scopes:
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
    """Stop a load by partition that depends on a cursor which continues from an earlier load.

    The load would delete the partition's rows and insert only those after the stored cursor. The cursor
    may be that of a parent that is not selected.

    Raises:
        LoadPlanError: a resource, or one that it gets its items from, has a cursor without an end value.
    """
    cursors = stored_cursors(source)
    for name in sorted({scope.resource for scope in scopes.values()}):
        for owner, cursor in cursors[name].items():
            whose = "a cursor" if owner == name else f"a parent, {owner}, with a cursor"
            raise LoadPlanError(
                f"{name} is loaded by partition and has {whose} on {cursor.cursor_path}, which skips rows "
                "that an earlier load extracted; nothing was loaded. Remove the cursor, or give it the "
                "partition's `initial_value` and `end_value`."
            )
