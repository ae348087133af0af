"""Texts that DuckDB reads in another way than a person, and files in which a row could be lost."""

from pathlib import Path
from typing import Any

import pytest
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import CsvFormat, ValueFormat
from shared.sources.files.format import RejectedRow
from shared.sources.proposals.kinds import propose
from shared.sources.proposals.proposal import Proposal

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


INSTANT: TColumnSchema = {"data_type": "timestamp"}
DAY: TColumnSchema = {"data_type": "date"}


def is_loaded(folder: Path, text: str, hints: TColumnSchema, form: ValueFormat) -> bool:
    csv_format = CsvFormat({"a": hints, "b": TEXT}, delimiter="|", values={"a": form})
    return bool(read(folder, f"a|b\n{text}|x\n".encode(), csv_format)[0])


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1700000000000", ValueFormat(formats=["epoch_s"])),
        ("253402300800000000", ValueFormat(formats=["epoch_us"])),
        ("9999-12-31T23:59:59-01:00", ValueFormat()),
        ("12018-1-01", ValueFormat()),
    ],
)
def test_a_timestamp_after_the_year_9999_is_bad(
    tmp_path: Path, text: str, form: ValueFormat
) -> None:
    assert not is_loaded(tmp_path, text, INSTANT, form)


@pytest.mark.parametrize(
    ("form", "hints", "message"),
    [
        ("%d.%m.%Y %H:%M", DAY, "has a time of the day, which a date would lose"),
        (
            "%Y-%m-%d %H:%M %Z",
            INSTANT,
            "has the name of a time zone, and several zones have the same",
        ),
    ],
)
def test_a_format_that_loses_something_is_an_error_of_the_declaration(
    form: str, hints: TColumnSchema, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CsvFormat({"a": hints}, values={"a": ValueFormat(formats=[form])})


@pytest.mark.parametrize("offset", ["+99:00", "+02:99"])
def test_an_offset_that_no_clock_has_is_bad(tmp_path: Path, offset: str) -> None:
    form = ValueFormat(formats=["%Y-%m-%d %H:%M%z"])
    assert not is_loaded(tmp_path, f"2018-01-02 10:00{offset}", INSTANT, form)


@pytest.mark.parametrize(
    ("zone", "clock"),
    [
        ("Pacific/Apia", "2011-12-30 12:00:00"),  # the day was skipped
        ("Pacific/Kiritimati", "1994-12-31 12:00:00"),
        ("Antarctica/Casey", "2010-03-04 23:30:00"),  # three hours were there twice
    ],
)
def test_a_clock_in_a_large_change_of_a_zone_is_bad(tmp_path: Path, zone: str, clock: str) -> None:
    assert not is_loaded(tmp_path, clock, INSTANT, ValueFormat(timezone=zone))


@pytest.mark.parametrize(
    ("text", "hints", "form"),
    [
        ("130", {"data_type": "time"}, "%H%M"),  # 1:30, loads as 13:00
        ("2018121", DAY, "%Y%m%d"),  # 21 January or 1 December
    ],
)
def test_digits_that_can_be_split_in_two_ways_are_bad(
    tmp_path: Path, text: str, hints: TColumnSchema, form: str
) -> None:
    assert not is_loaded(tmp_path, text, hints, ValueFormat(formats=[form]))


def test_a_weekday_that_is_not_that_of_the_date_is_bad(tmp_path: Path) -> None:
    form = ValueFormat(formats=["%a %d.%m.%Y"])
    assert not is_loaded(tmp_path, "Mon 02.01.2018", DAY, form)


def test_an_integer_that_a_double_cannot_have_is_bad_as_in_json(tmp_path: Path) -> None:
    assert not is_loaded(tmp_path, "9007199254740993", {"data_type": "double"}, ValueFormat())


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2024-06-01T12:00:00Z", ValueFormat(timezone="Europe/Berlin")),
        (
            "2024-10-27 02:30+0200",
            ValueFormat(formats=["%Y-%m-%d %H:%M%z", "%Y-%m-%d %H:%M"], timezone="Europe/Berlin"),
        ),
    ],
)
def test_the_time_zone_is_for_texts_without_one(
    tmp_path: Path, text: str, form: ValueFormat
) -> None:
    assert is_loaded(tmp_path, text, INSTANT, form)


def test_two_kinds_of_line_breaks_add_no_row(tmp_path: Path) -> None:
    csv_format = CsvFormat({"a": TEXT}, delimiter=";", trailing_delimiters=True)
    assert read(tmp_path, b"a;\nx;\r\ny;\r\n", csv_format) == ([("x",), ("y",)], [])


def test_bad_bytes_in_an_ignored_column_do_the_same_beside_a_bad_row(tmp_path: Path) -> None:
    csv_format = CsvFormat({"a": NUMBER}, extra_columns="ignore")
    alone, _ = read(tmp_path, b"a,b\n1,\xff\n", csv_format)
    beside, _ = read(tmp_path, b"a,b\n1,\xff\nz,y\n", csv_format)
    assert alone == beside


def test_a_mark_at_the_first_row_does_the_same_beside_a_bad_row(tmp_path: Path) -> None:
    csv_format = CsvFormat({"a": TEXT}, skip_lines=1)
    alone, _ = read(tmp_path, b"Sales\na\n\xef\xbb\xbfx\n", csv_format)
    beside, _ = read(tmp_path, b"Sales\na\n\xef\xbb\xbfx\n\xff\n", csv_format)
    assert alone == beside


def test_a_blank_row_of_one_column_before_the_footer_is_not_lost(tmp_path: Path) -> None:
    csv_format = CsvFormat({"a": TEXT}, footer=["Total"])
    assert read(tmp_path, b"a\n1\n\nTotal\n", csv_format)[0] == [("1",), (None,)]


def test_an_unknown_choice_for_extra_columns_is_an_error() -> None:
    choice: Any = "Fail"
    with pytest.raises(ValueError, match="extra_columns"):
        CsvFormat({"a": TEXT}, extra_columns=choice)


# Proposals.


def proposed(folder: Path, content: bytes) -> Proposal:
    (folder / "x.csv").write_bytes(content)
    return propose(folder / "x.csv")


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        pytest.param(b"alice,berlin,0\nbob,rome,1\ncarol,oslo,2\n", 3, id="no header"),
        pytest.param(b"id,name\n1,'Smith, J'\n2,'Jones, A'\n3,'Lee, B'\n", 2, id="single quotes"),
        pytest.param(b"sep=;\r\nname;n\r\na;1\r\nb;2\r\nc;3\r\n", 2, id="sep= of Excel"),
    ],
)
def test_a_proposal_loads_each_row_or_says_that_the_header_may_be_a_row(
    tmp_path: Path, content: bytes, columns: int
) -> None:
    found = proposed(tmp_path, content)
    assert "header_rows" in found.notes or (found.rows, len(found.columns)) == (3, columns)


def test_a_proposal_says_that_points_may_be_between_thousands(tmp_path: Path) -> None:
    found = proposed(tmp_path, b"name;amount\na;1.100\nb;2.101\nc;33.102\n")
    assert "amount" in found.notes


def test_a_proposal_says_that_a_year_has_no_century(tmp_path: Path) -> None:
    found = proposed(tmp_path, b"id,birth\n1,24.03.68\n2,25.03.69\n")
    assert "century" in found.notes["birth"]


def test_a_proposal_reads_a_fraction_that_begins_with_zero(tmp_path: Path) -> None:
    found = proposed(tmp_path, b"id;v\n1;0,100\n2;0,101\n")
    assert found.options["values"]["v"].decimal == ","
