"""A proposed format loads the file that it was made from, with the types that a person would choose."""

import gzip
import json
import runpy
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.cli.proposals import key_code, write_source
from shared.cli.proposals import propose as propose_file
from shared.sources.csv import (
    CsvFormat,
    InvalidFileError,
    ValueFormat,
    csv_source,
    validate_file,
)
from shared.sources.files import FileFormat, JsonFormat, JsonLinesFormat, ParquetFormat, file_source
from shared.sources.proposals.csv_files import propose, write_sample
from shared.sources.proposals.proposal import Proposal, open_sample
from shared.sources.proposals.typed_files import propose_json, propose_parquet
from shared.sources.proposals.typed_files import write_sample as write_json_sample

BIGINT, TEXT, DOUBLE, DATE = ({"data_type": t} for t in ("bigint", "text", "double", "date"))
MONEY = {"data_type": "decimal", "precision": 18, "scale": 2}

VALUES: Mapping[str, tuple[list[str], Mapping[str, Any], str]] = {
    "integer": (["1", "-2", "3"], BIGINT, ""),
    "with a plus": (["+4915112345", "2", "3"], TEXT, "begin with +"),
    "year": (["2018", "2019", "2020"], BIGINT, ""),
    "postal code": (["01234", "10115", "00001"], TEXT, "leading zeros"),
    "money": (["12.50", "8.00", "-0.25"], MONEY, ""),
    "measurement": (["1.5", "2.25", "3"], DOUBLE, ""),
    "exponent": (["1e5", "2.5", "3"], DOUBLE, "an exponent"),
    "over 64 bits": (
        ["9223372036854775808", "1", "2"],
        {"data_type": "decimal", "precision": 38, "scale": 0},
        "more digits than a double",
    ),
    "many digits": (
        ["0.123456789012345678", "1.5", "2"],
        {"data_type": "decimal", "precision": 38, "scale": 18},
        "more digits than a double",
    ),
    "whole amounts": (["10.00", "20.00", "30.00"], MONEY, ""),
    "sizes": (["S", "M", "38"], TEXT, ""),
    "codes": (["0123", "A12", "NA"], TEXT, ""),
    "zeros and NA": (["0123", "0456", "NA"], TEXT, "leading zeros"),
    "time": (["10:00", "23:59:59.5", "00:00"], {"data_type": "time"}, ""),
    "offsets": (["2018-01-02T10:00:00+02:00"] * 3, {"data_type": "timestamp"}, ""),
    "a comma of either kind": (["1,234", "2,500", "3,000"], BIGINT, "no value decides"),
    "three digits after a point": (["1.234", "0.500", "3.000"], {**MONEY, "scale": 3}, ""),
    "flag": (["true", "FALSE", "true"], {"data_type": "bool"}, ""),
    "zero and one": (["0", "1", "0"], BIGINT, ""),
    "date": (["2018-01-02", "2018-12-31", "2019-02-28"], DATE, ""),
    "day first": (["01/02/2018", "31/02/2018".replace("31", "28"), "03/04/2018"], DATE, "1 of 3"),
    "ambiguous": (["01/02/2018", "02/03/2018", "03/04/2018"], DATE, "0 of 3 values decide"),
    "no date": (["2018-01-02", "2018-13-01", "x"], TEXT, ""),
    "timestamp": (["2018-01-02 10:00:00", "2018-01-02 11:30:00.5", "2018-01-03"],
                  {"data_type": "timestamp"}, "read as UTC"),
    "with zone": (["2018-01-02T10:00:00Z"] * 3, {"data_type": "timestamp"}, ""),
    "remarks": (["1", "2", "see note"], TEXT, ""),
    "words": (["a", "b,c", 'd "e"'], TEXT, ""),
}  # fmt: skip
"""Values of a column, its proposed type, and a part of the note."""


def proposal_of(folder: Path, text: str, name: str = "export.csv") -> Proposal:
    (folder / name).write_text(text)
    return propose(folder / name)


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


@pytest.mark.parametrize("kind", VALUES)
def test_a_column_gets_the_type_that_all_of_its_values_fit(kind: str, tmp_path: Path) -> None:
    values, hints, note = VALUES[kind]
    found = proposal_of(tmp_path, "v,w\n" + "".join(f"{quoted(value)},x\n" for value in values))
    assert found.columns["v"] == {**hints, "nullable": False}
    assert note in found.notes.get("v", "")
    assert bool(note) == ("v" in found.notes)


def test_a_missing_value_makes_a_column_nullable(tmp_path: Path) -> None:
    found = proposal_of(tmp_path, "id,v,empty\n1,2,\n2,,\n")
    assert found.columns == {"id": {**BIGINT, "nullable": False}, "v": BIGINT, "empty": TEXT}
    assert found.notes == {"empty": "has no value in the sample"}


def test_texts_among_numbers_stand_for_no_value_in_their_column(tmp_path: Path) -> None:
    found = proposal_of(tmp_path, "v,w,x\n1,NA,1.5\nNA,a,-\n3,b,NA\n")
    assert found.columns == {
        "v": BIGINT,
        "w": {**TEXT, "nullable": False},
        "x": {**MONEY, "scale": 1},
    }
    assert found.options["values"] == {"v": ValueFormat(["NA"]), "x": ValueFormat(["-", "NA"])}
    assert found.notes["v"] == "'NA': no value, in 1 of 3"


def test_the_date_format_is_the_one_that_most_columns_have(tmp_path: Path) -> None:
    rows = "id,a,b,c\n1,01/02/2024,01/31/2024,31.01.2024\n2,02/03/2024,02/28/2024,01.02.2024\n"
    found = proposal_of(tmp_path, rows)
    assert found.options == {
        "date_format": "%m/%d/%Y", "values": {"c": ValueFormat(formats=["%d.%m.%Y"])}
    }  # fmt: skip
    assert {name: hints["data_type"] for name, hints in found.columns.items()} == {
        "id": "bigint", "a": "date", "b": "date", "c": "date"
    }  # fmt: skip
    assert found.notes["b"] == "the month is first: 2 of 2 values decide"


WRITTEN: Mapping[str, tuple[list[str], Mapping[str, Any], ValueFormat]] = {
    "a decimal comma": (["1,5", "2,25"], DOUBLE, ValueFormat(decimal=",")),
    "thousands": (["1,234.50", "2.00"], MONEY, ValueFormat(thousands=",")),
    "points between thousands": (["1.234,50", "2,00"], MONEY, ValueFormat(decimal=",", thousands=".")),
    "spaces between thousands": (["1 234,5", "1,25"], DOUBLE, ValueFormat(decimal=",", thousands=" ")),
    "spaces around numbers": ([" 1", "12 "], BIGINT, ValueFormat(trim=True)),
    "months with names": (["02-Jan-2024", "31-Dec-2024"], DATE, ValueFormat(formats=["%d-%b-%Y"])),
    "dates and NA": (["2024-01-02", "NA"], DATE, ValueFormat(["NA"])),
    "timestamps": (
        ["31.12.2024 23:59", "01.01.2025 00:00"], {"data_type": "timestamp"}, ValueFormat(formats=["%d.%m.%Y %H:%M"]),
    ),
    "American timestamps": (
        ["12/31/2024 11:59 PM", "1/1/2025 1:00 AM"], {"data_type": "timestamp"}, ValueFormat(formats=["%m/%d/%Y %I:%M %p"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN)
def test_how_values_are_written_is_proposed_and_loads_them(kind: str, tmp_path: Path) -> None:
    values, hints, form = WRITTEN[kind]
    rows = "".join(f"{quoted(value)},2024-01-02,x\n" for value in values)
    found = proposal_of(tmp_path, f"v,day,t\n{rows}")
    assert {**found.columns["v"], "nullable": True} == {**hints, "nullable": True}
    csv_format = CsvFormat(found.columns, **found.options)
    assert csv_format.value_format("v").formats == (
        form.formats or csv_format.value_format("v").formats
    )
    assert replace(csv_format.values["v"], formats=()) == replace(form, formats=())
    assert validate_file("export.csv", csv_format, folder=str(tmp_path)) == []


FORMS: Mapping[str, tuple[bytes, Mapping[str, Any], list[str]]] = {
    "no header": (b"1,2.5,x\n3,4.5,y\n", {"header_rows": 0}, ["column_1", "column_2", "column_3"]),
    "a column without a name": (b",b\n0,x\n1,y\n", {"extra_columns": "ignore"}, ["b"]),
    "names that are one": (b"a,A,b\n1,2,x\n", {"header_names": {"source_A": "A"}}, ["a", "source_A", "b"]),
    "symbols at the end of names": (
        b"Price ($),Tax %,#\n1,2,3\n",
        {"header_names": {"price": "Price ($)", "tax": "Tax %"}}, ["price", "tax", "#"],
    ),
    "names of a load": (
        b"file_name,_dlt_id\n1,x\n",
        {"header_names": {"source_file_name": "file_name", "source_dlt_id": "_dlt_id"}}, ["source_file_name", "source_dlt_id"],
    ),
    "comments": (b"# made by hand\n# in 2024\na,b\n1,x\n", {"comment": "#"}, ["a", "b"]),
    "a preamble": (b"Report\n\na,b\n1,x\n2,y\n3,z\n", {"skip_lines": 2}, ["a", "b"]),
    "single quotes": (b"a,b\n1,'x, y'\n2,'z, '''\n", {"quote": "'"}, ["a", "b"]),
    "the line of Excel": (b"sep=;\r\na;b\r\n1;x\r\n", {"delimiter": ";", "skip_lines": 1}, ["a", "b"]),
    "blank lines above": (b"\n\na,b\n1,x\n", {"skip_lines": 2}, ["a", "b"]),
    "a footer": (b"a,b\n1,x\n2,y\nTotal,2\n\n", {"footer": ["Total"]}, ["a", "b"]),
    "another encoding": ("a,b\n1,caf\u00e9\n".encode("cp1252"), {"encoding": "cp1252"}, ["a", "b"]),
    "UTF-16": ("a,b\n1,caf\u00e9\n".encode("utf-16"), {}, ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_the_form_of_a_file_is_proposed_with_a_sample_that_has_it(
    kind: str, tmp_path: Path
) -> None:
    content, options, names = FORMS[kind]
    (tmp_path / "export.csv").write_bytes(content)
    found = propose(tmp_path / "export.csv")
    assert (found.options, [*found.columns]) == (options, names)
    assert all(
        found.notes[option]
        for option in options
        if option not in ("comment", "header_names", "quote", "delimiter")
    )
    (tmp_path / "sample").mkdir()
    write_sample(found, tmp_path / "sample", 1)
    csv_format = CsvFormat(found.columns, **found.options)
    for folder, rows in [(tmp_path, found.rows), (tmp_path / "sample", 1)]:
        batches = [*csv_format.read(folder / "export.csv")]
        assert sum(len(batch.rows) for batch in batches) == rows


def test_a_comma_in_values_is_no_delimiter(tmp_path: Path) -> None:
    found = proposal_of(tmp_path, "amount (EUR, net);qty\n1,5;2\n2,5;3\n")
    assert [*found.columns] == ["amount_eur_net", "qty"]
    assert [*proposal_of(tmp_path, '"name, first";qty\na;1\n').columns] == ["name, first", "qty"]


def test_the_key_has_the_names_of_the_table(tmp_path: Path) -> None:
    found = proposal_of(tmp_path, "Order ID,v\n1,a\n2,b\n")
    assert key_code(found) == "['file_name', 'order_id']"


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ("note,id\na,1\nb,2\n", ("id",)),
        ("day,region,v\n2018-01-01,eu,1.5\n2018-01-01,us,1.5\n2018-01-02,eu,2.5\n", ("day", "region")),
        ("v,w\n1,a\n1,a\n", ()),
        ("v,w\n1.5,a\n2.5,a\n", ()),
        ("state,pieces\na,1\na,2\n", ("state", "pieces")),
        ("pieces,state\n1,a\n2,a\n", ("pieces",)),
    ],
)  # fmt: skip
def test_the_key_is_one_or_two_columns_that_identify_a_row(
    tmp_path: Path, rows: str, key: tuple[str, ...]
) -> None:
    assert proposal_of(tmp_path, rows).key == key


def test_the_file_loads_with_its_proposed_format(tmp_path: Path) -> None:
    columns = [kind for kind, (values, *_) in VALUES.items() if len(values) == 3]
    lines = [",".join(quoted(VALUES[kind][0][n]) for kind in columns) for n in range(3)]
    found = proposal_of(tmp_path, "\n".join([",".join(columns), *lines]) + "\n")
    csv_format = CsvFormat(found.columns, **found.options)
    source = csv_source(["export.csv"], "rows", csv_format, folder=str(tmp_path))
    rows = [row for batch in source for row in batch.to_pylist()]
    assert len(rows) == found.rows == 3
    assert all(value is not None for row in rows for value in row.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,x,x\n1,2,3\n", "export.csv: x is twice in the header"),
        ("a,b\n1,2\n3\n", "line 3: "),
        ("a,b\n", "export.csv has no rows"),
        ("", "export.csv"),
    ],
)
def test_a_file_without_a_declarable_format_is_refused_with_the_next_step(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InvalidFileError, match=message):
        proposal_of(tmp_path, text)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_separates_the_names_of_the_header(
    tmp_path: Path, delimiter: str
) -> None:
    rows = ["id", "a b", "v"], ["1", "x", "1.5"], ["2", "y", "2.25"]
    found = proposal_of(tmp_path, "".join(delimiter.join(row) + "\n" for row in rows))
    assert found.options.get("delimiter", ",") == delimiter
    assert [*found.columns] == ["id", "a b", "v"]
    assert found.columns["v"]["data_type"] == "double"


def test_the_sample_has_complete_rows(tmp_path: Path) -> None:
    found = proposal_of(tmp_path, 'id;note\n1;"two\nlines"\n2;b\n3;c\n')
    (tmp_path / "sample").mkdir()
    write_sample(found, tmp_path / "sample", 2)
    assert (tmp_path / "sample" / "export.csv").read_text() == 'id;note\n1;"two\nlines"\n2;b\n'


PARQUET: Mapping[str, tuple[pa.Array, Mapping[str, Any]]] = {
    "id": (pa.array([1, 2]), {**BIGINT, "nullable": False}),
    "name": (pa.array(["a", None]), TEXT),
    "price": (
        pa.array([Decimal("1.50"), Decimal("2.25")]),
        {"data_type": "decimal", "precision": 3, "scale": 2, "nullable": False},
    ),
    "day": (pa.array([date(2025, 3, 10)] * 2), {**DATE, "nullable": False}),
    "at": (
        pa.array([datetime(2025, 3, 10, tzinfo=UTC)] * 2),
        {"data_type": "timestamp", "nullable": False},
    ),
    "local": (
        pa.array([datetime(2025, 3, 10)] * 2),  # noqa: DTZ001
        {"data_type": "timestamp", "timezone": False, "nullable": False},
    ),
    "tags": (pa.array([["a"], []]), {"data_type": "json", "nullable": False}),
}


def loaded(found: Proposal, file_format: FileFormat) -> list[dict[str, Any]]:
    source = file_source([found.file.name], "rows", file_format, folder=str(found.file.parent))
    return [row for table in source for row in table.to_pylist()]


def test_a_parquet_file_proposes_the_types_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "export.parquet"
    pq.write_table(pa.table({name: values for name, (values, _) in PARQUET.items()}), path)
    found = propose_parquet(path)
    assert found.columns == {name: hints for name, (_, hints) in PARQUET.items()}
    assert found.key == ("id",)
    assert [row["name"] for row in loaded(found, ParquetFormat(found.columns))] == ["a", None]


JSON: Mapping[str, tuple[list[str], Mapping[str, Any]]] = {
    "id": (["1", "2"], {**BIGINT, "nullable": False}),
    "large": (
        [str(2**63 + 1), "1"],
        {"data_type": "decimal", "precision": 38, "scale": 0, "nullable": False},
    ),
    "precise": (
        ["0.12345678901234567", "1e1"],
        {"data_type": "decimal", "precision": 38, "scale": 17, "nullable": False},
    ),
    "ratio": (["1.5", "2"], {**DOUBLE, "nullable": False}),
    "paid": (["true", "null"], {"data_type": "bool"}),
    "code": (['"01"', '"2"'], {**TEXT, "nullable": False}),
    "day": (['"2025-03-10"', '"2025-03-11"'], {**DATE, "nullable": False}),
    "at": (['"2025-03-10T12:00:00+02:00"'] * 2, {"data_type": "timestamp", "nullable": False}),
    "tags": (['["a"]', "{}"], {"data_type": "json", "nullable": False}),
    "mixed": (["1", '"a"'], {"data_type": "json", "nullable": False}),
}


@pytest.mark.parametrize("name", ["export.jsonl", "export.ndjson.gz", "export.json"])
def test_json_files_propose_the_types_of_their_values(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = [
        ",".join(f'"{key}": {values[n]}' for key, (values, _) in JSON.items()) for n in range(2)
    ]
    text = f'{{{lines[0]}, "sometimes": 1}}\n\n{{{lines[1]}}}\n'
    if name.endswith(".json"):
        text = "[" + text.replace("\n\n", ",") + "]"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    found = propose_json(path)
    expected = {key: hints for key, (_, hints) in JSON.items()}
    assert found.columns == {**expected, "sometimes": BIGINT}
    assert found.options == {"optional": ["sometimes"]}
    assert found.notes["mixed"] == "has values of several types"
    assert found.notes["sometimes"] == "only 1 of 2 objects have it"
    assert found.key == ("id",)
    kind = JsonFormat if name.endswith(".json") else JsonLinesFormat
    assert len(loaded(found, kind(found.columns, **found.options))) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"a": 1}\n[1]\n', r"x\.jsonl, line 2: it is not an object"),
        ("x.json", '{"a": 1}', r"x\.json: it is not an object, or an array of objects"),
        ("x.jsonl", '{"a": NaN}\n', r"x\.jsonl, line 1: NaN is not JSON"),
        ("x.jsonl", "\n", r"x\.jsonl has no rows"),
        ("x.parquet", "no", r"x\.parquet cannot be read as Parquet"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name_and_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidFileError, match=message):
        (propose_parquet if name.endswith(".parquet") else propose_json)(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        "x.csv",
        "X.CSV.gz",
        "x.csv.zst",
        "x.csv.zip",
        "x.csv.xz",
        "x.parquet",
        "x.jsonl",
        "x.json.bz2",
    ],
)
def test_the_written_source_loads_its_sample(tmp_path: Path, name: str) -> None:
    texts = {
        ".csv": "id;note\n1;a\n2;NA\n",
        ".jsonl": '{"id": 1, "note": "a"}\n{"id": 2}\n',
        ".json": '[{"id": 1, "note": "a"}, {"id": 2}]',
    }
    file = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"id": [1, 2], "note": ["a", None]}), file)
    else:
        (text,) = (text for suffix, text in texts.items() if f"{suffix}." in f"{name}.".lower())
        whole = Proposal(file, "", "", 0, {}, ())
        with open_sample(whole, tmp_path) as compressed:
            compressed.write(text)
    package = tmp_path / "package"
    package.mkdir()
    write_source(package, "orders", propose_file(file))
    module = runpy.run_path(str(package / "source.py"))
    paths = module["list_files"]()
    assert paths == [name]  # so that the rows of the file replace those of its sample
    source = module["orders_source"](paths)
    assert [row["id"] for table in source for row in table.to_pylist()] == [1, 2]


@pytest.mark.parametrize("rows_in", ["data", "result.items"])
def test_rows_below_the_keys_of_an_object_are_proposed_with_a_sample(
    tmp_path: Path, rows_in: str
) -> None:
    document: Any = [{"id": 1}, {"id": 2}]
    for key in reversed(rows_in.split(".")):
        document = {"other": [{"id": 9}], key: document}
    (tmp_path / "x.json").write_text(json.dumps(document))
    found = propose_json(tmp_path / "x.json")
    assert (found.options, found.rows) == ({"rows_in": rows_in}, 2)
    assert found.notes["rows_in"].startswith("the longest array of objects; there are others in ")
    (tmp_path / "sample").mkdir()
    write_json_sample(found, tmp_path / "sample", 1)
    json_format = JsonFormat(found.columns, **found.options)
    (batch,) = json_format.read(tmp_path / "sample" / "x.json")
    assert batch.rows.to_pylist() == [{"id": 1}]
