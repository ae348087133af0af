"""CSV files of a drop folder, local or in a bucket, read by DuckDB with nothing guessed."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import dlt
import duckdb
import fsspec
import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltResource

from shared import environment

BATCH_ROWS = 100_000
"""Rows handed to dlt at a time; bounds memory."""

FILE_NAME: TColumnSchema = {
    "data_type": "text",
    "nullable": False,
    "partition": True,
    "description": "The file the row came from, a path below the drop folder.",
}
"""The column added to every row: the unit that a load replaces."""

_MOST_LETTERS = 400  # of a file's own text in a message

_DUCKDB_TYPES: dict[str | None, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}


class FileRefusedError(Exception):
    """A path or a file that must not be loaded; the message says which and why."""


@dataclass(frozen=True)
class FileState:
    """What a listing tells of a file: two equal states mean it was not written to in between."""

    size: int
    modified: str


class DropFolder:
    """A folder of files, local or in a bucket.

    Args:
        url: a local path, s3://bucket/folder, gs://... or az://... Credentials come from the
            variables of the storage's own library (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # A listing must see what was written a moment ago.
        self.files, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        self.is_local = "file" in self.files.protocol

    def find(self, path: str) -> str:
        """Returns a file's full address.

        Raises:
            FileRefusedError: the path leaves the folder, is missing or is no file.
        """
        full = self._below(path)
        if any("\ud800" <= letter <= "\udfff" for letter in path):
            raise FileRefusedError(f"{path!r} has a name that is not UTF-8; rename it")
        if self.files.isdir(full):
            raise FileRefusedError(
                f"{path!r} in the drop folder {self.url} is a folder, not a file"
            )
        if not self.files.exists(full):
            raise FileRefusedError(f"{path!r} is not in the drop folder {self.url}")
        return full

    def _below(self, path: str) -> str:
        # Only the plain spelling of a path: with ./ or // one file would load under two names.
        plain = str(PurePosixPath(path))
        if path != plain or "://" in path or plain.startswith("/") or ".." in plain.split("/"):
            raise FileRefusedError(f"{path!r} is no path below the drop folder {self.url}")
        full = f"{self._root}/{path}"
        if self.is_local:
            try:
                inside = Path(full).resolve().is_relative_to(Path(self._root).resolve())
            except (OSError, RuntimeError):  # links that lead in a circle
                inside = False
            if not inside:
                raise FileRefusedError(f"{path!r} leads out of the drop folder {self.url}")
        return full

    def list(self) -> dict[str, FileState]:
        """Returns the CSV files below the folder.

        Hidden files, links that lead out and what is no regular file are left out.

        Raises:
            FileRefusedError: the folder itself does not exist.
        """
        if not self.files.exists(self._root):
            raise FileRefusedError(
                f"The drop folder {self.url} does not exist; set DROP_FOLDER or make it"
            )
        found = {}
        for full, info in self.files.find(self._root, detail=True).items():
            path = str(PurePosixPath(full).relative_to(self._root))
            if not path.endswith(".csv") or any(p.startswith(".") for p in path.split("/")):
                continue
            with suppress(FileRefusedError):
                if self.is_local and not Path(self._below(path)).is_file():
                    continue
                times = ("mtime", "LastModified", "updated", "last_modified")
                modified = next((info[time] for time in times if info.get(time)), None)
                found[path] = FileState(size=info["size"], modified=str(modified))
        return found

    def content_hash(self, path: str) -> str:
        """Returns the SHA-256 of a file's bytes, in hexadecimal."""
        digest = sha256()
        with self.files.open(self.find(path), "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


@dlt.source(name="csv")
def csv_source(
    paths: Sequence[str],
    table: str,
    columns: Mapping[str, TColumnSchema],
    date_format: str,
    rules: Mapping[str, str],
) -> DltResource:
    """Loads CSV files of the drop folder (`DROP_FOLDER`), each replaced as a whole.

    Args:
        paths: files below it.
        table: the table to load into.
        columns: the files' columns with dlt's type; exactly these are expected in the header.
        date_format: how dates are written, in strptime's letters.
        rules: by column, a SQL condition about it that every row must meet.
    """
    # Arrow says of every column whether it may be NULL, so dlt must be told as well.
    declared: dict[str, TColumnSchema] = {
        name: {**hints, "nullable": hints.get("nullable") is not False}
        for name, hints in {"file_name": FILE_NAME, **columns}.items()
    }

    @dlt.resource(
        name=table,
        columns=declared,
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        schema_contract={"columns": "freeze", "data_type": "freeze"},
    )
    def csv_rows() -> Iterator[Any]:
        """Rows of the dropped CSV files, typed as declared, with the file each came from.

        Yields Arrow batches with the declared columns and `file_name`.

        Raises:
            FileRefusedError: a path that must not be read, or a file that `find_problems` objects to
                (the message names row and column).
        """
        # Without this a file without rows would load nothing, and its old rows would stay.
        yield dlt.mark.materialize_table_schema()
        drop_folder = DropFolder(environment.drop_folder())
        for path in paths:
            # A check that ran before may have seen the file as it was before.
            if problems := find_problems(path, columns, date_format, rules):
                raise FileRefusedError("; ".join(problems))
            with _open(drop_folder, path, columns) as (connection, relation):
                names = ", ".join(map(_quoted, columns))
                select = f"SELECT ?::VARCHAR AS file_name, {names} FROM {relation(date_format)}"
                try:
                    batches = connection.sql(select, params=[path]).to_arrow_reader(BATCH_ROWS)
                    required = _required(batches.schema, declared)
                    for batch in batches:
                        yield batch.cast(required)
                except (duckdb.Error, ValueError) as error:
                    raise FileRefusedError(f"{path}: {_reason(error)}") from None

    return csv_rows


def find_problems(
    path: str,
    columns: Mapping[str, TColumnSchema],
    date_format: str,
    rules: Mapping[str, str],
    most: int = 5,
) -> list[str]:
    """Returns what is wrong with a file's content, naming row and column; an empty list if nothing is.

    Checks the header, that there are rows, that every value fits its declared type without loss, and
    `rules`. Data rows are counted from 1 below the header.

    Args:
        path: a file below the drop folder.
        columns: the expected columns with dlt's type.
        date_format: how dates are written, in strptime's letters.
        rules: by column, a SQL condition about it that every row must meet.
        most: stop after this many.

    Raises:
        FileRefusedError: the path leaves the folder, is missing or is no file.
    """
    drop_folder = DropFolder(environment.drop_folder())
    drop_folder.find(path)
    checks = []
    for name, hints in columns.items():
        value = f"texts.{_quoted(name)}"
        misfit = f"does not fit {_duckdb_type(hints)}"
        checks.append((name, misfit, f"NOT ({_fits(value, hints, date_format)})"))
        if not hints.get("nullable", True):
            checks.append((name, "is missing", f"{value} IS NULL"))
        if name in rules:
            typed = f"SELECT {_typed(value, hints, date_format)} AS {_quoted(name)}"
            kept = f"SELECT {rules[name]} FROM ({typed})"
            checks.append((name, f"breaks the rule {rules[name]}", f"NOT ({kept})"))
    select = " UNION ALL ".join(
        f'SELECT "data row", {_literal(name)}, {_quoted(name)}, {_literal(problem)} '
        f"FROM texts WHERE {condition}"
        for name, problem, condition in checks
    )
    try:
        with _open(drop_folder, path, columns) as (connection, relation):
            connection.execute(
                'CREATE TEMP TABLE texts AS SELECT row_number() OVER () AS "data row", * '
                f"FROM {relation(None)}"
            )
            if connection.execute("SELECT 1 FROM texts LIMIT 1").fetchone() is None:
                return [f"{path} has a header and no rows"]
            found = connection.execute(f"{select} ORDER BY 1, 2 LIMIT {most:d}").fetchall()
    except FileRefusedError as error:
        return [str(error)]
    except duckdb.Error as error:
        return [f"{path}: {_reason(error)}"]
    return [
        f"{path}, data row {row}, column {name}: {_short(repr(value))} {problem}"
        for row, name, value, problem in found
    ]


@contextmanager
def _open(
    drop_folder: DropFolder, path: str, columns: Mapping[str, TColumnSchema]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Callable[[str | None], str]]]:
    """Opens a file for DuckDB, once its header is the declared one.

    Yields a connection and a function that returns the table expression to select from: typed, with
    the date format given, or all text with None. Everything that DuckDB could guess is pinned: left
    to itself it drops rows that begin with '#', joins ragged files into one column and swaps day
    and month.
    """
    full = drop_folder.find(path)
    with drop_folder.files.open(full, "rt", encoding="utf-8-sig", newline="") as file:
        try:
            header = next(csv.reader(file, strict=True), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise FileRefusedError(f"{path}: the header cannot be read: {error}") from None
    if not header:
        raise FileRefusedError(f"{path} is empty: not even a header")
    if sorted(header) != sorted(columns):
        raise FileRefusedError(
            f"{path}: the header is {_short(', '.join(header))}; expected {_short(', '.join(columns))}"
        )
    if not drop_folder.is_local:
        full = drop_folder.files.unstrip_protocol(full)

    def relation(date_format: str | None) -> str:
        types = ", ".join(
            f"{_literal(name)}: {_literal(_duckdb_type(columns[name]) if date_format else 'VARCHAR')}"
            for name in header
        )
        dates = f", dateformat = {_literal(date_format)}" if date_format else ""
        # [*] keeps a glob's letters in a file's name literal
        name = re.sub(r"([*?\[])", r"[\1]", full)
        return (
            f"read_csv({_literal(name)}, columns = {{{types}}}{dates}, auto_detect = false, "
            "delim = ',', quote = '\"', escape = '\"', header = true, skip = 0, comment = '', "
            "nullstr = '', allow_quoted_nulls = false, "
            "hive_partitioning = false)"
        )

    with duckdb.connect() as connection:
        if not drop_folder.is_local:
            connection.register_filesystem(drop_folder.files)
        yield connection, relation


def _required(schema: pa.Schema, columns: Mapping[str, TColumnSchema]) -> pa.Schema:
    """Returns the schema with the columns that must have a value marked so."""
    fields = [
        schema.field(name).with_nullable(hints.get("nullable", True))
        for name, hints in columns.items()
    ]
    return pa.schema(fields)


def _duckdb_type(hints: TColumnSchema) -> str:
    if hints["data_type"] == "decimal":
        return f"DECIMAL({hints['precision']}, {hints['scale']})"
    return _DUCKDB_TYPES[hints["data_type"]]


def _typed(value: str, hints: TColumnSchema, date_format: str) -> str:
    """Returns the SQL expression of a text as the column's type; NULL where it does not fit."""
    if hints["data_type"] == "date":
        return f"try_strptime({value}, {_literal(date_format)})::DATE"
    return f"TRY_CAST({value} AS {_duckdb_type(hints)})"


def _fits(value: str, hints: TColumnSchema, date_format: str) -> str:
    """Returns the SQL condition that a text keeps its whole meaning as the column's type."""
    typed, kind = _typed(value, hints, date_format), hints["data_type"]
    fits = f"{typed} IS NOT NULL"
    if kind in ("date", "timestamp"):
        # Keeps out 18 for 2018, and infinity and epoch, which DuckDB takes for dates.
        fits += f" AND year({typed}) > 999 AND regexp_matches({value}, '^\\s*[0-9]')"
    if kind == "timestamp":
        # A time zone would be dropped, and what is finer than a microsecond.
        fits += f" AND regexp_full_match({value}, '[0-9-]{{10}}([ T][0-9:]{{5,8}}(\\.[0-9]{{1,6}})?)?Z?')"
    if kind == "double":
        fits += f" AND isfinite({typed})"
    decimals = 0 if kind == "bigint" else hints.get("scale") if kind == "decimal" else None
    if decimals is not None:
        # DuckDB rounds 1.5 to 2 for a whole number, and further decimals away, without a word.
        number = f"[+-]?[0-9]*(\\.[0-9]{{0,{decimals}}}0*)?"
        fits += f" AND regexp_full_match({value}, '{number}')"
    return f"{value} IS NULL OR coalesce({fits}, false)"


def _reason(error: Exception) -> str:
    """Returns DuckDB's own words about line and column, without its advice to load less strictly."""
    words = re.split(r"\nPossible|\n\nColumn|\n\n  file =", str(error))[0]
    return _short(words.replace("\n", "; "))


def _short(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
