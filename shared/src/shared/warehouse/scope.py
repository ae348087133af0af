"""What one load replaces, and what its steps share."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlt.common.data_writers.escape import escape_postgres_identifier

from shared.warehouse.appends import Appends
from shared.warehouse.locks.base import Log, no_log

HEX_DECODE_SQL = {
    "duckdb": "decode(from_hex('{}'))",
    "postgres": "convert_from(decode('{}', 'hex'), 'UTF8')",
    "snowflake": "hex_decode_string('{}')",
    "bigquery": "safe_convert_bytes_to_string(from_hex('{}'))",
    "clickhouse": "unhex('{}')",
    "databricks": "decode(unhex('{}'), 'UTF-8')",
}
"""SQL for a text that is written in hexadecimal, by dialect."""


@dataclass(frozen=True)
class PartitionScope:
    """The rows of a table that a load replaces: those with some values in its partition column."""

    resource: str
    column: str
    partition_keys: tuple[str, ...]

    def to_sql(
        self,
        dialect: str = "duckdb",
        escape: Callable[[str], str] = escape_postgres_identifier,
    ) -> str:
        """Return the condition for these rows."""
        values = ", ".join(_sql_literal(key, dialect) for key in self.partition_keys)
        return f"{escape(self.column)} IN ({values})"

    def excluding(self, keys: Sequence[str]) -> "PartitionScope":
        """Return the scope without some partitions."""
        return replace(
            self, partition_keys=tuple(key for key in self.partition_keys if key not in keys)
        )


def _sql_literal(key: str, dialect: str) -> str:
    """Return SQL for a partition key that survives what dlt does to the text of a merge.

    dlt splits that text at every semicolon, joins its lines, fills its braces, and uses no transaction
    if it contains ALTER SCHEMA. A file name can contain any of these.
    """
    if re.fullmatch(r"[\w.:/-]*", key, re.ASCII):
        return f"'{key}'"
    return HEX_DECODE_SQL[dialect].format(key.encode().hex())


@dataclass
class LoadState:
    """What the steps of one load share; dlt's clients and jobs read and update it.

    Attributes:
        partition_scopes: the rows to replace, by table.
        force_reload: whether files are read although the table has their rows, unchanged.
        log: receives what is skipped.
        working_dir: a directory of this load.
        verify_lock: raises if the load has lost its locks. Called before rows are replaced.
        pushdown_tables: the tables that the warehouse fills by a query.
        fingerprints: change when the rows of those queries change.
        pre_commit_checks: raise if the rows of those queries must not be committed.
        rows_inserted: rows that those queries inserted, by table.
        tables_in_package: all tables of the load package.
        pending_table_chains: tables that are ready to be replaced, with what that needs.
        appends: what the load appends.
    """

    partition_scopes: dict[str, PartitionScope] = field(default_factory=dict)
    force_reload: bool = False
    log: Log = no_log
    working_dir: Path = Path()
    verify_lock: Callable[[], None] = lambda: None
    pushdown_tables: set[str] = field(default_factory=set)
    fingerprints: list[str] = field(default_factory=list)
    pre_commit_checks: list[Callable[[], None]] = field(default_factory=list)
    rows_inserted: Counter[str] = field(default_factory=Counter)
    tables_in_package: set[str] = field(default_factory=set)
    pending_table_chains: dict[str, Sequence[Any]] = field(default_factory=dict)
    appends: Appends = field(default_factory=Appends)

    def tables_in_transaction(self, table: str) -> set[str]:
        """Return the tables that are replaced in one transaction with a table, itself included."""
        scope = self.partition_scopes.get(table)
        return {table} | {
            name
            for name in self.tables_in_package - self.pushdown_tables
            if scope and name in self.partition_scopes
            if self.partition_scopes[name].resource == scope.resource
        }

    def ready_together(self, table: str, pending: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
        """Note that a table is ready; return all tables of its transaction once the last one is."""
        self.pending_table_chains[table] = pending
        tables = sorted(self.tables_in_transaction(table))
        if not self.pending_table_chains.keys() >= set(tables):
            return {}
        return {name: self.pending_table_chains[name] for name in tables}
