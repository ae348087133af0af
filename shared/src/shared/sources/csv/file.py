"""One CSV file: check its header and its rows, and read valid and rejected rows with DuckDB."""

import codecs
import csv
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa

from shared.sources.csv import sql
from shared.sources.csv.folder import DropFolder, InvalidFileError, shorten
from shared.sources.csv.format import CsvFormat, OnBadRows
from shared.sources.csv.rows import iter_rows, printable

BATCH_ROWS = 100_000
"""Rows that dlt gets at a time; limits memory."""

_MAX_VALUE_CHARS = 400  # of a value in a message
# Columns that DuckDB reads in addition to the file's; a space in the names keeps them different.
_ROW_COLUMNS = {
    "line of the file": "BIGINT",
    "why rejected": "VARCHAR",
    "text of the row": "VARCHAR",
}
_LINE, _REASON, _RAW = map(sql.quote, _ROW_COLUMNS)
_TEXTS = sql.quote("texts of the values")


@contextmanager
def open_csv(
    drop_folder: DropFolder, path: str, csv_format: CsvFormat, copies: Path | None = None
) -> Iterator["CsvFile"]:
    """Open a file and check that its header is the declared one.

    Args:
        drop_folder: the folder of the file.
        path: the file, below the folder.
        csv_format: what the file must look like.
        copies: keeps a copy of the file, if one is needed.

    Raises:
        InvalidFileError: the path must not be read, or the header differs.
    """
    with drop_folder.local_copy(path, copies) as source, tempfile.TemporaryDirectory() as folder:
        encoding = _detect_encoding(source, csv_format.encoding)
        with source.open(encoding=encoding, errors="surrogateescape", newline="") as text:
            reader = csv.reader(text, strict=True)
            try:
                header = [printable(name) for name in next(reader, [])]
            except (csv.Error, UnicodeError) as error:
                raise InvalidFileError(f"{path}: the header cannot be read: {error}") from None
        if not header:
            raise InvalidFileError(f"{path} is empty: it has no header")
        if sorted(header) != sorted(csv_format.columns):
            raise InvalidFileError(
                f"{path}: the header is {shorten(', '.join(header))}; "
                f"expected {shorten(', '.join(csv_format.columns))}"
            )
        with duckdb.connect() as connection:
            parsed = (encoding, header, reader.line_num)
            yield CsvFile(path, csv_format, source, *parsed, Path(folder), connection)


def _detect_encoding(source: Path, declared: str) -> str:
    """Return the declared encoding, or for UTF-8 what the byte order mark says."""
    if codecs.lookup(declared).name != "utf-8":
        return declared
    with source.open("rb") as file:
        start = file.read(4)
    # The mark of UTF-32 begins with the mark of UTF-16.
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


@dataclass
class CsvFile:
    """A file with the declared header, and the rows that DuckDB reads from it.

    DuckDB checks the file and, if all rows are valid, reads it directly. Otherwise the rows are
    written to a second file, each with its line and with what is wrong with its quotes, its characters
    or its number of values. DuckDB reads that file with the same checks.
    """

    path: str
    csv_format: CsvFormat
    source: Path
    encoding: str
    header: list[str]
    header_lines: int
    folder: Path
    connection: duckdb.DuckDBPyConnection

    def problems(self, on_bad_rows: OnBadRows, max_errors: int = 5) -> list[str]:
        """Return why the file must not be loaded; an empty list if it may be."""
        try:
            relation = (
                sql.read_csv(self._utf8_copy, self.texts) if self._is_valid else self._checked_rows
            )
            if not self._has_rows(relation):
                if self.csv_format.allow_empty:
                    return []
                return [f"{self.path} has a header and no rows"]
            if self._is_valid or on_bad_rows == "quarantine":
                return []
            bad_rows = self.connection.execute(
                f"SELECT {_LINE}, {_REASON} FROM {self._checked_rows} "
                f"WHERE {_REASON} <> '' ORDER BY 1 LIMIT {max_errors:d}"
            ).fetchall()
        except (duckdb.Error, UnicodeError) as error:
            return [f"{self.path}: {_reason(error)}"]
        return [f"{self.path}, line {line}: {reason}" for line, reason in bad_rows]

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the valid rows, typed, with the file's name."""
        if self._is_valid:
            types = {name: sql.duckdb_type(self.csv_format.columns[name]) for name in self.header}
            relation = sql.read_csv(self._utf8_copy, types, self.csv_format.date_format)
        else:
            relation = f"(FROM {self._checked_rows} WHERE {_REASON} = '')"
        return self._batches(
            f"{', '.join(map(sql.quote, self.csv_format.columns))} FROM {relation}"
        )

    def rejected(self) -> Iterator[pa.RecordBatch]:
        """Yield the other rows, with the columns of `REJECTED_COLUMNS`."""
        if self._is_valid:
            return iter(())
        return self._batches(
            f"{_LINE} AS line, {_REASON} AS reason, {_RAW} AS raw FROM {self._checked_rows} "
            f"WHERE {_REASON} <> ''"
        )

    def starts_with_row(self) -> bool:
        """Return whether DuckDB can read a first row, without reading the rest of the file."""
        try:
            return self._has_rows(sql.read_csv(self.source, self.texts))
        except duckdb.Error:
            return False

    @property
    def texts(self) -> dict[str, str]:
        """The file's columns in their order, each with DuckDB's type for text."""
        return dict.fromkeys(self.header, "VARCHAR")

    def _has_rows(self, relation: str) -> bool:
        return bool(self.connection.execute(f"SELECT 1 FROM {relation} LIMIT 1").fetchall())

    def _batches(self, select: str) -> Iterator[pa.RecordBatch]:
        query = f"SELECT ?::VARCHAR AS file_name, {select}"
        try:
            yield from self.connection.sql(query, params=[self.path]).to_arrow_reader(BATCH_ROWS)
        except (duckdb.Error, ValueError) as error:
            raise InvalidFileError(f"{self.path}: {_reason(error)}") from None

    @cached_property
    def _utf8_copy(self) -> Path:
        """The file in UTF-8, the only encoding that DuckDB reads."""
        if self.encoding == "utf-8-sig":
            return self.source
        copy = self.folder / "text.csv"
        with (
            self.source.open(encoding=self.encoding, newline="") as text,
            copy.open("w", encoding="utf-8", newline="") as target,
        ):
            shutil.copyfileobj(text, target, 1 << 20)
        return copy

    @cached_property
    def _is_valid(self) -> bool:
        try:
            values = self._typed_values(sql.read_csv(self._utf8_copy, self.texts))
            bad = " OR ".join(condition for condition, _ in self._checks())
            # DuckDB validates only the values that a query uses, so this query uses all.
            used = " OR ".join(f"strlen({_TEXTS}.{sql.quote(name)}) < 0" for name in self.header)
            return not self._has_rows(f"{values} WHERE {bad} OR {used}")
        except (duckdb.Error, UnicodeError):
            return False

    @cached_property
    def _checked_rows(self) -> str:
        """The table expression of all rows, each with its line, its text and why it is rejected."""
        copy = self.folder / "rows.csv"
        count = 0
        with (
            self.source.open(encoding=self.encoding, errors="surrogateescape", newline="") as text,
            copy.open("w", encoding="utf-8", newline="") as target,
        ):
            target.write("line,reason,raw\n")
            for _ in range(self.header_lines):
                next(text)
            for line, raw, reason in iter_rows(text, self.header_lines + 1, len(self.header)):
                fields = "," * (len(self.header) - 1) if reason else raw
                quoted = sql.quote(reason) if reason else ""
                target.write(f"{line},{quoted},{sql.quote(printable(raw))},{fields}\n")
                count += 1
        # The copy has each row twice, once with its quotes doubled.
        relation = sql.read_csv(
            copy, _ROW_COLUMNS | self.texts, max_row_bytes=5 * sql.MAX_ROW_BYTES
        )
        errors = ", ".join(f"CASE WHEN {bad} THEN {message} END" for bad, message in self._checks())
        reason = f"coalesce({_REASON}, concat_ws('; ', {errors}))"
        rows = f"(SELECT * REPLACE ({reason} AS {_REASON}) FROM {self._typed_values(relation)})"
        if self.connection.execute(f"SELECT count(*) FROM {rows}").fetchall() != [(count,)]:
            raise InvalidFileError(f"{self.path}: its quotes are ambiguous; fix them")
        return rows

    def _typed_values(self, relation: str) -> str:
        """Return the table expression with each column typed, and its text in `_TEXTS`."""
        texts = ", ".join(f"{sql.quote(name)}: {sql.quote(name)}" for name in self.header)
        values = ", ".join(
            f"{sql.typed(sql.quote(name), hints, self.csv_format.date_format)} AS {sql.quote(name)}"
            for name, hints in self.csv_format.columns.items()
        )
        return f"(SELECT * REPLACE ({values}), {{{texts}}} AS {_TEXTS} FROM {relation})"

    def _checks(self) -> Iterator[tuple[str, str]]:
        """Yield SQL conditions that reject a row, each with the SQL of its message."""
        for name, hints in self.csv_format.columns.items():
            text, value = f"{_TEXTS}.{sql.quote(name)}", sql.quote(name)
            column = sql.literal(f"column {name}: ")
            shown = f"{column} || chr(39) || left({text}, {_MAX_VALUE_CHARS}) || chr(39) || "
            misfit = sql.literal(f" does not fit {sql.duckdb_type(hints)}")
            yield f"NOT ({sql.is_lossless(text, value, hints)})", shown + misfit
            if not hints.get("nullable", True):
                yield f"{text} IS NULL", f"{column} || 'the value is missing'"
            if rule := self.csv_format.rules.get(name):
                yield f"NOT ({rule}\n)", shown + sql.literal(f" breaks the rule {rule}")


def _reason(error: Exception) -> str:
    """Return DuckDB's message about line and column, without its advice to load less strictly."""
    message = re.split(r"\nPossible|\n\nColumn|\n\n  file =", str(error))[0]
    return shorten(message.replace("\n", "; "))
