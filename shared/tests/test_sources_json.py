"""A value of a JSON file loads unchanged or its row is rejected, whatever the other rows are."""

import datetime as dt
import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pytest
from dlt.common.schema.typing import TColumnSchema
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import warehouse
from shared.sources.files import (
    FileFormat,
    JsonFormat,
    JsonLinesFormat,
    file_source,
    json_lines,
    json_sql,
    validate_file,
)
from shared.sources.files import source as source_module
from shared.sources.files.format import Batch
from shared.sources.files.json_lines import parse_rows, read_exact
from shared.warehouse.destinations.duckdb import PushdownLoadJob

COLUMNS: dict[str, TColumnSchema] = {
    "id": {"data_type": "bigint", "nullable": False},
    "price": {"data_type": "decimal", "precision": 20, "scale": 2},
    "note": {"data_type": "text"},
}
FORMAT = JsonLinesFormat(COLUMNS)
GOOD = '{"id": 1, "price": 1.50, "note": "ü"}'
LOADED = (1, Decimal("1.50"), "ü")


@pytest.fixture(autouse=True)
def _drop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path))


def drop(folder: Path, content: str | bytes, name: str = "file.jsonl") -> str:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def quarantine(folder: Path, name: str, file_format: FileFormat) -> tuple[list[Any], list[Any]]:
    """Return the rows that load, and the place and the reason of the others."""
    rows, rejected = [], []
    for batch in file_format.read(folder / name):
        rows += [tuple(row.values()) for row in batch.rows.to_pylist()]
        rejected += [(*row.location, row.reason) for row in batch.rejected]
    assert validate_file(name, file_format, "quarantine") == [] or not (rows or rejected)
    return rows, rejected


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD + "\n",
        GOOD + "\r\n",
        "\ufeff" + GOOD + "\n",
        "\n" + GOOD + "\n \t\r\n\n",
        f"  {GOOD}  \n",
        '{"note":"ü","price":"1.5","id":1}',
        '{"id":1,"price":15e-1,"note":"\\u00fc"}',
    ],
)
def test_lines_may_have_any_form_that_json_has(tmp_path: Path, content: str) -> None:
    assert quarantine(tmp_path, drop(tmp_path, content), FORMAT) == ([LOADED], [])


BAD_LINES: dict[str, tuple[str | bytes, str]] = {
    "a fraction for a bigint": ('{"id":1.5,"price":1,"note":""}', "column id: Decimal('1.5') does"),
    "1.0 for a bigint": ('{"id":1.0,"price":1,"note":""}', "column id: Decimal('1.0') does not"),
    "a text for a bigint": (
        '{"id":"12","price":1,"note":""}',
        "column id: '12' does not fit bigint",
    ),
    "true for a bigint": ('{"id":true,"price":1,"note":""}', "column id: True does not fit bigint"),
    "65 bits": ('{"id":9223372036854775808,"price":1,"note":""}', "9223372036854775808 does not"),
    "NaN": ('{"id":1,"price":NaN,"note":""}', "NaN is not JSON"),
    "more decimals": ('{"id":1,"price":1.005,"note":""}', "column price: '1.005' does not fit dec"),
    "21 digits": (
        '{"id":1,"price":1234567890123456789.00,"note":""}',
        "does not fit decimal(20, 2)",
    ),
    "a number for text": ('{"id":1,"price":1,"note":1}', "column note: 1 does not fit text"),
    "an object for text": ('{"id":1,"price":1,"note":{}}', "column note: {} does not fit text"),
    "null for a required column": (
        '{"id":null,"price":1,"note":""}',
        "column id: the value is missing",
    ),
    "a missing key": ('{"id":1,"price":1}', "column 'note' is missing"),
    "an undeclared key": ('{"id":1,"price":1,"note":"","n":1}', "column 'n' is not declared"),
    "a key in another case": (
        '{"ID":1,"price":1,"note":""}',
        "column 'id' is missing; column 'ID' is not declared",
    ),
    "a key twice": ('{"id":1,"id":1,"price":1,"note":""}', "the key 'id' is there twice"),
    "half a surrogate pair": (
        '{"id":1,"price":1,"note":"\\ud800"}',
        "column note: '\\ud800' does not",
    ),
    "a control character": ('{"id":1,"price":1,"note":"\t"}', "it is not JSON: Invalid control"),
    "a comma at the end": ('{"id":1,"price":1,"note":"",}', "it is not JSON: "),
    "a comment": ('{"id":1,"price":1,"note":""} // x', "it is not JSON: Extra data"),
    "two objects": (GOOD + GOOD, "it is not JSON: Extra data"),
    "a list": ("[1, 2]", "[1, 2] is not an object"),
    "a number alone": ("7", "7 is not an object"),
    "text that is no JSON": ("id=1", "it is not JSON: Expecting value, in column 1"),
    "deep nesting": ("[" * 100_000, "it is nested too deeply"),
    "deep nesting in a column": (
        '{"id":1,"price":1,"note":' + "[" * 100_000 + "]" * 100_000 + "}",
        "it is nested too deeply",
    ),
    "a long integer": ('{"id":' + "9" * 5000 + ',"price":1,"note":""}', "4300"),
    "a huge exponent": (
        '{"id":1,"price":1e99999999999999999999,"note":""}',
        "1e99999999999999999999 has an exponent that is too large",
    ),
    "Latin-1": (GOOD.encode("latin-1"), "'utf-8' codec can't decode byte 0xfc"),
    "UTF-16": (GOOD.replace("ü", "u").encode("utf-16-be"), "it is not JSON"),
    "NUL bytes": ("\0\0\0", "it is not JSON"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_rejected_and_the_others_load(tmp_path: Path, case: str) -> None:
    bad, problem = BAD_LINES[case]
    bad = bad if isinstance(bad, bytes) else bad.encode()
    name = drop(tmp_path, GOOD.encode() + b"\n" + bad + b"\n\n" + GOOD.encode())
    rows, ((number, reason),) = quarantine(tmp_path, name, FORMAT)
    assert (rows, number) == ([LOADED, LOADED], 2)
    assert problem in reason
    (error,) = validate_file(name, FORMAT)
    assert error.startswith("file.jsonl, line 2: ")
    with pytest.raises(Exception, match=r"file\.jsonl, line 2: "):
        list(file_source([name], "rows", FORMAT))


def test_an_object_over_several_lines_is_not_json_lines(tmp_path: Path) -> None:
    name = drop(tmp_path, GOOD + "\n" + GOOD.replace(", ", ",\n") + "\n")
    rows, rejected = quarantine(tmp_path, name, FORMAT)
    assert rows == [LOADED]
    assert [number for number, _ in rejected] == [2, 3, 4]


def test_a_truncated_last_line_is_named(tmp_path: Path) -> None:
    (error,) = validate_file(drop(tmp_path, GOOD + "\n" + GOOD[:-5]), FORMAT)
    assert "line 2: it is not JSON: " in error
    assert error.endswith("the file may be incomplete")


def test_optional_keys_may_be_missing(tmp_path: Path) -> None:
    name = drop(tmp_path, GOOD + '\n{"id":2,"price":null}\n{"price":3,"id":3,"note":null}\n')
    rows, rejected = quarantine(tmp_path, name, JsonLinesFormat(COLUMNS, optional=["note"]))
    assert rows == [LOADED, (2, None, None), (3, Decimal("3.00"), None)]
    assert rejected == []
    assert quarantine(tmp_path, name, FORMAT)[1] == [(2, "column 'note' is missing")]


def test_rules_reject_rows(tmp_path: Path) -> None:
    ruled = JsonLinesFormat(COLUMNS, {"price": "price < 2"})
    name = drop(tmp_path, GOOD + "\n" + GOOD.replace("1.50", "2.00"))
    problem = "column price: Decimal('2.00') breaks the rule price < 2"
    assert quarantine(tmp_path, name, ruled) == ([LOADED], [(2, problem)])


@pytest.mark.parametrize(
    "compress", [gzip.compress, lambda data: pa.compress(data, "zstd", asbytes=True)]
)
def test_compressed_files_load(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    suffix = "gz" if compress is gzip.compress else "zst"
    name = drop(tmp_path, compress(GOOD.encode()), f"file.jsonl.{suffix}")
    assert validate_file(name, FORMAT) == []
    *_, table = file_source([name], "rows", FORMAT)
    assert table.to_pylist() == [{"file_name": name, **dict(zip(COLUMNS, LOADED, strict=True))}]
    drop(tmp_path, compress(GOOD.encode())[:-9], name)
    assert "cannot be decompressed" in validate_file(name, FORMAT)[0]


def test_files_in_a_bucket_load() -> None:
    bucket = fsspec.filesystem("memory")  # any storage that fsspec knows
    bucket.pipe("/drop/file.jsonl.gz", gzip.compress(GOOD.encode()))
    try:
        assert validate_file("file.jsonl.gz", FORMAT, folder="memory://drop") == []
        *_, table = file_source(["file.jsonl.gz"], "rows", FORMAT, folder="memory://drop")
        assert table.num_rows == 1
    finally:
        bucket.rm("/drop", recursive=True)


ZONE = dt.timezone(dt.timedelta(hours=2))
VALUES: list[tuple[dict[str, Any], str, Any]] = [
    ({"data_type": "double"}, "0.1", 0.1),
    ({"data_type": "double"}, "7", 7.0),
    ({"data_type": "double"}, "1e300", 1e300),
    ({"data_type": "double"}, "9007199254740993", None),
    ({"data_type": "double"}, "1e400", None),
    ({"data_type": "double"}, "NaN", None),
    ({"data_type": "double"}, "-Infinity", None),
    ({"data_type": "double"}, '"1"', None),
    ({"data_type": "bool"}, "false", False),
    ({"data_type": "bool"}, "0", None),
    ({"data_type": "decimal"}, "12345678901234567890.123456789", Decimal("12345678901234567890.123456789")),
    ({"data_type": "decimal"}, "1e2", Decimal(100)),
    ({"data_type": "decimal"}, '" 1"', None),
    ({"data_type": "decimal"}, '"1_0"', None),
    *(
        ({"data_type": "decimal", "precision": 38, "scale": scale}, number, None)
        for scale, number in [(37, "999997.791"), (37, '"999997.791"'), (37, "1e37"), (0, '"123456789e33"'), (38, "5"), (9, "9" * 37)]
    ),
    ({"data_type": "decimal", "precision": 38, "scale": 9}, "9" * 29, Decimal("9" * 29)),
    ({"data_type": "decimal", "precision": 20, "scale": 20}, "0.5", Decimal("0.5")),
    ({"data_type": "decimal", "precision": 38, "scale": 38}, "0", Decimal(0)),
    ({"data_type": "date"}, '"2025-03-10"', dt.date(2025, 3, 10)),
    ({"data_type": "date"}, '"20250310"', None),
    ({"data_type": "date"}, '"2025-02-30"', None),
    ({"data_type": "date"}, '"2025-03-10T00:00:00"', None),
    ({"data_type": "time"}, '"12:30:00.123456"', dt.time(12, 30, 0, 123456)),
    ({"data_type": "time"}, '"12:30:00.1234567"', None),
    ({"data_type": "time"}, '"12:30:00Z"', None),
    ({"data_type": "timestamp"}, '"2025-03-10T12:00:00+02:00"', dt.datetime(2025, 3, 10, 12, tzinfo=ZONE)),
    ({"data_type": "timestamp"}, '"2025-03-10 12:00:00.5Z"', dt.datetime(2025, 3, 10, 12, 0, 0, 500000, dt.UTC)),
    ({"data_type": "timestamp"}, '"2025-03-10T12:00:00"', None),
    ({"data_type": "timestamp"}, '"2025-03-10T12:00:00.1234567Z"', None),
    ({"data_type": "timestamp"}, "1741608000", None),
    ({"data_type": "timestamp", "timezone": False}, '"2025-03-10T12:00:00"', dt.datetime(2025, 3, 10, 12)),  # noqa: DTZ001 - a local time
    ({"data_type": "timestamp", "timezone": False}, '"2025-03-10T12:00:00Z"', None),
    ({"data_type": "binary"}, '"/w=="', b"\xff"),
    ({"data_type": "binary"}, '"/w"', None),
    ({"data_type": "json"}, '{"a": [1.10, 12345678901234567890123, "ü"]}', '{"a":[1.10,12345678901234567890123,"ü"]}'),
    ({"data_type": "json"}, '"text"', '"text"'),
    ({"data_type": "json"}, '{"a": {"b": 1, "b": 2}}', None),
    ({"data_type": "json"}, "[NaN]", None),
]  # fmt: skip


@pytest.mark.parametrize(("hints", "text", "expected"), VALUES)
def test_a_value_of_any_type_loads_unchanged_or_is_rejected(
    tmp_path: Path, hints: TColumnSchema, text: str, expected: Any
) -> None:
    file_format = JsonLinesFormat({"a": hints})
    rows, rejected = quarantine(tmp_path, drop(tmp_path, f'{{"a":{text}}}\n'), file_format)
    assert rows == ([(expected,)] if expected is not None else [])
    assert len(rejected) == (expected is None)


ANY_VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(float),
    st.text(max_size=3),
    st.sampled_from(
        ["1.50", "+1", ".5", "1e2", "2025-03-10", "2025-03-10T12:00:00Z", "12:30", "/w=="]
    ),
    st.lists(st.integers(), max_size=1),
)
ANY_TYPE = st.sampled_from(["text", "bigint", "double", "bool", "decimal", "date", "time", "timestamp", "binary"])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    data_type=ANY_TYPE,
    objects=st.lists(
        st.dictionaries(st.sampled_from(["a", "b"]), ANY_VALUE, max_size=2), min_size=1, max_size=5
    ),
)
def test_the_fast_reader_agrees_with_the_exact_one_on_each_row(
    data_type: str, objects: list[dict[str, Any]]
) -> None:
    columns: Any = {"a": {"data_type": data_type}, "b": {"data_type": "text"}}
    file_format = JsonLinesFormat(columns, optional=["b"])
    lines = [json.dumps(each).encode() + b"\n" for each in objects]
    for block in (lines, *([line] for line in lines)):
        found = read_exact(file_format, b"".join(block), 0, len(block))
        if found is not None:
            expected = parse_rows(enumerate(block), file_format)
            assert found.rows.equals(expected.rows)
            assert [row.location for row in found.rejected] == [
                row.location for row in expected.rejected
            ]


def test_plain_lines_are_read_by_arrow() -> None:
    lines = [f"{GOOD}\n".encode(), b'{"id":2,"price":null,"note":"x"}\n']
    assert read_exact(FORMAT, b"".join(lines), 1, len(lines)) is not None


def _parse_no_row(*_: Any) -> None:
    raise AssertionError("Python parses rows")


@pytest.mark.parametrize("separator", [",", ", ", ",\n", "\n , \r\n\t"])
def test_arrays_of_objects_without_line_breaks_are_read_by_arrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    monkeypatch.setattr(json_lines, "parse_rows", _parse_no_row)
    bad = GOOD.replace("1,", "null,", 1)
    name = drop(tmp_path, f" [\n{separator.join([GOOD, bad, GOOD])} ]\n")
    problem = "column id: the value is missing"
    assert quarantine(tmp_path, name, JsonFormat(COLUMNS)) == ([LOADED] * 2, [(1, problem)])


@pytest.mark.parametrize("note", ["},{", "}, {", "[{},{}]", "\\u007d,{", "]"])
def test_texts_in_arrays_may_look_like_json(tmp_path: Path, note: str) -> None:
    line = GOOD.replace("ü", note)
    expected = (*LOADED[:2], json.loads(f'"{note}"'))
    name = drop(tmp_path, f"[{line},{line}]")
    assert quarantine(tmp_path, name, JsonFormat(COLUMNS)) == ([expected] * 2, [])


def test_a_bad_line_costs_the_parsing_of_a_few_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []

    def count(texts: Any, file_format: FileFormat) -> Batch:
        rows = [*texts]
        parsed.append(len(rows))
        return parse_rows(iter(rows), file_format)

    monkeypatch.setattr(json_lines, "parse_rows", count)
    lines = [f'{{"id":{n},"price":1,"note":"{"x" * 100}"}}' for n in range(20_000)]
    lines[7_654] = "no JSON"
    rows, rejected = quarantine(tmp_path, drop(tmp_path, "\n".join(lines)), FORMAT)
    assert [row[0] for row in rows] == [n for n in range(20_000) if n != 7_654]
    assert [number for number, _ in rejected] == [7_655]
    assert 0 < sum(parsed) < 2_000 * 2  # it is read twice


def push_down(file: Path, file_format: FileFormat, sample_bytes: int) -> list[Any] | None:
    """Return the rows of the pushed down query; None where the file is read in another way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_sql, "_SAMPLE_BYTES", sample_bytes)
        select = json_sql.lines_select(file, file_format)
    if select is None:
        return None
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        try:
            query = connection.sql(select).to_arrow_table()
        except duckdb.Error:
            return None
    columns = zip(query.columns, file_format.schema.types, strict=True)
    arrays = [column.cast(kind) for column, kind in columns]
    table = pa.Table.from_arrays(arrays, schema=file_format.schema)
    return [tuple(row.values()) for row in table.to_pylist()]


WITHOUT_PUSHDOWN = {"1e2", '{"a": [1.10, 12345678901234567890123, "ü"]}', '"text"'}


@pytest.mark.parametrize(("hints", "text", "expected"), VALUES)
def test_duckdb_reads_the_same_value_or_the_query_fails(
    tmp_path: Path, hints: TColumnSchema, text: str, expected: Any
) -> None:
    file_format = JsonLinesFormat({"a": hints})
    name = drop(tmp_path, f'{{"a":null}}\n{{"a":{text}}}\n{{ "a" : null }}\n')
    is_read = expected is not None and text not in WITHOUT_PUSHDOWN
    for sample_bytes in (len('{"a":null}\n') + 1, 1_000_000):
        rows = push_down(tmp_path / name, file_format, sample_bytes)
        assert rows == ([(None,), (expected,), (None,)] if is_read else None)


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_pushed_down_query_fails_on_a_bad_line(tmp_path: Path, case: str) -> None:
    bad = BAD_LINES[case][0]
    bad = bad if isinstance(bad, bytes) else bad.encode()
    first = GOOD.encode() + b"\n"
    name = drop(tmp_path, first * 2)
    assert push_down(tmp_path / name, FORMAT, len(first) + 1) == [LOADED, LOADED]
    for rest in (bad, bad + b"\n", bad + b"\n" + first):
        drop(tmp_path, first + rest)
        assert push_down(tmp_path / name, FORMAT, len(first) + 1) is None


NUMBERS = ["0", "-0", "12", "-0.0", "1.50", "1.505", "01", "1.", ".5", "+1", "NaN", "-Infinity", "1e2",
           "1.0000000000000000000000000000000000000000001", "9007199254740993", "9223372036854775808",
           "99999999999999999999", "1e400", "1e-400", "0.1234567890123456789"]  # fmt: skip
DAYS = [f'"{day}{rest}"' for day in ("2025-03-10", "2025-02-30", "0000-01-01", "9999-12-31", "0999-03-10")
        for rest in ("", "T12:30:00", "T24:00:00Z", "T23:59:59.999999-05:00", " 12:30:60Z",
                     "T12:30:00.1234567Z", "T12:30Z", "T12:30:00+15:00")]  # fmt: skip
TEXTS = ['""', '"ü"', '"\\u00fc"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"a\tb"', '"1.50"',
         '" 1"', '"1_0"', '"12:30:00"', '"12:30"', '"24:00:00"', '"/w=="', '"/x=="', '"/w"', '"A=AA"',
         '"\\"', '"\\""', '"\\",\\"b\\":1"', '"},{"', '","']  # fmt: skip
OTHERS = ["null", "true", "false", "nul", "{}", "[]", "[1,]", '{"a":1}', '1,"b":2', '1,"a":2', ""]
LIKELY = {
    **dict.fromkeys(("bigint", "double", "decimal"), NUMBERS),
    **dict.fromkeys(("date", "timestamp"), DAYS),
    **dict.fromkeys(("text", "time", "binary"), TEXTS),
    "bool": OTHERS,
}
NOISE = [
    " ",
    "\t",
    "\r",
    "\n",
    "\x0b",
    "\u00a0",
    ",",
    ":",
    "{",
    "}",
    '"',
    "\\",
    "0",
    "-",
    ".",
    "e5",
    "x",
    "null",
]


@st.composite
def any_line(draw: st.DrawFn, data_type: str) -> str:
    """Return a text that is an object with the keys a and b, or nearly so."""
    value = draw(st.sampled_from([*LIKELY[data_type] * 6, *OTHERS, *NUMBERS, *TEXTS]))
    keys = draw(st.sampled_from(["ab"] * 15 + ["ba", "a", "b", "aa", "Ab", "ac"]))
    pairs = [
        f'"{keys[0]}":{value}',
        *(f'"{key}":{draw(st.sampled_from(TEXTS))}' for key in keys[1:]),
    ]
    line = (
        "{"
        + draw(st.sampled_from([",", ", ", "\t,"])).join(pairs)
        + draw(st.sampled_from(["}"] * 5 + ["} ", ",}"]))
    )
    noise = draw(st.sampled_from(["", "", " ", *NOISE]) if draw(st.booleans()) else st.just(""))
    at = draw(st.integers(0, len(line)))
    return line[:at] + noise + line[at:]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), data_type=ANY_TYPE, timezone=st.booleans())
def test_a_pushed_down_query_reads_what_the_exact_reader_reads_or_fails(
    data: st.DataObject, data_type: str, timezone: bool
) -> None:
    columns: Any = {"a": {"data_type": data_type}, "b": {"data_type": "text"}}
    if data_type == "timestamp":
        columns["a"]["timezone"] = timezone
    if data_type == "decimal":
        columns["a"] |= {"precision": 20, "scale": 2}
    file_format = JsonLinesFormat(columns, optional=["b"])
    first = '{"a":null,"b":"x"}\n'
    with TemporaryDirectory() as folder:
        file = Path(folder) / "file.jsonl"
        file.write_text(first + data.draw(any_line(data_type)), newline="")
        rows = push_down(file, file_format, len(first) + 1)
        batches = [*file_format.read(file)]
    if rows is not None:
        assert not [row for batch in batches for row in batch.rejected]
        assert rows == [tuple(row.values()) for each in batches for row in each.rows.to_pylist()]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is not a JSON array"),
        (GOOD, "it is not a JSON array; a file with an object in each line is JSON lines"),
        (f"[{GOOD}", "the file may be incomplete"),
        (f"[{GOOD} {GOOD}]", "no comma after character"),
        (f"[{GOOD},]", "Expecting value"),
        (f"[{GOOD}]]", "there is more after the JSON array"),
        ("[]", "has no rows"),
        (f"[{GOOD},{'[' * 100_000}", "recursion"),
    ],
)
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (error,) = validate_file(drop(tmp_path, content), JsonFormat(COLUMNS), "quarantine")
    assert problem in error


def test_the_elements_of_an_array_are_checked_one_by_one(tmp_path: Path) -> None:
    bad = ['{"id":1,"id":2,"price":1,"note":""}', "NaN", '{"id":"1","price":1,"note":""}']
    content = "\ufeff [\n" + ",\n".join([GOOD, *bad, GOOD]) + "\n]\n"
    rows, rejected = quarantine(tmp_path, drop(tmp_path, content), JsonFormat(COLUMNS))
    assert rows == [LOADED, LOADED]
    assert [number for number, _ in rejected] == [1, 2, 3]


@pytest.mark.parametrize("pushdown_min_bytes", [0, 10**9])
@pytest.mark.parametrize("file_format", [FORMAT, JsonFormat(COLUMNS)])
def test_a_rerun_replaces_the_rows_of_a_file_and_its_rejected_rows(
    tmp_warehouse: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_format: FileFormat,
    pushdown_min_bytes: int,
) -> None:
    monkeypatch.setattr(source_module, "_PUSHDOWN_MIN_BYTES", pushdown_min_bytes)

    def load(*lines: str) -> tuple[list[Any], list[Any]]:
        is_array = isinstance(file_format, JsonFormat)
        content = f"[{','.join(lines)}]" if is_array else "\n".join(lines)
        name = drop(tmp_warehouse / "drop", content)
        spec = warehouse.pipeline("files_pipeline", dataset_name="files")
        source = file_source([name], "orders", file_format, "quarantine")
        warehouse.load(warehouse.plan_load(spec, source, [name]))
        rows = warehouse.query("SELECT id FROM files.orders ORDER BY id")
        rejected = warehouse.query("SELECT reason, raw FROM files.orders_rejected")
        return [row["id"] for row in rows], rejected

    bad = GOOD.replace("1.50", '"x"')
    for _ in range(2):
        ids, rejected = load(GOOD, GOOD.replace("1,", "2,", 1), bad)
        assert ids == [1, 2]
        reason = "column price: 'x' does not fit decimal(20, 2)"
        assert rejected == [{"reason": reason, "raw": bad}]
    assert load(GOOD) == ([1], [])


EVERY_TYPE: dict[str, TColumnSchema] = {
    "it's x.y": {"data_type": "text"},
    "größe €": {"data_type": "bigint", "nullable": False},
    "userId": {"data_type": "double"},
    "select": {"data_type": "decimal", "precision": 18, "scale": 2},
    "is_open": {"data_type": "bool"},
    "day": {"data_type": "date"},
    "at": {"data_type": "time"},
    "instant": {"data_type": "timestamp"},
    "local": {"data_type": "timestamp", "timezone": False},
    "raw [bytes]": {"data_type": "binary"},
    "never": {"data_type": "text"},
}


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_duckdb_reads_lines_with_every_type_itself(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch, line_break: str
) -> None:
    jobs: list[PushdownLoadJob] = []
    monkeypatch.setattr(source_module, "_PUSHDOWN_MIN_BYTES", 0)
    run = PushdownLoadJob.run
    monkeypatch.setattr(PushdownLoadJob, "run", lambda job: (jobs.append(job), run(job))[1])  # type: ignore[func-returns-value]
    values = ["it's", 7, 0.1, 1.5, True, "2025-03-10", "12:30:00", "2025-03-10T12:00:00+02:00",
              "2025-03-10 12:00:00.5", "/w=="]  # fmt: skip
    row = dict(zip(EVERY_TYPE, values, strict=False))
    lines = [row, dict.fromkeys(row) | {"größe €": 8}, {"größe €": 9}]
    content = "\ufeff" + line_break.join(json.dumps(each, ensure_ascii=False) for each in lines)
    name = drop(tmp_warehouse / "drop", content, "file[1]*.jsonl")
    optional = [each for each in EVERY_TYPE if each != "größe €"]
    file_format = JsonLinesFormat(EVERY_TYPE, {"größe €": '"größe €" > 6'}, optional)
    spec = warehouse.pipeline("files_pipeline", dataset_name="files")
    for _ in range(2):
        warehouse.load(warehouse.plan_load(spec, file_source([name], "rows", file_format), [name]))
    assert len(jobs) == 2
    (batch,) = file_format.read(tmp_warehouse / "drop" / name)
    stored = warehouse.query(
        "SELECT * EXCLUDE (file_name, _dlt_load_id) FROM files.rows ORDER BY 2"
    )
    assert [[*row.values()] for row in stored] == [
        [*row.values()] for row in batch.rows.to_pylist()
    ]


@pytest.mark.parametrize("rows_in", ["data", "result.items"])
def test_the_rows_of_a_json_file_may_be_below_keys_of_an_object(
    tmp_path: Path, rows_in: str
) -> None:
    document: Any = [json.loads(GOOD), {"id": "x", "price": 1, "note": "y"}]
    for key in reversed(rows_in.split(".")):
        document = {"count": 2, key: document}
    name = drop(tmp_path, json.dumps(document, indent=1))
    file_format = JsonFormat(COLUMNS, rows_in=rows_in)
    rows, rejected = quarantine(tmp_path, name, file_format)
    assert (len(rows), [number for number, _ in rejected]) == (1, [1])
    (error,) = validate_file(name, JsonFormat(COLUMNS, rows_in=f"{rows_in}.x"))
    assert f"it has no rows in '{rows_in}.x': 'x' is missing; it is not an object" in error
    (error,) = validate_file(name, JsonFormat(COLUMNS, rows_in="x"))
    assert "'x' is missing; its keys are ['count', " in error
