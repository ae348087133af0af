"""Find rows of a table that have the same key, and read no more of it than needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shared.warehouse.catalog import quote_identifier
from shared.warehouse.loaded_rows import ALL_ROWS, columns_of
from shared.warehouse.locks.base import Log, no_log
from shared.warehouse.query import query

_COUNT, _MATCHES, _ROWS = "duplicate rows", "checked rows", "checked rows with null"


@dataclass(frozen=True)
class Duplicates:
    """Keys that several rows of a table have.

    Attributes:
        rows: the first keys, by column, each with the number of its rows.
        checked_rows: the rows that were compared; None for all rows of the table.
        compared_with: what they were compared with.
        sql: the query that found them.
    """

    rows: Sequence[tuple[Sequence[Any], int]]
    checked_rows: int | None
    compared_with: str
    sql: str


def find_duplicates(
    dataset: str,
    table: str,
    columns: Sequence[str],
    condition: str = ALL_ROWS,
    *,
    limit: int = 5,
    log: Log = no_log,
) -> Duplicates:
    """Return the keys of rows that meet a condition and have the key of another row; NULLs are equal.

    If the condition depends on the key's columns only, a row and its duplicate both meet it, so no other
    row is read. Otherwise the keys of the rows are looked up in the whole table, whose other columns are
    not read.

    Args:
        dataset: the declared dataset of the table.
        table: the table's name.
        columns: the key.
        condition: of the rows to check, in DuckDB's dialect; see `loaded_rows`.
        limit: how many keys are returned.
        log: receives waits.

    Raises:
        Exception: what `query` raises.
    """
    search = _Search(quote_identifier(dataset, table), columns, f"({condition})", limit, log)
    if condition == ALL_ROWS:
        return search.in_all_rows()
    if columns_of(condition) <= set(columns):
        return search.among_rows()
    return search.in_table()


@dataclass(frozen=True)
class _Search:
    table: str
    columns: Sequence[str]
    condition: str
    limit: int
    log: Log

    @property
    def _key(self) -> str:
        return ", ".join(map(quote_identifier, self.columns))

    @property
    def _has_null(self) -> str:
        return " OR ".join(f"{quote_identifier(column)} IS NULL" for column in self.columns)

    def in_all_rows(self) -> Duplicates:
        sql = (
            f'SELECT {self._key}, count(*) AS "{_COUNT}" FROM {self.table} '
            f"GROUP BY {self._key} HAVING count(*) > 1 {self._most_frequent}"
        )
        return Duplicates(self._keys(self._query(sql)), None, "the whole table", sql)

    def among_rows(self) -> Duplicates:
        # Without HAVING, so that the sum is known if no key is repeated.
        sql = (
            f'SELECT {self._key}, count(*) AS "{_COUNT}", sum(count(*)) OVER () AS "{_MATCHES}" '
            f"FROM {self.table} WHERE {self.condition} GROUP BY {self._key} {self._most_frequent}"
        )
        rows = self._query(sql)
        checked = int(rows[0][_MATCHES]) if rows else 0
        return Duplicates(self._keys(rows), checked, "each other: the key has the partition", sql)

    def in_table(self) -> Duplicates:
        is_checked = f"sum(CASE WHEN {self.condition} THEN 1 ELSE 0 END)"
        # `=`, and so a hash join, does not find NULLs; they are rare, and get their own query.
        sql = (
            f'SELECT {self._key}, count(*) AS "{_COUNT}", sum({is_checked}) OVER () AS "{_MATCHES}" '
            f"FROM {self.table} JOIN (SELECT DISTINCT {self._key} FROM {self.table} "
            f"WHERE {self.condition}) AS checked USING ({self._key}) "
            f"GROUP BY {self._key} {self._most_frequent}"
        )
        rows = self._query(sql)
        checked = int(rows[0][_MATCHES]) if rows else 0
        ((with_null,),) = (
            row.values()
            for row in self._query(
                f'SELECT count(*) AS "{_ROWS}" FROM {self.table} '
                f"WHERE {self.condition} AND ({self._has_null})"
            )
        )
        if with_null:
            rows = [
                *rows,
                *self._query(
                    f'SELECT {self._key}, count(*) AS "{_COUNT}" FROM {self.table} '
                    f"WHERE {self._has_null} GROUP BY {self._key} "
                    f"HAVING count(*) > 1 AND {is_checked} > 0 {self._most_frequent}"
                ),
            ]
        return Duplicates(self._keys(rows), checked + with_null, "the keys of the whole table", sql)

    @property
    def _most_frequent(self) -> str:
        return f"ORDER BY count(*) DESC LIMIT {self.limit}"

    def _query(self, sql: str) -> list[dict[str, Any]]:
        return query(sql, log=self.log)

    def _keys(self, rows: Sequence[dict[str, Any]]) -> list[tuple[list[Any], int]]:
        found: Iterator[tuple[list[Any], int]] = (
            ([row[column] for column in self.columns], int(row[_COUNT])) for row in rows
        )
        repeated = sorted((each for each in found if each[1] > 1), key=lambda each: -each[1])
        return repeated[: self.limit]
