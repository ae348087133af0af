"""Which rows of a table a check reads in a run: those that the run has loaded, or all."""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from shared import warehouse
from shared.orchestration.dagster_internals import earlier_check_results, run_records
from shared.orchestration.metadata import LOADED_ROWS

CHECK_WHOLE_TABLE = "etl/check_whole_table"
"""The run tag with which checks read the whole table."""

CHECKED = "checked"
"""Metadata of a check: which rows it has read."""

WHOLE_TABLE = "whole table"
"""The value of `CHECKED` if the check has read all rows."""

_MAX_EARLIER_RESULTS = 50


@dataclass(frozen=True)
class RowsToCheck:
    """The rows of a table that a check reads.

    Attributes:
        condition: their SQL condition; `ALL_ROWS` for the whole table.
        reason: why it is not, or is, the whole table.
    """

    condition: str
    reason: str


def rows_to_check(context: dg.AssetCheckExecutionContext, table: str) -> RowsToCheck:
    """Return which rows of a table a check must read to know that the whole table passes.

    They are the rows that the run has loaded, if all others passed before. It is the whole table if the
    run has not loaded the asset or may have changed any row, if the check has never passed or has failed,
    if an earlier run ended without its result, and if the run has the tag `etl/check_whole_table`.

    Args:
        context: the check's.
        table: the table's name.
    """
    (key,) = context.selected_asset_check_keys
    reason = _reason_for_whole_table(context, key)
    conditions = [] if reason else _loaded_in_run(context, key.asset_key, table)
    if not reason and not conditions:
        reason = "the run has not loaded the table"
    if not reason and warehouse.ALL_ROWS in conditions:
        reason = "the load may have changed any row"
    if reason:
        return RowsToCheck(warehouse.ALL_ROWS, reason)
    condition = conditions[0] if len(conditions) == 1 else f"({') OR ('.join(conditions)})"
    return RowsToCheck(condition, "the run has loaded these rows, and the others passed before")


def _reason_for_whole_table(
    context: dg.AssetCheckExecutionContext, key: dg.AssetCheckKey
) -> str | None:
    if context.run.tags.get(CHECK_WHOLE_TABLE) == "true":
        return f"the run has the tag {CHECK_WHOLE_TABLE}"
    earlier = earlier_check_results(context.instance, key, context.run.run_id, _MAX_EARLIER_RESULTS)
    for is_passed, metadata in earlier:
        if is_passed is None:
            return "an earlier run ended without a result of the check"
        if not is_passed:
            return "the check failed before"
        if CHECKED in metadata and metadata[CHECKED].value == WHOLE_TABLE:
            break  # results before it say nothing more
    return None if earlier else "the check has no earlier result"


def _loaded_in_run(
    context: dg.AssetCheckExecutionContext, key: dg.AssetKey, table: str
) -> list[str]:
    """Return the conditions of the rows that the run has loaded into a table, one for each load."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    conditions: dict[str, None] = {}
    for record in run_records(context.instance, context.run.run_id, kind):
        event = record.asset_materialization
        if event and event.asset_key == key and LOADED_ROWS in event.metadata:
            by_table: Any = event.metadata[LOADED_ROWS].value
            conditions[by_table.get(table, warehouse.ALL_ROWS)] = None
    return list(conditions)
