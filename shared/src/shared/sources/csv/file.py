"""One CSV file: check its header and its rows, and read valid and rejected rows with DuckDB."""

import codecs
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa

from shared.sources.csv import sql
from shared.sources.csv.format import CsvFormat, OnBadRows
from shared.sources.csv.header import read_header
from shared.sources.csv.rows import iter_rows, printable, read_lines
from shared.sources.csv.structure import (
    Structure,
    has_blank_line,
    has_delimiter_at_end,
    read_structure,
)
from shared.sources.drop_folder import DropFolder, InvalidFileError, shorten
from shared.sources.quoting import literal, quote

BATCH_ROWS = 100_000
"""Rows that dlt gets at a time; limits memory."""

_MAX_VALUE_CHARS = 400  # of a value in a message
_MAX_EXPRESSIONS = 500  # in a projection; DuckDB plans more in quadratic time
# Columns that DuckDB reads in addition to the file's; no column may have a name that begins like them.
_ROW_COLUMNS = {"_dlt_line": "BIGINT", "_dlt_reason": "VARCHAR", "_dlt_raw": "VARCHAR"}
_LINE, _REASON, _RAW = _ROW_COLUMNS


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
            header, lines = read_header(path, text, csv_format)
        with duckdb.connect() as connection:
            _check_rules(connection, csv_format)
            parsed = (encoding, header, lines)
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
            if not self._has_rows(self.texts if self._is_valid else self._checked_rows):
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
        if self._is_valid and self.csv_format.null_values:
            relation = self._typed_values(self._texts([*self._text_names.values()]))
        elif self._is_valid:
            types = {name: sql.duckdb_type(self.csv_format.columns[name]) for name in self.header}
            relation = sql.read_csv(
                self._utf8_copy,
                types,
                self.csv_format.date_format,
                delimiter=self.csv_format.delimiter,
            )
        else:
            relation = f"(FROM {self._checked_rows} WHERE {_REASON} = '')"
        return self._batches(f"{', '.join(map(quote, self.csv_format.columns))} FROM {relation}")

    def rejected(self) -> Iterator[pa.RecordBatch]:
        """Yield the other rows, with the columns of `REJECTED_COLUMNS`."""
        if self._is_valid:
            return iter(())
        return self._batches(
            f"{_LINE} AS line, {_REASON} AS reason, {_RAW} AS raw FROM {self._checked_rows} "
            f"WHERE {_REASON} <> ''"
        )

    @cached_property
    def is_exact(self) -> bool:
        """Whether DuckDB reads exactly the rows of the file from `texts`, or fails."""
        structure = self._structure
        if not structure.is_strict or (len(self.header) == 1 and has_blank_line(self._utf8_copy)):
            return False
        if self._null == sql.EMPTY_IS_NULL and not self.csv_format.trailing_delimiters:
            return (
                not has_delimiter_at_end(self._utf8_copy, self.csv_format.delimiter)
                or self._has_equal_rows
            )
        return True

    @property
    def texts(self) -> str:
        """The table expression of the file's values as text, under their names in the header."""
        return self._texts(self.header)

    def has_first_row(self) -> bool:
        """Return whether DuckDB can read a first row, without reading the rest of the file."""
        try:
            return self._has_rows(self.texts)
        except duckdb.Error:
            return False

    def _texts(self, names: Sequence[str]) -> str:
        null_values = {
            name: self.csv_format.null_values[column]
            for name, column in zip(names, self.header, strict=True)
            if column in self.csv_format.null_values
        }
        return sql.read_texts(
            self._utf8_copy, names, self._null, self.csv_format.delimiter, null_values
        )

    @property
    def _null(self) -> str:
        """The text of missing values for DuckDB; with one of them it fails on delimiters at an end."""
        is_wide = len(self.header) > _MAX_EXPRESSIONS
        if is_wide or self.csv_format.trailing_delimiters or self._structure.has_empty_quotes:
            return sql.EMPTY_IS_NULL
        return sql.NEVER_NULL

    @cached_property
    def _structure(self) -> Structure:
        return read_structure(self._utf8_copy, self.csv_format.delimiter)

    @property
    def _has_equal_rows(self) -> bool:
        """Whether no row of the file has delimiters after its last value."""
        types = dict.fromkeys(self.header, "VARCHAR")
        relation = sql.read_csv(
            self._utf8_copy, types, null=sql.NEVER_NULL, delimiter=self.csv_format.delimiter
        )
        try:
            self.connection.execute(f"SELECT count(*) FROM {relation}")
        except duckdb.Error:
            return False
        return True

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
            if not self.is_exact:
                return False
            values = self._typed_values(self._texts([*self._text_names.values()]))
            bad = " OR ".join(condition for condition, _ in self._checks())
            # DuckDB validates only the values that a query uses, so this query uses all.
            used = " OR ".join(f"strlen({text}) < 0" for text in self._text_names.values())
            return not self._has_rows(f"{values} WHERE {bad} OR {used}")
        except (duckdb.Error, UnicodeError):
            return False

    @cached_property
    def _checked_rows(self) -> str:
        """The table expression of all rows, each with its line, its text and why it is rejected."""
        copy, width = self.folder / "rows.csv", len(self.header)
        delimiter = self.csv_format.delimiter
        count = 0
        with (
            self.source.open(encoding=self.encoding, errors="surrogateescape", newline="") as text,
            copy.open("w", encoding="utf-8", newline="") as target,
        ):
            target.write(delimiter.join(("line", "reason", "raw\n")))
            lines = read_lines(text)
            for _ in range(self.header_lines):
                next(lines)
            rows = iter_rows(
                lines,
                self.header_lines + 1,
                width,
                self.csv_format.trailing_delimiters,
                delimiter,
            )
            for line, raw, reason in rows:
                fields = delimiter * (width - 1) if reason else raw
                quoted = quote(reason) if reason else ""
                row = (str(line), quoted, quote(printable(raw)), f"{fields}\n")
                target.write(delimiter.join(row))
                count += 1
        # The copy has each row twice, once with its quotes doubled.
        types = _ROW_COLUMNS | dict.fromkeys(self._text_names.values(), "VARCHAR")
        relation = sql.read_csv(
            copy, types, max_row_bytes=5 * sql.MAX_ROW_BYTES, delimiter=delimiter
        )
        if self.csv_format.null_values:
            nulls = ", ".join(
                sql.without(self._text_names[name], texts)
                for name, texts in self.csv_format.null_values.items()
            )
            relation = f"(SELECT * REPLACE ({nulls}) FROM {relation})"
        errors = ", ".join(f"CASE WHEN {bad} THEN {message} END" for bad, message in self._checks())
        names = ", ".join(map(quote, self.header))
        # Not SELECT * REPLACE, for which DuckDB copies the expression for each column.
        checked = (
            f"(SELECT {_LINE}, coalesce({_REASON}, concat_ws('; ', {errors})) AS {_REASON}, {_RAW}, "
            f"{names} FROM {self._typed_values(relation)})"
        )
        if self.connection.execute(f"SELECT count(*) FROM {checked}").fetchall() != [(count,)]:
            raise InvalidFileError(f"{self.path}: its quotes are ambiguous; fix them")
        return checked

    @property
    def _text_names(self) -> dict[str, str]:
        """The columns of the values as text, by the columns of the header."""
        return {name: f"_dlt_text_{n}" for n, name in enumerate(self.header)}

    def _typed_values(self, relation: str) -> str:
        """Return the table expression with each column typed, beside its text."""
        values = ", ".join(
            f"{sql.typed(text, hints, self.csv_format.date_format)} AS {quote(name)}"
            for name, text in self._text_names.items()
            for hints in [self.csv_format.columns[name]]
        )
        return f"(SELECT *, {values} FROM {relation})"

    def _checks(self) -> Iterator[tuple[str, str]]:
        """Yield SQL conditions that reject a row, each with the SQL of its message."""
        text_names = self._text_names
        for name, hints in self.csv_format.columns.items():
            text, value = text_names[name], quote(name)
            column = literal(f"column {name}: ")
            shown = f"{column} || chr(39) || left({text}, {_MAX_VALUE_CHARS}) || chr(39) || "
            misfit = literal(f" does not fit {sql.duckdb_type(hints)}")
            yield f"NOT ({sql.is_lossless(text, value, hints)})", shown + misfit
            if not hints.get("nullable", True):
                yield f"{text} IS NULL", f"{column} || 'the value is missing'"
            if rule := self.csv_format.rules.get(name):
                yield f"NOT ({rule}\n)", shown + literal(f" breaks the rule {rule}")


def _check_rules(connection: duckdb.DuckDBPyConnection, csv_format: CsvFormat) -> None:
    """Raise `InvalidFileError`, with the rule, if DuckDB cannot run a rule of a format."""
    if not csv_format.rules:
        return
    row = ", ".join(
        f"TRY_CAST(missing AS {sql.duckdb_type(hints)}) AS {quote(name)}"
        for name, hints in csv_format.columns.items()
    )
    connection.execute("CREATE TEMP TABLE one_row AS SELECT NULL::VARCHAR AS missing")
    for name, rule in csv_format.rules.items():
        try:
            # Of a table, because DuckDB does not run a condition about constants.
            connection.execute(f"SELECT NOT ({rule}\n) FROM (SELECT {row} FROM one_row)").fetchall()
        except duckdb.Error as error:
            message = shorten(str(error).split("\n")[0])
            raise InvalidFileError(
                f"the rule of column {name} is not a condition in SQL: {rule}; {message}"
            ) from None


def _reason(error: Exception) -> str:
    """Return DuckDB's message about line and column, without its advice to load less strictly."""
    message = re.split(r"\nPossible|\n\nColumn|\n\n  file =", str(error))[0]
    return shorten(message.replace("\n", "; "))
