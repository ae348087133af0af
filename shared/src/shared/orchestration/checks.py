"""Asset checks that any location may put on its tables; they look at what has landed."""

from collections.abc import Sequence

import dagster as dg

from shared import warehouse
from shared.orchestration.failures import as_dagster_failure
from shared.sources.csv import rejected_table

_SHOWN = 5  # files, and records, in a check's result


def build_unique_rows_check(
    asset: dg.AssetKey,
    columns: Sequence[str],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetChecksDefinition:
    """Makes the check that no two rows of a table are the same thing; a doubled load shows here.

    It reads the whole table: 20 million rows take seven seconds, in which no load begins. Two rows
    without a value count as the same.

    Args:
        asset: the table's key, `[dataset, table]`.
        columns: what tells one thing from another.
        severity: WARN where upstream may send a thing twice.
    """
    names = ", ".join(map(warehouse.quote_identifier, columns))

    @dg.asset_check(
        asset=asset, description=f"Each {', '.join(columns)} stands in the table once, not twice."
    )
    def rows_are_unique() -> dg.AssetCheckResult:
        with as_dagster_failure():  # the table may not be there yet
            doubled = warehouse.query(f"""
                SELECT {names}, count(*) AS "rows that are the same" FROM {warehouse.quote_identifier(*asset.path)}
                GROUP BY {names} HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT {_SHOWN}
            """)
        told = [
            f"{', '.join(str(row[column]) for column in columns)}: {row['rows that are the same']} times"
            for row in doubled
        ]
        return dg.AssetCheckResult(
            passed=not doubled,
            severity=severity,
            description="; ".join(told) or "all rows are unique",
        )

    return rows_are_unique


def build_rejected_rows_check(asset: dg.AssetKey, most: float) -> dg.AssetChecksDefinition:
    """Makes the check of a table that a CSV source loads with `on_bad_rows="quarantine"`.

    Its result shows how many records stand in `<table>_rejected`, and the first of them; it fails
    where a file had more than a stated share.

    Args:
        asset: the table's key, `[dataset, table]`.
        most: the share of a file's records that may be rejected, from 0 to 1.
    """
    dataset, table = asset.path
    rejected = warehouse.quote_identifier(dataset, rejected_table(table))

    @dg.asset_check(
        asset=asset,
        description=f"No file has more than {most:.1%} of its records rejected; those stand in "
        f"{dataset}.{rejected_table(table)}.",
    )
    def rejected_rows() -> dg.AssetCheckResult:
        files = warehouse.query(f"""
            WITH landed AS (
                SELECT file_name, 0 AS bad FROM {warehouse.quote_identifier(dataset, table)}
                UNION ALL SELECT file_name, 1 FROM {rejected}
            )
            SELECT file_name, sum(bad)::BIGINT AS bad, count(*) AS records, avg(bad)::DOUBLE AS share
            FROM landed GROUP BY file_name HAVING sum(bad) > 0 ORDER BY 4 DESC, 1
        """)
        told = [
            f"{file['file_name']}: {file['bad']} of {file['records']} records rejected "
            f"({file['share']:.1%})"
            for file in files
        ]
        first = warehouse.query(f"""
            SELECT file_name, line, reason, left(raw, 100) AS raw
            FROM {rejected} ORDER BY file_name, line LIMIT {_SHOWN}
        """)
        return dg.AssetCheckResult(
            passed=all(file["share"] <= most for file in files),
            description="; ".join(told[:_SHOWN]) or "no record was rejected",
            metadata={
                "rejected": sum(file["bad"] for file in files),
                "largest share": max((file["share"] for file in files), default=0.0),
                "files with rejected records": len(files),
                "first rejected": dg.MetadataValue.table(
                    [
                        dg.TableRecord({name: str(value) for name, value in row.items()})
                        for row in first
                    ],
                    schema=dg.TableSchema(
                        [dg.TableColumn(name) for name in ("file_name", "line", "reason", "raw")]
                    ),
                ),
            },
        )

    return rejected_rows
