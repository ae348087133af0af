"""CSV files of a folder or a bucket as a dlt source; DuckDB reads them and guesses nothing."""

from shared.sources.csv.fixed_width import FixedWidthFormat
from shared.sources.csv.format import CsvFormat
from shared.sources.csv.source import csv_source
from shared.sources.csv.values import ValueFormat
from shared.sources.drop_folder import DropFolder, FileStat, InvalidFileError
from shared.sources.files.format import OnBadRows, rejected_table
from shared.sources.files.source import validate_file

__all__ = [
    "CsvFormat",
    "DropFolder",
    "FileStat",
    "FixedWidthFormat",
    "InvalidFileError",
    "OnBadRows",
    "ValueFormat",
    "csv_source",
    "rejected_table",
    "validate_file",
]
