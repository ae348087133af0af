"""Files of fixed width: values are cut by position, and load with the promises of CSV files."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import FixedWidthFormat, ValueFormat, csv_source, validate_file

COLUMNS: dict[str, TColumnSchema] = {
    "id": {"data_type": "bigint", "nullable": False},
    "name": {"data_type": "text"},
    "amount": {"data_type": "decimal", "precision": 12, "scale": 2},
    "day": {"data_type": "date"},
}
POSITIONS = {"id": (1, 5), "name": (6, 13), "amount": (14, 20), "day": (21, 28)}
FORMAT = FixedWidthFormat(
    COLUMNS,
    positions=POSITIONS,
    values={"amount": ValueFormat(decimal=",")},
    date_format="%Y%m%d",
)
GOOD = "".join(
    f"{number:>5}{name:8}{amount:>7}{day:8}\n"
    for number, name, amount, day in [
        ("00001", "apple", "1,50", "20241231"), ("2", 'é "q",', "-3", "20250101"), ("3", "", "", "")
    ]
)  # fmt: skip
ROWS = [
    (1, "apple", Decimal("1.50"), date(2024, 12, 31)),
    (2, 'é "q",', Decimal("-3.00"), date(2025, 1, 1)),
    (3, None, None, None),
]


def load(folder: Path, content: str, file_format: FixedWidthFormat, on_bad_rows: Any) -> Any:
    (folder / "x.txt").write_bytes(content.encode(file_format.encoding))
    source = csv_source(["x.txt"], "rows", file_format, on_bad_rows, folder=str(folder))
    found = [row for batch in source for row in batch.to_pylist()]
    rows = [tuple(row[name] for name in COLUMNS) for row in found if "raw" not in row]
    return rows, [(row["line"], row["raw"], row["reason"]) for row in found if "raw" in row]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_values_are_cut_by_position(tmp_path: Path, encoding: str, line_break: str) -> None:
    file_format = FixedWidthFormat(
        **{**vars(FORMAT), "encoding": encoding, "skip_lines": 1, "header_rows": 1, "footer": ["9"]}
    )
    content = f"Report\nid   name\n\n{GOOD}9 rows\n".replace("\n", line_break)
    assert load(tmp_path, content, file_format, "fail") == (ROWS, [])


BAD = {
    "a value of another type": ("    x" + GOOD[5:28], "column id: 'x' does not fit BIGINT"),
    "a missing value": ("     " + GOOD[5:28], "column id: the value is missing"),
    "a line that is too short": (GOOD[:20], "it has 20 characters, and its columns have 28"),
    "a line that is too long": (GOOD[:28] + "x", "it has 29 characters"),
    "NUL bytes": ("\0" * 28, "NUL bytes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_rejected_with_its_line_and_the_others_load(tmp_path: Path, kind: str) -> None:
    line, message = BAD[kind]
    rows, ((number, raw, reason),) = load(tmp_path, f"{GOOD}\n{line}\n", FORMAT, "quarantine")
    assert (rows, number, raw) == (ROWS, 5, line)
    assert message in reason
    (problem,) = validate_file("x.txt", FORMAT, folder=str(tmp_path))
    assert problem.startswith("x.txt, line 5: ")


def test_spaces_at_the_end_may_be_missing_if_the_format_says_so(tmp_path: Path) -> None:
    short = FixedWidthFormat(**{**vars(FORMAT), "spaces_at_end": False})
    assert load(tmp_path, GOOD.replace(" \n", "\n").rstrip() + "\n", short, "fail") == (ROWS, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": {**POSITIONS, "x": (1, 2)}}, "positions named x; declare these columns"),
        ({"positions": {"id": (1, 5)}}, "The column name has the positions 0 to 0"),
        ({"positions": {**POSITIONS, "id": (5, 1)}}, "The column id has the positions 5 to 1"),
        ({"positions": {**POSITIONS, "id": (0, 5)}}, "from 1"),
        ({"delimiter": ";"}, "delimiter has no effect"),
        ({"optional": ["name"], "header_rows": 1}, "optional has no effect"),
        ({"extra_columns": "ignore", "header_rows": 1}, "extra_columns has no effect"),
    ],
)
def test_a_declaration_that_cannot_hold_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedWidthFormat(**{**vars(FORMAT), **options})
