"""What a review of the CSV and JSON sources found."""

from pathlib import Path
from typing import Any

import pytest
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import CsvFormat, ValueFormat
from shared.sources.files.format import RejectedRow

TEXT: TColumnSchema = {"data_type": "text"}
NUMBER: TColumnSchema = {"data_type": "bigint"}


def read(
    folder: Path, content: bytes, csv_format: CsvFormat
) -> tuple[list[tuple[object, ...]], list[RejectedRow]]:
    """Return the rows and the rejected rows of a file."""
    (folder / "x.csv").write_bytes(content)
    batches = [*csv_format.read(folder / "x.csv")]
    rows = [tuple(row.values()) for batch in batches for row in batch.rows.to_pylist()]
    return rows, [row for batch in batches for row in batch.rejected]


@pytest.mark.parametrize("inside", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("bad", [[], ["z,y"]])
@pytest.mark.parametrize("header", [0, 1])
def test_a_line_break_in_the_quotes_of_the_first_row_does_not_refuse_the_file(
    tmp_path: Path, inside: str, end: str, bad: list[str], header: int
) -> None:
    lines = [*["a,b"][:header], f'1,"x{inside}y"', f'2,"x{inside}y"', *bad, ""]
    csv_format = CsvFormat({"a": NUMBER, "b": TEXT}, header_rows=header)
    rows, rejected = read(tmp_path, end.join(lines).encode(), csv_format)
    assert rows == [(1, f"x{inside}y"), (2, f"x{inside}y")]
    assert [row.raw for row in rejected] == bad


@pytest.mark.parametrize(
    ("above", "options"),
    [
        (b"", {"header_rows": 0}),
        (b"\xef\xbb\xbf", {"header_rows": 0}),
        (b"Sales\na\n", {"skip_lines": 1}),
        (b"a\n", {"comment": "#"}),
        (b"\na\n", {"header_rows": 2}),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_blank_first_row_of_one_column_is_a_missing_value(
    tmp_path: Path, above: bytes, options: dict[str, Any], end: bytes
) -> None:
    content = above.replace(b"\n", end) + end + b"1" + end
    assert read(tmp_path, content, CsvFormat({"a": NUMBER}, **options))[0] == [(None,), (1,)]
    required = CsvFormat({"a": {**NUMBER, "nullable": False}}, **options)
    assert len(read(tmp_path, content, required)[1]) == 1


@pytest.mark.parametrize(("thousands", "decimal"), [(".", ","), (",", "."), (" ", ",")])
@pytest.mark.parametrize("kind", ["bigint", "double", "decimal"])
@pytest.mark.parametrize("number", ["0.123", "-0.500", "00.000", "012.345"])
def test_a_number_that_begins_with_zero_has_no_thousands(
    tmp_path: Path, thousands: str, decimal: str, kind: Any, number: str
) -> None:
    hints: TColumnSchema = {"data_type": kind}
    if kind == "decimal":
        hints |= {"precision": 18, "scale": 2}
    form = ValueFormat(thousands=thousands, decimal=decimal)
    csv_format = CsvFormat({"a": hints, "b": TEXT}, delimiter=";", values={"a": form})
    content = f"a;b\n{number.replace('.', thousands)};x\n".encode()
    rows, rejected = read(tmp_path, content, csv_format)
    assert (rows, len(rejected)) == ([], 1)


@pytest.mark.parametrize("footer", [[""], ["Total", " "]])
def test_a_footer_that_fits_each_line_cannot_be_declared(footer: list[str]) -> None:
    with pytest.raises(ValueError, match="footer"):
        CsvFormat({"a": TEXT}, footer=footer)
