"""Files as the world writes them: each arrives right or is refused; none is silently wrong."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
from dlt.common.schema.typing import TColumnSchema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.sources.csv import (
    CsvFormat,
    DropFolder,
    InvalidFileError,
    csv_source,
    validate_file,
)
from shared.sources.csv.file import open_csv
from shared.sources.csv.pushdown import strict_select_sql
from shared.sources.csv.rows import iter_rows

COLUMNS: dict[str, TColumnSchema] = {
    "code": {"data_type": "text"},
    "n": {"data_type": "bigint"},
    "price": {"data_type": "decimal", "precision": 38, "scale": 2},
}
FORMAT = CsvFormat(COLUMNS)
HEADER = "code,n,price\n"
GOOD = HEADER + "a,1,1.5\n"
ROW = ("a", "1", "1.50")


def zipped(*texts: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for n, text in enumerate(texts):
            archive.writestr(f"{n}.csv", text)
    return target.getvalue()


def zstd(text: str) -> bytes:
    target = pa.BufferOutputStream()
    with pa.CompressedOutputStream(target, "zstd") as stream:
        stream.write(text.encode())
    return bytes(target.getvalue())


RIGHT: dict[str, tuple[bytes, list[tuple[str | None, str | None, str | None]]]] = {
    "plain": (GOOD.encode(), [ROW]),
    "BOM": (b"\xef\xbb\xbf" + GOOD.encode(), [ROW]),
    "CRLF": (GOOD.replace("\n", "\r\n").encode(), [ROW]),
    "CR alone": (GOOD.replace("\n", "\r").encode(), [ROW]),
    "no line break at the end": (GOOD.rstrip().encode(), [ROW]),
    "quotes and line breaks inside": (
        (HEADER + '"a ""b"", c\r\nd",1,1.5\n').encode(),
        [('a "b", c\r\nd', "1", "1.50")],
    ),
    "UTF-8 beyond ASCII": ((HEADER + "né日😀,1,1.5\n").encode(), [("né日😀", "1", "1.50")]),
    "leading zeros": ((HEADER + "08123,007,1.5\n").encode(), [("08123", "7", "1.50")]),
    "36 digits": (
        (HEADER + f"a,1,{'9' * 36}.99\n").encode(),
        [("a", "1", f"{'9' * 36}.99")],
    ),
    "largest bigint": (
        (HEADER + "a,9223372036854775807,1\n").encode(),
        [("a", "9223372036854775807", "1.00")],
    ),
    "quoted header": (('"code","n","price"\n' + "a,1,1.5\n").encode(), [ROW]),
    "text that looks like NULL": ((HEADER + "NULL,1,1.5\n").encode(), [("NULL", "1", "1.50")]),
    "empty fields": ((HEADER + "a,,\n").encode(), [("a", None, None)]),
    "comment sign": ((HEADER + "#a,1,1.5\n").encode(), [("#a", "1", "1.50")]),
    "a long value": (
        (HEADER + f"{'x' * 1_000_000},1,1.5\n").encode(),
        [("x" * 1_000_000, "1", "1.50")],
    ),
    "mixed line breaks": (
        (HEADER + "a,1,1.5\r\nb,2,2.5\rc,3,3.5\n").encode(),
        [ROW, ("b", "2", "2.50"), ("c", "3", "3.50")],
    ),
    "UTF-16": (GOOD.encode("utf-16"), [ROW]),
    "UTF-32": (GOOD.encode("utf-32"), [ROW]),
    "apostrophes": ((HEADER + "it's 'x',1,1.5\n").encode(), [("it's 'x'", "1", "1.50")]),
}

REFUSED: dict[str, bytes] = {
    "UTF-16 without BOM": GOOD.encode("utf-16-le"),
    "Latin-1": (HEADER + "é,1,1.5\n").encode("latin-1"),
    "Shift-JIS": (HEADER + "日本,1,1.5\n").encode("shift-jis"),
    "Latin-1 far below": (HEADER + "a,1,1.5\n" * 30_000 + "é,1,1.5\n").encode("latin-1"),
    "no bytes": b"",
    "line breaks only": b"\n\n\n",
    "header only": HEADER.encode(),
    "NUL byte in a number": (HEADER + "a,1\x00,1.5\n").encode(),
    "unescaped quote": (HEADER + 'a "b,1,1.5\n"c,2,2.5\n').encode(),
    "unclosed quote": (HEADER + '"a,1,1.5\nb,2,2.5\n').encode(),
    "text after a closing quote": (HEADER + '"a"b,1,1.5\n').encode(),
    "duplicate header": b"code,code,price\na,1,1.5\n",
    "empty header": b"code,,price\na,1,1.5\n",
    "headers that normalize to one": b"code,N,n\na,1,1.5\n",
    "a column more": b"code,n,price,more\na,1,1.5,x\n",
    "a column less": b"code,n\na,1\n",
    "a row that is short": (HEADER + "a,1\n").encode(),
    "a row that is long": (HEADER + "a,1,1.5,x\n").encode(),
    "a row that is long far below": (HEADER + "a,1,1.5\n" * 9_000 + "a,1,1.5,x\n").encode(),
    "preamble": b"exported on Monday\n\ncode,n,price\na,1,1.5\n",
    "semicolons": GOOD.replace(",", ";").encode(),
    "tabs": GOOD.replace(",", "\t").encode(),
    "two tables": (GOOD + "\nname,m\nb,2\n").encode(),
    "the header again": (GOOD + HEADER).encode(),
    "9,000 columns": (",".join(f"c{n}" for n in range(9_000)) + "\n").encode(),
    "37 digits": (HEADER + f"a,1,{'9' * 37}\n").encode(),
    "30 digits for a bigint": (HEADER + f"a,{'9' * 30},1\n").encode(),
    "more decimals than declared": (HEADER + "a,1,1.505\n").encode(),
    "a decimal comma": (HEADER + 'a,1,"1,5"\n').encode(),
    "thousands": (HEADER + 'a,"1,000",1\n').encode(),
    "a fraction for a bigint": (HEADER + "a,1.5,1\n").encode(),
    "an exponent for a bigint": (HEADER + "a,1e3,1\n").encode(),
    "an exponent for a decimal": (HEADER + "a,1,1e-3\n").encode(),
    "a type that changes far below": (HEADER + "a,1,1.5\n" * 9_000 + "a,one,1.5\n").encode(),
    "not a number": (HEADER + "a,1,NaN\n").encode(),
    "spaces for a number": (HEADER + "a,1,   \n").encode(),
    "gz under another name": gzip.compress(GOOD.encode()),
    "bz2 under another name": bz2.compress(GOOD.encode()),
    "xz under another name": lzma.compress(GOOD.encode()),
    "zip under another name": zipped(GOOD),
}


@pytest.mark.parametrize(
    ("data_type", "value", "fits"),
    [
        ("timestamp", "2020-01-01 12:00:00", True),
        ("timestamp", "2020-01-01T12:00:00.123456Z", True),
        ("timestamp", "2020-01-01 12:00:00+02:00", False),
        ("timestamp", "2020-01-01 12:00:00 Europe/Berlin", False),
        ("timestamp", "2020-01-01 12:00:00.1234567", False),
        ("timestamp", "infinity", False),
        ("double", "1.5e3", True),
        ("double", "1e400", False),
        ("double", "nan", False),
        ("double", "1_0", False),
        ("double", "-.5", True),
        ("bool", "true", True),
        ("bool", "maybe", False),
    ],
)
def test_a_value_that_a_type_would_change_does_not_fit(
    tmp_path: Path, data_type: Any, value: str, fits: bool
) -> None:
    (tmp_path / "x.csv").write_text(f"v\n{value}\n")
    problems = validate_file("x.csv", CsvFormat({"v": {"data_type": data_type}}))
    assert (problems == []) is fits


def test_a_column_that_says_nothing_of_missing_values_loads(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(GOOD.encode())
    pipeline = dlt.pipeline(
        "hard_files",
        pipelines_dir=str(tmp_path),
        destination=dlt.destinations.duckdb(str(tmp_path / "x.duckdb")),
        dataset_name="hard",
    )
    pipeline.run(csv_source(["x.csv"], "rows", FORMAT))
    with pipeline.sql_client() as client:
        found = client.execute_sql("SELECT code, n, price::VARCHAR FROM rows")
    assert found == [("a", 1, "1.50")]


@pytest.fixture(autouse=True)
def _drop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path))


def load(folder: Path, content: bytes) -> list[tuple[str | None, ...]]:
    (folder / "x.csv").write_bytes(content)
    source = csv_source(["x.csv"], "rows", FORMAT)
    rows = [row for batch in source for row in batch.to_pylist()]
    return [
        tuple(None if row[name] is None else str(row[name]) for name in COLUMNS) for row in rows
    ]


@pytest.mark.parametrize("kind", RIGHT)
def test_it_arrives_as_written(tmp_path: Path, kind: str) -> None:
    content, rows = RIGHT[kind]
    assert load(tmp_path, content) == rows


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_the_file_s_name_and_a_reason(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Exception, match=r"x\.csv"):
        load(tmp_path, REFUSED[kind])
    (first, *_) = validate_file("x.csv", FORMAT)
    assert first.startswith("x.csv")
    assert len(first) < 1_000


# Pushed down: the warehouse reads the file itself.


def pushed_down(folder: Path, content: bytes, csv_format: CsvFormat) -> list[Any] | None:
    """Returns the rows as the warehouse reads them; None where it does not take the file."""
    (folder / "x.csv").write_bytes(content)
    try:
        with open_csv(DropFolder(str(folder)), "x.csv", csv_format) as file:
            if file.encoding != "utf-8-sig" or not file.starts_with_row():
                return None
            names = ", ".join(f'"{name}"' for name in csv_format.columns)
            return file.connection.execute(
                f"SELECT {names} FROM ({strict_select_sql(file)})"
            ).fetchall()
    except (InvalidFileError, duckdb.Error):
        return None


@pytest.mark.parametrize("kind", RIGHT)
def test_pushed_down_it_arrives_as_written_or_goes_the_other_way(tmp_path: Path, kind: str) -> None:
    content, rows = RIGHT[kind]
    found = pushed_down(tmp_path, content, FORMAT)
    other_way = kind in ("mixed line breaks", "UTF-16", "UTF-32")
    assert (found is None) is other_way
    for row in found or []:
        assert tuple(None if value is None else str(value) for value in row) in rows


@pytest.mark.parametrize("kind", REFUSED)
def test_pushed_down_it_is_refused_as_well(tmp_path: Path, kind: str) -> None:
    assert pushed_down(tmp_path, REFUSED[kind], FORMAT) is None


@pytest.mark.parametrize(
    ("data_type", "values"),
    [
        ("date", ["2020-02-29", "0999-01-01", "epoch", "infinity", "-infinity", "1970-01-01", " 2020-01-01", "2020-1-1", "20-01-01", "12020-01-01", ""]),
        ("bigint", ["1", "+1", "007", "1.", "1.0", "1.5", "1e2", " 5", "1_0", "0x1", "9223372036854775807", "9223372036854775808", "-", ""]),
        ("double", ["1", ".5", "5.", "1e400", "inf", "nan", "1_0", " 5", "0x1p3", "1e5", ""]),
        ("decimal", ["1", ".5", "5.", "1.234", "1.230", "1e1", "9999999999999999.99", "99999999999999999", "-", " 1", ""]),
        ("bool", ["true", "T", "1", "yes", "maybe", "0", ""]),
        ("timestamp", ["2020-01-01", "2020-01-01 12:00:00.123456", "2020-01-01 12:00:00+02:00", "epoch", "infinity", "2020-01-01T00:00Z", ""]),
    ],
)  # fmt: skip
def test_both_ways_read_a_value_alike(tmp_path: Path, data_type: Any, values: list[str]) -> None:
    hints: TColumnSchema = {"data_type": data_type, "precision": 18, "scale": 2}
    csv_format = CsvFormat({"v": hints, "w": {"data_type": "text"}})
    taken = 0
    for value in values:
        content = f"v,w\n{value},x\n".encode()
        exact = read_record_by_record(tmp_path, content, csv_format)
        fast = pushed_down(tmp_path, content, csv_format)
        assert fast in (exact, None), value
        taken += fast is not None
    assert taken > 1


def read_record_by_record(folder: Path, content: bytes, csv_format: CsvFormat) -> list[Any] | None:
    (folder / "x.csv").write_bytes(content)
    if validate_file("x.csv", csv_format):
        return None
    source = csv_source(["x.csv"], "rows", csv_format)
    return [
        tuple(in_utc(row[name]) for name in csv_format.columns)
        for batch in source
        for row in batch.to_pylist()
    ]


def in_utc(value: Any) -> Any:
    """Returns a value as dlt loads it: a moment without a zone is in UTC."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


MANY = HEADER + "a,1,1.5\n" * 30_000
COMPRESSED: dict[str, Callable[[str], bytes]] = {
    "gz": lambda text: gzip.compress(text.encode()),
    "bz2": lambda text: bz2.compress(text.encode()),
    "xz": lambda text: lzma.compress(text.encode()),
    "zst": zstd,
    "zip": zipped,
}


def compressed(folder: Path, kind: str, content: bytes) -> list[Any]:
    name = f"x.csv.{kind}"
    (folder / name).write_bytes(content)
    assert list(DropFolder(str(folder)).list()) == [name]
    return [row for batch in csv_source([name], "rows", FORMAT) for row in batch["code"]]


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_file_arrives_as_written(tmp_path: Path, kind: str) -> None:
    assert len(compressed(tmp_path, kind, COMPRESSED[kind](MANY))) == 30_000


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_file_compressed_in_pieces_arrives_whole(tmp_path: Path, kind: str) -> None:
    pieces = COMPRESSED[kind](MANY[:100_001]) + COMPRESSED[kind](MANY[100_001:])
    assert len(compressed(tmp_path, kind, pieces)) == 30_000


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.95])
def test_a_compressed_file_that_is_cut_is_refused(tmp_path: Path, kind: str, left: float) -> None:
    whole = COMPRESSED[kind]("".join(f"{n},{n},{n}\n" for n in range(30_000)))
    with pytest.raises(Exception, match=rf"x\.csv\.{kind} (cannot be decompressed|is empty)"):
        compressed(tmp_path, kind, whole[: int(len(whole) * left)])


def test_an_archive_of_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"x\.csv\.zip .* has 2 files"):
        compressed(tmp_path, "zip", zipped(GOOD, GOOD))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("latin-1", "é"),
        ("cp1252", "€"),
        ("shift-jis", "日本"),
        ("utf-16-le", "é日😀"),
        ("gb18030", "日😀"),
    ],
)
def test_a_declared_encoding_arrives_as_written(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "x.csv").write_bytes((HEADER + f"{text},1,1.5\n").encode(encoding))
    source = csv_source(["x.csv"], "rows", CsvFormat(COLUMNS, encoding=encoding))
    assert [str(code) for batch in source for code in batch["code"]] == [text]


@pytest.mark.parametrize("encoding", ["shift-jis", "ascii", "utf-16-le", "cp1252"])
def test_bytes_that_are_no_letters_of_the_declared_encoding_are_refused(
    tmp_path: Path, encoding: str
) -> None:
    good = "a,1,1.5\n".encode(encoding)
    bad = b"\x81\xd8" if encoding == "utf-16-le" else b"\x81\xff"
    (tmp_path / "x.csv").write_bytes(HEADER.encode(encoding) + good * 9_000 + bad + good)
    (problem,) = validate_file("x.csv", CsvFormat(COLUMNS, encoding=encoding))
    assert problem.startswith("x.csv")
    assert "bytes" in problem


def test_an_unknown_encoding_is_refused_where_it_is_declared() -> None:
    with pytest.raises(LookupError, match="utf-9"):
        CsvFormat(COLUMNS, encoding="utf-9")


def test_a_file_may_be_empty_where_its_format_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(HEADER)
    csv_format = CsvFormat(COLUMNS, allow_empty=True)
    assert validate_file("x.csv", csv_format) == []
    for text, codes in [(HEADER, []), (GOOD, ["a"]), (HEADER, [])]:
        assert [row[0] for row in separated(tmp_path, text.encode(), csv_format)[0]] == codes


def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(MANY)
    source = iter(csv_source(["x.csv"], "rows", FORMAT))
    assert [next(source).num_rows, next(source).num_rows] == [0, 30_000]
    with file.open("a") as more:
        more.write("b,2,2.5\n")
    with pytest.raises(Exception, match=r"x\.csv was written to while it was read"):
        list(source)


# Under quarantine.

Records = list[tuple[str | None, ...]]


def separated(
    folder: Path, content: bytes, csv_format: CsvFormat = FORMAT
) -> tuple[Records, list[dict[str, Any]]]:
    """Returns what loads of a file, and what is rejected, as they stand in a warehouse."""
    (folder / "x.csv").write_bytes(content)
    pipeline = dlt.pipeline(
        "hard_files",
        pipelines_dir=str(folder),
        destination=dlt.destinations.duckdb(str(folder / "x.duckdb")),
        dataset_name="hard",
    )
    source = csv_source(["x.csv"], "rows", csv_format, on_bad_rows="quarantine")
    pipeline.run(source, refresh="drop_data", loader_file_format="parquet")
    with duckdb.connect(str(folder / "x.duckdb"), read_only=True) as connection:
        good = connection.execute(
            "SELECT code, n::VARCHAR, price::VARCHAR FROM hard.rows"
        ).fetchall()
        bad = connection.sql("FROM hard.rows_rejected ORDER BY line").to_arrow_table().to_pylist()
    return good, bad


def test_every_record_is_loaded_or_rejected_with_line_and_reason(tmp_path: Path) -> None:
    lines = [
        "a,1,1.5",  # line 2
        "short,1",
        "long,1,1.5,x",
        "one,x,1.5",
        '"two\nlines",2,2.5',  # lines 6 and 7
        '"three\nlines\n",3,x',  # lines 8 to 10
        '"unclosed,1,1.5',  # line 11
        "b,3,3.5",
        '"text"after,1,1.5',  # line 13
        "both,x,y",
        "",  # says nothing
        'last "quote",4,4.5',  # line 16
    ]
    good, bad = separated(tmp_path, (HEADER + "\n".join(lines)).encode())
    assert good == [
        ("a", "1", "1.50"),
        ("two\nlines", "2", "2.50"),
        ("b", "3", "3.50"),
        ('last "quote"', "4", "4.50"),
    ]
    assert [(row["line"], row["raw"]) for row in bad] == [
        (3, lines[1]),
        (4, lines[2]),
        (5, lines[3]),
        (8, lines[5]),
        (11, lines[6]),
        (13, lines[8]),
        (14, lines[9]),
    ]
    assert [row["reason"] for row in bad[:3]] == [
        "it has 2 values, and the header has 3",
        "it has 4 values, and the header has 3",
        "column n: 'x' does not fit BIGINT",
    ]
    assert bad[-1]["reason"] == (
        "column n: 'x' does not fit BIGINT; column price: 'y' does not fit DECIMAL(38, 2)"
    )
    assert {row["file_name"] for row in bad} == {"x.csv"}


def test_an_empty_line_of_one_column_is_a_missing_value(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('n\n1\n\nx\n""\n')
    for nullable, good, rejected in [(True, [1, None], ["x", '""']), (False, [1], ["", "x", '""'])]:
        csv_format = CsvFormat({"n": {"data_type": "bigint", "nullable": nullable}})
        with open_csv(DropFolder(str(tmp_path)), "x.csv", csv_format) as file:
            assert [row["n"] for batch in file.rows() for row in batch.to_pylist()] == good
            bad = [row["raw"] for batch in file.rejected() for row in batch.to_pylist()]
        assert bad == rejected


def test_bytes_that_are_no_letters_are_kept_as_they_can_be_shown(tmp_path: Path) -> None:
    good, bad = separated(tmp_path, HEADER.encode() + b"a,1,1.5\ncaf\xe9,2,2.5\n")
    assert (good, bad[0]["raw"]) == ([ROW], "caf\\xe9,2,2.5")


def test_a_record_longer_than_the_engine_takes_is_rejected_alone(tmp_path: Path) -> None:
    good, bad = separated(tmp_path, f"{GOOD}{'x' * 2_100_000},1,1.5\nb,2,2.5\n".encode())
    assert ([row[0] for row in good], [row["line"] for row in bad]) == (["a", "b"], [3])


texts = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
values = st.one_of(
    texts,
    st.integers().map(str),
    st.decimals(allow_nan=True, places=3).map(str),
    st.sampled_from(['"', '""', ",", " ", "\n", "\r\n", 'a"b', '"a', "#", "\\", "NULL", "\x00"]),
)


@given(
    rows=st.lists(st.tuples(texts, st.integers(-(2**63), 2**63 - 1), st.integers()), max_size=20),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_break=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=[(",", 1, 1), ("", 2, 2)], quoting=csv.QUOTE_ALL, line_break="\r\n")
@settings(max_examples=50, deadline=None)
def test_any_table_arrives_as_written(
    rows: list[tuple[str, int, int]], quoting: Any, line_break: str
) -> None:
    target = io.StringIO()
    writer = csv.writer(target, quoting=quoting, lineterminator=line_break)
    writer.writerows([COLUMNS, *((code, n, f"{cents % 10**30}.25") for code, n, cents in rows)])
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DROP_FOLDER", folder)
        (Path(folder) / "x.csv").write_bytes(target.getvalue().encode())
        csv_format = CsvFormat(COLUMNS, allow_empty=True)
        landed = [
            (row["code"] or "", row["n"], str(row["price"]))
            for batch in csv_source(["x.csv"], "rows", csv_format)
            for row in batch.to_pylist()
        ]
        fast = pushed_down(Path(folder), target.getvalue().encode(), csv_format)
    expected = [(code, n, f"{cents % 10**30}.25") for code, n, cents in rows]
    assert landed == expected
    assert [(code or "", n, str(price)) for code, n, price in fast or []] == expected


@given(records=st.lists(st.lists(values, min_size=1, max_size=4).map(",".join), max_size=8))
@settings(max_examples=100, deadline=None)
def test_every_letter_of_a_file_is_in_a_record_and_every_record_is_loaded_or_rejected(
    records: list[str],
) -> None:
    text = HEADER + "".join(f"{record}\n" for record in records)
    lines = io.StringIO(text.removeprefix(HEADER), newline="")
    split = list(iter_rows(lines, 2, 3))
    letters = "".join(raw for _, raw, _ in split)
    assert without_breaks(letters) == without_breaks(text.removeprefix(HEADER))
    with TemporaryDirectory() as folder:
        (Path(folder) / "x.csv").write_bytes(text.encode())
        with open_csv(DropFolder(folder), "x.csv", CsvFormat(COLUMNS, allow_empty=True)) as file:
            assert file.problems("quarantine") == []
            good = sum(batch.num_rows for batch in file.rows())
            bad = [row for batch in file.rejected() for row in batch.to_pylist()]
    assert good + len(bad) == len(split)
    raw_of = {line: raw for line, raw, _ in split}
    assert all(row["reason"] and row["raw"] == raw_of[row["line"]] for row in bad)


def without_breaks(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")
