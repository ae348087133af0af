"""The metadata that Dagster shows for a load: row counts, their history, and a preview."""

import base64
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import dagster as dg
from dlt.common.schema import Schema
from dlt.common.schema.utils import get_root_table
from dlt.extract import DltResource

from shared import warehouse
from shared.sources.protocol import SOURCE_FIELD_HINT
from shared.warehouse import TableStats
from shared.warehouse.comments import DLT_COLUMNS

SOURCE_FIELD = "source_field"
"""The tag of a column: the field of the source from which it comes."""

MAX_RUNS_IN_HISTORY = 30
"""The number of runs in the chart of rows."""

ROW_HISTORY_KEY = "row_history"
"""The metadata from which the next run draws the chart: `run=rows` for each run."""

LOADED_ROWS = "loaded_rows"
"""Metadata of a load: the SQL condition of the rows that it may have changed, by table."""

SQL_FILE = "sql_file"
"""Metadata of an asset that a `.sql` file makes: the file's name."""

_MAX_EXACT_INTEGER = 2**53
_MAX_PREVIEWS = 10  # of the tables of one asset
_MAX_WARNED_PARTITIONS = 5
_MAX_VALUE_CHARS = 60  # of a value in a preview
_WIDTH, _HEIGHT = 8, 40  # of a bar, in pixels
_COLOR = "#4c78a8"  # readable on white and on black

_REPLACED = {"append": "no rows; new ones are added", "merge": "rows with the same keys"}
"""What a load without partitions replaces, by write disposition."""


def load_metadata(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    spec: dg.AssetSpec,
    tables: Sequence[str],
    plan: warehouse.LoadPlan,
    result: warehouse.LoadResult,
    *,
    resources: Sequence[DltResource] = (),
    other_assets: Collection[str] = (),
) -> dict[str, Any]:
    """Return the metadata of an asset's load, the most important first.

    `rows_loaded` counts the rows of this load, `dagster/row_count` those of the table; `replaced` names
    the files or days whose rows were replaced; `bytes_read` is what the source counts, or the size of
    dlt's files. dlt's `jobs` come last.

    A resource may fill several tables. Then the numbers are their sums. `related_tables` lists all that
    have no asset, and each of those has its own preview and columns.

    Args:
        context: the run's.
        spec: the asset's spec; what it declares of columns is shown with those of the table.
        tables: the tables of the asset.
        plan: the plan of the load.
        result: the result of the load.
        resources: the resources that load the asset's tables, for what they count.
        other_assets: the tables that are assets of their own.
    """
    stats = {table: result.tables.get(table, TableStats()) for table in tables}
    rows = {table: result.rows_loaded.get(table, 0) for table in tables}
    roots = [_root(table, result.schema) for table in tables]
    scope = next((result.scopes[root] for root in (*tables, *roots) if root in result.scopes), None)
    jobs = _jobs(result, tables)
    of_first: Mapping[str, Any] = result.schema.tables.get(next(iter(roots), ""), {})
    disposition = str(of_first.get("write_disposition"))
    return {
        "rows_loaded": sum(rows.values()),
        **row_history(context.instance, spec.key, context.run.run_id, sum(rows.values())),
        **_shown_tables(
            spec, tables, warehouse.stored_dataset(plan.spec.dataset_name), result, other_assets
        ),
        "replaced": describe_scope(scope) if scope else _REPLACED.get(disposition, "full table"),
        **shrunken_metadata(
            {key: rows for table in tables for key, rows in result.shrunken.get(table, {}).items()}
        ),
        LOADED_ROWS: _loaded_rows(tables, plan, result),
        "duration_seconds": round(result.duration_seconds, 2),
        "bytes_read": sum(
            job.file_size for job in jobs if job.job_file_info.file_format != "model"
        ),
        **_metrics(resources, result),
        "dlt_load_id": ", ".join(package.load_id for package in result.load_packages),
        **_total_rows(stats),
        "dagster/storage_kind": warehouse.warehouse_type(),
        "jobs": json.loads(json.dumps([job.asdict() for job in jobs], default=str)),
    }


def _loaded_rows(
    tables: Sequence[str], plan: warehouse.LoadPlan, result: warehouse.LoadResult
) -> dict[str, str]:
    """Return which rows a check must read, of an asset's tables and of those that have no asset."""
    dataset = warehouse.normalize_name(plan.spec.dataset_name)
    known = (warehouse.with_related_tables(table, result.schema) for table in tables)
    return {
        table: warehouse.loaded_rows(result, dataset, table) for table in chain.from_iterable(known)
    }


def _root(table: str, schema: Schema) -> str:
    return str(get_root_table(schema.tables, table)["name"]) if table in schema.tables else table


def _shown_tables(
    spec: dg.AssetSpec,
    tables: Sequence[str],
    dataset: str,
    result: warehouse.LoadResult,
    other_assets: Collection[str],
) -> dict[str, Any]:
    """Return previews and columns of an asset's tables, and a list of those that have no asset."""
    known = (warehouse.with_related_tables(table, result.schema) for table in tables)
    listed = [table for table in chain.from_iterable(known) if table not in other_assets]
    stats = {table: result.tables.get(table, TableStats()) for table in listed}
    shown: dict[str, Any] = {}
    if len(tables) == 1:
        (own,) = tables
        if preview := result.tables.get(own, TableStats()).preview:
            shown["preview"] = table_value(preview)
        shown["dagster/table_name"] = f"{result.database}.{dataset}.{own}"
        columns = column_schema(own, result.schema)
        shown["dagster/column_schema"] = _with_declared_tags(columns, spec)
        listed = [table for table in listed if table != own]
    else:
        previews = [
            table for table in listed if result.rows_loaded.get(table) and stats[table].preview
        ]
        for table in previews[:_MAX_PREVIEWS]:
            shown[f"preview {table}"] = table_value(stats[table].preview)
    related = [
        {
            "table": table,
            "rows": stats[table].row_count,
            "loaded": result.rows_loaded.get(table, 0),
        }
        for table in listed
    ]
    if related:
        shown["related_tables"] = table_value(related)
    return shown | {table: column_schema(table, result.schema) for table in listed}


def _with_declared_tags(schema: dg.TableSchema, spec: dg.AssetSpec) -> dg.TableSchema:
    """Return the columns of a table with the tags that its spec declares: a load does not know them all."""
    declared = spec.metadata.get("dagster/column_schema", schema)
    tags = {column.name: column.tags for column in declared.columns}
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            column.description,
            column.constraints,
            {**tags.get(column.name, {}), **column.tags},
        )
        for column in schema.columns
    ]
    return dg.TableSchema(columns=columns)


def _jobs(result: warehouse.LoadResult, tables: Sequence[str]) -> list[Any]:
    return [
        job
        for package in result.load_packages
        for job in package.jobs["completed_jobs"]
        if job.job_file_info.table_name in tables
    ]


def _metrics(resources: Sequence[DltResource], result: warehouse.LoadResult) -> dict[str, Any]:
    """Return what the source counted, summed over the resources of a table."""
    metrics: dict[str, Any] = {}
    for resource in resources:
        for name, value in result.metrics.get(resource.name, {}).items():
            metrics[name] = metrics[name] + value if name in metrics else value
    return metrics


def column_schema(table: str, schema: Schema) -> dg.TableSchema:
    """Return a table's columns with their descriptions; dlt's schema stays unchanged."""
    if table not in schema.tables:  # no row was loaded yet
        return dg.TableSchema(columns=[])
    return _table_schema(schema.get_table_columns(table))


def declared_columns(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return, as metadata, the columns that a table declares before its first load; empty if none."""
    columns = table.get("columns")
    return {"dagster/column_schema": _table_schema(columns)} if columns else {}


def _table_schema(columns: Mapping[str, Mapping[str, Any]]) -> dg.TableSchema:
    shown = {"name", "data_type", "description", "nullable", "unique", SOURCE_FIELD_HINT}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=hints.get("data_type") or "unknown",
                description=hints.get("description") or DLT_COLUMNS.get(name),
                constraints=dg.TableColumnConstraints(
                    nullable=hints.get("nullable") is not False,
                    unique=bool(hints.get("unique")),
                    other=sorted(hints.keys() - shown),
                ),
                tags={SOURCE_FIELD: hints[SOURCE_FIELD_HINT]}
                if SOURCE_FIELD_HINT in hints
                else None,
            )
            for name, hints in columns.items()
        ]
    )


def _total_rows(stats: Mapping[str, TableStats]) -> dict[str, int]:
    """Return the rows of all tables of one asset, unless one could not be counted."""
    counts = [of_table.row_count for of_table in stats.values() if of_table.row_count is not None]
    return {"dagster/row_count": sum(counts)} if len(counts) == len(stats) else {}


def shrunken_metadata(partitions: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Return the partitions that kept less than half of their rows, if there are any."""
    if not partitions:
        return {}
    return {
        "shrunken_partitions": table_value(
            [
                {"partition": key, "rows_before": before, "rows_after": after}
                for key, (before, after) in partitions.items()
            ]
        )
    }


def shrunken_warnings(result: warehouse.LoadResult) -> Iterator[str]:
    """Yield a warning for each table with partitions that kept less than half of their rows."""
    for table, partitions in result.shrunken.items():
        shown = [
            f"{key} from {before} to {after}"
            for key, (before, after) in islice(partitions.items(), _MAX_WARNED_PARTITIONS)
        ]
        more = f", and {len(partitions) - len(shown)} more" if len(partitions) > len(shown) else ""
        yield (
            f"{table}: partitions shrank by more than half: {', '.join(shown)}{more} rows. They are "
            "loaded; if upstream was incomplete, run them again."
        )


def missing_warnings(result: warehouse.LoadResult, tables: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each table that has an asset, and that no load has created."""
    for table in tables:
        existing = sorted(set(result.schema.data_table_names(seen_data_only=True)) - {table})
        yield (
            f"{table} has an asset and no row so far, so the warehouse has no such table. If the name is "
            f"wrong, correct it in related_tables; the source has {', '.join(existing) or 'no table'}."
        )


def describe_scope(scope: warehouse.PartitionScope) -> str:
    """Return which partitions a load replaced: one, or the first, the last and the number."""
    columns = ", ".join(scope.column_names)
    first, last = min(scope.partitions), max(scope.partitions)
    if first == last:
        return f"{columns} {first}"
    return f"{columns} {first} to {last}, {len(scope.partitions):,} of them"


def table_value(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return rows as a table that the UI can show."""
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in rows[0]]),
    )


def _cell(value: object) -> str | int | float | bool:
    # JavaScript, and so the UI, rounds larger integers.
    if isinstance(value, int | float) and abs(value) < _MAX_EXACT_INTEGER:
        return value
    if isinstance(value, memoryview):
        value = bytes(value)
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"


def row_history(
    instance: dg.DagsterInstance, asset: dg.AssetKey, run_id: str, rows: int
) -> dict[str, Any]:
    """Return a chart of the rows that an asset's recent runs loaded, this one last.

    The history is read from the asset's latest materialization: one event, however many partitions a
    run has. If two runs end concurrently, one may be missing in later charts.
    """
    latest = instance.get_latest_materialization_event(asset)
    previous = latest.asset_materialization if latest else None
    history = previous.metadata.get(ROW_HISTORY_KEY) if previous else None
    entries = [entry.split("=") for entry in str(history.value if history else "").split()]
    recent = {run: int(count) for run, count in entries}
    short_id = run_id[:8]  # as the UI shows it; a run that continues adds to its bar
    recent[short_id] = rows + recent.pop(short_id, 0)
    recent = dict(list(recent.items())[-MAX_RUNS_IN_HISTORY:])
    return {
        "rows_over_recent_runs": dg.MetadataValue.md(sparkline(list(recent.values()))),
        ROW_HISTORY_KEY: " ".join(f"{run}={count}" for run, count in recent.items()),
    }


def sparkline(numbers: Sequence[int]) -> str:
    """Return a bar chart of numbers as an image in Markdown, small enough for a table cell."""
    maximum = max(*numbers, 1)
    height = _HEIGHT - 2
    bars = "".join(
        f"M{position * _WIDTH + 3} {_HEIGHT}v-{max(1, round(number / maximum * height))}"
        for position, number in enumerate(numbers)
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{len(numbers) * _WIDTH}" '
        f'height="{_HEIGHT}"><path stroke="{_COLOR}" stroke-width="6" d="{bars}"/></svg>'
    )
    encoded = base64.b64encode(svg.encode()).decode()
    runs = f"{len(numbers)} runs, at most {maximum:,}" if len(numbers) > 1 else "the first run"
    return f"![rows of {runs}](data:image/svg+xml;base64,{encoded}) {numbers[-1]:,} rows; {runs}"
