"""The dlt source, and the check of a file before it loads."""

from collections.abc import Iterator, Sequence
from typing import Any

import dlt
from dlt.extract import DltResource

from shared import settings
from shared.sources.csv.file import open_csv
from shared.sources.csv.format import REJECTED_COLUMNS, CsvFormat, OnBadRows, rejected_table
from shared.sources.csv.pushdown import pushdown_item
from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.hints import REPLACE_PARTITIONS, arrow_schema, empty_companion_table
from shared.sources.protocol import COMPANION_TABLES_HINT


@dlt.source(name="csv")
def csv_source(
    paths: Sequence[str],
    table: str,
    csv_format: CsvFormat,
    on_bad_rows: OnBadRows = "fail",
    *,
    folder: str | None = None,
    description: str = "Rows of dropped CSV files, with the file of each row.",
) -> DltResource:
    """Load CSV files of a folder; a load replaces all rows of its files.

    Args:
        paths: files below the folder.
        table: the table to load into.
        csv_format: what the files must look like.
        on_bad_rows: `fail`: a file with a bad row loads nothing; the error names line, column and
            reason. `quarantine`: bad rows go to `<table>_rejected` (`REJECTED_COLUMNS`), the others
            load. The two tables commit together, except after pushdown. A wrong header always fails.
        folder: the folder, as for `DropFolder`; default: `DROP_FOLDER`.
        description: what the table is, for its users.
    """
    paths = list(dict.fromkeys(paths))  # a file that is listed twice loads once
    companions = [rejected_table(table)] if on_bad_rows == "quarantine" else []

    @dlt.resource(name=table, columns=csv_format.table_columns, **REPLACE_PARTITIONS)
    def csv_rows() -> Iterator[Any]:
        """Rows of the dropped CSV files, typed as declared, with the file of each row.

        Yields Arrow batches with `file_name` and the declared columns, and adds the metric
        `bytes_read`; under `quarantine` also batches of `REJECTED_COLUMNS` for the rejected table.

        Raises:
            InvalidFileError: a path that must not be read, or a file that `validate_file` rejects.
        """
        drop_folder = DropFolder(folder or settings.drop_folder())
        metrics = dlt.current.resource_metrics()
        schema = arrow_schema(csv_format.table_columns)
        pushdown = pushdown_item(drop_folder, paths, csv_format, metrics)
        # Without an empty table, the old rows of a file without rows would stay. It must be Arrow,
        # because dlt adds a column to other tables that Arrow rows do not have.
        yield schema.empty_table() if pushdown is None else pushdown
        for rejected in companions:
            yield from empty_companion_table(rejected, REJECTED_COLUMNS)
        for path in paths if pushdown is None else ():
            before = drop_folder.stat(path)
            metrics["bytes_read"] = metrics.get("bytes_read", 0) + before.size
            with open_csv(drop_folder, path, csv_format) as file:
                if problems := file.problems(on_bad_rows):  # the file may differ from a checked one
                    raise InvalidFileError("; ".join(problems))
                for batch in file.rows():
                    yield batch.cast(schema)
                for batch in file.rejected() if companions else ():
                    rows = batch.cast(arrow_schema(REJECTED_COLUMNS))
                    yield dlt.mark.with_table_name(rows, companions[0])
            drop_folder.require_unchanged({path: before})

    return csv_rows.apply_hints(
        additional_table_hints={COMPANION_TABLES_HINT: companions, "description": description}
    )


def validate_file(
    path: str, csv_format: CsvFormat, on_bad_rows: OnBadRows = "fail", max_errors: int = 5
) -> list[str]:
    """Return why a file would not load, with line and column; an empty list if it would load.

    Checks the header and that there are rows; under `fail` also that every value fits its declared
    type without loss, and the format's rules.

    Args:
        path: a file below the folder in `DROP_FOLDER`.
        csv_format: what the file must look like.
        on_bad_rows: as for `csv_source`.
        max_errors: the maximum number of bad rows to name.

    Raises:
        InvalidFileError: the path leaves the folder, or it is missing or not a file.
    """
    drop_folder = DropFolder(settings.drop_folder())
    drop_folder.resolve(path)
    try:
        with open_csv(drop_folder, path, csv_format) as file:
            return file.problems(on_bad_rows, max_errors)
    except InvalidFileError as error:
        return [str(error)]
