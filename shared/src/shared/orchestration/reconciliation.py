"""The asset check that compares a table of a database with its copy in the warehouse.

**Consistency.** The source changes while the check runs and after the load, so not each difference is an
error. In a range, the rows of the warehouse are read first, then those of the source in a new snapshot:

- A table of Postgres: a load notes which transactions its snapshot has seen. A row of the source that was
  written before, and is unchanged, must be in the warehouse unchanged: if not, the check fails, ERROR. A newer
  row does not count, nor does the row of the warehouse with its key.
- Elsewhere, and for rows that are only in the warehouse, nothing says whether the source has changed since the
  load. Such a difference is confirmed if a check after another load finds it again, with the same rows on both
  sides: the check fails, WARN. That can be wrong for one row only: one that the source changed or inserted back
  to exactly what the warehouse has, and after that load changed or deleted once more.
- The modes `incremental` and `append` keep what the source deletes, so rows that are only in the warehouse are
  counted and do not fail.

**Cost.** For each range the check opens one connection to the source, and sends one query for the range's end, one for its
rows, of the compared columns, and at most seven of its catalog. Ranges need a key whose first column is an
integer, a date, or, in Postgres, a text; the order of texts is that of their bytes, for which an index must
have the collation `C`. Any other key is one range, in memory as a whole.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from shared import warehouse
from shared.orchestration.dagster_internals import last_check_metadata
from shared.orchestration.failures import as_dagster_failure
from shared.sources.database.base import Column
from shared.sources.database.checksums import (
    EXTRA,
    MAX_FINDINGS,
    Comparison,
    Finding,
    KeyRange,
    RangeResult,
)
from shared.sources.database.connection import database_configuration, open_database
from shared.sources.database.load_position import SOURCE_POSITION
from shared.sources.database.table import Mode, Table
from shared.sources.quoting import literal
from shared.warehouse.tables import warehouse_naming

CHECK_NAME = "source_and_warehouse_agree"
"""The name of the check."""

UNCONFIRMED = "unconfirmed"
"""Metadata of an evaluation: keys that may have changed since the load, with a hash of both rows, and since
when they differ so."""

_MAX_SHOWN = 10  # keys and ranges in a result

_KEEPS_DELETED: Sequence[Mode] = ("incremental", "append")


def build_reconciliation_check(
    asset: dg.AssetKey,
    table: Table,
    source_name: str,
    *,
    columns: Sequence[str] = (),
    rows_per_range: int = 50_000,
    allow_extra: bool | None = None,
    warehouse_condition: str = "",
) -> dg.AssetChecksDefinition:
    """Return the check that a table in the warehouse has the rows of the source.

    The check compares counts and hashes of all rows, a range of the key at a time, and names the first ranges
    and keys that differ. For a separate schedule, select it alone:
    `dg.define_asset_job("reconcile", dg.AssetSelection.checks(check))`.

    The module says at which consistency, and what it costs the source.

    Args:
        asset: the table's key, `[dataset, table]`.
        table: the table, as for `database_source`. Its key decides which rows are compared.
        source_name: the name of the source.
        columns: which columns to compare, besides the key; by default all that are loaded without a mask.
        rows_per_range: how many rows are compared at a time.
        allow_extra: whether rows may be only in the warehouse, so that they are counted only. False if
            the source deletes no rows: one that is only in the warehouse is an error. By default as above.
        warehouse_condition: which rows of the warehouse count, in DuckDB's SQL, such as
            `deleted_at IS NULL` where deletions are marked. Of a table with history, the current ones do.

    Raises:
        DagsterInvalidDefinitionError: the table is loaded by partitions, at different times.
    """
    if table.mode == "window":
        raise dg.DagsterInvalidDefinitionError(
            f"{table.full_name}: each partition of a table with the mode window has the rows of the time of its load, so "
            "the table cannot be compared as a whole. Check its partitions' row counts instead."
        )
    comparison = _TableComparison(
        asset, table, source_name, columns, rows_per_range, allow_extra, warehouse_condition
    )

    @dg.asset_check(
        asset=asset,
        name=CHECK_NAME,
        description=f"The warehouse has each row of {table.full_name} in {source_name} as it was before the "
        "last load.",
    )
    def agree(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with as_dagster_failure():
            return comparison.evaluate(context.instance)

    return agree


@dataclass(frozen=True)
class _TableComparison:
    """What a check compares; see `build_reconciliation_check`."""

    asset: dg.AssetKey
    table: Table
    source_name: str
    columns: Sequence[str]
    rows_per_range: int
    allow_extra: bool | None
    warehouse_condition: str

    def evaluate(self, instance: dg.DagsterInstance) -> dg.AssetCheckResult:
        """Compare the table, range by range, and return the result."""
        allow_extra = self.allow_extra
        if allow_extra is None and self.table.mode in _KEEPS_DELETED:
            allow_extra = True
        current = "_dlt_valid_to IS NULL" if self.table.mode == "history" else ""
        position, started = _last_load(instance, self.asset)
        check_key = dg.AssetCheckKey(self.asset, CHECK_NAME)
        before: Any = last_check_metadata(instance, check_key).get(UNCONFIRMED)
        report = _Report(allow_extra, before.value if before else {}, started)
        with open_database(database_configuration(self.source_name)) as database:
            stored = _Stored(self.asset, [*filter(None, [self.warehouse_condition, current])])
            comparison = Comparison(
                database,
                self.table,
                self.columns,
                self.rows_per_range,
                position,
                allow_repeated=self.table.mode == "append",
                is_stored=stored.has,
            )
            for result in comparison.results(stored.rows):
                report.add(result)
        return report.result()


def _last_load(instance: dg.DagsterInstance, asset: dg.AssetKey) -> tuple[str | None, float]:
    """Return the position of the source that the last load has noted, and when its run started."""
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        return None, 0
    position = event.asset_materialization.metadata.get(SOURCE_POSITION)
    record = instance.get_run_record_by_id(event.run_id)
    return (
        str(position.value) if position else None,
        (record.start_time or 0) if record else 0,
    )


class _Stored:
    """The rows of a table in the warehouse."""

    def __init__(self, asset: dg.AssetKey, conditions: Sequence[str]) -> None:
        self._dataset, self._table = asset.path
        self._conditions = conditions
        self._naming = warehouse_naming()
        self._names: set[str] | None = None

    def has(self, column: str) -> bool:
        """Return whether the table has a column of the source."""
        if self._names is None:
            rows = warehouse.query(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ?",
                [self._dataset, self._table],
            )
            self._names = {str(row["column_name"]) for row in rows}
        return self._naming.normalize_identifier(column) in self._names

    def rows(self, keys: KeyRange, columns: Mapping[str, Column]) -> list[dict[str, Any]]:
        """Return the rows of a range, with the values of some columns of the source."""
        selected = ", ".join(
            f"{self._value(column)} AS c{number}" for number, column in enumerate(columns.values())
        )
        conditions = [*self._conditions]
        if keys.column:
            conditions.append(keys.condition(*self._order(keys.column)))
        where = " AND ".join(f"({condition})" for condition in conditions if condition)
        load_id = "_dlt_load_id" if self.has("_dlt_load_id") else "NULL"
        return warehouse.query(
            f"SELECT {selected}, {load_id} AS load_id FROM {warehouse.quote_identifier(self._dataset, self._table)}"
            f"{where and f' WHERE {where}'}"
        )

    def _value(self, column: Column) -> str:
        name = warehouse.quote_identifier(self._naming.normalize_identifier(column.name))
        return f"CAST({name} AS VARCHAR)" if column.hints["data_type"] == "json" else name

    def _order(self, column: Column) -> tuple[str, Any]:
        if column.hints["data_type"] == "text":
            return f'{self._value(column)} COLLATE "C"', literal
        kind = str(column.hints["data_type"]).upper()
        return self._value(column), lambda text: f"CAST({literal(text)} AS {kind})"


@dataclass
class _Report:
    """What the ranges say.

    Attributes:
        allow_extra: see `build_reconciliation_check`.
        before: the keys that the last evaluation could not confirm.
        loaded: when the run of the last load started.
    """

    allow_extra: bool | None
    before: Mapping[str, Sequence[Any]]
    loaded: float
    counts: Counter[str] = field(default_factory=Counter)
    ranges: list[RangeResult] = field(default_factory=list)
    proven: list[Finding] = field(default_factory=list)
    confirmed: list[Finding] = field(default_factory=list)
    unconfirmed: dict[str, Sequence[Any]] = field(default_factory=dict)

    def add(self, result: RangeResult) -> None:
        """Add the result of a range, which has just been compared."""
        now = datetime.now(UTC).timestamp()
        self.counts.update(
            {"rows": result.source_rows, "newer": result.newer_rows, **result.counts}
        )
        counted = len(self.proven) + len(self.confirmed)
        for finding in result.findings:
            if finding.is_proven or (finding.kind == EXTRA and self.allow_extra is False):
                self.proven.append(finding)
            elif finding.kind != EXTRA or self.allow_extra is None:
                self._confirm(finding, now)
        if len(self.proven) + len(self.confirmed) > counted and len(self.ranges) < _MAX_SHOWN:
            self.ranges.append(result)

    def _confirm(self, finding: Finding, now: float) -> None:
        digest, since = self.before.get(finding.key, ("", None))
        if since is not None and digest == finding.digest and since < self.loaded:
            self.confirmed.append(finding)
        elif since is None or digest != finding.digest:
            since = now
        if len(self.unconfirmed) < MAX_FINDINGS:
            self.unconfirmed[finding.key] = (finding.digest, since)

    def result(self) -> dg.AssetCheckResult:
        """Return the result of the check."""
        found = [*self.proven, *self.confirmed]
        shown = [_describe(finding) for finding in found[:_MAX_SHOWN]]
        if len(found) > _MAX_SHOWN:
            shown.append("…")
        text = "; ".join(shown) or f"{self.counts['rows']:,} rows agree"
        extra = self.counts[EXTRA] - sum(finding.kind == EXTRA for finding in found)
        notes = {
            f"{self.counts['newer']:,} rows are newer than the last load": self.counts["newer"],
            f"{extra:,} rows are only in the warehouse": extra,
            f"{len(self.unconfirmed):,} keys differ and may have changed since the load; the check after "
            "the next load decides": len(self.unconfirmed) - len(self.confirmed),
        }
        kinds = {
            kind: count for kind, count in self.counts.items() if kind not in ("rows", "newer")
        }
        metadata: dict[str, Any] = {
            "rows_compared": self.counts["rows"],
            "rows_newer_than_load": self.counts["newer"],
            **{kind.replace(" ", "_"): count for kind, count in kinds.items()},
            UNCONFIRMED: self.unconfirmed,
        }
        if self.ranges:
            metadata["ranges"] = _table([_range_record(result) for result in self.ranges])
            metadata["keys"] = _table(
                [
                    {"key": each.key, "finding": each.kind, "columns": ", ".join(each.columns)}
                    for each in found[:_MAX_SHOWN]
                ]
            )
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.ERROR if self.proven else dg.AssetCheckSeverity.WARN,
            description=". ".join([text, *(note for note, count in notes.items() if count > 0)]),
            metadata=metadata,
        )


def _describe(finding: Finding) -> str:
    columns = f" in {', '.join(finding.columns)}" if finding.columns else ""
    return f"{finding.key} is {finding.kind}{columns}"


def _range_record(result: RangeResult) -> dict[str, Any]:
    return {
        "range": str(result.keys),
        "rows_in_source": result.source_rows,
        "rows_in_warehouse": result.stored_rows,
        "checksum_of_source": result.checksums[0],
        "checksum_of_warehouse": result.checksums[1],
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(row)) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in rows[0]]),
    )
