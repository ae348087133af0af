"""Join small Arrow tables that a resource yields one after the other, as one for each partition.

dlt infers and compares the schema of each table that it gets, which takes about 2 ms.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from dlt.extract import DltSource

from shared.lazy_modules import pyarrow as pa
from shared.warehouse.dlt_internals import wrap_items

MAX_ROWS = 5_000
"""The number of rows of a joined table: as many as dlt keeps in memory before it writes."""


def join_tables(source: DltSource) -> None:
    """Make the resources of a source yield fewer tables, with the same rows in the same order."""
    for resource in source.selected_resources.values():
        if not (resource.has_dynamic_table_name or resource.has_other_dynamic_hints):
            wrap_items(source, resource, _joined)


def _joined(items: Generator[Any]) -> Iterator[Any]:
    pending: list[pa.Table] = []
    rows = 0
    with closing(items):
        for item in items:
            table = pa.Table.from_batches([item]) if isinstance(item, pa.RecordBatch) else item
            is_small = isinstance(table, pa.Table) and len(table) < MAX_ROWS
            if pending and not (
                is_small
                and rows + len(table) <= MAX_ROWS
                and table.schema.equals(pending[0].schema, check_metadata=True)
            ):
                yield pa.concat_tables(pending)
                pending, rows = [], 0
            if is_small:
                pending.append(table)
                rows += len(table)
            else:
                yield item
    if pending:
        yield pa.concat_tables(pending)
