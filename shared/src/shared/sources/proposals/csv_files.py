"""Propose the declaration of a CSV file from its rows. A person edits it; a load only checks it."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv.file import detect_encoding
from shared.sources.csv.format import CsvFormat
from shared.sources.csv.header import read_header
from shared.sources.csv.rows import Dialect, without_footer
from shared.sources.csv.values import ISO_DATE, ValueFormat
from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.files.format import Batch
from shared.sources.names import column_name
from shared.sources.proposals.csv_column import DATE_FORMATS, Column
from shared.sources.proposals.proposal import MAX_ROWS, Proposal, find_key, open_sample

_DELIMITERS = (";", "\t", "|", ",")
_ROWS_TO_COMPARE = 50
_MIN_SHARE = 0.5  # of these rows, with the same number of values
_COPY_BYTES = 1 << 20
_SAMPLE_CHARS = 100_000
_SINGLE_QUOTES = re.compile(r"(^|[;,\t|])'[^'\n]*[;,\t|][^'\n]*'(?=[;,\t|\r\n]|$)", re.MULTILINE)
_SEPARATOR_LINE = re.compile(r"sep=([;,\t|])\r?\n")  # of Excel
_SYMBOLS_AT_END = re.compile(r"[\W_]+$")
_FOOTER = re.compile(r"(grand total|subtotal|total|summe|gesamt|sum)\b", re.IGNORECASE)


@dataclass
class _Form:
    """The form of a file: the names of its columns, the options of its format, and what to check."""

    names: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def propose(*paths: Path) -> Proposal:
    """Propose a format for CSV files: the form of the first one, and types that the rows of all fit.

    Raises:
        InvalidFileError: a file cannot be read, has another form than the first, or one that `CsvFormat`
            cannot declare.
    """
    form = _common_form(paths)
    texts = CsvFormat({name: {"data_type": "text"} for name in form.names}, **form.options)
    tables: list[pa.Table] = []
    for path in paths:
        try:
            with DropFolder(str(path.parent)).local_copy(path.name) as copy:
                found = [*_first_rows(path.name, texts.read(copy), MAX_ROWS // len(paths))]
        except ValueError as error:
            raise InvalidFileError(f"{path.name}: {error}") from None
        if not found:
            raise InvalidFileError(f"{path.name} has no rows")
        tables += found
    with duckdb.connect() as connection:
        connection.register("texts", pa.concat_tables(tables))
        return _propose(paths[0], connection, form)


def _common_form(paths: Sequence[Path]) -> _Form:
    """Return the form of all files; a column that some do not have is optional."""
    forms = []
    for path in paths:
        with DropFolder(str(path.parent)).local_copy(path.name) as copy:
            forms.append(_read_form(path.name, copy))
        if forms[-1].options != forms[0].options:
            raise InvalidFileError(
                f"{path.name} has another form than {paths[0].name}: {forms[-1].options} and {forms[0].options}"
            )
    count = Counter(name for form in forms for name in form.names)
    common = replace(forms[0], names=[*count])
    for name in count:
        if count[name] < len(forms):
            common.options.setdefault("optional", []).append(name)
            common.notes[name] = f"only in {count[name]} of {len(forms)} files"
    return common


def _first_rows(name: str, batches: Iterator[Batch], count: int) -> Iterator[pa.Table]:
    for batch in batches:
        for row in batch.rejected:
            hint = (
                ". If its quotes are plain characters, or escaped by backslashes, write the format by hand, with "
                'quote="" or escape="\\\\"'
            ) * row.reason.startswith("its quotes")
            raise InvalidFileError(f"{name}, line {row.location[0]}: {row.reason}{hint}")
        yield batch.rows.slice(0, count)
        count -= len(batch.rows)
        if count <= 0:
            return


def _read_form(name: str, file: Path) -> _Form:
    """Return the form of a file, from its first rows and its last line."""
    encoding, note = _encoding(file)
    with file.open(encoding=encoding, newline="") as text:
        start_of_file = text.read(_SAMPLE_CHARS)
    is_single = '"' not in start_of_file and _SINGLE_QUOTES.search(start_of_file) is not None
    quote = "'" if is_single else '"'
    delimiter, rows = _split(name, file, encoding, quote, _SEPARATOR_LINE.match(start_of_file))
    width, _ = _most_common_width(rows)
    start = next((n for n, (_, row) in enumerate(rows) if len(row) == width), 0)
    above = rows[:start]
    line, header = rows[start] if rows else (1, [])
    form = _Form(header)
    if delimiter != ",":
        form.options["delimiter"] = delimiter
    if is_single:
        form.options["quote"] = quote
    if note:
        form.options["encoding"] = encoding
        form.notes["encoding"] = note
    if above and all(row[0].startswith("#") for _, row in above):
        form.options["comment"] = "#"
    elif line > 1:
        form.options["skip_lines"] = line - 1
        form.notes["skip_lines"] = (
            f"lines above the header, which begin with {start_of_file[:40]!r}"
        )
    if footer := _FOOTER.match(_last_line(file, encoding)):
        form.options["footer"] = [footer[0]]
        form.notes["footer"] = "the last line, which is not a row; a file without it does not load"
    _name_columns(name, form, header)
    return form


def _last_line(file: Path, encoding: str) -> str:
    with file.open("rb") as content:
        content.seek(max(file.stat().st_size - _SAMPLE_CHARS, 0))
        lines = content.read().decode(encoding, "replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


def _encoding(file: Path) -> tuple[str, str]:
    """Return the encoding of a file, and what to check if it is not one of Unicode."""
    encoding = detect_encoding(file, "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)()
    with file.open("rb") as content:
        try:
            while chunk := content.read(_COPY_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            before, after = error.object[: error.start][-20:], error.object[error.start :][:20]
            text = (before + after).decode("cp1252", "replace").split("\n")
            shown = next((line for line in text if not line.isascii()), "").strip()
            return "cp1252", f"the file is not UTF-8; look at {shown!r}"
    return encoding, ""


def _split(
    name: str, file: Path, encoding: str, quote: str, separator: re.Match[str] | None
) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return the delimiter, and the first rows, each with the line in which it starts.

    Args:
        name: the name of the file, for messages.
        file: a local file.
        encoding: its encoding.
        quote: the character around values.
        separator: the first line that Excel writes to name the delimiter, if there is one.
    """
    found: dict[str, list[tuple[int, list[str]]]] = {}
    for delimiter in separator[1] if separator else _DELIMITERS:
        with file.open(encoding=encoding, newline="") as text:
            rows, line = [], 1
            if separator:
                text.readline()
                line = 2
            above = line - 1
            reader = csv.reader(text, strict=True, delimiter=delimiter, quotechar=quote)
            try:
                for row in islice(reader, _ROWS_TO_COMPARE):
                    rows += [(line, row)] * bool(row)
                    line = above + reader.line_num + 1
            except csv.Error:  # quotes that are wrong for this delimiter
                continue
            found[delimiter] = rows

    def fit(delimiter: str) -> tuple[bool, float, int]:
        width, count = _most_common_width(found[delimiter])
        share = count / max(len(found[delimiter]), 1)
        return width > 1 and share >= _MIN_SHARE, share, width

    if not found:
        raise InvalidFileError(f"{name}: its quotes are wrong; see the rules of RFC 4180")
    delimiter = max(found, key=fit)  # the first of equal ones: a comma may be a decimal comma
    if not fit(delimiter)[0]:  # one column
        delimiter = "," if "," in found else delimiter
    return delimiter, found[delimiter]


def _most_common_width(rows: Sequence[tuple[int, list[str]]]) -> tuple[int, int]:
    """Return how many values most rows have, and how many rows these are; of equal counts, most values."""
    widths = Counter(len(row) for _, row in rows)
    return max(widths.items(), key=lambda each: (each[1], each[0]), default=(0, 0))


def _name_columns(name: str, form: _Form, header: Sequence[str]) -> None:
    """Set the names of the columns, and the options of a header that cannot give them."""
    numbers = [column for column in header if re.fullmatch(r"[+-]?[0-9.]+", column)]
    if numbers and (len(numbers) == len(header) or any("." in number for number in numbers)):
        form.names = [f"column_{n}" for n in range(1, len(header) + 1)]
        form.options["header_rows"] = 0
        form.notes["header_rows"] = (
            f"the first row has values, such as {numbers[0]}: name the columns"
        )
        return
    if numbers:
        form.notes["header_rows"] = (
            f"the header has numbers, such as {numbers[0]}; if it is a row, declare header_rows=0"
        )
    twice = [column for column, count in Counter(header).items() if count > 1 and column.strip()]
    if twice:
        raise InvalidFileError(f"{name}: {twice[0]} is twice in the header. Rename one of them")
    if unnamed := [n for n, column in enumerate(header, 1) if not column.strip()]:
        form.options["extra_columns"] = "ignore"
        places = ", ".join(map(str, unnamed))
        form.notes["extra_columns"] = f"without a name, so not loaded: column {places} of the file"
    form.names, taken, renamed = [], {"file_name"}, {}
    for column in filter(str.strip, header):
        # Symbols at the end of a name become x in the table: Price ($) is price_x.
        stripped = _SYMBOLS_AT_END.sub("", column)
        own = column if stripped in ("", column) else column_name(stripped)
        plain = column_name(own)
        if plain in taken or plain.startswith("_dlt"):
            own = f"source_{column.lstrip('_ ')}"
        if own != column:
            renamed[own] = column
        taken.add(column_name(own))
        form.names.append(own)
    if renamed:
        form.options["header_names"] = renamed


def _propose(file: Path, connection: duckdb.DuckDBPyConnection, form: _Form) -> Proposal:
    (rows,) = connection.execute("SELECT count(*) FROM texts").fetchone() or (0,)
    found = {name: Column(connection, name) for name in form.names}
    fitting = [column.date_formats for column in found.values()]
    date_format = max(DATE_FORMATS, key=lambda each: sum(each in forms for forms in fitting))
    proposed = {name: column.propose(date_format, rows) for name, column in found.items()}
    columns: Mapping[str, TColumnSchema] = {name: each.hints for name, each in proposed.items()}
    options = dict(form.options)
    if date_format != ISO_DATE and any(fitting):
        options["date_format"] = date_format
    if written := {
        name: each.form for name, each in proposed.items() if each.form != ValueFormat()
    }:
        options["values"] = written
    notes = form.notes | {
        name: "; ".join(filter(None, [form.notes.get(name), each.note]))
        for name, each in proposed.items()
        if each.note
    }
    key = find_key(connection, "texts", columns, rows)
    return Proposal(file, "CsvFormat", ".csv", rows, columns, key, notes, options)


def write_sample(proposal: Proposal, folder: Path, rows: int) -> None:
    """Write the header and the first rows of a proposal's file into a folder, as a file of its name.

    Args:
        proposal: what the file proposes.
        folder: an existing folder.
        rows: how many rows.
    """
    csv_format = CsvFormat(proposal.columns, **proposal.options)
    with DropFolder(str(proposal.file.parent)).local_copy(proposal.file.name) as copy:
        encoding = detect_encoding(copy, csv_format.encoding)
        with copy.open(encoding=encoding, newline="") as text:
            above = read_header(text, csv_format).lines
        with (
            copy.open(encoding=encoding, newline="") as text,
            open_sample(proposal, folder) as sample,
        ):
            sample.writelines(islice(text, above))
            below = without_footer(text, csv_format.footer) if csv_format.footer else text
            lines: list[str] = []

            def read() -> Iterator[str]:
                for line in below:
                    lines.append(line)
                    yield line

            dialect = Dialect.of(csv_format)
            for _ in islice(csv.reader(read(), strict=True, **dialect.arguments()), rows):
                sample.writelines(lines)
                lines.clear()
            if csv_format.footer:
                sample.write(_last_line(copy, encoding))
