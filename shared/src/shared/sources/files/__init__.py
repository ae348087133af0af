"""Parquet, JSON and Excel files as a dlt source; each value loads unchanged or not at all."""

from shared.sources.files.excel import ExcelFormat
from shared.sources.files.format import FileFormat, OnBadRows
from shared.sources.files.json_lines import JsonFormat, JsonLinesFormat
from shared.sources.files.parquet import ParquetFormat
from shared.sources.files.source import file_source, validate_file

__all__ = [
    "ExcelFormat",
    "FileFormat",
    "JsonFormat",
    "JsonLinesFormat",
    "OnBadRows",
    "ParquetFormat",
    "file_source",
    "validate_file",
]
