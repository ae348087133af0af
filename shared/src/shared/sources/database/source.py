"""Tables of a database as a dlt source."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import dlt
from dlt.extract import DltResource, DltSource

from shared.lazy_modules import pyarrow as pa
from shared.sources.database.base import Column, DatabaseError, Snapshot, TableInfo
from shared.sources.database.connection import (
    DatabaseConfiguration,
    database_configuration,
    open_database,
)
from shared.sources.database.load_position import SOURCE_POSITION, source_position
from shared.sources.database.masking import Masking
from shared.sources.database.mode_change import take_over
from shared.sources.database.new_rows import NewRows
from shared.sources.database.row_limit import first_rows, limited
from shared.sources.database.table import Mode, Table, TableDeclarationError, needs_key
from shared.sources.hints import APPEND_EACH_RUN, arrow_schema
from shared.sources.names import column_name
from shared.sources.partitions import TimeWindow, merge_windows
from shared.sources.protocol import current_load
from shared.sources.quoting import literal, quote

ROW_HASH = "_row_hash"
"""The column of a table with history that changes when a row changes."""

_DISPOSITIONS: dict[Mode, Any] = {
    "full": "replace",
    # `_require_unique_key` has found that no key comes twice.
    "incremental": {"disposition": "merge", "strategy": "delete-insert", "deduplicated": True},
    "append": "append",
    "mirror": {"disposition": "merge", "strategy": "cdc"},
    "history": {
        "disposition": "merge",
        "strategy": "scd2",
        "row_version_column_name": ROW_HASH,
    },
    "window": {"disposition": "merge", "strategy": "delete-insert"},
    "changes": {"disposition": "merge", "strategy": "delete-insert"},
}
"""How the engine loads each mode."""


def database_source(tables: Sequence[Table], name: str) -> DltSource:
    """Return the source of some tables of a database; each is a resource.

    Nothing connects before a load extracts. The URL of the database is then taken from dlt's secrets:
    `credentials` in the section `sources.<name>`, or the variable `SOURCES__<NAME>__CREDENTIALS`.

    Args:
        tables: what to load, and how.
        name: the name of the source, and of its section in dlt's settings.

    Raises:
        TableDeclarationError: two tables have one name in the warehouse, or a mode needs a key.
    """
    names = [table.target for table in tables]
    if twice := {each for each in names if names.count(each) > 1}:
        raise TableDeclarationError(
            f"{', '.join(sorted(twice))} is the name of two tables in the warehouse: declare another one, "
            'Table(..., table="name").'
        )

    @dlt.source(name=name, section=name)
    def source() -> list[DltResource]:
        return [table_resource(table, name) for table in tables]

    return source()


def table_resource(table: Table, name: str) -> DltResource:
    """Return the resource of a table. An environment with `max_database_rows` loads it in full.

    Args:
        table: what to load, and how.
        name: the name of the source.

    Raises:
        TableDeclarationError: the mode needs a key, and none is declared.
    """
    table = limited(table)
    if needs_key(table.mode) and not table.key_columns:
        raise TableDeclarationError(
            f"Table {table.full_name}: the mode {table.mode} finds rows by their key: declare key=, such as "
            'that of the primary key, or mode="full".'
        )

    @dlt.resource(
        name=table.target,
        write_disposition=_DISPOSITIONS[table.mode],
        primary_key=table.key_columns,
        columns={str(table.cursor): {"partition": True}} if table.mode == "window" else {},
    )
    def rows() -> Iterator[Any]:
        """Yield Arrow tables with the columns of the table, in the types that the warehouse has for them.

        Raises:
            DatabaseError: the database refuses, or has not what is declared.
        """
        while _READER.is_busy:
            yield None  # dlt goes on with another resource, and comes back
        configuration = database_configuration(name)
        masking = Masking(table, name, configuration.mask_key)
        with _READER:
            if table.mode == "changes":
                yield from _changes(table, configuration, masking)
            else:
                with open_database(configuration) as database, database.snapshot(table) as snapshot:
                    yield from _Reading(snapshot, table, masking).items()

    description = table.description or f"Rows of {table.full_name} in {name}; mode {table.mode}."
    hints: dict[str, Any] = {"description": description}
    if table.mode == "append":
        hints |= APPEND_EACH_RUN
    return rows.apply_hints(additional_table_hints=hints)


class _Reader(threading.local):
    """Whether this thread reads a table, within `with`: a load has one transaction at a time.

    dlt takes an item of each resource in turn; without this, all tables would be open at once.
    """

    is_busy = False

    def __enter__(self) -> None:
        self.is_busy = True

    def __exit__(self, *_: object) -> None:
        self.is_busy = False


_READER = _Reader()


class _Reading:
    """What one load reads of a table."""

    def __init__(self, snapshot: Snapshot, table: Table, masking: Masking) -> None:
        self._snapshot, self._table, self._masking = snapshot, table, masking
        self._windows = _windows(table)
        self._place = f"{table.full_name} of {snapshot.server}"
        self._info = snapshot.describe(table)
        _require_free_names(table, self._info, self._place)
        _require_unique_key(snapshot, table, self._info)

    def items(self) -> Iterator[Any]:
        """Yield an empty table with the hints of the columns, and the rows that this load is to bring."""
        table = self._table
        columns = {column.name: column.hints for column in self._info.columns.values()}
        hints = self._masking.hints(columns)
        yield dlt.mark.with_hints(
            _with_hash(table, arrow_schema(hints).empty_table()),
            dlt.mark.make_hints(columns={**hints, **_technical(table)}),
        )
        if position := source_position(self._snapshot, table, self._info):
            dlt.current.resource_metrics()[SOURCE_POSITION] = position
        for batch in _counted(self._batches()):
            yield _with_hash(table, batch)

    def _batches(self) -> "Iterator[pa.RecordBatch]":
        """Yield the rows, masked, and change the position in the resource's state."""
        state = dlt.current.resource_state()
        take_over(self._table, state)
        if self._table.mode in ("incremental", "append", "history"):
            self._masking.require_same(state)
        if self._table.mode == "history":
            state.setdefault("masks", "")  # it has no other state that says that it was loaded
        if self._table.mode in ("incremental", "append"):
            new = NewRows(
                self._snapshot, self._table, self._info, state, current_load(), self._masking.batch
            )
            yield from new.batches()
            return
        where = ""
        if self._windows:
            cursor = self._info.columns[str(self._table.cursor)]
            where = _window(self._snapshot, cursor, self._windows)
        first = first_rows(self._snapshot, self._table, self._info)
        batches = self._snapshot.read(self._table, self._info, where, first)
        yield from map(self._masking.batch, batches)


def _changes(table: Table, configuration: DatabaseConfiguration, masking: Masking) -> Iterator[Any]:
    """Yield what the log of Postgres says has changed, and change the position in the resource's state."""
    from shared.sources.database.postgres.changes import Changes

    _windows(table)
    pipeline, state = dlt.current.pipeline(), dlt.current.resource_state()
    take_over(table, state)
    masking.require_same(state)
    owner = (pipeline.pipeline_name, str(pipeline.dataset_name))
    connect: Any = partial(open_database, configuration)
    changes = Changes(connect, table, owner, state, current_load())
    items: Any = changes.items()
    info: TableInfo = next(items)
    hints: Any = masking.hints({each.name: each.hints for each in info.columns.values()})
    disposition: Any = "replace" if changes.replaces else None
    yield dlt.mark.with_hints(
        arrow_schema(hints).empty_table(),
        dlt.mark.make_hints(columns=hints, write_disposition=disposition),
    )
    yield from _counted(map(masking.batch, items))


def _counted(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.Table]":
    """Yield batches as tables, and count them in the metrics of the resource."""
    metrics = dlt.current.resource_metrics()
    for batch in batches:
        metrics["rows_read"] = metrics.get("rows_read", 0) + batch.num_rows
        metrics["bytes_read"] = metrics.get("bytes_read", 0) + batch.nbytes
        yield pa.Table.from_batches([batch])


def _window(snapshot: Snapshot, cursor: Column, windows: Sequence[TimeWindow]) -> str:
    """Return the condition of the rows in the time windows of the run's partitions."""
    name = snapshot.quote(cursor.name)
    ranges = [
        [snapshot.literal(_bound(at, cursor), cursor) for at in window]
        for window in merge_windows(windows)
    ]
    return " OR ".join(f"({name} >= {start} AND {name} < {end})" for start, end in ranges)


def _windows(table: Table) -> list[TimeWindow]:
    """Return the time windows of the run's partitions; none for a table that is not loaded by windows.

    Raises:
        DatabaseError: the mode and the run do not fit.
    """
    load = current_load()
    partitions = load.partitions if load else ()
    windows = [key.window for key in partitions if key.window]
    if table.mode == "window" and not windows:
        raise DatabaseError(
            f"{table.full_name} has the mode window, and the run has no partitions with time windows: load "
            "it by an asset with daily, hourly, weekly or monthly partitions."
        )
    if table.mode != "window" and partitions:
        raise DatabaseError(
            f"{table.full_name} has the mode {table.mode}, and the run has partitions: load it by an asset "
            'without partitions, or write mode="window" and a cursor.'
        )
    return windows


def _bound(at: datetime, cursor: Column) -> str:
    """Return a bound of a window in the form that the column has: a day, or a time in UTC."""
    if cursor.hints["data_type"] == "date":
        return at.date().isoformat()
    at = at.astimezone(UTC)
    return (at if cursor.hints.get("timezone", True) else at.replace(tzinfo=None)).isoformat(" ")


def _require_free_names(table: Table, info: TableInfo, place: str) -> None:
    """Check that there are columns, and none that the load adds itself.

    Raises:
        DatabaseError: there is no column, or the load would write over one.
    """
    if not info.columns:
        raise DatabaseError(
            f"{place} has no columns to load. Leave it out, or declare fewer columns in exclude."
        )
    own = {ROW_HASH} if table.mode == "history" else set()
    taken = [
        name
        for name in info.columns
        if column_name(name) in own or column_name(name).startswith("_dlt_")
    ]
    if taken:
        raise DatabaseError(
            f"{place} has {', '.join(taken)}, a name of a column that the load adds. Declare "
            f"exclude={taken!r}, or load a view that names it otherwise."
        )


def _require_unique_key(snapshot: Snapshot, table: Table, info: TableInfo) -> None:
    """Check that no two rows have one key; a unique index says so without a query.

    Raises:
        DatabaseError: two rows have it, or a row has none: one of them would be lost.
    """
    key = table.key_columns
    if not needs_key(table.mode) or any(each <= {*key} for each in info.unique_keys):
        return
    names = ", ".join(map(snapshot.quote, key))
    where_null = " OR ".join(f"{snapshot.quote(name)} IS NULL" for name in key)
    from_table = snapshot.quote(*filter(None, [table.schema, table.name]))
    twice = snapshot.query(
        f"SELECT count(*) FROM (SELECT {names} FROM {from_table} GROUP BY {names} HAVING count(*) > 1 "
        f"OR max(CASE WHEN {where_null} THEN 1 ELSE 0 END) = 1) AS repeated"
    )[0][0]
    if twice:
        raise DatabaseError(
            f"{table.full_name} of {snapshot.server}: {twice} values of the key {', '.join(key)} are NULL or "
            "belong to several rows, so rows would be lost. Declare the columns that identify a row, or "
            'mode="full".'
        )


def _technical(table: Table) -> dict[str, Any]:
    return {ROW_HASH: {"data_type": "text", "nullable": False}} if table.mode == "history" else {}


def _with_hash(table: Table, rows: "pa.Table") -> "pa.Table":
    """Return rows with a hash of their values, where the warehouse compares versions of rows."""
    if table.mode != "history":
        return rows
    import duckdb  # takes long, and only this mode needs it

    # A column without a value adds nothing, so that a new column leaves the hashes as they are.
    parts = ", ".join(
        f"coalesce({literal(f'{len(name)}:{name}')} || length({quote(name)}::varchar) || ':' || "
        f"{quote(name)}::varchar, '')"
        for name in sorted(rows.column_names)
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("batch", rows)
        hashes = connection.sql(f"SELECT md5(concat({parts})) FROM batch").to_arrow_table()
    return rows.append_column(pa.field(ROW_HASH, pa.string(), False), hashes.column(0))
