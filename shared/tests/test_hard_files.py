"""Files with unusual content load unchanged or are rejected; none loads with wrong values."""

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
    csv_source,
    validate_file,
)
from shared.sources.csv.file import open_csv
from shared.sources.csv.pushdown import can_push_down, strict_select_sql
from shared.sources.csv.rows import Dialect, iter_rows

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


VALID: dict[str, tuple[bytes, list[tuple[str | None, str | None, str | None]]]] = {
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

INVALID: dict[str, bytes] = {
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
        ("timestamp", "2020-01-01 12:00:00+02:00", True),
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
def test_a_value_that_its_type_would_change_does_not_fit(
    tmp_path: Path, data_type: Any, value: str, fits: bool
) -> None:
    (tmp_path / "x.csv").write_text(f"v\n{value}\n")
    problems = validate_file("x.csv", CsvFormat({"v": {"data_type": data_type}}))
    assert (problems == []) is fits


def test_a_column_without_a_nullable_hint_loads(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(GOOD.encode())
    pipeline = dlt.pipeline(
        "hard_files",
        pipelines_dir=str(tmp_path),
        destination=dlt.destinations.duckdb(str(tmp_path / "x.duckdb")),
        dataset_name="hard",
    )
    pipeline.run(csv_source(["x.csv"], "rows", FORMAT))
    with pipeline.sql_client() as client:
        loaded_rows = client.execute_sql("SELECT code, n, price::VARCHAR FROM rows")
    assert loaded_rows == [("a", 1, "1.50")]


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


@pytest.mark.parametrize("kind", VALID)
def test_a_valid_file_loads_unchanged(tmp_path: Path, kind: str) -> None:
    content, rows = VALID[kind]
    assert load(tmp_path, content) == rows


@pytest.mark.parametrize("kind", INVALID)
def test_an_invalid_file_is_rejected_with_its_name_and_a_reason(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Exception, match=r"x\.csv"):
        load(tmp_path, INVALID[kind])
    (first, *_) = validate_file("x.csv", FORMAT)
    assert first.startswith("x.csv")
    assert len(first) < 1_000


# With pushdown: the warehouse reads the file itself.


def read_by_pushdown(folder: Path, content: bytes, csv_format: CsvFormat) -> list[Any] | None:
    """Return the rows as the warehouse reads them; None where it does not accept the file."""
    (folder / "x.csv").write_bytes(content)
    try:
        with open_csv(folder / "x.csv", csv_format) as file:
            if not can_push_down(file):
                return None
            return file.connection.execute(strict_select_sql(file)).fetchall()
    except (ValueError, duckdb.Error):
        return None


@pytest.mark.parametrize("kind", VALID)
def test_pushdown_loads_a_valid_file_unchanged_or_is_not_used(tmp_path: Path, kind: str) -> None:
    content, rows = VALID[kind]
    loaded_rows = read_by_pushdown(tmp_path, content, FORMAT)
    without_pushdown = kind == "mixed line breaks"
    assert (loaded_rows is None) is without_pushdown
    for row in loaded_rows or []:
        assert tuple(None if value is None else str(value) for value in row) in rows


@pytest.mark.parametrize("kind", INVALID)
def test_pushdown_rejects_an_invalid_file_too(tmp_path: Path, kind: str) -> None:
    assert read_by_pushdown(tmp_path, INVALID[kind], FORMAT) is None


@pytest.mark.parametrize(
    ("data_type", "values"),
    [
        ("date", ["2020-02-29", "0999-01-01", "epoch", "infinity", "-infinity", "1970-01-01", " 2020-01-01", "2020-1-1", "20-01-01", "12020-01-01", ""]),
        ("bigint", ["1", "+1", "007", "1.", "1.0", "1.5", "1e2", " 5", "1_0", "0x1", "9223372036854775807", "9223372036854775808", "-", ""]),
        ("double", ["1", ".5", "5.", "1e400", "inf", "nan", "1_0", " 5", "0x1p3", "1e5", ""]),
        ("decimal", ["1", ".5", "5.", "1.234", "1.230", "1e1", "9999999999999999.99", "99999999999999999", "-", " 1", ""]),
        ("bool", ["true", "T", "1", "yes", "maybe", "0", ""]),
        ("timestamp", ["2020-01-01", "2020-01-01 12:00:00.123456", "2020-01-01 12:00:00+02:00", "2020-01-01T12:00:00.5-0530", "2020-01-01 12:00+02", "2020-01-01+02", "2020-01-01T12:00:00+15:00", "2020-01-01T12:00:00+02:60", "epoch", "infinity", "2020-01-01T00:00Z", ""]),
    ],
)  # fmt: skip
def test_pushdown_and_row_by_row_reading_give_the_same_value(
    tmp_path: Path, data_type: Any, values: list[str]
) -> None:
    hints: TColumnSchema = {"data_type": data_type}
    if data_type == "decimal":
        hints |= {"precision": 18, "scale": 2}
    csv_format = CsvFormat({"v": hints, "w": {"data_type": "text"}})
    accepted = 0
    for value in values:
        content = f"v,w\n{value},x\n".encode()
        exact = read_row_by_row(tmp_path, content, csv_format)
        fast = read_by_pushdown(tmp_path, content, csv_format)
        assert fast in (exact, None), value
        accepted += fast is not None
    assert accepted > 1


def read_row_by_row(folder: Path, content: bytes, csv_format: CsvFormat) -> list[Any] | None:
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
    """Return a value as dlt loads it: a timestamp without a zone is in UTC."""
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
def test_a_compressed_file_loads_unchanged(tmp_path: Path, kind: str) -> None:
    assert len(compressed(tmp_path, kind, COMPRESSED[kind](MANY))) == 30_000


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_file_compressed_in_two_streams_loads_completely(tmp_path: Path, kind: str) -> None:
    pieces = COMPRESSED[kind](MANY[:100_001]) + COMPRESSED[kind](MANY[100_001:])
    assert len(compressed(tmp_path, kind, pieces)) == 30_000


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("kept_share", [0.0, 0.5, 0.95])
def test_a_truncated_compressed_file_is_rejected(
    tmp_path: Path, kind: str, kept_share: float
) -> None:
    whole = COMPRESSED[kind]("".join(f"{n},{n},{n}\n" for n in range(30_000)))
    with pytest.raises(Exception, match=rf"x\.csv\.{kind}( cannot be decompressed|: it is empty)"):
        compressed(tmp_path, kind, whole[: int(len(whole) * kept_share)])


def test_an_archive_of_macos_has_one_file(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("folder/export.csv", MANY)
        for name in ("__MACOSX/folder/._export.csv", "folder/.DS_Store", "._export.csv"):
            archive.writestr(name, b"\0")
    assert len(compressed(tmp_path, "zip", target.getvalue())) == 30_000


def test_zeros_after_a_gz_stream_are_padding(tmp_path: Path) -> None:
    padded = gzip.compress(MANY.encode()) + b"\0" * 1_000
    assert len(compressed(tmp_path, "gz", padded)) == 30_000
    with pytest.raises(Exception, match=r"x\.csv\.gz cannot be decompressed"):
        compressed(tmp_path, "gz", padded + b"more")


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_file_that_becomes_too_large_is_rejected_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("MAX_UNCOMPRESSED_BYTES", "1000")
    with pytest.raises(Exception, match=r"more than 1,000 bytes .* set MAX_UNCOMPRESSED_BYTES"):
        compressed(tmp_path, kind, COMPRESSED[kind](MANY))
    monkeypatch.setenv("MAX_UNCOMPRESSED_BYTES", str(len(MANY)))
    assert len(compressed(tmp_path, kind, COMPRESSED[kind](MANY))) == 30_000


@pytest.mark.parametrize("name", ["DATA.CSV", "Data.Csv.GZ", "DATA.CSV.ZIP"])
def test_a_file_name_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    kind = name.lower().rpartition(".")[2]
    (tmp_path / name).write_bytes(COMPRESSED[kind](GOOD) if kind != "csv" else GOOD.encode())
    assert list(DropFolder(str(tmp_path)).list()) == [name]
    assert validate_file(name, FORMAT) == []


def test_an_archive_of_two_files_is_rejected(tmp_path: Path) -> None:
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
def test_text_in_a_declared_encoding_loads_unchanged(
    tmp_path: Path, encoding: str, text: str
) -> None:
    (tmp_path / "x.csv").write_bytes((HEADER + f"{text},1,1.5\n").encode(encoding))
    source = csv_source(["x.csv"], "rows", CsvFormat(COLUMNS, encoding=encoding))
    assert [str(code) for batch in source for code in batch["code"]] == [text]


@pytest.mark.parametrize("encoding", ["shift-jis", "ascii", "utf-16-le", "cp1252"])
def test_bytes_that_are_invalid_in_the_declared_encoding_are_rejected(
    tmp_path: Path, encoding: str
) -> None:
    good = "a,1,1.5\n".encode(encoding)
    bad = b"\x81\xd8" if encoding == "utf-16-le" else b"\x81\xff"
    (tmp_path / "x.csv").write_bytes(HEADER.encode(encoding) + good * 9_000 + bad + good)
    (problem,) = validate_file("x.csv", CsvFormat(COLUMNS, encoding=encoding))
    assert problem.startswith("x.csv")
    assert "bytes" in problem


def test_an_unknown_encoding_is_an_error_of_the_declaration() -> None:
    with pytest.raises(LookupError, match="utf-9"):
        CsvFormat(COLUMNS, encoding="utf-9")


def test_a_file_may_be_empty_if_its_format_allows_it(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(HEADER)
    csv_format = CsvFormat(COLUMNS, allow_empty=True)
    assert validate_file("x.csv", csv_format) == []
    for text, codes in [(HEADER, []), (GOOD, ["a"]), (HEADER, [])]:
        good, _ = load_with_quarantine(tmp_path, text.encode(), csv_format)
        assert [row[0] for row in good] == codes


def test_a_file_that_changes_while_it_is_read_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(MANY)
    source = iter(csv_source(["x.csv"], "rows", FORMAT))
    assert [next(source).num_rows, next(source).num_rows] == [0, 30_000]
    with file.open("a") as more:
        more.write("b,2,2.5\n")
    with pytest.raises(Exception, match=r"x\.csv was written to while it was read"):
        list(source)


# Under quarantine.

TextRows = list[tuple[str | None, ...]]


def load_with_quarantine(
    folder: Path, content: bytes, csv_format: CsvFormat = FORMAT
) -> tuple[TextRows, list[dict[str, Any]]]:
    """Return the loaded rows of a file and its rejected rows, from the warehouse."""
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


def test_every_row_is_loaded_or_rejected_with_line_and_reason(tmp_path: Path) -> None:
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
        "",  # an empty line
        'stray "quote",4,4.5',  # line 16
        "last,5,5.5",
    ]
    good, bad = load_with_quarantine(tmp_path, (HEADER + "\n".join(lines)).encode())
    assert good == [
        ("a", "1", "1.50"),
        ("two\nlines", "2", "2.50"),
        ("b", "3", "3.50"),
        ("last", "5", "5.50"),
    ]
    assert [(row["line"], row["raw"]) for row in bad] == [
        (3, lines[1]),
        (4, lines[2]),
        (5, lines[3]),
        (8, lines[5]),
        (11, lines[6]),
        (13, lines[8]),
        (14, lines[9]),
        (16, lines[11]),
    ]
    assert [row["reason"] for row in bad[:3]] == [
        "it has 2 values, and the header has 3",
        "it has 4 values, and the header has 3",
        "column n: 'x' does not fit BIGINT",
    ]
    assert bad[-2]["reason"] == (
        "column n: 'x' does not fit BIGINT; column price: 'y' does not fit DECIMAL(38, 2)"
    )
    assert {row["file_name"] for row in bad} == {"x.csv"}


def test_an_empty_line_of_one_column_is_a_missing_value(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('n\n1\n\nx\n""\n')
    for nullable, good, rejected in [(True, [1, None], ["x", '""']), (False, [1], ["", "x", '""'])]:
        csv_format = CsvFormat({"n": {"data_type": "bigint", "nullable": nullable}})
        batches = [*csv_format.read(tmp_path / "x.csv")]
        assert [row["n"] for batch in batches for row in batch.rows.to_pylist()] == good
        assert [row.raw for batch in batches for row in batch.rejected] == rejected


def test_bytes_that_cannot_be_decoded_are_stored_escaped(tmp_path: Path) -> None:
    good, bad = load_with_quarantine(tmp_path, HEADER.encode() + b"a,1,1.5\ncaf\xe9,2,2.5\n")
    assert (good, bad[0]["raw"]) == ([ROW], "caf\\xe9,2,2.5")


def test_only_the_row_that_is_too_long_for_duckdb_is_rejected(tmp_path: Path) -> None:
    good, bad = load_with_quarantine(tmp_path, f"{GOOD}{'x' * 2_100_000},1,1.5\nb,2,2.5\n".encode())
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
def test_any_table_loads_unchanged(
    rows: list[tuple[str, int, int]], quoting: Any, line_break: str
) -> None:
    target = io.StringIO()
    writer = csv.writer(target, quoting=quoting, lineterminator=line_break)
    writer.writerows([COLUMNS, *((code, n, f"{cents % 10**30}.25") for code, n, cents in rows)])
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DROP_FOLDER", folder)
        (Path(folder) / "x.csv").write_bytes(target.getvalue().encode())
        csv_format = CsvFormat(COLUMNS, allow_empty=True)
        loaded = [
            (row["code"] or "", row["n"], str(row["price"]))
            for batch in csv_source(["x.csv"], "rows", csv_format)
            for row in batch.to_pylist()
        ]
        fast = read_by_pushdown(Path(folder), target.getvalue().encode(), csv_format)
    expected = [(code, n, f"{cents % 10**30}.25") for code, n, cents in rows]
    assert loaded == expected
    assert [(code or "", n, str(price)) for code, n, price in fast or []] == expected


@given(lines_of_values=st.lists(st.lists(values, min_size=1, max_size=4).map(",".join), max_size=8))
@settings(max_examples=100, deadline=None)
def test_every_character_is_in_a_row_and_every_row_is_loaded_or_rejected(
    lines_of_values: list[str],
) -> None:
    text = HEADER + "".join(f"{line}\n" for line in lines_of_values)
    lines = io.StringIO(text.removeprefix(HEADER), newline="")
    split_rows = list(iter_rows(lines, 2, 3, Dialect()))
    characters_of_rows = "".join(row.raw for row in split_rows)
    assert without_breaks(characters_of_rows) == without_breaks(text.removeprefix(HEADER))
    with TemporaryDirectory() as folder:
        (Path(folder) / "x.csv").write_bytes(text.encode())
        batches = [*CsvFormat(COLUMNS).read(Path(folder) / "x.csv")]
    good = sum(len(batch.rows) for batch in batches)
    bad = [row for batch in batches for row in batch.rejected]
    assert good + len(bad) == len(split_rows)
    raw_of = {row.line: row.raw for row in split_rows}
    assert all(row.reason and row.raw == raw_of[row.location[0]] for row in bad)


def without_breaks(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")
