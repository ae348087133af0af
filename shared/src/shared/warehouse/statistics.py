"""What a table contains after a load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlt.common.schema import Schema

from shared.redaction import redact
from shared.warehouse.locks.base import Log

MAX_PARTITIONS_WITH_COUNTS = 100
"""A load of more partitions does not count the rows of each."""


@dataclass(frozen=True)
class TableStats:
    """What a table contains after a load.

    Attributes:
        row_count: rows of the table; None if they could not be counted.
        partition_row_counts: rows of each partition that the load replaced, unless there are many.
        preview: some of the rows that were loaded, by column; of a nested table, some of all rows.
    """

    row_count: int | None = 0
    partition_row_counts: Mapping[str, int] = field(default_factory=dict)
    preview: Sequence[Mapping[str, Any]] = ()


def _partition_counts(client: Any, table: str) -> Mapping[str, int]:
    state = client.state
    scope = state.partition_scopes.get(table)
    if scope and len(scope.partitions) == 1 and table in state.rows_inserted:
        # The transaction of a pushdown leaves only its own rows in the partition.
        return {str(scope.partitions[0]): state.rows_inserted[table]}
    few = scope and len(scope.partitions) <= MAX_PARTITIONS_WITH_COUNTS
    return client.partition_counts(table) if few else {}


def collect_stats(
    client: Any,
    schema: Schema,
    table: str,
    load_ids: Sequence[str],
    *,
    preview_rows: int,
    log: Log,
) -> TableStats:
    """Return what a table contains. An error here does not fail the load, which is committed."""
    row_count = None
    try:
        row_count = client.row_count(table)
        if not row_count or table not in schema.tables:
            return TableStats(row_count)
        columns = schema.get_table_columns(table)
        shown = [name for name in columns if not name.startswith("_dlt")]
        loads = load_ids if "_dlt_load_id" in columns else ()
        return TableStats(
            row_count,
            _partition_counts(client, table),
            client.preview(table, shown, loads, preview_rows) if preview_rows and shown else (),
        )
    except Exception as error:  # noqa: BLE001 - such as a date that Python cannot hold
        log(redact(f"{table} is loaded, and cannot be described: {error}"))
        return TableStats(row_count)
