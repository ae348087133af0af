"""A proposed format loads the file that it was made from, with the types that a person would choose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.sources.csv import InvalidFileError, csv_source
from shared.sources.csv.propose import Proposal, propose, sample_lines

BIGINT, TEXT, DOUBLE, DATE = ({"data_type": t} for t in ("bigint", "text", "double", "date"))
MONEY = {"data_type": "decimal", "precision": 18, "scale": 2}

VALUES: Mapping[str, tuple[list[str], Mapping[str, Any], str]] = {
    "integer": (["1", "-2", "+3"], BIGINT, ""),
    "year": (["2018", "2019", "2020"], BIGINT, ""),
    "postal code": (["01234", "10115", "00001"], TEXT, "leading zeros"),
    "money": (["12.50", "8.00", "-0.25"], MONEY, ""),
    "measurement": (["1.5", "2.25", "3"], DOUBLE, ""),
    "exponent": (["1e5", "2.5", "3"], DOUBLE, ""),
    "over 64 bits": (["9223372036854775808", "1", "2"], DOUBLE, ""),
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
    assert found.null_values == {"v": ["NA"], "x": ["-", "NA"]}
    assert found.notes["v"] == "'NA' is no value: 1 of 3"


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
    from shared.sources.csv import CsvFormat

    columns = [kind for kind, (values, *_) in VALUES.items() if len(values) == 3]
    lines = [",".join(quoted(VALUES[kind][0][n]) for kind in columns) for n in range(3)]
    found = proposal_of(tmp_path, "\n".join([",".join(columns), *lines]) + "\n")
    csv_format = CsvFormat(found.columns, found.date_format, null_values=found.null_values)
    source = csv_source(["export.csv"], "rows", csv_format, folder=str(tmp_path))
    rows = [row for batch in source for row in batch.to_pylist()]
    assert len(rows) == found.rows == 3
    assert all(value is not None for row in rows for value in row.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,A\n1,2\n", "would be one column of the table"),
        ("1,2\n3,4\n", "begins with a row of values, such as 1, and not with a header"),
        ("a,b\n1,2\n3\n", "line 3: "),
        (",b\n0,1\n", "export.csv: the column 1 of the header has no name"),
        ("a,b\n", "export.csv has a header and no rows"),
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
    assert (found.delimiter, [*found.columns]) == (delimiter, ["id", "a b", "v"])
    assert found.columns["v"]["data_type"] == "double"


def test_the_sample_has_complete_rows(tmp_path: Path) -> None:
    found = proposal_of(tmp_path, 'id;note\n1;"two\nlines"\n2;b\n3;c\n')
    assert "".join(sample_lines(found, 2)) == 'id;note\n1;"two\nlines"\n2;b\n'
