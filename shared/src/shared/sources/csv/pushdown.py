"""Pushdown: the warehouse reads the file itself, with one query that fails on a bad row."""

from shared.sources.csv import values
from shared.sources.csv.file import CsvFile
from shared.sources.files.sql import strict_select
from shared.sources.quoting import literal


def can_push_down(file: CsvFile) -> bool:
    """Return whether a query of DuckDB reads exactly the file's rows, or fails."""
    has_json = any(hints["data_type"] == "json" for hints in file.csv_format.columns.values())
    return not has_json and file.is_exact and file.has_first_row()


def strict_select_sql(file: CsvFile) -> str:
    """Return SQL of all rows, typed; it fails on a bad row."""
    csv_format = file.csv_format
    selected = {name: _strict_value(file, name) for name in csv_format.columns}
    return strict_select(selected | file.extra_values(), file.texts, csv_format.rules)


def _strict_value(file: CsvFile, name: str) -> str:
    """Return the SQL of a column's value, which fails if it does not fit."""
    hints, form = file.csv_format.columns[name], file.csv_format.value_format(name)
    kind, text = hints["data_type"], file.text_of(name)
    is_required = not hints.get("nullable", True)
    if text is None:
        return f"NULL::{values.duckdb_type(hints)}"
    value = values.typed(text, hints, form)
    fits = values.is_lossless(text, value, hints, form)
    if is_required:
        fits = f"{text} IS NOT NULL AND ({fits})"
    checked = f"CASE WHEN {fits} THEN {value} ELSE error({literal(name)}) END"
    if values.may_be_canonical(hints, form):
        # Most values are canonical; the full check of a value takes far longer.
        cast = f"TRY_CAST({text} AS {values.duckdb_type(hints)})"
        checked = (
            f"CASE WHEN {values.is_canonical(text, cast, hints)} THEN {cast} ELSE {checked} END"
        )
    if kind == "timestamp" and hints.get("timezone", True):
        checked = f"timezone('UTC', {checked})"  # otherwise DuckDB uses the session's zone
    return checked if is_required or kind != "text" else text
