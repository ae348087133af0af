"""Which rows of a table a load may have changed, so that a check need not read all of them."""

import re
from typing import Any

import sqlglot
from dlt.common.schema.utils import get_root_table
from sqlglot import exp

from shared.warehouse.result import LoadResult

ALL_ROWS = "true"
"""The condition of a load that may have changed any row of a table."""

_MAX_CONDITION_CHARS = 20_000  # it is stored with the load
_LOAD_ID, _ROOT_ID = "_dlt_load_id", "_dlt_root_id"
_CLOSES_OLD_ROWS = ("scd2",)  # this merge strategy changes rows of earlier loads


def loaded_rows(result: LoadResult, dataset: str, table: str) -> str:
    """Return the SQL condition, in DuckDB's dialect, of the rows that a load may have changed.

    | the table | the rows |
    |---|---|
    | is loaded by partition | those of the load's partitions |
    | appends, or merges by key | those with the load's id |
    | is nested in one of these, and each row has the id of its root | those of these roots |
    | anything else, such as one that is replaced | all: `ALL_ROWS` |

    Args:
        result: the load's result.
        dataset: the declared dataset of the table.
        table: the table's name in the warehouse.
    """
    tables = result.schema.tables
    if table not in tables:
        return ALL_ROWS
    root: Any = get_root_table(tables, table)
    condition = _root_condition(result, root)
    if condition != ALL_ROWS and root["name"] != table:
        if _ROOT_ID not in tables[table]["columns"]:
            return ALL_ROWS
        roots = exp.table_(root["name"], db=dataset, quoted=True).sql("duckdb")
        condition = f'"{_ROOT_ID}" IN (SELECT "_dlt_id" FROM {roots} WHERE {condition})'
    return condition if len(condition) <= _MAX_CONDITION_CHARS else ALL_ROWS


def _root_condition(result: LoadResult, root: Any) -> str:
    if scope := result.scopes.get(root["name"]):
        return _with_plain_texts(scope.to_sql()) if scope.partitions else ALL_ROWS
    disposition, strategy = root.get("write_disposition"), root.get("x-merge-strategy")
    if disposition not in ("append", "merge") or strategy in _CLOSES_OLD_ROWS:
        return ALL_ROWS
    if _LOAD_ID not in root["columns"]:
        return ALL_ROWS
    load_ids = ", ".join(f"'{package.load_id}'" for package in result.load_packages)
    return f'"{_LOAD_ID}" IN ({load_ids})'


def _with_plain_texts(condition: str) -> str:
    """Return a condition without texts in hexadecimal, which only dlt's merge needs."""
    return re.sub(
        r"decode\(from_hex\('([0-9a-f]+)'\)\)",
        lambda match: exp.Literal.string(bytes.fromhex(match[1]).decode()).sql("duckdb"),
        condition,
    )


def columns_of(condition: str) -> set[str]:
    """Return the columns that decide whether a row meets a condition."""
    parsed = sqlglot.parse_one(condition, read="duckdb")
    return {column.name for column in parsed.find_all(exp.Column)}
