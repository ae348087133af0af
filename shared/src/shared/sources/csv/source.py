"""CSV files of a drop folder, local or in a bucket, read by DuckDB with nothing guessed."""

import codecs
import csv
import lzma
import re
import shutil
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

import dlt
import duckdb
import fsspec
import pyarrow as pa
import xxhash
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltResource

from shared import settings
from shared.sources.protocol import COMPANION_TABLES_HINT, SupportsPushdown, current_pipeline

BATCH_ROWS = 100_000
"""Rows handed to dlt at a time; bounds memory."""

FILE_NAME: TColumnSchema = {
    "data_type": "text",
    "nullable": False,
    "partition": True,
    "description": "The file the row came from, a path below the drop folder.",
}
"""The column added to every row: the unit that a load replaces."""

REJECTED: dict[str, TColumnSchema] = {
    "file_name": FILE_NAME,
    "line": {
        "data_type": "bigint",
        "nullable": False,
        "description": "The line of the file that the record begins in; the header is line 1.",
    },
    "reason": {
        "data_type": "text",
        "nullable": False,
        "description": "What is wrong with it, by column.",
    },
    "raw": {
        "data_type": "text",
        "nullable": False,
        "description": "The record as it stands in the file, without its line break.",
    },
}
"""The columns of a table of rejected records."""

_REPLACED: Any = {"disposition": "merge", "strategy": "delete-insert"}
_CONTRACT: Any = {"columns": "freeze", "data_type": "freeze"}
_PUSHED_DOWN_FROM = 5_000_000  # bytes in all the files of a run
_MOST_PUSHED_DOWN = 100  # files in one query
_MOST_LETTERS = 400  # of a file's own text in a message
_MOST_BYTES = 2_000_000  # of a record; DuckDB's own limit
_LINE, _REASON, _RAW = "line of the file", "what is wrong", "text of the record"
_TEXTS = '"texts of the file"'
_UNDECODED = re.compile("[\ud800-\udfff]")

_DUCKDB_TYPES: dict[str | None, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}


def _arrow(codec: str) -> Callable[[BinaryIO], AbstractContextManager[BinaryIO]]:
    # Arrow tells a stream that is cut, or followed by anything else, from a whole one.
    return lambda file: pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)


@contextmanager
def _only_member(file: BinaryIO) -> Iterator[BinaryIO]:
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise zipfile.BadZipFile(f"it has {len(members)} files, and must have one")
        with archive.open(members[0]) as member:
            yield member  # type: ignore[misc]


_DECOMPRESSED: Mapping[str, Callable[[BinaryIO], AbstractContextManager[Any]]] = {
    ".gz": _arrow("gzip"),
    ".bz2": _arrow("bz2"),
    ".zst": _arrow("zstd"),
    ".xz": lzma.LZMAFile,
    ".zip": _only_member,
}
_SUFFIXES = (".csv", *(f".csv{suffix}" for suffix in _DECOMPRESSED))
_DAMAGED = (OSError, EOFError, RuntimeError, lzma.LZMAError, zipfile.BadZipFile)


class InvalidFileError(Exception):
    """A path or a file that must not be loaded; the message says which and why."""


@dataclass(frozen=True)
class FileStat:
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
            InvalidFileError: the path leaves the folder, is missing or is no file.
        """
        full = self._below(path)
        if any("\ud800" <= letter <= "\udfff" for letter in path):
            raise InvalidFileError(f"{path!r} has a name that is not UTF-8; rename it")
        if self.files.isdir(full):
            raise InvalidFileError(
                f"{path!r} in the drop folder {self.url} is a folder, not a file"
            )
        if not self.files.exists(full):
            raise InvalidFileError(f"{path!r} is not in the drop folder {self.url}")
        return full

    def _below(self, path: str) -> str:
        # Only the plain spelling of a path: with ./ or // one file would load under two names.
        plain = str(PurePosixPath(path))
        if path != plain or "://" in path or plain.startswith("/") or ".." in plain.split("/"):
            raise InvalidFileError(f"{path!r} is no path below the drop folder {self.url}")
        full = f"{self._root}/{path}"
        if self.is_local:
            try:
                inside = Path(full).resolve().is_relative_to(Path(self._root).resolve())
            except (OSError, RuntimeError):  # links that lead in a circle
                inside = False
            if not inside:
                raise InvalidFileError(f"{path!r} leads out of the drop folder {self.url}")
        return full

    def list(self) -> dict[str, FileStat]:
        """Returns the CSV files below the folder, compressed ones too.

        Hidden files, links that lead out and what is no regular file are left out.

        Raises:
            InvalidFileError: the folder itself does not exist.
        """
        if not self.files.exists(self._root):
            raise InvalidFileError(
                f"The drop folder {self.url} does not exist; set DROP_FOLDER or make it"
            )
        found = {}
        for full, info in self.files.find(self._root, detail=True).items():
            path = str(PurePosixPath(full).relative_to(self._root))
            if not path.endswith(_SUFFIXES) or any(p.startswith(".") for p in path.split("/")):
                continue
            with suppress(InvalidFileError):
                if self.is_local and not Path(self._below(path)).is_file():
                    continue
                found[path] = _state(info)
        return found

    def state(self, path: str) -> FileStat:
        """Returns a file's size and time of change."""
        return _state(self.files.info(self.find(path)))

    @contextmanager
    def local(self, path: str, folder: Path | None = None) -> Iterator[Path]:
        """Yields a local file with the file's bytes, uncompressed: the file itself, or a copy.

        Compression goes by the name's ending: .gz, .bz2, .xz, .zst, or .zip with one file in it.

        Args:
            path: a file below the drop folder.
            folder: where a copy is left; of any other nothing remains.

        Raises:
            InvalidFileError: the path must not be read, or what is compressed is damaged.
        """
        full = self.find(path)
        compression = Path(path).suffix
        if self.is_local and compression not in _DECOMPRESSED:
            yield Path(full)
            return
        kept = nullcontext(tempfile.mkdtemp(dir=folder)) if folder else None
        with kept or tempfile.TemporaryDirectory() as own:
            copy = Path(own) / "copy"
            with self.files.open(full, "rb") as file, copy.open("wb") as target:
                try:
                    with _DECOMPRESSED.get(compression, nullcontext)(file) as source:
                        shutil.copyfileobj(source, target, 1 << 20)
                except _DAMAGED as error:
                    if getattr(error, "errno", None):  # the storage's trouble, not the file's
                        raise
                    raise InvalidFileError(
                        f"{path} cannot be uncompressed: {_short(str(error))}"
                    ) from None
            yield copy

    def content_hash(self, path: str) -> str:
        """Returns the 128 bits of XXH3 over a file's bytes, in hexadecimal."""
        with self.files.open(self.find(path), "rb") as file:
            return _hash(file)


@dataclass(frozen=True)
class CsvFormat:
    """What a CSV file must look like for its records to be loaded.

    Attributes:
        columns: the files' columns with dlt's type; exactly these are expected in the header, in any
            order.
        date_format: how dates are written, in strptime's letters.
        rules: by column, a SQL condition about it that every record must meet.
        encoding: of the text, by Python's name for it. A byte order mark at a file's start tells
            UTF-8, UTF-16 and UTF-32 by itself.
        allow_empty: whether a file may have a header alone; if so, what it had loaded goes.
    """

    columns: Mapping[str, TColumnSchema]
    date_format: str = "%Y-%m-%d"
    rules: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    allow_empty: bool = False

    def __post_init__(self) -> None:
        """Refuses an encoding that Python does not know, and a rule about no column."""
        codecs.lookup(self.encoding)
        if unknown := self.rules.keys() - self.columns.keys():
            raise ValueError(f"There are rules about {', '.join(unknown)}, which is no column")


OnBadRows = Literal["fail", "quarantine"]
"""What a record that is not as declared does: stop its file, or stand aside."""


def rejected_table(table: str) -> str:
    """Returns the name of the table that keeps what was rejected on the way to a table."""
    return f"{table}_rejected"


@dlt.source(name="csv")
def csv_source(
    paths: Sequence[str],
    table: str,
    csv_format: CsvFormat,
    on_bad_rows: OnBadRows = "fail",
    *,
    folder: str | None = None,
    description: str = "Rows of dropped CSV files, with the file each came from.",
) -> DltResource:
    """Loads CSV files of a folder, each replaced as a whole.

    Args:
        paths: files below it.
        table: the table to load into.
        csv_format: what the files must look like.
        on_bad_rows: what a record that is not like that does. `fail`: its file loads nothing, and the
            error names line, column and reason. `quarantine`: the others load, and it is kept in
            `<table>_rejected` (columns `REJECTED`), so that loaded and rejected records together are
            the file's. The two tables commit together, but for a large file that the warehouse reads
            itself. A file whose header is another, or
            whose text cannot be read at all, stops the load in any case.
        folder: where the files are, as `DropFolder` takes it; `DROP_FOLDER` if left out.
        description: what the table is, in the words of those who use it.
    """
    paths = list(dict.fromkeys(paths))  # named twice, a file would load twice
    # Arrow says of every column whether it may be NULL, so dlt must be told as well.
    declared: dict[str, TColumnSchema] = {
        name: {**hints, "nullable": hints.get("nullable") is not False}
        for name, hints in {"file_name": FILE_NAME, **csv_format.columns}.items()
    }

    tables = [rejected_table(table)] if on_bad_rows == "quarantine" else []

    @dlt.resource(
        name=table,
        columns=declared,
        write_disposition=_REPLACED,
        schema_contract=_CONTRACT,
    )
    def csv_rows() -> Iterator[Any]:
        """Rows of the dropped CSV files, typed as declared, with the file each came from.

        Yields Arrow batches with the declared columns and `file_name`, and counts `bytes` read;
        under `quarantine` also batches of `REJECTED`, marked for the table of rejected records.

        Raises:
            InvalidFileError: a path that must not be read, or a file that `validate_file` objects to.
        """
        drop_folder = DropFolder(folder or settings.drop_folder())
        metrics = dlt.current.resource_metrics()
        pushed_down = _pushed_down(drop_folder, paths, csv_format, metrics)
        # Without these a file without rows would load nothing, and its old rows would stay. Arrow
        # they must be too: dlt gives a table that begins otherwise a column that Arrow rows lack.
        yield _no_rows(declared) if pushed_down is None else pushed_down
        if on_bad_rows == "quarantine":
            # A further table begins with all hints of the resource; its columns have to go first.
            for further in ({}, REJECTED):
                hints = dlt.mark.make_hints(table_name=rejected_table(table), columns=further)
                yield dlt.mark.with_hints(_no_rows(REJECTED), hints, create_table_variant=True)
        for path in paths if pushed_down is None else ():
            before = drop_folder.state(path)
            metrics["bytes_read"] = metrics.get("bytes_read", 0) + before.size
            with _open(drop_folder, path, csv_format) as file:
                # A check that ran before may have seen the file as it was before.
                if problems := file.problems(on_bad_rows):
                    raise InvalidFileError("; ".join(problems))
                for batch in file.rows():
                    yield batch.cast(_required(batch.schema, declared))
                if on_bad_rows == "quarantine":
                    for batch in file.rejected():
                        kept = batch.cast(_required(batch.schema, REJECTED))
                        yield dlt.mark.with_table_name(kept, rejected_table(table))
            _refuse_change(drop_folder, {path: before})

    return csv_rows.apply_hints(
        additional_table_hints={COMPANION_TABLES_HINT: tables, "description": description}
    )


def _pushed_down(
    drop_folder: DropFolder, paths: Sequence[str], csv_format: CsvFormat, metrics: dict[str, int]
) -> Any | None:
    """Returns the item that makes the destination read the files itself; None where it cannot.

    That is as fast as DuckDB is. It takes a destination that does so, files in UTF-8 with records, and
    enough of them for it to pay: the warehouse is held while they are read. What is compressed or in a
    bucket is copied first.
    """
    pipeline = current_pipeline()
    if not isinstance(pipeline, SupportsPushdown) or not pipeline.pushdown_enabled:
        return None
    if codecs.lookup(csv_format.encoding).name != "utf-8":
        return None
    states = {path: drop_folder.state(path) for path in paths}
    size = sum(state.size for state in states.values())
    if size < _PUSHED_DOWN_FROM or len(paths) > _MOST_PUSHED_DOWN:
        return None
    selects, versions = [], []
    for path in paths:
        with _open(drop_folder, path, csv_format, Path(pipeline.pipelines_dir)) as file:
            if file.encoding != "utf-8-sig" or not file.begins_with_a_record():
                return None
            selects.append(file.select_or_fail())
            # What is declared of the columns stands in the query, what is in the file does not.
            with file.source.open("rb") as content:
                versions += [selects[-1].replace(str(file.source), ""), _hash(content)]
    names = ", ".join(map(_quoted, ("file_name", *csv_format.columns)))
    select = f"SELECT {names} FROM ({' UNION ALL '.join(selects)}) AS files"
    metrics["bytes_read"] = size
    return pipeline.pushdown_query(
        select, "\n".join(versions), before_commit=lambda: _refuse_change(drop_folder, states)
    )


def _refuse_change(drop_folder: DropFolder, states: Mapping[str, FileStat]) -> None:
    for path, before in states.items():
        if drop_folder.state(path) != before:
            raise InvalidFileError(f"{path} was written to while it was read; load it again")


def validate_file(
    path: str, csv_format: CsvFormat, on_bad_rows: OnBadRows = "fail", most: int = 5
) -> list[str]:
    """Returns why a file would not load, naming line and column; an empty list if it would.

    Checks the header and that there are records; under `stop` also that every value fits its declared
    type without loss, and the format's rules.

    Args:
        path: a file below the drop folder.
        csv_format: what the file must look like.
        on_bad_rows: as for `csv_source`.
        most: name no more bad records than this.

    Raises:
        InvalidFileError: the path leaves the folder, is missing or is no file.
    """
    drop_folder = DropFolder(settings.drop_folder())
    drop_folder.find(path)
    try:
        with _open(drop_folder, path, csv_format) as file:
            return file.problems(on_bad_rows, most)
    except InvalidFileError as error:
        return [str(error)]


@contextmanager
def _open(
    drop_folder: DropFolder, path: str, csv_format: CsvFormat, copies: Path | None = None
) -> Iterator["_File"]:
    """Opens a file, once its header is the declared one.

    Args:
        drop_folder: where it is.
        path: the file.
        csv_format: what it must look like.
        copies: where a copy is left, if there has to be one.

    Raises:
        InvalidFileError: the path must not be read, or the header is another.
    """
    with drop_folder.local(path, copies) as source, tempfile.TemporaryDirectory() as folder:
        encoding = _encoding(source, csv_format.encoding)
        with source.open(encoding=encoding, errors="surrogateescape", newline="") as text:
            reader = csv.reader(text, strict=True)
            try:
                header = [_shown(name) for name in next(reader, [])]
            except (csv.Error, UnicodeError) as error:
                raise InvalidFileError(f"{path}: the header cannot be read: {error}") from None
        if not header:
            raise InvalidFileError(f"{path} is empty: not even a header")
        if sorted(header) != sorted(csv_format.columns):
            raise InvalidFileError(
                f"{path}: the header is {_short(', '.join(header))}; "
                f"expected {_short(', '.join(csv_format.columns))}"
            )
        with duckdb.connect() as connection:
            yield _File(
                path=path,
                source=source,
                encoding=encoding,
                header=header,
                header_lines=reader.line_num,
                csv_format=csv_format,
                folder=Path(folder),
                connection=connection,
            )


def _encoding(source: Path, declared: str) -> str:
    """Returns the encoding to read a file with: the declared one, or what its first bytes say."""
    if codecs.lookup(declared).name != "utf-8":
        return declared
    with source.open("rb") as file:
        start = file.read(4)
    # The mark of UTF-16 is the beginning of UTF-32's.
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


@dataclass
class _File:
    """A file whose header is as declared, and what DuckDB makes of its records.

    Almost every file is sound: DuckDB looks it over and reads it as it is. Only where it is not, its
    records are written out one by one, each with its line and with what is wrong with its quotes, its
    letters or its number of values, and DuckDB reads that with the same checks.
    """

    path: str
    source: Path
    encoding: str
    header: list[str]
    header_lines: int
    csv_format: CsvFormat
    folder: Path
    connection: duckdb.DuckDBPyConnection

    def problems(self, on_bad_rows: OnBadRows, most: int = 5) -> list[str]:
        """Returns why the file must not be loaded."""
        try:
            if not self._has_records():
                if self.csv_format.allow_empty:
                    return []
                return [f"{self.path} has a header and no rows"]
            if self._is_sound or on_bad_rows == "quarantine":
                return []
            found = self.connection.execute(
                f"SELECT {_quoted(_LINE)}, {_quoted(_REASON)} FROM {self._records} "
                f"WHERE {_quoted(_REASON)} <> '' ORDER BY 1 LIMIT {most:d}"
            ).fetchall()
        except (duckdb.Error, UnicodeError) as error:
            return [f"{self.path}: {_reason(error)}"]
        return [f"{self.path}, line {line}: {reason}" for line, reason in found]

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yields the records that are as declared, typed, with the file's name."""
        if self._is_sound:
            relation = _read_csv(self._text, self._types(), self.csv_format.date_format)
        else:
            relation = f"(FROM {self._records} WHERE {_quoted(_REASON)} = '')"
        names = ", ".join(map(_quoted, self.csv_format.columns))
        return self._batches(f"SELECT ?::VARCHAR AS file_name, {names} FROM {relation}")

    def rejected(self) -> Iterator[pa.RecordBatch]:
        """Yields the other records, as `REJECTED` says."""
        if self._is_sound:
            return iter(())
        return self._batches(
            f"SELECT ?::VARCHAR AS file_name, {_quoted(_LINE)} AS line, {_quoted(_REASON)} AS reason, "
            f"{_quoted(_RAW)} AS raw FROM {self._records} WHERE {_quoted(_REASON)} <> ''"
        )

    def begins_with_a_record(self) -> bool:
        """Tells whether DuckDB finds a record in the file, without reading it all."""
        relation = _read_csv(self.source, self._texts())
        try:
            return bool(self.connection.execute(f"SELECT 1 FROM {relation} LIMIT 1").fetchall())
        except duckdb.Error:
            return False

    def select_or_fail(self) -> str:
        """Returns SQL of all records, typed, with the file's name; it fails where one is bad."""
        values = []
        for name, hints in self.csv_format.columns.items():
            text = _quoted(name)
            value = _typed(text, hints, self.csv_format.date_format)
            fits = _fits(text, value, hints)
            if not hints.get("nullable", True):
                fits = f"{text} IS NOT NULL AND ({fits})"
            checked = f"CASE WHEN {fits} THEN {value} ELSE error({_literal(name)}) END"
            if hints["data_type"] != "date" or self.csv_format.date_format == "%Y-%m-%d":
                # Most values are plain; whether another one fits takes far more time to say.
                plainly = f"TRY_CAST({text} AS {_duckdb_type(hints)})"
                checked = (
                    f"CASE WHEN {_is_plain(text, plainly, hints)} THEN {plainly} ELSE {checked} END"
                )
            if hints["data_type"] == "timestamp" and hints.get("timezone", True):
                checked = f"timezone('UTC', {checked})"  # else the session's zone would decide
            as_it_is = hints["data_type"] == "text" and hints.get("nullable", True)
            values.append(f"{text if as_it_is else checked} AS {text}")
        relation = _read_csv(self.source, self._texts())
        kept = " AND ".join(
            f"CASE WHEN ({rule}\n) IS NOT FALSE THEN true ELSE error({_literal(name)}) END"
            for name, rule in self.csv_format.rules.items()
        )
        names = ", ".join(map(_quoted, self.csv_format.columns))
        return (
            f"SELECT {_literal(self.path)} AS file_name, {names} FROM "
            # The columns' names once more: dlt does not know what read_csv returns.
            f"(SELECT {', '.join(values)} FROM {relation} AS texts({', '.join(map(_quoted, self.header))})) "
            f"AS typed WHERE {kept or 'true'}"
        )

    def _batches(self, select: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.connection.sql(select, params=[self.path]).to_arrow_reader(BATCH_ROWS)
        except (duckdb.Error, ValueError) as error:
            raise InvalidFileError(f"{self.path}: {_reason(error)}") from None

    def _has_records(self) -> bool:
        relation = _read_csv(self._text, self._texts()) if self._is_sound else self._records
        return bool(self.connection.execute(f"SELECT 1 FROM {relation} LIMIT 1").fetchall())

    def _texts(self) -> dict[str, str]:
        return dict.fromkeys(self.header, "VARCHAR")

    def _types(self) -> dict[str, str]:
        return {name: _duckdb_type(self.csv_format.columns[name]) for name in self.header}

    @cached_property
    def _text(self) -> Path:
        """The file as UTF-8, which is all that DuckDB reads."""
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
    def _is_sound(self) -> bool:
        try:
            checked = self._checked(_read_csv(self._text, self._texts()))
            bad = " OR ".join(condition for condition, _ in self._checks())
            # Every value is touched, for DuckDB looks only into those it is asked for.
            touched = " OR ".join(f"strlen({_TEXTS}.{_quoted(name)}) < 0" for name in self.header)
            found = self.connection.execute(
                f"SELECT 1 FROM {checked} WHERE {bad} OR {touched} LIMIT 1"
            )
            return not found.fetchall()
        except (duckdb.Error, UnicodeError):
            return False

    @cached_property
    def _records(self) -> str:
        """The table expression of all records, each with its line, its text and what is wrong."""
        written = self.folder / "records.csv"
        count = 0
        with (
            self.source.open(encoding=self.encoding, errors="surrogateescape", newline="") as text,
            written.open("w", encoding="utf-8", newline="") as target,
        ):
            target.write("line,reason,raw\n")
            for _ in range(self.header_lines):
                next(text)
            for line, raw, reason in _split(text, self.header_lines + 1, len(self.header)):
                fields = "," * (len(self.header) - 1) if reason else raw
                own = f"{line},{_csv(reason) if reason else ''},{_csv(_shown(raw))}"
                target.write(f"{own},{fields}\n")
                count += 1
        columns = {_LINE: "BIGINT", _REASON: "VARCHAR", _RAW: "VARCHAR"}
        # A record stands there twice, once with its quotes doubled.
        relation = _read_csv(written, columns | self._texts(), most_bytes=5 * _MOST_BYTES)
        wrong = ", ".join(f"CASE WHEN {bad} THEN {message} END" for bad, message in self._checks())
        reason = f"coalesce({_quoted(_REASON)}, concat_ws('; ', {wrong}))"
        records = (
            f"(SELECT * REPLACE ({reason} AS {_quoted(_REASON)}) FROM {self._checked(relation)})"
        )
        found = self.connection.execute(f"SELECT count(*) FROM {records}").fetchall()
        if found != [(count,)]:
            raise InvalidFileError(f"{self.path}: its quotes can be read in two ways; mend them")
        return records

    def _checked(self, relation: str) -> str:
        """Returns the table expression with each column typed, and its text in `_TEXTS`."""
        texts = ", ".join(f"{_quoted(name)}: {_quoted(name)}" for name in self.header)
        typed = ", ".join(
            f"{_typed(_quoted(name), hints, self.csv_format.date_format)} AS {_quoted(name)}"
            for name, hints in self.csv_format.columns.items()
        )
        return f"(SELECT * REPLACE ({typed}), {{{texts}}} AS {_TEXTS} FROM {relation})"

    def _checks(self) -> Iterator[tuple[str, str]]:
        """Yields SQL conditions that a record must not meet, each with SQL of what to say then."""
        for name, hints in self.csv_format.columns.items():
            text, typed = f"{_TEXTS}.{_quoted(name)}", _quoted(name)
            column = _literal(f"column {name}: ")
            shown = f"{column} || chr(39) || left({text}, {_MOST_LETTERS}) || chr(39) || "
            misfit = _literal(f" does not fit {_duckdb_type(hints)}")
            yield f"NOT ({_fits(text, typed, hints)})", shown + misfit
            if not hints.get("nullable", True):
                yield f"{text} IS NULL", f"{column} || 'the value is missing'"
            if rule := self.csv_format.rules.get(name):
                yield f"NOT ({rule}\n)", shown + _literal(f" breaks the rule {rule}")


def _split(lines: Iterator[str], number: int, width: int) -> Iterator[tuple[int, str, str]]:
    """Yields a file's records: the line each begins in, its text, and what is wrong with it, if anything.

    Where the quotes are wrong nobody can tell where a record ends: then the line it begins in is set
    aside, and reading goes on with the next.

    Args:
        lines: the file's lines below the header, with their line breaks.
        number: the first one's.
        width: how many values a record has.
    """
    again: deque[str] = deque()
    taken: list[str] = []

    def take() -> Iterator[str]:
        size = 0
        while (line := again.popleft() if again else next(lines, None)) is not None:
            taken.append(line)
            size = size + len(line) if len(taken) > 1 else len(line)
            if size > _MOST_BYTES:
                raise csv.Error(f"it is longer than {_MOST_BYTES:,} letters")
            yield line

    csv.field_size_limit(2 * _MOST_BYTES)  # the limit is take's
    reader = csv.reader(take(), strict=True, skipinitialspace=True)
    while True:
        taken.clear()
        reason = ""
        try:
            # An empty line of a file with one column is a missing value.
            fields = next(reader) or [""] * (width == 1)
        except StopIteration:
            return
        except csv.Error as error:
            fields = [""]
            reason = f"its quotes or its end are wrong: {error}"
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
            reader = csv.reader(take(), strict=True, skipinitialspace=True)
        raw = "".join(taken)
        # DuckDB passes over a comma at a record's end.
        values = len(fields) - (len(fields) == width + 1 and raw.rstrip("\r\n").endswith(","))
        if not reason and values != width:
            reason = f"it has {values} values, and the header has {width}"
        if _UNDECODED.search(raw):
            reason = "it has bytes that are no letters in the file's encoding"
        if fields:
            yield number, raw.removesuffix("\n").removesuffix("\r"), reason
        number += len(taken)


def _shown(text: str) -> str:
    """Returns a text with each byte that could not be decoded as its number in hexadecimal."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _csv(text: str) -> str:
    """Returns a text as a CSV value."""
    return '"' + text.replace('"', '""') + '"'


def _read_csv(
    file: Path,
    types: Mapping[str, str],
    date_format: str = "%Y-%m-%d",
    most_bytes: int = _MOST_BYTES,
) -> str:
    """Returns the table expression of a file with a header.

    Everything that DuckDB could guess is pinned: left to itself it drops rows that begin with '#',
    joins ragged files into one column and swaps day and month.
    """
    columns = ", ".join(f"{_literal(name)}: {_literal(kind)}" for name, kind in types.items())
    # [*] keeps a glob's letters in a file's name literal
    name = re.sub(r"([*?\[])", r"[\1]", str(file))
    return (
        f"read_csv({_literal(name)}, columns = {{{columns}}}, dateformat = {_literal(date_format)}, "
        f"max_line_size = {most_bytes}, auto_detect = false, "
        "delim = ',', quote = '\"', escape = '\"', header = true, skip = 0, comment = '', "
        "nullstr = '', allow_quoted_nulls = false, hive_partitioning = false)"
    )


def _no_rows(columns: Mapping[str, TColumnSchema]) -> pa.Table:
    nulls = ", ".join(
        f"NULL::{_duckdb_type(hints)} AS {_quoted(name)}" for name, hints in columns.items()
    )
    with duckdb.connect() as connection:
        table = connection.sql(f"SELECT {nulls} LIMIT 0").to_arrow_table()
    return table.cast(_required(table.schema, columns))


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


def _fits(value: str, typed: str, hints: TColumnSchema) -> str:
    """Returns the SQL condition that a text keeps its whole meaning as the column's type."""
    kind = hints["data_type"]
    fits = f"{typed} IS NOT NULL"
    if kind in ("date", "timestamp"):
        # Keeps out 18 for 2018, and infinity and epoch, which DuckDB takes for dates.
        fits += f" AND year({typed}) > 999 AND regexp_matches({value}, '^\\s*[0-9]')"
    if kind == "timestamp":
        # A time zone would be dropped, and what is finer than a microsecond.
        fits += f" AND regexp_full_match({value}, '[0-9-]{{10}}([ T][0-9:]{{5,8}}(\\.[0-9]{{1,6}})?)?Z?')"
    if kind == "double":
        # DuckDB takes 1_0 for 10, and infinity.
        number = "[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
        fits += f" AND isfinite({typed}) AND regexp_full_match({value}, '{number}')"
    decimals = 0 if kind == "bigint" else hints.get("scale") if kind == "decimal" else None
    if decimals is not None:
        # DuckDB rounds 1.5 to 2 for a whole number, and further decimals away, without a word.
        number = f"[+-]?[0-9]*(\\.[0-9]{{0,{decimals}}}0*)?"
        fits += f" AND regexp_full_match({value}, '{number}')"
    return f"{value} IS NULL OR coalesce({fits}, false)"


def _is_plain(value: str, typed: str, hints: TColumnSchema) -> str:
    """Returns the SQL condition that a text is just how DuckDB writes its value; then it fits."""
    plain = f"{value} = {typed}::VARCHAR"
    if hints["data_type"] in ("date", "timestamp"):
        plain += f" AND {typed} BETWEEN '1000-01-01' AND '9999-12-31'"
    if hints["data_type"] == "double":
        plain += f" AND isfinite({typed})"
    return plain


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


def _hash(file: BinaryIO) -> str:
    digest = xxhash.xxh3_128()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return str(digest.hexdigest())


def _state(info: Mapping[str, Any]) -> FileStat:
    times = ("mtime", "LastModified", "updated", "last_modified")
    modified = next((info[time] for time in times if info.get(time)), None)
    return FileStat(size=info["size"], modified=str(modified))
