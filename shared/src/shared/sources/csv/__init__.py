"""CSV files of a folder or a bucket as a dlt source; DuckDB reads them and guesses nothing."""

from shared.sources.csv.format import REJECTED_COLUMNS, CsvFormat, OnBadRows, rejected_table
from shared.sources.csv.source import csv_source, validate_file
from shared.sources.drop_folder import DropFolder, FileStat, InvalidFileError

__all__ = [
    "REJECTED_COLUMNS",
    "CsvFormat",
    "DropFolder",
    "FileStat",
    "InvalidFileError",
    "OnBadRows",
    "csv_source",
    "rejected_table",
    "validate_file",
]
