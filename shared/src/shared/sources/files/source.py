"""The dlt source, and the check of a file before it loads."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dlt
from dlt.extract import DltResource

from shared import settings
from shared.lazy_modules import duckdb
from shared.lazy_modules import pyarrow as pa
from shared.sources.drop_folder import DropFolder, InvalidFileError, hash_content, shorten
from shared.sources.files.format import (
    CHECKS_DATABASE,
    Batch,
    FileFormat,
    OnBadRows,
    rejected_table,
)
from shared.sources.hints import (
    REPLACE_PARTITIONS,
    CompanionTable,
    arrow_schema,
    with_companion_tables,
)
from shared.sources.protocol import current_load
from shared.sources.quoting import literal, quote

_PUSHDOWN_MIN_BYTES = 1_000_000  # of all files of a run
_PUSHDOWN_MAX_FILES = 100  # in one query
_MAX_ERRORS = 5
_MAX_REASON_CHARS = 1_000


@dlt.source(name="files")
def file_source(
    paths: Sequence[str],
    table: str,
    file_format: FileFormat,
    on_bad_rows: OnBadRows = "fail",
    *,
    folder: str | None = None,
    description: str = "Rows of dropped files, with the file of each row.",
) -> DltResource:
    """Load files of a folder; a load replaces all rows of its files.

    Args:
        paths: files below the folder.
        table: the table to load into.
        file_format: their kind, and what they must look like.
        on_bad_rows: `fail`: a file with a bad row loads nothing; the error says where it is, and why
            it is bad. `quarantine`: bad rows go to `<table>_rejected`, the others load. A missing or
            an undeclared column always fails.
        folder: the folder, as for `DropFolder`; default: `DROP_FOLDER`.
        description: what the table is, for its users.
    """
    return file_rows(paths, table, file_format, on_bad_rows, folder=folder, description=description)


def file_rows(
    paths: Sequence[str],
    table: str,
    file_format: FileFormat,
    on_bad_rows: OnBadRows,
    *,
    folder: str | None,
    description: str,
) -> DltResource:
    """Return the resource of `file_source`, whose arguments this has."""
    paths = list(dict.fromkeys(paths))  # a file that is listed twice loads once
    rejected = CompanionTable(
        f"Rows of the files of {table} that were not loaded there, with the reason.",
        file_format.rejected_columns,
    )
    companions = {rejected_table(table): rejected} if on_bad_rows == "quarantine" else {}

    @dlt.resource(name=table, columns=file_format.table_columns, **REPLACE_PARTITIONS)
    def rows() -> Iterator[Any]:
        """Rows of the dropped files, typed as declared, with the file of each row.

        Yields Arrow tables with `file_name` and the declared columns; under `quarantine` also tables
        for the rejected rows. Adds the metrics `bytes_read` and, if DuckDB reads them, `files_pushed_down`.

        Raises:
            InvalidFileError: a path that must not be read, or a file that `validate_file` rejects.
        """
        drop_folder = DropFolder(folder or settings.drop_folder())
        metrics = dlt.current.resource_metrics()
        pushdown = _pushdown_item(drop_folder, paths, file_format, metrics)
        schema = arrow_schema(file_format.table_columns)
        # Without an empty table, the old rows of a file without rows would stay. It must be Arrow,
        # because dlt adds a column to other tables that Arrow rows do not have.
        yield schema.empty_table() if pushdown is None else pushdown
        for name in companions:
            yield rejected.empty(name)
        if pushdown is not None:
            return
        with duckdb.connect(CHECKS_DATABASE):
            for path in paths:
                before = drop_folder.stat(path)
                metrics["bytes_read"] = metrics.get("bytes_read", 0) + before.size
                problems: list[str] = []
                for batch in _read(drop_folder, path, file_format, on_bad_rows, problems):
                    names = pa.array([path] * len(batch.rows), pa.string())
                    yield pa.Table.from_arrays([names, *batch.rows.columns], schema=schema)
                    if batch.rejected:
                        bad_rows = _rejected_rows(path, batch, file_format)
                        yield dlt.mark.with_table_name(bad_rows, rejected_table(table))
                if problems:  # nothing is committed yet
                    raise InvalidFileError("; ".join(problems))
                drop_folder.require_unchanged({path: before})

    rows.apply_hints(additional_table_hints={"description": description})
    return with_companion_tables(rows, companions)


def validate_file(
    path: str,
    file_format: FileFormat,
    on_bad_rows: OnBadRows = "fail",
    max_errors: int = _MAX_ERRORS,
    folder: str | None = None,
) -> list[str]:
    """Return why a file would not load, with the place in the file; an empty list if it would load.

    Args:
        path: a file below the folder.
        file_format: what the file must look like.
        on_bad_rows: as for `file_source`.
        max_errors: the maximum number of bad rows to name.
        folder: the folder, as for `file_source`.

    Raises:
        InvalidFileError: the path leaves the folder, or it is missing or not a file.
    """
    drop_folder = DropFolder(folder or settings.drop_folder())
    drop_folder.resolve(path)
    problems: list[str] = []
    try:
        for _ in _read(
            drop_folder, path, file_format, on_bad_rows, problems, max_errors=max_errors
        ):
            pass  # only the problems matter
    except InvalidFileError as error:
        return [str(error)]
    return problems


def _read(
    drop_folder: DropFolder,
    path: str,
    file_format: FileFormat,
    on_bad_rows: OnBadRows,
    problems: list[str],
    *,
    max_errors: int = _MAX_ERRORS,
) -> Iterator[Batch]:
    """Yield the rows of a file, and add to `problems` why it must not load."""
    is_empty = True
    with drop_folder.local_copy(path) as file:
        try:
            for batch in file_format.read(file):
                is_empty = is_empty and not len(batch.rows) and not batch.rejected
                if on_bad_rows == "fail":
                    problems += [
                        f"{path}, {_place(row.location, file_format)}: {row.reason}"
                        for row in batch.rejected[: max_errors - len(problems)]
                    ]
                if len(problems) >= max_errors:
                    return
                if not problems:
                    yield batch
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}: {shorten(str(error), _MAX_REASON_CHARS)}")
    if is_empty and not problems and not file_format.allow_empty:
        problems.append(f"{path} has no rows")


def _place(location: Sequence[int], file_format: FileFormat) -> str:
    names = (name.replace("_", " ") for name in file_format.location)
    return ", ".join(f"{name} {n}" for name, n in zip(names, location, strict=True))


def _rejected_rows(path: str, batch: Batch, file_format: FileFormat) -> "pa.Table":
    rows = [(path, *row.location, row.reason, row.raw) for row in batch.rejected]
    schema = arrow_schema(file_format.rejected_columns)
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


def _pushdown_item(
    drop_folder: DropFolder, paths: Sequence[str], file_format: FileFormat, metrics: dict[str, int]
) -> Any | None:
    """Return the item that makes the destination read the files itself; None where it cannot."""
    load = current_load()
    if load is None or not load.pushdown_enabled:
        return None
    stats = {path: drop_folder.stat(path) for path in paths}
    size = sum(stat.size for stat in stats.values())
    if size < _PUSHDOWN_MIN_BYTES or len(paths) > _PUSHDOWN_MAX_FILES:
        return None
    names = ", ".join(map(quote, file_format.table_columns))
    selects: list[str] = []
    fingerprints: list[str] = []
    for path in paths:
        copies = Path(tempfile.mkdtemp(dir=load.pipelines_dir))
        with drop_folder.local_copy(path, copies) as file:
            select = file_format.pushdown_select(file, copies)
            if select is None:
                return None
            selects.append(f"SELECT {literal(path)} AS file_name, file.* FROM ({select}) AS file")
            with file.open("rb") as content:
                fingerprints += [path, str(file_format), hash_content(content)]
    metrics |= {"bytes_read": size, "files_pushed_down": len(paths)}
    query = f"SELECT {names} FROM ({' UNION ALL '.join(selects)}) AS files"
    return load.pushdown_query(
        query, "\n".join(fingerprints), lambda: drop_folder.require_unchanged(stats)
    )
