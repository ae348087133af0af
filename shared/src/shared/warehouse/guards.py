"""What stops a load before it writes: rows outside its partitions, and tables that would lose rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema import Schema
from dlt.common.schema.typing import TColumnSchema, TTableSchema
from dlt.common.schema.utils import (
    get_active_record_timestamp,
    get_columns_names_with_prop,
    get_validity_column_names,
)
from dlt.common.storages.load_package import LoadPackageInfo
from dlt.extract import DltSource

from shared.lazy_modules import duckdb
from shared.lazy_modules import pyarrow_parquet as pq
from shared.redaction import redact
from shared.sources.partitions import PartitionKey, time_window
from shared.sources.quoting import quote
from shared.warehouse.errors import (
    LoadPlanError,
    OutOfPartitionError,
    RowCountDropError,
    SchemaContractError,
)
from shared.warehouse.locks.base import Log
from shared.warehouse.replacement.windows import bound_cursor
from shared.warehouse.rows.arrow_check import reject_changed_values
from shared.warehouse.scope import PartitionScope

_MIN_PARTITION_ROW_RATIO = 0.5


@dataclass
class PackageContent:
    """What a load package contains.

    Attributes:
        row_counts: rows in Parquet files, by table.
        tables: all tables of the package.
        pushdown_tables: those that the warehouse fills by a query.
        files: the Parquet files, by table.
    """

    row_counts: Counter[str] = field(default_factory=Counter)
    tables: set[str] = field(default_factory=set)
    pushdown_tables: set[str] = field(default_factory=set)
    files: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def validate_packages(
    packages: Iterable[LoadPackageInfo], schema: Schema, scopes: Mapping[str, PartitionScope]
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
                content.files[table].append(job.file_path)
                if table in schema.tables:  # not dlt's own state, which another schema may hold
                    reject_changed_values(job.file_path, schema.tables[table])
                content.row_counts[table] += pq.ParquetFile(job.file_path).metadata.num_rows
                if table in scopes:
                    _check_partition_membership(job.file_path, table, scopes[table])
    for table, paths in content.files.items():
        _reject_repeated_keys(schema.tables.get(table), paths)
    return content


def _reject_repeated_keys(table: TTableSchema | None, files: Sequence[str]) -> None:
    """Reject two rows of one key, which these strategies would both insert; others keep one row."""
    if table is None or table.get("x-merge-strategy") not in ("upsert", "insert-only", "cdc"):
        return
    keys = get_columns_names_with_prop(table, "primary_key")
    repeated = repeated_key(keys, files) if keys else None
    if repeated:
        *values, count = repeated
        key = ", ".join(f"{name} {value}" for name, value in zip(keys, values, strict=True))
        raise SchemaContractError(
            f"{table['name']} has {count} rows with the key {key} in one load, and its merge strategy "
            f"{table['x-merge-strategy']} would keep all of them; nothing was loaded. Yield one row "  # type: ignore[typeddict-item]
            "for each key, or use the strategy delete-insert, which keeps one."
        )


def repeated_key(
    keys: Sequence[str], files: Sequence[str], directory: Path | None = None
) -> tuple[Any, ...] | None:
    """Return the values of a key that several rows of some Parquet files have, and how many rows.

    Args:
        keys: the columns of the key.
        files: the files.
        directory: where DuckDB writes what needs more memory.
    """
    columns = ", ".join(map(quote, keys))
    config: Any = {"temp_directory": str(directory), "memory_limit": "128MB"} if directory else {}
    with duckdb.connect(config=config) as connection:
        found: tuple[Any, ...] | None = connection.execute(
            f"SELECT {columns}, count(*) FROM read_parquet(?) GROUP BY {columns} "
            "HAVING count(*) > 1 LIMIT 1",
            [list(files)],
        ).fetchone()
    return found


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

    It is not an error, because a partition may be small: the run logs a warning, and people decide.

    Args:
        before: the rows of each partition that the load replaces, before it.
        after: the rows of each of them that has any, after it.
    """
    return {
        partition: (rows, after.get(partition, 0))
        for partition, rows in before.items()
        if after.get(partition, 0) < _MIN_PARTITION_ROW_RATIO * rows
    }


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
    names = [f'"{column}"' for column in scope.column_names]
    columns = ", ".join(f"{name}::VARCHAR" for name in names)
    with duckdb.connect() as connection:
        # The extracted type can differ from the column's, for example a text that is a date.
        condition = scope.to_sql(escape=lambda name: f'"{name}"::{_duckdb_type(scope.types[name])}')
        # The condition filters counts, not rows: with thousands of partitions, each comparison takes long.
        outside = connection.execute(
            f'SELECT {columns}, sum("all rows") FILTER (({condition}) IS NOT TRUE)::BIGINT AS "rows outside" '
            f'FROM (SELECT {", ".join(names)}, count(*) AS "all rows" FROM read_parquet(?) GROUP BY ALL) '
            'GROUP BY ALL HAVING "rows outside" > 0 ORDER BY "rows outside" DESC LIMIT 1',
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


def _is_other_date(value: object, timestamp: datetime) -> bool:
    is_date = isinstance(value, date) and not isinstance(value, datetime)
    return is_date and value != timestamp.date()


def reject_stored_cursors(source: DltSource, partitions: Sequence[PartitionKey]) -> None:
    """Stop a load of partitions with a cursor that continues from an earlier load.

    The load would delete a partition's rows and insert only those after the stored cursor, or skip the
    rows of a partition that is loaded after a later one. Parents of transformers are checked, too.

    Raises:
        LoadPlanError: a resource has a cursor without an end value, or one on a date whose range dlt
            converted from the partition's time zone to UTC.
    """
    window = time_window(partitions)
    for resource in source.resources.extracted:
        cursor = bound_cursor(resource)
        if cursor is not None and cursor.end_value is None:
            raise LoadPlanError(
                f"{resource.name} is loaded by partition and has a cursor on {cursor.cursor_path}, which skips rows "
                "that an earlier load extracted; nothing was loaded. Give it the partition's "
                "`initial_value` and `end_value`, or load it by partitions with time windows."
            )
        end = cursor.end_value if cursor else None
        if cursor and window and window.end.utcoffset() and _is_other_date(end, window.end):
            raise LoadPlanError(
                f"{resource.name} has a cursor on the date {cursor.cursor_path}, and the partitions are in "
                f"{window.end.tzinfo}: dlt reads the dates before {end}, not before {window.end.date()}; "
                "nothing was loaded. Give the cursor `initial_value` and `end_value` of the partition's "
                "window as dates, with `allow_external_schedulers=False`."
            )
