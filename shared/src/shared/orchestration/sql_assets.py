"""Assets from `.sql` files: each file is one SELECT, and its rows are the table of the file's name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg

from shared import settings, warehouse
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.metadata import SQL_FILE, row_history, table_value
from shared.orchestration.translator import WEEKLY_FRESHNESS, asset_key
from shared.warehouse.lineage import ColumnLineage
from shared.warehouse.select import Select, parse_select
from shared.warehouse.transform import ReplacedTable, replace_table


def build_sql_assets(
    folder: Path,
    dataset: str,
    owner: str,
    *,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    freshness_policy: dg.FreshnessPolicy = WEEKLY_FRESHNESS,
) -> list[dg.AssetsDefinition]:
    """Return an asset for each `.sql` file of a folder.

    A file has one SELECT in DuckDB's dialect, with tables named `dataset.table`. The asset depends on
    these tables. A run replaces the whole table by the rows of the SELECT. The comment before the SELECT
    describes the table, and a comment on a column the column.

    Args:
        folder: the folder, such as `Path(__file__).parent / "sql"`.
        dataset: the dataset of the tables.
        owner: the team, as `team:<name>`.
        automation_condition: when Dagster materializes the assets automatically.
        freshness_policy: when Dagster reports the tables as stale; by default a week after the last run.

    Raises:
        DagsterInvalidDefinitionError: the folder has no `.sql` file, a file's name is not the name of a
            table, or a file is not one SELECT; the message has the file, the line and the column.
    """
    files = sorted(folder.glob("*.sql"))
    if not files:
        raise dg.DagsterInvalidDefinitionError(f"{folder} has no .sql file, or does not exist.")
    return [
        _build_sql_asset(
            file,
            _read(file, dataset),
            owner=owner,
            automation_condition=automation_condition,
            freshness_policy=freshness_policy,
        )
        for file in files
    ]


@dataclass(frozen=True)
class _SqlFile:
    """A checked file: the table that it makes, and its SELECT."""

    key: dg.AssetKey
    select: Select


def _read(file: Path, dataset: str) -> _SqlFile:
    """Check a file, and return it."""
    name = (
        file.relative_to(root) if file.is_relative_to(root := settings.workspace_root()) else file
    )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", file.stem):
        raise dg.DagsterInvalidDefinitionError(
            f"{name}: the table has the name of the file, so use a to z in lower case, digits and _, such as "
            "asteroids_per_week.sql."
        )
    try:
        select = parse_select(file.read_text(encoding="utf-8-sig"), str(name))
    except (warehouse.SelectError, UnicodeDecodeError) as error:
        message = str(error) if isinstance(error, warehouse.SelectError) else f"{name}: {error}"
        raise dg.DagsterInvalidDefinitionError(message) from None
    return _SqlFile(asset_key(dataset, file.stem), select)


def _dependencies(select: Select) -> list[dg.AssetKey]:
    """Return the assets of the tables that a SELECT reads.

    No asset has dlt's own tables, or a table with a name that Dagster does not accept.
    """
    return [
        dg.AssetKey(source)
        for source in select.tables
        if not source[1].startswith("_dlt_")
        and all(re.fullmatch(r"\w+", part, re.ASCII) for part in source)
    ]


def _build_sql_asset(
    file: Path,
    content: _SqlFile,
    *,
    owner: str,
    automation_condition: dg.AutomationCondition[Any] | None,
    freshness_policy: dg.FreshnessPolicy,
) -> dg.AssetsDefinition:
    (dataset, table), select = content.key.path, content.select

    @dg.asset(
        key=content.key,
        deps=_dependencies(select),
        description=select.description,
        owners=[owner],
        group_name=dataset,
        kinds={"sql", warehouse.warehouse_type()},
        code_version=sha256(select.sql.encode()).hexdigest()[:12],
        automation_condition=automation_condition,
        freshness_policy=freshness_policy,
        metadata={
            "dagster/table_name": f"{dataset}.{table}",
            "dagster/code_references": dg.CodeReferencesMetadataValue(
                code_references=[dg.LocalFileCodeReference(file_path=str(file), line_number=1)]
            ),
            "sql": dg.MetadataValue.md(f"```sql\n{select.sql.strip()}\n```"),
            SQL_FILE: file.name,
            # For readers such as `etl contract`. A run adds the types.
            "dagster/column_schema": dg.TableSchema(
                [
                    dg.TableColumn(
                        name,
                        type="undeclared",
                        description=select.column_descriptions.get(name.casefold()),
                    )
                    for name in select.columns
                ]
            ),
        },
    )
    def replace(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with as_dagster_failure():
            replaced = replace_table(
                dataset,
                table,
                select,
                preview_rows=settings.get_int("PREVIEW_ROWS"),
                log=context.log.info,
            )
        return dg.MaterializeResult(metadata=_metadata(context, content, replaced))

    return replace


def _metadata(
    context: dg.AssetExecutionContext, content: _SqlFile, replaced: ReplacedTable
) -> dict[str, Any]:
    """Return the metadata of a run, the most important first."""
    row_count = replaced.row_count
    return {
        "rows_loaded": row_count,
        **row_history(context.instance, context.asset_key, context.run.run_id, row_count),
        **({"preview": table_value(replaced.preview)} if replaced.preview else {}),
        "replaced": "full table",
        "duration_seconds": round(replaced.duration_seconds, 2),
        "dagster/row_count": row_count,
        "dagster/storage_kind": warehouse.warehouse_type(),
        "dagster/table_name": ".".join([replaced.database, *content.key.path]),
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    column.name, type=column.type, description=column.description or None
                )
                for column in replaced.columns
            ]
        ),
        **({"dagster/column_lineage": table_lineage(replaced.lineage)} if replaced.lineage else {}),
    }


def table_lineage(lineage: Mapping[str, ColumnLineage]) -> dg.TableColumnLineage:
    """Return the lineage of a table's columns as Dagster shows it."""
    return dg.TableColumnLineage(
        deps_by_column={
            column: [
                dg.TableColumnDep(dg.AssetKey([source.dataset, source.table]), source.column)
                for source in of_column.sources
            ]
            for column, of_column in lineage.items()
        }
    )
