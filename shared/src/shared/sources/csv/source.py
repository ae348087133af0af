"""The dlt source of CSV files."""

from collections.abc import Sequence

import dlt
from dlt.extract import DltResource

from shared.sources.csv.format import CsvFormat
from shared.sources.files.format import OnBadRows
from shared.sources.files.source import file_rows


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

    This is `file_source`, with its own dlt schema.

    Args:
        paths: files below the folder.
        table: the table to load into.
        csv_format: what the files must look like.
        on_bad_rows: `fail`: a file with a bad row loads nothing; the error names line, column and
            reason. `quarantine`: bad rows go to `<table>_rejected`, the others load. A wrong header
            always fails.
        folder: the folder, as for `DropFolder`; default: `DROP_FOLDER`.
        description: what the table is, for its users.
    """
    return file_rows(paths, table, csv_format, on_bad_rows, folder=folder, description=description)
