"""Files as the world writes them: each arrives right or is refused; none is silently wrong."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import CsvFormat, csv_source, find_problems

COLUMNS: dict[str, TColumnSchema] = {
    "code": {"data_type": "text"},
    "n": {"data_type": "bigint"},
    "price": {"data_type": "decimal", "precision": 38, "scale": 2},
}
HEADER = "code,n,price\n"
GOOD = HEADER + "a,1,1.5\n"
ROW = ("a", "1", "1.50")


def zipped(text: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("x.csv", text)
    return target.getvalue()


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
    "headers that normalise to one": b"code,N,n\na,1,1.5\n",
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
    "gz": gzip.compress(GOOD.encode()),
    "bz2": bz2.compress(GOOD.encode()),
    "xz": lzma.compress(GOOD.encode()),
    "zip": zipped(GOOD),
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
        ("bool", "true", True),
        ("bool", "maybe", False),
    ],
)
def test_a_value_that_a_type_would_change_does_not_fit(
    tmp_path: Path, data_type: Any, value: str, fits: bool
) -> None:
    (tmp_path / "x.csv").write_text(f"v\n{value}\n")
    problems = find_problems("x.csv", CsvFormat({"v": {"data_type": data_type}}))
    assert (problems == []) is fits


def test_a_column_that_says_nothing_of_missing_values_loads(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(GOOD.encode())
    pipeline = dlt.pipeline(
        "hard_files",
        pipelines_dir=str(tmp_path),
        destination=dlt.destinations.duckdb(str(tmp_path / "x.duckdb")),
        dataset_name="hard",
    )
    pipeline.run(csv_source(["x.csv"], "rows", CsvFormat(COLUMNS)))
    with pipeline.sql_client() as client:
        found = client.execute_sql("SELECT code, n, price::VARCHAR FROM rows")
    assert found == [("a", 1, "1.50")]


@pytest.fixture(autouse=True)
def _drop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path))


def load(folder: Path, content: bytes) -> list[tuple[str | None, ...]]:
    (folder / "x.csv").write_bytes(content)
    source = csv_source(["x.csv"], "rows", CsvFormat(COLUMNS))
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
    (first, *_) = find_problems("x.csv", CsvFormat(COLUMNS))
    assert first.startswith("x.csv")
    assert len(first) < 1_000
