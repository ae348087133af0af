"""Each way to read a CSV file gives the rows that RFC 4180 says, and no row depends on another one.

A file is read row by row, pushed down into DuckDB, and with bad rows in quarantine.
"""

from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import duckdb
import pytest
from dlt.common.schema.typing import TColumnSchema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.sources.csv import CsvFormat, ValueFormat, validate_file
from shared.sources.csv.file import CsvFile, open_csv
from shared.sources.csv.pushdown import can_push_down, strict_select_sql

TEXT: TColumnSchema = {"data_type": "text"}
TWO = CsvFormat({"a": TEXT, "b": TEXT}, allow_empty=True)
ONE = CsvFormat({"a": TEXT}, allow_empty=True)
Row = tuple[Any, ...]


@dataclass
class Reading:
    """What each way to read a file gives; None where it is refused or not used."""

    stop: list[Row] | None
    quarantine: list[Row]
    rejected: list[tuple[int, str]]
    pushed_down: list[Row] | None


def read(folder: Path, body: bytes, csv_format: CsvFormat, header: str = "") -> Reading:
    """Return what each way to read a file with a body gives."""
    header = header or csv_format.delimiter.join(csv_format.columns) + "\n"
    (folder / "x.csv").write_bytes(header.encode() + body)
    batches = [*csv_format.read(folder / "x.csv")]
    rejected = [row for batch in batches for row in batch.rejected]
    names = [*csv_format.row_columns]
    rows = [
        tuple(row[name] for name in names) for batch in batches for row in batch.rows.to_pylist()
    ]
    with open_csv(folder / "x.csv", csv_format) as file:
        fast = pushed_down(file)
    return Reading(
        None if rejected else rows, rows, [(row.location[0], row.raw) for row in rejected], fast
    )


def pushed_down(file: CsvFile) -> list[Row] | None:
    if not can_push_down(file):
        return None
    try:
        return file.connection.execute(strict_select_sql(file)).fetchall()
    except duckdb.Error:
        return None


def read_strictly(body: str, width: int, delimiter: str) -> list[Row] | None:
    """Return the rows of a body as RFC 4180 defines them; None if it is not such a body.

    As in the CSV source, a value without characters is None, any line break ends a row, and blank lines
    are skipped where a row has several values.
    """
    rows, position = [], 0
    while position < len(body):
        row: list[str | None] = []
        while True:
            value, position = _read_value(body, position, delimiter)
            row.append(value)
            if position is None:
                return None
            if body[position : position + 1] != delimiter:
                break
            position += 1
        if body[position : position + 2] == "\r\n":
            position += 2
        elif body[position : position + 1] in ("\r", "\n"):
            position += 1
        elif position < len(body):
            return None
        if row == [None] and width > 1:
            continue
        if len(row) != width:
            return None
        rows.append(tuple(row))
    return rows


def _read_value(body: str, position: int, delimiter: str) -> tuple[str | None, Any]:
    if body[position : position + 1] != '"':
        end = position
        while end < len(body) and body[end] not in f'{delimiter}\r\n"':
            end += 1
        return body[position:end] or None, end
    value = ""
    while (end := body.find('"', position + 1)) >= 0:
        value += body[position + 1 : end]
        if body[end + 1 : end + 2] != '"':
            return value, end + 1
        value, position = value + '"', end + 1
    return None, None


@pytest.mark.parametrize("body", [b"\r ", b"x\n\rx", b"x\r\n\rx\r"])
def test_a_blank_line_of_one_column_is_a_missing_value_on_each_path(
    tmp_path: Path, body: bytes
) -> None:
    found = read(tmp_path, body, ONE)
    assert (None,) in found.quarantine
    assert found.pushed_down in (None, found.quarantine)


def test_a_row_with_too_few_values_is_bad_also_if_trailing_delimiters_are_allowed(
    tmp_path: Path,
) -> None:
    three = CsvFormat(dict.fromkeys("abc", TEXT), delimiter=";", trailing_delimiters=True)
    found = read(tmp_path, b"1;2;3;\n1;\n4;5;6;\n", three)
    assert found.quarantine == [("1", "2", "3"), ("4", "5", "6")]
    assert found.rejected == [(3, "1;")]


def test_a_timestamp_without_a_time_zone_has_no_z(tmp_path: Path) -> None:
    local: TColumnSchema = {"data_type": "timestamp", "timezone": False}
    found = read(
        tmp_path,
        b"2025-03-10T10:00:00,x\n2025-03-10T10:00:00Z,y\n",
        CsvFormat({"a": local, "b": TEXT}),
    )
    assert [row[1] for row in found.quarantine] == ["x"]
    assert [line for line, _ in found.rejected] == [3]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_text_that_stands_for_no_value_is_null_in_its_column_only(
    tmp_path: Path, delimiter: str
) -> None:
    number: TColumnSchema = {"data_type": "bigint"}
    csv_format = CsvFormat(
        {"a": TEXT, "b": number},
        delimiter=delimiter,
        values={"b": ValueFormat(["NA", "-", "it's"])},
    )
    body = b'NA,1\n"NA",NA\n,"NA"\nx,-\n-,it\'s\n,\n'.replace(b",", delimiter.encode())
    expected = [("NA", 1), ("NA", None), (None, None), ("x", None), ("-", None), (None, None)]
    assert read(tmp_path, body, csv_format) == Reading(expected, expected, [], expected)
    bad = f"y{delimiter}NaN"
    found = read(tmp_path, body + bad.encode(), csv_format)
    assert found == Reading(None, expected, [(8, bad)], None)
    of_texts = replace(csv_format, values={"a": ValueFormat(["NA"])})
    quoted = b'"",1\nNA,2\n"NA",3\n'.replace(b",", delimiter.encode())
    rows = [("", 1), (None, 2), (None, 3)]
    assert read(tmp_path, quoted, of_texts) == Reading(rows, rows, [], rows)


pieces = st.sampled_from(
    ["x", ",", ",", '"', '"', '""', " ", "\n", "\n", "\r\n", ";", ";", '"y"', ',"z"\n', "1,2\n"]
)
bodies = st.lists(pieces, max_size=12).map("".join)


@given(body=bodies, csv_format=st.sampled_from([TWO, ONE, replace(TWO, delimiter=";")]))
@example(body='1, "x"\n', csv_format=TWO)
@example(body='1,  "x"\n2,"y"\n', csv_format=TWO)
@example(body='1,"x" \n', csv_format=TWO)
@example(body='1, "\n', csv_format=TWO)
@example(body='1,x"\n', csv_format=TWO)
@example(body="1,2,\n", csv_format=TWO)
@example(body='1,""\n1,2,,\n', csv_format=TWO)
@example(body='1,""\n1,\n', csv_format=TWO)
@example(body='1,"x\n\n', csv_format=TWO)
@example(body='1,"x,\n"\n\n', csv_format=TWO)
@example(body="1\n\n2\n", csv_format=ONE)
@example(body='""\n\n', csv_format=ONE)
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
def test_every_way_to_read_a_file_gives_the_rows_of_rfc_4180(
    body: str, csv_format: CsvFormat
) -> None:
    rows = read_strictly(body, len(csv_format.columns), csv_format.delimiter)
    with TemporaryDirectory() as folder:
        reading = read(Path(folder), body.encode(), csv_format)
    assert reading.stop == rows
    assert (reading.rejected == []) is (rows is not None)
    if rows is not None:
        assert reading.quarantine == rows
    assert reading.pushed_down in (rows, None)
    if rows and "\r" not in body and (None,) not in rows:
        assert reading.pushed_down == rows


TYPED = CsvFormat({"n": {"data_type": "bigint"}, "b": TEXT}, allow_empty=True)
lines_of_file = st.sampled_from(
    ["1,x", "1,", ",x", '1,""', "", "1", "1,x,", "1,x,,", "1,x,y", '1, "x"', '1,  "x"', '1,"x" ', '1,x"y"',
     '1,"x,y"', '1,  "x,y"', '1,"a ""b"" c"', "1.5,x", "word,x", " 1,x", '"1",x', '1,"x""', "1,\0", "n,b", "   "]
)  # fmt: skip


@cache
def read_line(line: str) -> Reading:
    with TemporaryDirectory() as folder:
        return read(Path(folder), line.encode(), TYPED)


@given(lines=st.lists(lines_of_file, min_size=1, max_size=6, unique=True))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_whether_a_row_loads_does_not_depend_on_other_rows(lines: list[str]) -> None:
    # Without the quote that is not closed, which can end in another line.
    lines = [line for line in lines if line.count('"') % 2 == 0]
    with TemporaryDirectory() as folder:
        together = read(Path(folder), "\n".join(lines).encode(), TYPED)
    alone = [*map(read_line, lines)]
    assert together.quarantine == [row for reading in alone for row in reading.quarantine]
    assert [raw for _, raw in together.rejected] == [
        raw for reading in alone for _, raw in reading.rejected
    ]
    assert (together.stop is None) is any(reading.stop is None for reading in alone)
    for reading in (together, *alone):
        assert reading.stop in (reading.quarantine, None)
        assert reading.pushed_down in (reading.stop, None)


@pytest.mark.parametrize(
    ("row", "read_as"),
    [
        ("1,x", (1, "x")),
        ("1,x,", (1, "x")),
        ("1,x,,", (1, "x")),
        ("1,,", (1, None)),
        ('1,"",', (1, "")),
        ('1,x,""', None),
        ("1,x,,y", None),
        ("1,x,y", None),
        ("1", None),
    ],
)
@pytest.mark.parametrize("other", ["", '2,""\n', "word,x\n"])
def test_a_format_may_allow_delimiters_at_the_end_of_a_row(
    tmp_path: Path, row: str, read_as: Row | None, other: str
) -> None:
    columns = {"n": TYPED.columns["n"], "b": TEXT}
    reading = read(
        tmp_path, f"{other}{row}\n".encode(), CsvFormat(columns, trailing_delimiters=True)
    )
    assert (read_as in reading.quarantine) is (read_as is not None)
    assert reading.stop == (None if "word" in other or not read_as else reading.quarantine)
    assert reading.pushed_down == reading.stop


@pytest.mark.parametrize("header", ["n,b,\n", "n,b,,\n"])
def test_a_header_may_end_in_delimiters_as_its_rows(tmp_path: Path, header: str) -> None:
    csv_format = CsvFormat(TYPED.columns, trailing_delimiters=True)
    reading = read(tmp_path, b"1,x,\n2,y,\n", csv_format, header)
    assert reading.stop == reading.quarantine == reading.pushed_down == [(1, "x"), (2, "y")]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "~", "^", "$", "*", "#"])
def test_a_file_may_have_another_delimiter(tmp_path: Path, delimiter: str) -> None:
    csv_format = replace(TYPED, delimiter=delimiter)
    body = f'1{delimiter}x, y\n2{delimiter}"x{delimiter}y"\n3{delimiter}""\n'
    rows = [(1, "x, y"), (2, f"x{delimiter}y"), (3, "")]
    reading = read(tmp_path, body.encode(), csv_format)
    assert reading.stop == reading.quarantine == reading.pushed_down == rows
    reading = read(tmp_path, f"{body}1,x\n4{delimiter}x{delimiter}\n".encode(), csv_format)
    assert (reading.stop, reading.quarantine, reading.pushed_down) == (None, rows, None)
    assert reading.rejected == [(5, "1,x"), (6, f"4{delimiter}x{delimiter}")]


# Content of which DuckDB's reader loses the last row without an error.

MEGABYTE = 1_000_000
LOST_BY_DUCKDB = {
    "a last row that is long": (b"2,", b"x", b""),
    "a last row that is long, with a line break": (b"2,", b"x", b"\n"),
    "a last row that is long, in quotes": (b'2,"', b"x", b'"\n'),
    "a last row of delimiters": (b"2,x", b",", b"\n"),
    "a last row of spaces": (b"2,", b" ", b"\n"),
    "zeros after the last row": (b"2,x\n", b"\0", b""),
}


@pytest.mark.parametrize("megabytes", [3, 40])
@pytest.mark.parametrize("kind", LOST_BY_DUCKDB)
def test_a_row_that_is_too_long_is_rejected_not_lost(
    tmp_path: Path, kind: str, megabytes: int
) -> None:
    start, filling, end = LOST_BY_DUCKDB[kind]
    reading = read(tmp_path, b"1,x\n" + start + filling * megabytes * MEGABYTE + end, TYPED)
    assert reading.stop is None
    assert reading.pushed_down is None
    assert reading.quarantine == [(1, "x")] + [(2, "x")] * start.startswith(b"2,x\n")
    ((line, raw),) = reading.rejected
    assert line == len(reading.quarantine) + 2
    assert len(raw) < 2_000


@pytest.mark.parametrize("break_", [b"\n", b"\r", b"\r\n"])
def test_lines_are_as_long_as_duckdb_allows_with_every_line_break(
    tmp_path: Path, break_: bytes
) -> None:
    long = b"1," + b"x" * (2 * MEGABYTE - 10) + break_
    reading = read(tmp_path, long * 3, TYPED, f"n,b{break_.decode()}")
    assert len(reading.stop or ()) == len(reading.pushed_down or ()) == 3


@pytest.mark.parametrize("short_of_limit", range(-3, 4))
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_row_at_the_limit_loads_with_and_without_a_bad_row(
    tmp_path: Path, short_of_limit: int, end: bytes
) -> None:
    row = b"1," + b"x" * (2 * MEGABYTE - 2 - short_of_limit) + end
    assert (read(tmp_path, row, TYPED).stop is None) is (
        read(tmp_path, b"word,x\n" + row, TYPED).quarantine == []
    )


def test_zeros_in_a_text_are_rejected_and_the_reason_says_where_they_come_from(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.csv").write_bytes(b"a\nx\n\0\0\0")
    with open_csv(tmp_path / "x.csv", ONE) as file:
        assert not can_push_down(file)
    (problem,) = validate_file("x.csv", ONE, folder=str(tmp_path))
    assert problem.startswith("x.csv, line 3: it has NUL bytes; a file that is not completely")


@pytest.mark.parametrize("kind", ["one row", "a row of several lines"])
def test_a_row_of_12_megabytes_is_rejected_and_the_others_load(tmp_path: Path, kind: str) -> None:
    long = b"x" * 12 * MEGABYTE if kind == "one row" else (b"x" * 1_000 + b"\n") * 12_000
    reading = read(tmp_path, b'1,x\n2,"' + long + b'"\n3,x\n', TYPED)
    assert [reading.quarantine[0], reading.quarantine[-1]] == [(1, "x"), (3, "x")]
    assert len(reading.quarantine) == 2
    assert (reading.stop, reading.rejected[0][0]) == (None, 3)


# A date's format.


@pytest.mark.parametrize(
    ("date_format", "text"),
    [
        ("%b %d %Y", "Jan 02 2018"),
        ("%A, %d %B %Y", "Tuesday, 02 January 2018"),
        ("%a %d.%m.%y", "Tue 02.01.18"),
        ("day %d/%m/%Y", "day 02/01/2018"),
        ("%d/%m/%Y", "02/01/2018"),
    ],
)
def test_a_date_may_begin_with_letters(tmp_path: Path, date_format: str, text: str) -> None:
    csv_format = CsvFormat({"day": {"data_type": "date"}, "b": TEXT}, date_format=date_format)
    reading = read(tmp_path, f'"{text}",x\n'.encode(), csv_format)
    assert reading.stop == reading.quarantine == reading.pushed_down == [(date(2018, 1, 2), "x")]
    for word in ("epoch", "infinity", "-infinity", "Jan", "someday"):
        bad = read(tmp_path, f"{word},x\n".encode(), csv_format)
        assert (bad.stop, bad.quarantine, bad.pushed_down) == (None, [], None)


# Names.


@pytest.mark.parametrize(
    "name",
    [
        "\u540d\u524d",
        "\u0628",
        "stra\u00dfe",
        "why rejected",
        "a b",
        "select",
        'a "b"',
        "it's",
        "100%",
        "x" * 200,
    ],
)
def test_a_column_may_have_any_other_name(tmp_path: Path, name: str) -> None:
    csv_format = CsvFormat({name: TEXT, "n": TYPED.columns["n"]})
    header = ",".join(f'"{column.replace(chr(34), chr(34) * 2)}"' for column in csv_format.columns)
    reading = read(tmp_path, b"x,1\ny,2\n", csv_format, header + "\n")
    assert reading.stop == [("x", 1), ("y", 2)]
    with_bad_row = read(tmp_path, b"x,1\ny,z\n", csv_format, header + "\n")
    assert with_bad_row.quarantine == [("x", 1)]


@pytest.mark.parametrize(
    "in_header", ["file_name", "Price, in \u20ac", "_dlt_id", "B", "\u540d\u524d"]
)
def test_a_column_may_have_another_name_in_the_header(tmp_path: Path, in_header: str) -> None:
    csv_format = replace(TYPED, header_names={"b": in_header})
    for body, rows in [(b"x,1\n", [(1, "x")]), (b"x,1\ny,z\n", None)]:
        reading = read(tmp_path, body, csv_format, f'"{in_header}",n\n')
        assert reading.stop == reading.pushed_down == rows
        assert reading.quarantine == [(1, "x")]
    with pytest.raises(ValueError, match=r"missing: .*; not expected: b"):
        read(tmp_path, b"x,1\n", csv_format, "b,n\n")


# Time.


def test_the_check_of_many_columns_takes_time_in_proportion_to_them(tmp_path: Path) -> None:
    def seconds(width: int) -> float:
        names = [f"c{n}" for n in range(width)]
        csv_format = CsvFormat(dict.fromkeys(names, TYPED.columns["n"]))
        start = process_time()
        reading = read(tmp_path, b",".join([b"1"] * width) + b"\n" + b"," * (width - 1), csv_format)
        assert len(reading.stop or ()) == 2
        reading = read(
            tmp_path, b",".join([b"1"] * width) + b"\n" + b"x," * (width - 1), csv_format
        )
        assert len(reading.rejected) == 1
        return process_time() - start

    seconds(10)
    assert seconds(400) < 9 * seconds(100)  # 16 times, if each column is compared with each other


def test_a_quote_that_is_not_closed_takes_time_in_proportion_to_the_file(tmp_path: Path) -> None:
    def seconds(megabytes: int) -> float:
        start = process_time()
        reading = read(
            tmp_path, b'1,"x\n' + b"1,xxxxxxxxxxxxx\n" * (megabytes * MEGABYTE // 16), TYPED
        )
        assert (reading.stop, len(reading.rejected)) == (None, 1)
        return process_time() - start

    seconds(1)
    assert seconds(4) < 9 * seconds(1)
