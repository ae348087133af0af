"""Key ranges: a first load of a large table commits some rows at a time, in the order of its key.

The state has the last key, and where the load after the last range continues: at the snapshot of the first.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any

from shared.lazy_modules import pyarrow as pa
from shared.sources.database.base import DatabaseError, Snapshot, TableInfo
from shared.sources.database.table import Table
from shared.sources.protocol import CurrentLoad


def splits(table: Table, info: TableInfo, load: CurrentLoad | None) -> bool:
    """Return whether a first load takes key ranges: it is large, has a key, and may commit in parts."""
    return (
        load is not None
        and not load.is_full_refresh(table.target)
        and info.estimated_rows > table.rows_per_load
        and bool(_key(table, info))
    )


def read_range(
    snapshot: Snapshot,
    table: Table,
    info: TableInfo,
    state: MutableMapping[str, Any],
    condition: str = "",
) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of the next range, and note it in the state.

    Args:
        snapshot: the snapshot.
        table: the table.
        info: the table in this snapshot.
        state: `state["after"]` has the texts of the last key; it is None after the last range.
            `state["by"]` has its columns: another declared key does not change the ranges that are left.
        condition: which rows count.

    Raises:
        DatabaseError: a column of the key is gone, so nobody knows which rows are left.
    """
    by = state.setdefault("by", list(_key(table, info)))
    if missing := [name for name in by if name not in info.all_columns]:
        raise DatabaseError(
            f"{table.full_name} of {snapshot.server}: its first load is not complete, and was in the order of "
            f"{', '.join(missing)}, which is gone. Run once with the tag etl/full_refresh = true."
        )
    key = [info.all_columns[name] for name in by]
    names = [snapshot.quote(column.name) for column in key]
    after = state.get("after")
    conditions = [condition] if condition else []
    if after is not None:
        conditions.append(_compare(snapshot, key, ">", after))
    texts = ", ".join(
        f"{snapshot.text_of(column)} AS {snapshot.quote(f'range key {number}')}"
        for number, column in enumerate(key)
    )
    from_table = snapshot.quote(*filter(None, [table.schema, table.name]))
    where = f" WHERE {' AND '.join(f'({each})' for each in conditions)}" if conditions else ""
    last = snapshot.query(
        f"SELECT {texts} FROM {from_table}{where} ORDER BY {', '.join(names)} "
        f"LIMIT 1 OFFSET {table.rows_per_load - 1}"
    )
    if last:
        conditions.append(_compare(snapshot, key, "<=", last[0]))
    yield from snapshot.read(table, info, " AND ".join(f"({each})" for each in conditions))
    state["after"] = list(map(str, last[0])) if last else None


def _key(table: Table, info: TableInfo) -> tuple[str, ...]:
    """Return the columns of a unique index in whose order ranges are read; none if there is no such index."""
    declared = frozenset(table.key_columns)
    key = table.key_columns if declared and declared in info.unique_keys else info.primary_key
    # The state would have values of a column that is masked, or not to be read.
    is_open = all(name in info.columns and name not in table.masks for name in key)
    return tuple(key) if is_open else ()


def _compare(snapshot: Snapshot, key: list[Any], operator: str, texts: Any) -> str:
    names = ", ".join(snapshot.quote(column.name) for column in key)
    values = ", ".join(
        snapshot.literal(text, column) for text, column in zip(texts, key, strict=True)
    )
    return f"({names}) {operator} ({values})"
