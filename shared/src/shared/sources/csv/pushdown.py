"""Pushdown: the warehouse reads the files itself, with one query that fails on a bad row."""

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.sources.csv import sql
from shared.sources.csv.file import CsvFile, open_csv
from shared.sources.csv.format import CsvFormat
from shared.sources.drop_folder import DropFolder, hash_content
from shared.sources.protocol import current_load
from shared.sources.quoting import literal, quote

_PUSHDOWN_MIN_BYTES = 5_000_000  # of all files of a run
_PUSHDOWN_MAX_FILES = 100  # in one query


def pushdown_item(
    drop_folder: DropFolder, paths: Sequence[str], csv_format: CsvFormat, metrics: dict[str, int]
) -> Any | None:
    """Return the item that makes the destination read the files itself; None where it cannot.

    That is as fast as DuckDB. It needs a destination that supports it, files in UTF-8 with rows, and
    enough bytes to be worth it, because the warehouse is locked meanwhile. Compressed files and files
    in a bucket are copied first.
    """
    load = current_load()
    is_utf8 = codecs.lookup(csv_format.encoding).name == "utf-8"
    if load is None or not load.pushdown_enabled or not is_utf8:
        return None
    stats = {path: drop_folder.stat(path) for path in paths}
    size = sum(stat.size for stat in stats.values())
    if size < _PUSHDOWN_MIN_BYTES or len(paths) > _PUSHDOWN_MAX_FILES:
        return None
    selects, fingerprints = [], []
    for path in paths:
        with open_csv(drop_folder, path, csv_format, Path(load.pipelines_dir)) as file:
            if not can_push_down(file):
                return None
            selects.append(strict_select_sql(file))
            # The query has the declared columns; the hash represents the content.
            with file.source.open("rb") as content:
                query = selects[-1].replace(str(file.source), "")
                fingerprints += [query, hash_content(content)]
    names = ", ".join(map(quote, ("file_name", *csv_format.columns)))
    select = f"SELECT {names} FROM ({' UNION ALL '.join(selects)}) AS files"
    metrics["bytes_read"] = size
    return load.pushdown_query(
        select, "\n".join(fingerprints), lambda: drop_folder.require_unchanged(stats)
    )


def can_push_down(file: CsvFile) -> bool:
    """Return whether a query of DuckDB reads exactly the file's rows, or fails."""
    return file.encoding == "utf-8-sig" and file.is_exact and file.has_first_row()


def strict_select_sql(file: CsvFile) -> str:
    """Return SQL of all rows, typed, with the file's name; it fails on a bad row."""
    csv_format, values = file.csv_format, []
    for name, hints in csv_format.columns.items():
        text, kind = quote(name), hints["data_type"]
        is_required = not hints.get("nullable", True)
        value = sql.typed(text, hints, csv_format.date_format)
        fits = sql.is_lossless(text, value, hints)
        if is_required:
            fits = f"{text} IS NOT NULL AND ({fits})"
        checked = f"CASE WHEN {fits} THEN {value} ELSE error({literal(name)}) END"
        if kind != "date" or csv_format.date_format == "%Y-%m-%d":
            # Most values are canonical; the full check of a value takes far longer.
            cast = f"TRY_CAST({text} AS {sql.duckdb_type(hints)})"
            checked = (
                f"CASE WHEN {sql.is_canonical(text, cast, hints)} THEN {cast} ELSE {checked} END"
            )
        if kind == "timestamp" and hints.get("timezone", True):
            checked = f"timezone('UTC', {checked})"  # otherwise DuckDB uses the session's zone
        values.append(f"{checked if is_required or kind != 'text' else text} AS {text}")
    rules = " AND ".join(
        f"CASE WHEN ({rule}\n) IS NOT FALSE THEN true ELSE error({literal(name)}) END"
        for name, rule in csv_format.rules.items()
    )
    names = ", ".join(map(quote, csv_format.columns))
    return (
        f"SELECT {literal(file.path)} AS file_name, {names} FROM "
        f"(SELECT {', '.join(values)} FROM {file.texts}) AS typed WHERE {rules or 'true'}"
    )
