"""One CSV file: check its header and its rows, and read valid and rejected rows with DuckDB."""

import codecs
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from io import TextIOBase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from shared.lazy_modules import duckdb
from shared.lazy_modules import pyarrow as pa
from shared.sources.csv import sql, values
from shared.sources.csv.header import Header, read_header
from shared.sources.csv.rows import (
    Dialect,
    copy_rows,
    printable,
    read_lines,
    without_footer,
)
from shared.sources.csv.structure import (
    Structure,
    has_blank_line,
    has_delimiter_at_end,
    read_structure,
)
from shared.sources.drop_folder import shorten
from shared.sources.files.format import BATCH_ROWS, CHECKS_DATABASE, Batch, RejectedRow
from shared.sources.files.json_text import is_strict_json
from shared.sources.quoting import literal, quote

if TYPE_CHECKING:
    from shared.sources.csv.format import CsvFormat

_MAX_VALUE_CHARS = 400  # of a value in a message
_MAX_EXPRESSIONS = 500  # in a projection; DuckDB plans more in quadratic time
# Columns that DuckDB reads in addition to the file's; no column may have a name that begins like them.
_ROW_COLUMNS = {"_dlt_line": "BIGINT", "_dlt_reason": "VARCHAR", "_dlt_raw": "VARCHAR"}
_LINE, _REASON, _RAW = _ROW_COLUMNS


@contextmanager
def open_csv(
    file: Path, csv_format: "CsvFormat", copies: Path | None = None
) -> Iterator["CsvFile"]:
    """Open a file and check that its header is the declared one.

    Args:
        file: a local file, not compressed.
        csv_format: what the file must look like.
        copies: an empty folder that keeps a copy of the file, if one is needed.

    Raises:
        ValueError: the header differs, or a rule is not SQL.
    """
    encoding = detect_encoding(file, csv_format.encoding)
    with file.open(encoding=encoding, errors="surrogateescape", newline="") as text:
        header = read_header(text, csv_format)
    kept = nullcontext(str(copies)) if copies else tempfile.TemporaryDirectory()
    has_json = any(hints["data_type"] == "json" for hints in csv_format.columns.values())
    # A function of Python belongs to the database, and its connection must be the only one.
    database = ":memory:" if has_json else CHECKS_DATABASE
    with kept as folder, duckdb.connect(database) as connection:
        if has_json:
            connection.create_function(
                values.IS_STRICT_JSON, is_strict_json, ["VARCHAR"], "BOOLEAN"
            )
        _check_rules(connection, csv_format)
        yield CsvFile(csv_format, file, encoding, header, Path(folder), connection)


def detect_encoding(source: Path, declared: str) -> str:
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

    csv_format: "CsvFormat"
    source: Path
    encoding: str
    header: Header
    folder: Path
    connection: "duckdb.DuckDBPyConnection"

    def batches(self) -> Iterator[Batch]:
        """Yield all rows; if some are rejected, these come first.

        Raises:
            ValueError: the file as a whole must not load.
        """
        empty = self.csv_format.schema.empty_table()
        try:
            if self.is_valid:
                relation = self.typed_texts(self.texts)
            else:
                relation = f"{self._checked_rows} WHERE {_REASON} = ''"
                rejected = self._read(
                    f"SELECT {_LINE}, {_REASON}, {_RAW} FROM {self._checked_rows} "
                    f"WHERE {_REASON} <> '' ORDER BY 1"
                )
                for batch in rejected:
                    rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                    yield Batch(empty, [RejectedRow((line,), why, raw) for line, why, raw in rows])
            names = ", ".join(map(quote, self.csv_format.row_columns))
            for batch in self._read(f"SELECT {names} FROM {relation}"):
                yield Batch(pa.Table.from_batches([batch]).cast(self.csv_format.schema), [])
        except duckdb.Error as error:
            raise ValueError(_reason(error)) from None

    def _read(self, query: str) -> "Iterator[pa.RecordBatch]":
        return iter(self.connection.sql(query).to_arrow_reader(BATCH_ROWS))

    @cached_property
    def is_exact(self) -> bool:
        """Whether DuckDB reads exactly the rows of the file from `texts`, or fails."""
        if not self.csv_format.is_delimited:
            return False
        try:
            body = self.body
        except UnicodeError:
            return False
        is_one_column = self.header.width == 1
        if (
            not body.stat().st_size  # all of it is header and footer
            # DuckDB skips a mark, which is text below other lines.
            or (body != self.source and _starts_with_mark(body))
            or (is_one_column and (self.csv_format.trailing_delimiters or has_blank_line(body)))
            or not self._structure.is_strict
        ):
            return False
        if self._null == sql.EMPTY_IS_NULL and not self.csv_format.trailing_delimiters:
            return not has_delimiter_at_end(body, self.csv_format.delimiter) or self._has_equal_rows
        return True

    @cached_property
    def is_valid(self) -> bool:
        """Whether DuckDB reads exactly the rows of the file from `texts`, and all of them load."""
        try:
            if not self.is_exact:
                return False
            bad = " OR ".join(condition for condition, _ in self._checks())
            # DuckDB validates only the values that a query uses, so this query uses all.
            used = " OR ".join(
                f"strlen({text}) < 0" for text in sql.text_columns(self.header.width)
            )
            return not self._has_rows(f"{self.typed_texts(self.texts)} WHERE {bad} OR {used}")
        except duckdb.Error:
            return False

    @property
    def texts(self) -> str:
        """The table expression of the file's values as text, with NULL for each that is missing."""
        table = self._read_csv(self._null)
        names = ", ".join(sql.text_columns(self.header.width))
        # DuckDB validates only the values that a query uses.
        ignored = [sql.text_name(position) for position in self.header.extra.values()]
        used = " OR ".join(f"strlen({text}) < 0" for text in ignored) or "false"
        # With aliases, because dlt does not know the columns of read_csv.
        return (
            f"(SELECT {self._cleaned(self._null == sql.NEVER_NULL)} FROM {table} AS texts({names}) "
            f"WHERE ({used}) IS NOT TRUE) AS texts"
        )

    def text_of(self, name: str) -> str | None:
        """Return the column of `texts` with the values of a declared column; None if it is optional and missing."""
        position = self.header.columns.get(name)
        return None if position is None else sql.text_name(position)

    def extra_values(self) -> dict[str, str]:
        """Return the SQL of the column with the values that are not declared, if the format keeps them."""
        if self.csv_format.extra_columns != "json":
            return {}
        pairs = ", ".join(
            f"{literal(name)}, {sql.text_name(position)}"
            for name, position in self.header.extra.items()
        )
        return {"extra_columns": f"{f'json_object({pairs})' if pairs else 'NULL'}::VARCHAR"}

    def has_first_row(self) -> bool:
        """Return whether DuckDB can read a first row, without reading the rest of the file."""
        try:
            return self._has_rows(self.texts)
        except duckdb.Error:
            return False

    def typed_texts(self, relation: str) -> str:
        """Return the table expression with each column typed, beside its text."""
        typed = {}
        for name, hints in self.csv_format.columns.items():
            text, form = self.text_of(name), self.csv_format.value_format(name)
            typed[name] = (
                values.typed(text, hints, form) if text else f"NULL::{values.duckdb_type(hints)}"
            )
        selected = [
            f"{value} AS {quote(name)}" for name, value in (typed | self.extra_values()).items()
        ]
        return f"(SELECT *, {', '.join(selected)} FROM {relation})"

    @cached_property
    def body(self) -> Path:
        """The file that DuckDB reads: the source, or what remains of it, in UTF-8."""
        form = self.csv_format
        if self.encoding == "utf-8-sig" and not self._is_cut:
            return self.source
        copy = self.folder / "body.csv"
        with (
            self._open_text("strict") as text,
            copy.open("w", encoding="utf-8", newline="") as target,
        ):
            copy_rows(
                text, target, self.header.lines if self._is_cut else 0, form.footer, self._dialect
            )
        return copy

    @property
    def _is_cut(self) -> bool:
        """Whether the source has lines that are neither the only header row nor rows."""
        form = self.csv_format
        return bool(form.skip_lines or form.comment or form.footer or form.header_rows > 1)

    @cached_property
    def _dialect(self) -> Dialect:
        return Dialect.of(self.csv_format)

    def _open_text(self, errors: str) -> TextIOBase:
        return self.source.open(encoding=self.encoding, errors=errors, newline="")

    def _read_csv(self, null: str) -> str:
        return sql.read_csv(
            self.body,
            sql.text_columns(self.header.width),
            null=null,
            delimiter=self.csv_format.delimiter,
            quote=self.csv_format.quote,
            has_header=not self._is_cut and self.csv_format.header_rows == 1,
        )

    def _cleaned(self, empty_is_null: bool) -> str:
        """Return the columns of texts, with NULL for each value that is missing."""
        forms = {
            sql.text_name(position): self.csv_format.value_format(name)
            for name, position in self.header.columns.items()
        }
        plain = values.ValueFormat()
        columns = []
        for text in sql.text_columns(self.header.width):
            value = values.cleaned(text, forms.get(text, plain), empty_is_null=empty_is_null)
            columns.append(value if value == text else f"{value} AS {text}")
        return ", ".join(columns)

    @property
    def _null(self) -> str:
        """The text of missing values for DuckDB; with one of them it fails on delimiters at an end."""
        is_wide = self.header.width > _MAX_EXPRESSIONS
        if is_wide or self.csv_format.trailing_delimiters or self._structure.has_empty_quotes:
            return sql.EMPTY_IS_NULL
        return sql.NEVER_NULL

    @cached_property
    def _structure(self) -> Structure:
        return read_structure(self.body, self._dialect)

    @property
    def _has_equal_rows(self) -> bool:
        """Whether no row of the file has delimiters after its last value."""
        try:
            self.connection.execute(f"SELECT count(*) FROM {self._read_csv(sql.NEVER_NULL)}")
        except duckdb.Error:
            return False
        return True

    def _has_rows(self, relation: str) -> bool:
        return bool(self.connection.execute(f"SELECT 1 FROM {relation} LIMIT 1").fetchall())

    @cached_property
    def _checked_rows(self) -> str:
        """The table expression of all rows, each with its line, its text and why it is rejected."""
        copy, count = self.folder / "checked.csv", 0
        form, delimiter = self.csv_format, self.csv_format.delimiter
        with (
            self._open_text("surrogateescape") as text,
            copy.open("w", encoding="utf-8", newline="") as target,
        ):
            lines: Iterator[str] = islice(read_lines(text), self.header.lines, None)
            lines = without_footer(lines, form.footer) if form.footer else lines
            for row in form.split_rows(lines, self.header.lines + 1, self.header.width):
                reason = quote(row.reason) if row.reason else ""
                fields = (str(row.line), reason, quote(printable(row.raw)), f"{row.fields}\n")
                target.write(delimiter.join(fields))
                count += 1
        # The copy has each row twice, once with its quotes doubled.
        relation = sql.read_csv(
            copy,
            _ROW_COLUMNS | sql.text_columns(self.header.width),
            max_row_bytes=5 * sql.MAX_ROW_BYTES,
            delimiter=delimiter,
            has_header=False,
            line_break=r"'\n'",
        )
        texts = f"(SELECT {_LINE}, {_REASON}, {_RAW}, {self._cleaned(False)} FROM {relation})"
        errors = ", ".join(f"CASE WHEN {bad} THEN {message} END" for bad, message in self._checks())
        names = ", ".join(map(quote, form.row_columns))
        # Not SELECT * REPLACE, for which DuckDB copies the expression for each column.
        checked = (
            f"(SELECT {_LINE}, coalesce({_REASON}, concat_ws('; ', {errors})) AS {_REASON}, {_RAW}, "
            f"{names} FROM {self.typed_texts(texts)})"
        )
        if self.connection.execute(f"SELECT count(*) FROM {checked}").fetchall() != [(count,)]:
            raise ValueError("its quotes are ambiguous; fix them")
        return checked

    def _checks(self) -> Iterator[tuple[str, str]]:
        """Yield SQL conditions that reject a row, each with the SQL of its message."""
        for name, hints in self.csv_format.columns.items():
            text, value = self.text_of(name), quote(name)
            rule = self.csv_format.rules.get(name)
            if text is None:
                if rule:
                    yield (
                        f"NOT ({rule}\n)",
                        literal(f"column {name} is missing, and breaks the rule {rule}"),
                    )
                continue
            column = literal(f"column {name}: ")
            shown = f"{column} || chr(39) || left({text}, {_MAX_VALUE_CHARS}) || chr(39) || "
            misfit = literal(f" does not fit {values.duckdb_type(hints)}")
            form = self.csv_format.value_format(name)
            bad = f"NOT ({values.is_lossless(text, value, hints, form)})"
            if values.may_be_canonical(hints, form):
                # Most values are canonical; the full check of a value takes far longer.
                is_canonical = values.is_canonical(text, value, hints)
                bad = f"CASE WHEN {is_canonical} THEN false ELSE {bad} END"
            yield bad, shown + misfit
            if not hints.get("nullable", True):
                yield f"{text} IS NULL", f"{column} || 'the value is missing'"
            if rule:
                yield f"NOT ({rule}\n)", shown + literal(f" breaks the rule {rule}")


def _starts_with_mark(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _check_rules(connection: "duckdb.DuckDBPyConnection", csv_format: "CsvFormat") -> None:
    """Raise `ValueError`, with the rule, if DuckDB cannot run a rule of a format."""
    if not csv_format.rules:
        return
    row = ", ".join(
        f"TRY_CAST(missing AS {values.duckdb_type(hints)}) AS {quote(name)}"
        for name, hints in csv_format.columns.items()
    )
    connection.execute("CREATE TEMP TABLE one_row AS SELECT NULL::VARCHAR AS missing")
    for name, rule in csv_format.rules.items():
        try:
            # Of a table, because DuckDB does not run a condition about constants.
            connection.execute(f"SELECT NOT ({rule}\n) FROM (SELECT {row} FROM one_row)").fetchall()
        except duckdb.Error as error:
            message = shorten(str(error).split("\n")[0])
            raise ValueError(
                f"the rule of column {name} is not a condition in SQL: {rule}; {message}"
            ) from None


def _reason(error: Exception) -> str:
    """Return DuckDB's message about line and column, without its advice to load less strictly."""
    message = re.split(r"\nPossible|\n\nColumn|\n\n  file =", str(error))[0]
    return shorten(message.replace("\n", "; "))
