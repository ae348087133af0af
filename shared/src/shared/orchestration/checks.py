"""Asset checks for any location's tables; they query the warehouse."""

from collections.abc import Sequence

import dagster as dg

from shared import warehouse
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.rows_to_check import CHECKED, WHOLE_TABLE, rows_to_check

SEVERITY = "severity"
"""Metadata of a check: the severity of its failure, ERROR or WARN."""

_MAX_EXAMPLES = 5  # files and rows in a check's result


def build_unique_rows_check(
    asset: dg.AssetKey,
    columns: Sequence[str],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    table: str | None = None,
) -> dg.AssetChecksDefinition:
    """Return the check that a table has no duplicate rows.

    After a load it reads the rows of that load, and looks up their keys in the table if the columns do
    not have the partition. It reads the whole table in the cases that `rows_to_check` lists. The result
    says what was read. Null values count as equal.

    Args:
        asset: the table's key, `[dataset, table]`.
        columns: the columns that identify a row.
        severity: WARN if upstream may send duplicates.
        table: the table, if the asset is a resource that fills several.
    """
    dataset, of_asset = asset.path
    checked = table or of_asset

    @dg.asset_check(
        asset=asset,
        name=f"{table}_rows_are_unique" if table else None,
        description=f"No two rows of {table or 'the table'} have the same {', '.join(columns)}.",
        metadata={SEVERITY: severity.value},
    )
    def rows_are_unique(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with as_dagster_failure():  # the table may not exist yet
            rows = rows_to_check(context, checked)
            duplicates = warehouse.find_duplicates(
                dataset, checked, columns, rows.condition, limit=_MAX_EXAMPLES
            )
        examples = [f"{', '.join(map(str, key))}: {count} times" for key, count in duplicates.rows]
        return dg.AssetCheckResult(
            passed=not examples,
            severity=severity,
            description="; ".join(examples) or _unique(duplicates.checked_rows),
            metadata={
                CHECKED: WHOLE_TABLE if duplicates.checked_rows is None else rows.condition,
                "reason": rows.reason,
                **(
                    {}
                    if duplicates.checked_rows is None
                    else {
                        "checked_rows": duplicates.checked_rows,
                        "compared_with": duplicates.compared_with,
                    }
                ),
                "sql": dg.MetadataValue.md(f"```sql\n{duplicates.sql}\n```"),
            },
        )

    return rows_are_unique


def _unique(checked_rows: int | None) -> str:
    if checked_rows is None:
        return "all rows are unique"
    if not checked_rows:
        return "the load has no rows; no others were read"
    return f"the {checked_rows:,} rows of this load are unique; the others were not read again"


def build_rejected_rows_check(asset: dg.AssetKey, max_ratio: float) -> dg.AssetChecksDefinition:
    """Return the check of a table that a CSV source loads with `on_bad_rows="quarantine"`.

    Its result has the number of rows in `<table>_rejected` and the first of them. It fails if a file
    exceeds the ratio. Of the table it reads only the rows of files that have rejected rows.

    Args:
        asset: the table's key, `[dataset, table]`.
        max_ratio: the share of a file's rows that may be rejected, from 0 to 1.
    """
    dataset, table = asset.path
    from shared.sources.csv import rejected_table  # locations without files do not need it

    rejected = warehouse.quote_identifier(dataset, rejected_table(table))

    @dg.asset_check(
        asset=asset,
        description=f"No file has more than {max_ratio:.1%} of its rows rejected. Rejected rows are in "
        f"{dataset}.{rejected_table(table)}.",
    )
    def rejected_rows() -> dg.AssetCheckResult:
        files = warehouse.query(f"""
            WITH loaded AS (
                SELECT file_name, 0 AS bad FROM {warehouse.quote_identifier(dataset, table)}
                WHERE file_name IN (SELECT file_name FROM {rejected})
                UNION ALL SELECT file_name, 1 FROM {rejected}
            )
            SELECT file_name, sum(bad)::BIGINT AS bad, count(*) AS total, avg(bad)::DOUBLE AS ratio
            FROM loaded GROUP BY file_name ORDER BY 4 DESC, 1
        """)
        messages = [
            f"{file['file_name']}: {file['bad']} of {file['total']} rows rejected ({file['ratio']:.1%})"
            for file in files
        ]
        examples = warehouse.query(f"""
            SELECT file_name, line, reason, left(raw, 100) AS raw
            FROM {rejected} ORDER BY file_name, line LIMIT {_MAX_EXAMPLES}
        """)
        return dg.AssetCheckResult(
            passed=all(file["ratio"] <= max_ratio for file in files),
            description="; ".join(messages[:_MAX_EXAMPLES]) or "no row was rejected",
            metadata={
                "rejected": sum(file["bad"] for file in files),
                "max ratio": max((file["ratio"] for file in files), default=0.0),
                "files with rejected rows": len(files),
                "examples": dg.MetadataValue.table(
                    [
                        dg.TableRecord({name: str(value) for name, value in row.items()})
                        for row in examples
                    ],
                    schema=dg.TableSchema(
                        [dg.TableColumn(name) for name in ("file_name", "line", "reason", "raw")]
                    ),
                ),
            },
        )

    return rejected_rows
