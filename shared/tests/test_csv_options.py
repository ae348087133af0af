"""What a CSV format can say about a file: each option has the same effect on every way to read it."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import duckdb
import pytest
from dlt.common.schema.typing import TColumnSchema
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.sources.csv import CsvFormat, ValueFormat, validate_file
from shared.sources.csv.file import open_csv
from shared.sources.csv.pushdown import can_push_down, strict_select_sql

TEXT: TColumnSchema = {"data_type": "text"}
NUMBER: TColumnSchema = {"data_type": "bigint"}
MONEY: TColumnSchema = {"data_type": "decimal", "precision": 18, "scale": 2}
DOUBLE: TColumnSchema = {"data_type": "double"}
DAY: TColumnSchema = {"data_type": "date"}
CLOCK: TColumnSchema = {"data_type": "time"}
INSTANT: TColumnSchema = {"data_type": "timestamp"}
LOCAL: TColumnSchema = {"data_type": "timestamp", "timezone": False}
BYTES: TColumnSchema = {"data_type": "binary"}
JSON: TColumnSchema = {"data_type": "json"}

Rows = list[tuple[Any, ...]]


def load(folder: Path, content: str, csv_format: CsvFormat) -> tuple[Rows, list[tuple[int, str]]]:
    """Return the rows of a file that load, and the line and the text of those that do not."""
    (folder / "x.csv").write_bytes(content.encode(csv_format.encoding))
    batches = [*csv_format.read(folder / "x.csv")]
    names = [*csv_format.row_columns]
    rows = [tuple(row[n] for n in names) for each in batches for row in each.rows.to_pylist()]
    return rows, [(row.location[0], row.raw) for each in batches for row in each.rejected]


def push_down(folder: Path, content: str, csv_format: CsvFormat) -> Rows | None:
    """Return the rows as the warehouse reads them; None where it does not read the file."""
    (folder / "x.csv").write_bytes(content.encode(csv_format.encoding))
    with open_csv(folder / "x.csv", csv_format) as file:
        if not can_push_down(file):
            return None
        try:
            return file.connection.execute(strict_select_sql(file)).fetchall()
        except duckdb.Error:
            return None


# The form of a file.


@dataclass
class Form:
    """A file, its format, its rows, and a line of it that is bad."""

    csv_format: CsvFormat
    start: str
    rows: Rows
    bad: str
    end: str = ""
    is_pushed_down: bool = True
    header: str = field(default="", kw_only=True)


AB = {"a": TEXT, "n": NUMBER}
FORMS = {
    "no header": Form(CsvFormat(AB, header_rows=0), "x,1\ny,2\n", [("x", 1), ("y", 2)], "z,z"),
    "a preamble": Form(
        CsvFormat(AB, skip_lines=3),
        'Report "sales\n\n2024,x\na,n\nx,1\n', [("x", 1)], "z,z",
    ),
    "a preamble and no header": Form(
        CsvFormat(AB, skip_lines=1, header_rows=0), "Report\nx,1\n", [("x", 1)], "z,z"
    ),
    "comments": Form(
        CsvFormat(AB, comment="#"),
        '# made "by hand\na,n\n#x,1\n"y\n#z",2\n#\nx#,3\n',
        [("y\n#z", 2), ("x#", 3)], "z,#",
    ),
    "two header rows": Form(
        CsvFormat({"2024 plan": NUMBER, "2024 real": NUMBER, "x note": TEXT}, header_rows=2),
        "2024,,x\nplan,real,note\n1,2,x\n", [(1, 2, "x")], "1,x,x",
    ),
    "a footer": Form(
        CsvFormat(AB, footer=["Total", "--"]),
        "a,n\nx,1\n", [("x", 1)], "z,z\n", "\nTotal,1\n-- end\n\n",
    ),
    "a footer without rows": Form(
        CsvFormat(AB, footer=["Total"], allow_empty=True), "a,n\n", [], "z,z\n", "Total", False
    ),
    "single quotes": Form(
        CsvFormat(AB, quote="'"),
        "a,n\n'x,''y\"',1\ny\"z,2\n'',3\n", [("x,'y\"", 1), ('y"z', 2), ("", 3)], "it's,1",
    ),
    "no quotes": Form(
        CsvFormat(AB, quote="", delimiter="\t"),
        'a\tn\n"x\t1\n5" pipe\t2\n\t3\n', [('"x', 1), ('5" pipe', 2), (None, 3)], '"\t"',
    ),
    "backslashes before quotes": Form(
        CsvFormat(AB, escape="\\"),
        'a,n\n"say \\"x, y\\" \\\\",1\nC:\\dir,2\n"",3\n,4\n',
        [('say "x, y" \\', 1), ("C:\\dir", 2), ("", 3), (None, 4)], 'a\\"b,1', is_pushed_down=False,
    ),
    "another encoding": Form(
        CsvFormat(AB, encoding="cp1252"), "a,n\ncaf\u00e9,1\n", [("caf\u00e9", 1)], "\u00e9,x"
    ),
    "a header in another order": Form(CsvFormat(AB), "n,a\n1,x\n", [("x", 1)], "x,x"),
    "an optional column that is missing": Form(
        CsvFormat({**AB, "more": MONEY}, {"more": "more > 0"}, ["more"]),
        "n,a\n1,x\n", [("x", 1, None)], "x,x",
    ),
    "an optional column that is there": Form(
        CsvFormat({**AB, "more": NUMBER}, optional=["more"], header_names={"more": "More"}),
        "More,n,a\n7,1,x\n", [("x", 1, 7)], "x,1,x",
    ),
    "columns that are ignored": Form(
        CsvFormat(AB, extra_columns="ignore"),
        ',b,n,b,a\n0,"?,",1,,x\n', [("x", 1)], "0,?,z,,x",
    ),
    "columns that are kept": Form(
        CsvFormat(AB, extra_columns="json"),
        '"it\'s ""b""",n,,a\n007,1,"x, y",x\n,2,"",y\n',
        [("x", 1, '{"it\'s \\"b\\"":"007","":"x, y"}'), ("y", 2, '{"it\'s \\"b\\"":null,"":""}')],
        "1,x,y,z",
    ),
    "no columns to keep": Form(
        CsvFormat(AB, extra_columns="json"), "a,n\nx,1\n", [("x", 1, None)], "z,z"
    ),
    "all of it": Form(
        CsvFormat(
            AB, values={"n": ValueFormat(thousands=".", decimal=",", trim=True)}, delimiter=";",
            encoding="cp1252", skip_lines=1, comment="//", footer=["Summe"], header_rows=2,
            header_names={"n": "Betrag \u20ac", "a": "Name"}, extra_columns="ignore", quote="'",
        ),
        "Liste\n;Betrag;\nName;\u20ac;x\n// Kommentar\n'a;b'; 1.000 ;\n", [("a;b", 1000)],
        "a;1000,5;", "Summe;1.000;\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_a_form_of_a_file_is_read_alike_row_by_row_and_by_the_warehouse(
    tmp_path: Path, kind: str
) -> None:
    form = FORMS[kind]
    content = form.start + form.end
    assert load(tmp_path, content, form.csv_format) == (form.rows, [])
    assert push_down(tmp_path, content, form.csv_format) == (
        form.rows if form.is_pushed_down else None
    )


@pytest.mark.parametrize("kind", FORMS)
def test_a_bad_row_is_named_with_its_line_in_the_file_and_the_others_load(
    tmp_path: Path, kind: str
) -> None:
    form = FORMS[kind]
    bad = form.bad.removesuffix("\n")
    content = f"{form.start}{bad}\n{form.end}"
    line = len(form.start.splitlines()) + 1
    assert load(tmp_path, content, form.csv_format) == (form.rows, [(line, bad)])
    assert push_down(tmp_path, content, form.csv_format) is None


@pytest.mark.parametrize(
    ("csv_format", "content", "message"),
    [
        (CsvFormat(AB, skip_lines=1), "a,n\nx,1\n", "the header is x, 1; expected a, n"),
        (CsvFormat(AB, skip_lines=9), "a,n\nx,1\n", "it is empty: it has no header"),
        (CsvFormat(AB, footer=["Total"]), "a,n\nx,1\n", "its last lines do not begin with 'Total'"),
        (CsvFormat(AB, footer=["Total"]), "a,n\nTotal,1\nx,1\n", "the file may be incomplete"),
        (CsvFormat(AB, footer=["1", "2"]), "a,n\n2\n", "do not begin with '1', '2'"),
        (CsvFormat(AB, optional=["n"]), "n\n1\n", "missing: a"),
        (CsvFormat(AB, optional=["n"]), "a,m\nx,1\n", "not expected: m"),
        (CsvFormat(AB, extra_columns="ignore"), "a,n,a\nx,1,x\n", "not expected: a"),
        (CsvFormat(AB, extra_columns="json"), "a,n,b,b\nx,1,x\n", "not expected: b"),
        (CsvFormat(AB, extra_columns="json"), "a,b\nx,1\n", "missing: n"),
        (CsvFormat(AB, header_rows=2), "a,n\n", "it has no header"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_loads_nothing(
    tmp_path: Path, csv_format: CsvFormat, content: str, message: str
) -> None:
    (tmp_path / "x.csv").write_text(content)
    for on_bad_rows in ("fail", "quarantine"):
        (problem,) = validate_file("x.csv", csv_format, on_bad_rows, folder=str(tmp_path))
        assert message in problem


# Values.

BERLIN = ValueFormat(timezone="Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


local = datetime.fromisoformat

VALUES: dict[str, tuple[TColumnSchema, ValueFormat, dict[str, Any], list[str]]] = {
    "a decimal comma": (
        MONEY, ValueFormat(decimal=",", thousands="."),
        {"1.234,56": Decimal("1234.56"), "-1,5": Decimal("-1.50"), "1234": Decimal(1234), ",5": Decimal("0.50"), "1.000.000": Decimal(1000000), "": None},
        ["1,234.56", "1.23", "1.2345,6", "1,234", "1..000", ".5", "1.000.00", "1,5,5", "1e3", "1 000"],
    ),
    "thousands in integers": (
        NUMBER, ValueFormat(thousands="'"), {"1'000": 1000, "1000": 1000, "-12'345": -12345}, ["1'00", "'100", "1'000.5"],
    ),
    "thousands with spaces": (
        DOUBLE, ValueFormat(decimal=",", thousands="\N{NARROW NO-BREAK SPACE}"), {"1\u202f000,25": 1000.25, "1e3": 1000.0}, ["1 000", "1.5", "nan", "1_000"],
    ),
    "spaces": (
        NUMBER, ValueFormat(trim=True, null_values=["NA", "-"]),
        {" 1 ": 1, "\t2\u00a0": 2, "  ": None, " NA ": None, '" 3"': 3, "-": None, '""': None}, ["1 2", "N A"],
    ),
    "spaces that a text keeps": (TEXT, ValueFormat(), {" x ": " x ", "  ": "  "}, []),
    "spaces that a text loses": (TEXT, ValueFormat(trim=True), {" x y ": "x y", "  ": None}, []),
    "an empty text that is no value": (NUMBER, ValueFormat(null_values=[""]), {'""': None, "1": 1}, ["x"]),
    "two formats of dates": (
        DAY, ValueFormat(formats=["%d.%m.%Y", "%Y-%m-%d"]),
        {"31.12.2024": date(2024, 12, 31), "2024-12-31": date(2024, 12, 31)}, ["12/31/2024", "31.12.24", "32.12.2024", "30.02.2024", "2023-02-29"],
    ),
    "two formats that read a date differently": (
        DAY, ValueFormat(formats=["%d/%m/%Y", "%m/%d/%Y"]),
        {"31/12/2024": date(2024, 12, 31), "12/31/2024": date(2024, 12, 31), "02/02/2024": date(2024, 2, 2)}, ["01/02/2024"],
    ),
    "a format of timestamps": (
        INSTANT, ValueFormat(formats=["%d.%m.%Y %H:%M"]), {"31.12.2024 23:59": utc("2024-12-31T23:59")}, ["31.12.2024", "2024-12-31 23:59", "31.12.2024 24:00", "31.12.2024 23:60"],
    ),
    "a format with an offset": (
        INSTANT, ValueFormat(formats=["%Y-%m-%d %H:%M %z"]), {"2024-12-31 23:00 -0500": utc("2025-01-01T04:00")}, ["2024-12-31 23:00"],
    ),
    "offsets": (
        INSTANT, ValueFormat(),
        {"2024-01-01T10:00:00+02:00": utc("2024-01-01T08:00"), "2024-01-01 10:00:00.5-0530": utc("2024-01-01T15:30:00.500"), "2024-01-01T10:00Z": utc("2024-01-01T10:00")},
        ["2024-01-01+02:00", "2024-01-01T10:00:00 CET", "2024-01-01T10:00:00+99:00", "2024-01-01T10:00:00.1234567+02"],
    ),
    "local times have no offset": (LOCAL, ValueFormat(), {"2024-01-01 10:00:00": local("2024-01-01T10:00")}, ["2024-01-01 10:00:00+02", "2024-01-01T10:00:00Z"]),
    "a time zone": (
        INSTANT, BERLIN,
        {"2024-07-01 12:00": utc("2024-07-01T10:00"), "2024-07-01T12:00Z": utc("2024-07-01T12:00"), "2024-10-27 02:30+02": utc("2024-10-27T00:30"), "2024-01-01 12:00:00.25": utc("2024-01-01T11:00:00.250"), "2024-03-31 03:00": utc("2024-03-31T01:00"), "2024-10-27 03:00": utc("2024-10-27T02:00"), "2024-10-27 01:59": utc("2024-10-26T23:59")},
        ["2024-03-31 02:30", "2024-10-27 02:30", "2024-07-01 12:00 CEST"],
    ),
    "a time zone and formats": (
        INSTANT, ValueFormat(formats=["%d.%m.%Y %H:%M", "%d.%m.%Y"], timezone="America/New_York"),
        {"01.07.2024 12:00": utc("2024-07-01T16:00"), "01.07.2024": utc("2024-07-01T04:00")}, ["10.03.2024 02:30", "03.11.2024 01:30"],
    ),
    "seconds since 1970": (
        INSTANT, ValueFormat(formats=["epoch_s"]),
        {"1700000000": utc("2023-11-14T22:13:20"), "1700000000.123456": utc("2023-11-14T22:13:20.123456"), "0": utc("1970-01-01")},
        ["1700000000.1234567", "1e9", "99999999999999999999", "2024-01-01", " 1"],
    ),
    "milliseconds since 1970": (INSTANT, ValueFormat(formats=["epoch_ms"]), {"1700000000123": utc("2023-11-14T22:13:20.123"), "-1.5": utc("1969-12-31T23:59:59.998500")}, ["1.2345"]),
    "microseconds since 1970": (LOCAL, ValueFormat(formats=["epoch_us"]), {"1700000000123456": local("2023-11-14T22:13:20.123456")}, ["1.5"]),
    "times": (CLOCK, ValueFormat(), {"23:59": time(23, 59), "01:02:03.5": time(1, 2, 3, 500000)}, ["24:00:00", "1:02", "10", "10:60", "10:00:00+02", "10:00:00.1234567"]),
    "a month between digits": (DAY, ValueFormat(formats=["%d%b%Y"]), {"01JAN2024": date(2024, 1, 1), "1Jan2024": date(2024, 1, 1)}, ["01XXX2024"]),
    "times without a space": (CLOCK, ValueFormat(formats=["%I:%M%p"]), {"9:05AM": time(9, 5), "11:30pm": time(23, 30)}, ["9:05"]),
    "times in a format": (CLOCK, ValueFormat(formats=["%I:%M %p"]), {"11:30 PM": time(23, 30)}, ["23:30"]),
    "bytes": (BYTES, ValueFormat(), {"YWI=": b"ab", '""': b""}, ["YWI", "?"]),
    "JSON": (
        JSON, ValueFormat(),
        {'"{""a"": 12345678901234567890.10}"': '{"a": 12345678901234567890.10}', "[]": "[]", "null": "null"},
        ["{}{}", "NaN", '"[1,]"', '"{""a"":1,""a"":2}"', '""', "x"],
    ),
    "days of a year": (DAY, ValueFormat(formats=["%Y%j", "%Y-%m-%d"]), {"2024366": date(2024, 12, 31), "2024-01-01": date(2024, 1, 1)}, ["2023366", "2024000"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_is_read_alike_row_by_row_and_by_the_warehouse(tmp_path: Path, kind: str) -> None:
    hints, form, good, bad = VALUES[kind]
    csv_format = CsvFormat({"v": hints, "t": TEXT}, values={"v": form}, delimiter=";")
    content = "v;t\n" + "".join(f"{text};x\n" for text in good)
    rows = [(value, "x") for value in good.values()]
    assert load(tmp_path, content, csv_format) == (rows, [])
    if hints is not JSON:  # which DuckDB reads less strictly
        pushed_down = push_down(tmp_path, content, csv_format) or []
        assert [(in_utc(value), text) for value, text in pushed_down] == rows
    content += "".join(f"{text};y\n" for text in bad)
    lines = range(len(good) + 2, len(good) + len(bad) + 2)
    assert load(tmp_path, content, csv_format) == (
        rows, [(line, f"{text};y") for line, text in zip(lines, bad, strict=True)]
    )  # fmt: skip
    for text in bad:
        assert push_down(tmp_path, f"v;t\n{text};y\n", csv_format) is None


def in_utc(value: Any) -> Any:
    is_zoned = isinstance(value, datetime) and value.tzinfo
    return value.astimezone(UTC) if is_zoned else value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": {"x": ValueFormat()}}, "value formats named x; declare these columns"),
        ({"values": {"a": ValueFormat(decimal=",")}}, "a is text; decimal and thousands are for numbers"),
        ({"values": {"n": ValueFormat(formats=["%Y"])}}, "n is bigint; formats are for dates and times"),
        ({"values": {"n": BERLIN}}, "n has no instants; a time zone is for timestamps"),
        ({"values": {"local": BERLIN}}, "local has no instants"),
        ({"values": {"day": ValueFormat(formats=["%d.%m."])}}, "has no year"),
        ({"values": {"day": ValueFormat(formats=["%Y %Q"])}}, "%Y %Q is not one of strptime"),
        ({"values": {"day": ValueFormat(formats=["epoch_s"])}}, "stands alone, for timestamps"),
        ({"values": {"at": ValueFormat(formats=["epoch_s", "%Y"])}}, "stands alone"),
        ({"values": {"at": ValueFormat(formats=["epoch_s"], timezone="Europe/Berlin")}}, "in UTC"),
        ({"values": {"local": ValueFormat(formats=["%Y %z"])}}, "has a time zone"),
        ({"values": {"at": ValueFormat(formats=["%Y-%m-%d %n"])}}, "nanoseconds"),
        ({"quote": "x"}, "quotes can be"),
        ({"escape": "x"}, "the escape is the same quote, or a backslash"),
        ({"footer": "Total"}, "footer is one text; write a list"),
        ({"comment": ",,"}, "cannot begin with the delimiter"),
        ({"skip_lines": -1}, "at least 0"),
        ({"header_rows": 0, "optional": ["n"]}, "without a header cannot have"),
        ({"header_rows": 0, "header_names": {"a": "b"}}, "without a header cannot have"),
        ({"header_rows": 0, "extra_columns": "ignore"}, "without a header cannot have"),
        ({"extra_columns": "json", "columns": {"extra_columns": TEXT}}, "extra_columns is the one"),
        ({"optional": ["n"], "columns": {"n": {**NUMBER, "nullable": False}}}, "cannot be optional"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_hold_is_an_error_of_the_declaration(
    options: dict[str, Any], message: str
) -> None:
    columns = {**AB, "day": DAY, "at": INSTANT, "local": LOCAL}
    with pytest.raises(ValueError, match=message):
        CsvFormat(**{"columns": columns, **options})


@pytest.mark.parametrize(
    "options",
    [{"null_values": "NA"}, {"formats": "%Y"}, {"decimal": ";"}, {"thousands": "x"}, {"thousands": "."}],
)  # fmt: skip
def test_an_option_of_values_that_cannot_hold_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ValueFormat(**options)


def test_an_unknown_time_zone_is_an_error_of_the_declaration() -> None:
    with pytest.raises(ZoneInfoNotFoundError, match="Europe/Nowhere"):
        ValueFormat(timezone="Europe/Nowhere")


pieces = st.sampled_from(
    ["x", ",", "'", "'", "''", '"', "\\", "\\'", " ", "\n", "\r\n", "#", "\n#", "'y'", ",'z'\n", "1,2\n", "T\n"]
)  # fmt: skip


@given(
    body=st.lists(pieces, max_size=12).map("".join),
    options=st.fixed_dictionaries(
        {"quote": st.sampled_from(["'", ""]), "comment": st.sampled_from(["", "#"]),
         "footer": st.sampled_from([(), ("T",)]), "header_rows": st.sampled_from([0, 1])}
    ),
    has_backslashes=st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_every_way_to_read_a_file_of_any_form_gives_the_same_rows(
    body: str, options: dict[str, Any], *, has_backslashes: bool
) -> None:
    escape = "\\" if has_backslashes and options["quote"] else ""
    csv_format = CsvFormat({"a": TEXT, "b": TEXT}, allow_empty=True, escape=escape, **options)
    content = "a,b\n" * options["header_rows"] + body + "T" * len(options["footer"])
    with TemporaryDirectory() as folder:
        try:
            rows, rejected = load(Path(folder), content, csv_format)
        except ValueError:
            assert options["footer"]
            return
        assert push_down(Path(folder), content, csv_format) in (None, [] if rejected else rows)
        alone = [load_line(Path(folder), raw, csv_format) for _, raw in rejected]
    assert not any(rows_of_line for rows_of_line in alone)


def load_line(folder: Path, line: str, csv_format: CsvFormat) -> Rows:
    """Return the rows of a line that is alone in its file."""
    content = "a,b\n" * csv_format.header_rows + line + "\nT" * len(csv_format.footer)
    return load(folder, content, csv_format)[0]
