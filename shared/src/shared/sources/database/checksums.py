"""Compares the rows of a table of a database with those of its copy, by ranges of the key.

Both sides' rows become Arrow tables of the same types, and one expression of DuckDB hashes both, so a value
has one text whichever database it comes from.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import duckdb
from shared.lazy_modules import pyarrow as pa
from shared.sources.database.base import Column, Database, DatabaseError, Snapshot, TableInfo
from shared.sources.database.load_position import oldest_unseen
from shared.sources.database.postgres.transactions import transactions_of
from shared.sources.database.table import Table
from shared.sources.hints import arrow_schema
from shared.sources.quoting import literal

MISSING, DIFFERENT, REPEATED, EXTRA = (
    "missing in the warehouse",
    "different",
    "several times in the warehouse",
    "only in the warehouse",
)
"""What a comparison says about a key."""

MAX_FINDINGS = 1000
"""How many findings of a range are named; all are counted."""

_NEWER = "_is_newer"


@dataclass(frozen=True)
class KeyRange:
    """Rows whose first key column is greater than `after` and at most `to`, in the order of its index.

    Attributes:
        column: the first key column; None for one range of all rows, whose order the databases do not share.
        after: the text of a value; None for the first range.
        to: the text of a value; None for the last range.
    """

    column: Column | None = None
    after: str | None = None
    to: str | None = None

    def condition(self, quoted: str, value: Callable[[str], str]) -> str:
        """Return the condition in some SQL, from the column and a function that writes a value."""
        after = [f"{quoted} > {value(self.after)}"] if self.after is not None else []
        to = [f"{quoted} <= {value(self.to)}"] if self.to is not None else []
        return " AND ".join(after + to)

    def __str__(self) -> str:
        """Return it for people."""
        name = self.column.name if self.column else "all rows"
        bounds = [f"after {self.after}"] * (self.after is not None)
        bounds += [f"to {self.to}"] * (self.to is not None)
        return " ".join([name, *bounds])


@dataclass(frozen=True)
class Finding:
    """A key whose rows are not the same.

    Attributes:
        key: the key as a text, `id=5`.
        kind: what is wrong, such as `DIFFERENT`.
        columns: names of the columns that differ.
        digest: a hash of the row in both databases, and of the load that wrote it to the warehouse.
        is_proven: whether the row of the source was there before the load began, and since.
    """

    key: str
    kind: str
    columns: Sequence[str]
    digest: str
    is_proven: bool


@dataclass(frozen=True)
class RangeResult:
    """The comparison of a range.

    Attributes:
        keys: the range.
        source_rows: rows of the source that count.
        stored_rows: rows of the warehouse, without those whose key is newer in the source.
        newer_rows: rows of the source that are newer than the load, and do not count.
        checksums: of the rows of the source, and of those of the warehouse that the source has.
        counts: how many keys there are, by what is wrong.
        findings: the first of them.
    """

    keys: KeyRange
    source_rows: int
    stored_rows: int
    newer_rows: int
    checksums: tuple[str, str]
    counts: Mapping[str, int]
    findings: Sequence[Finding]


StoredRows = Callable[[KeyRange, Mapping[str, Column]], list[dict[str, Any]]]
"""Returns the rows of the warehouse in a range: some columns in their order, and the id of the row's load."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of a table with its copy.

    Attributes:
        database: the database of the source.
        table: the table.
        columns: which columns to compare; by default all that are loaded and have no mask.
        rows_per_range: how many rows a range has.
        position: the `source_position` of the last load.
        allow_repeated: whether the warehouse may have several versions of a row.
        is_stored: says whether the warehouse has a column; a new one comes with the next load.
    """

    database: Database
    table: Table
    columns: Sequence[str] = ()
    rows_per_range: int = 50_000
    position: str | None = None
    allow_repeated: bool = False
    is_stored: Callable[[str], bool] = lambda _: True

    def results(self, stored: StoredRows) -> Iterator[RangeResult]:
        """Yield the result of each range.

        The rows of the warehouse are read first, and then those of the source, in a new snapshot: a row
        that is in this snapshot, and was in that of the load, was unchanged when the warehouse was read.

        Raises:
            DatabaseError: the source refuses, or the table has no key by which rows can be compared.
        """
        with self.database.snapshot() as snapshot:
            info = self._described(snapshot)
            column = _range_column(snapshot, info.columns[self._key(info)[0]])
            keys: KeyRange | None = self._bounded(snapshot, KeyRange(column))
        while keys:
            rows = stored(keys, info.columns)
            with self.database.snapshot() as snapshot:
                yield self._compared(snapshot, info, keys, rows)
                following = replace(keys, after=keys.to, to=None)
                keys = self._bounded(snapshot, following) if keys.to is not None else None

    def _key(self, info: TableInfo) -> tuple[str, ...]:
        return self.table.key_columns or tuple(info.primary_key)

    def _described(self, snapshot: Snapshot) -> TableInfo:
        """Return the table with the key and the columns to compare only."""
        info = snapshot.describe(self.table)
        key = self._key(info)
        if not key or {*key} & {*self.table.masks} or {*key} - {*info.columns}:
            raise DatabaseError(
                f"{self.table.full_name} of {snapshot.server} has no key whose values are loaded as they are, so "
                "its rows cannot be compared. Declare key=, and neither mask nor exclude it."
            )
        comparable = {*info.columns} - {*self.table.masks}
        if unknown := {*self.columns} - comparable:
            raise DatabaseError(
                f"{self.table.full_name} of {snapshot.server}: {', '.join(sorted(unknown))} cannot be compared, "
                "because it is not loaded, or has a mask."
            )
        wanted = self.columns or [
            name for name in info.columns if name in comparable and self.is_stored(name)
        ]
        columns = {name: info.columns[name] for name in dict.fromkeys([*key, *wanted])}
        return replace(info, columns=columns)

    def _bounded(self, snapshot: Snapshot, keys: KeyRange) -> KeyRange:
        """Return a range with its last value, found in the order of the key."""
        if keys.column is None:
            return keys
        ordered, value = _order(snapshot, keys.column)
        condition = keys.condition(ordered, value)
        last = snapshot.query(
            f"SELECT {snapshot.text_of(keys.column)} AS bound FROM {_name(snapshot, self.table)}"
            f"{condition and f' WHERE {condition}'} ORDER BY {ordered} LIMIT 1 OFFSET {self.rows_per_range - 1}"
        )
        return replace(keys, to=str(last[0][0]) if last else None)

    def _compared(
        self, snapshot: Snapshot, info: TableInfo, keys: KeyRange, stored: list[dict[str, Any]]
    ) -> RangeResult:
        hints = {name: column.hints for name, column in info.columns.items()}
        newer = self._newer(snapshot, info)
        columns = {**info.columns, **({_NEWER: newer} if newer else {})}
        condition = keys.condition(*_order(snapshot, keys.column)) if keys.column else ""
        schema = arrow_schema({name: column.hints for name, column in columns.items()})
        batches = snapshot.read(self.table, replace(info, columns=columns), condition)
        source = _canonical(pa.Table.from_batches(batches, schema), hints)
        if newer is None:
            source = source.append_column(_NEWER, pa.repeat(pa.scalar(False), len(source)))
        load_ids = [row.pop("load_id") for row in stored]
        copy = _canonical(_arrow(stored, arrow_schema(hints), self.table), hints)
        numbered = [f"c{number}" for number in range(len(hints))]
        sides = _Sides(
            source.rename_columns([*numbered, "is_newer"]),
            copy.rename_columns(numbered).append_column("load_id", pa.array(load_ids, pa.string())),
            list(hints),
            len(self._key(info)),
            self.allow_repeated,
        )
        return sides.compare(keys, is_proven=newer is not None)

    def _newer(self, snapshot: Snapshot, info: TableInfo) -> Column | None:
        """Return the column that says whether a row is newer than the last load; None if nothing says it."""
        transactions = transactions_of(snapshot, self.table, info)
        if transactions is None or self.position is None:
            return None
        oldest = oldest_unseen(self.position, transactions)
        if oldest is None:
            return None
        hints: Any = {"name": _NEWER, "data_type": "bool", "nullable": False}
        return Column(_NEWER, hints, f"({transactions.number} >= {oldest})", "boolean")


def _range_column(snapshot: Snapshot, column: Column) -> Column | None:
    """Return a key column if both databases can have the same ranges of it."""
    data_type = column.hints["data_type"]
    has_order = data_type in ("bigint", "date") or (
        data_type == "text" and snapshot.dialect == "postgresql"
    )
    if not has_order or snapshot.dialect == "mssql":  # no LIMIT
        return None
    with suppress(DatabaseError):  # its values have no order
        snapshot.text_of(column)
        return column
    return None


def _order(snapshot: Snapshot, column: Column) -> tuple[str, Callable[[str], str]]:
    """Return the SQL by which a column is ordered, and the function that writes a value of it."""
    if column.hints["data_type"] == "text":  # in the order of its bytes, as in the warehouse
        return f'({snapshot.text_of(column)}) COLLATE "C"', literal
    return snapshot.quote(column.name), lambda text: snapshot.literal(text, column)


def _name(snapshot: Snapshot, table: Table) -> str:
    return snapshot.quote(*filter(None, [table.schema, table.name]))


def _arrow(rows: list[dict[str, Any]], schema: "pa.Schema", table: Table) -> "pa.Table":
    """Return rows of the warehouse in the types of the source."""
    arrays = []
    for index, column in enumerate(schema):
        values = [[*row.values()][index] for row in rows]
        if pa.types.is_binary(column.type):
            values = [None if value is None else bytes(value) for value in values]
        try:
            arrays.append(pa.array(values, column.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise DatabaseError(
                f"{table.target}: the values of the column {column.name} in the warehouse are not of the type "
                f"that the source has, {column.type}: {error}. Reload the table with the tag "
                "etl/full_refresh = true."
            ) from None
    return pa.Table.from_arrays(
        arrays, schema=pa.schema([pa.field(f.name, f.type) for f in schema])
    )


def _canonical(rows: "pa.Table", hints: Mapping[str, TColumnSchema]) -> "pa.Table":
    """Return rows with one text for equal JSON: databases store it with other spaces and orders."""
    for name, column in hints.items():
        if column["data_type"] != "json":
            continue
        index = rows.column_names.index(name)
        texts = [None if text is None else _json(text) for text in rows.column(index).to_pylist()]
        rows = rows.set_column(index, name, pa.array(texts, pa.string()))
    return rows


def _json(text: str) -> str:
    def number(digits: str) -> int | str:
        exact = Decimal(digits)
        if exact == exact.to_integral_value():
            return int(exact)
        return f"\0{exact.normalize()}"  # no text of JSON in a database has this character

    return json.dumps(json.loads(text, parse_float=number), sort_keys=True)


@dataclass(frozen=True)
class _Sides:
    """The rows of a range in both databases; the columns are c0, c1, …, those of the key first.

    Attributes:
        source: rows of the source, with the column `is_newer`.
        copy: rows of the warehouse.
        names: the names of the columns.
        key_size: how many of them are the key.
        allow_repeated: see `Comparison`.
    """

    source: "pa.Table"
    copy: "pa.Table"
    names: Sequence[str]
    key_size: int
    allow_repeated: bool

    def compare(self, keys: KeyRange, *, is_proven: bool) -> RangeResult:
        """Return what differs, by a join on the key."""
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("source", self.source)
            connection.register("copy", self.copy)
            connection.execute(self._joined_sql())
            totals = connection.execute(_TOTALS_SQL).fetchall()[0]
            counts = connection.execute(_COUNTS_SQL).fetchall()
            found = connection.execute(_FINDINGS_SQL).fetchall()
        findings = [
            Finding(key, kind, columns, digest, kind == REPEATED or (is_proven and kind != EXTRA))
            for key, kind, columns, digest in found
        ]
        rows, stored, newer, *checksums = totals
        return RangeResult(keys, rows, stored, newer, tuple(checksums), dict(counts), findings)

    def _joined_sql(self) -> str:
        columns = [f"c{number}" for number in range(len(self.names))]
        key = ", ".join(columns[: self.key_size])
        texts = (f"coalesce(length({c}::varchar) || ':' || {c}::varchar, 'null')" for c in columns)
        row = f"md5(concat({', '.join(texts)})) AS digest, [{', '.join(f'{c}::varchar' for c in columns)}] AS texts"
        shown = ", ', ', ".join(
            f"{literal(f'{name}=')}, c{number}"
            for number, name in enumerate(self.names[: self.key_size])
        )
        names = f"[{', '.join(map(literal, self.names))}]"
        return f"""
            CREATE TABLE compared AS
            WITH s AS (SELECT {key}, is_newer, {row} FROM source),
                w AS (
                    SELECT {key}, count(*) AS copies, list(digest) AS digests,
                        first(texts) AS texts, max(load_id) AS load_id
                    FROM (SELECT {key}, load_id, {row} FROM copy) GROUP BY {key}
                )
            SELECT concat({shown}) AS key, s.digest, w.digests[1] AS stored_digest, w.copies, w.load_id,
                coalesce(s.is_newer, false) AS is_newer,
                CASE WHEN s.is_newer THEN NULL
                    WHEN s.digest IS NULL THEN '{EXTRA}'
                    WHEN w.copies IS NULL THEN '{MISSING}'
                    WHEN NOT list_contains(w.digests, s.digest) THEN '{DIFFERENT}'
                    WHEN w.copies > 1 AND NOT {self.allow_repeated} THEN '{REPEATED}'
                END AS kind,
                CASE WHEN kind = '{DIFFERENT}' THEN list_filter({names},
                    lambda name, i: s.texts[i] IS DISTINCT FROM w.texts[i]) ELSE [] END AS columns
            FROM s FULL JOIN w USING ({key})
        """


_SUM = "to_hex(coalesce(sum(('0x' || left({}, 12))::BIGINT) FILTER (NOT is_newer AND {} IS NOT NULL), 0)::BIGINT)"

_TOTALS_SQL = f"""
    SELECT count(digest) FILTER (NOT is_newer),
        coalesce(sum(copies) FILTER (NOT is_newer), 0)::BIGINT, count(*) FILTER (is_newer),
        {_SUM.format("digest", "digest")}, {_SUM.format("stored_digest", "digest")}
    FROM compared
"""
"""Each checksum adds up to the 48 first bits of the hashes; 50,000 rows cannot overflow 64 bits."""

_COUNTS_SQL = "SELECT kind, count(*) FROM compared WHERE kind IS NOT NULL GROUP BY kind"

_FINDINGS_SQL = f"""
    SELECT key, kind, columns, left(md5(concat_ws('/', digest, stored_digest, load_id)), 16) FROM compared WHERE kind IS NOT NULL
    ORDER BY kind = '{EXTRA}', key LIMIT {MAX_FINDINGS}
"""
