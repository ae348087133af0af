"""Propose the type of a column of texts, and how its values are written."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import compress, product
from typing import NamedTuple

import duckdb
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import values
from shared.sources.csv.values import ISO_DATE, ValueFormat
from shared.sources.quoting import literal, quote

DATE_FORMATS = (
    *(ISO_DATE, "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%B %d, %Y", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y"),
)  # fmt: skip
"""The formats of dates that a proposal tries, in this order."""

_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
_TIMESTAMP_FORMATS = tuple(
    f"{day}{gap}{clock}{zone}"
    for day, gap, clock, zone in product(DATE_FORMATS, (" ", ", "), _CLOCKS, ("", " %z", "%z"))
)
_NUMBER_FORMATS = tuple(
    ValueFormat(decimal=decimal, thousands=thousands, trim=trim)
    for trim in (False, True)
    for decimal, thousands in (
        *((".", ""), (",", ""), (".", ","), (",", "."), (".", "'"), (",", " "), (".", " ")),
        *((",", "\N{NO-BREAK SPACE}"), (",", "\N{NARROW NO-BREAK SPACE}")),
    )
)
_NO_VALUE = frozenset(
    [
        "NA",
        "N/A",
        "#N/A",
        "n/a",
        "NaN",
        "nan",
        "NULL",
        "Null",
        "null",
        "None",
        "none",
        "nil",
        "-",
        "--",
        ".",
        "?",
        "(null)",
        "#NULL!",
        "\\N",
    ]
)
_CODES = {
    "^\\s*[+-]?0[0-9]": "codes with leading zeros, which a number would lose",
    "^\\s*[+]": "codes that begin with +, which a number would lose",
}
_MAX_SCALE, _MAX_DIGITS = 4, 15  # beyond them, numbers are measurements and not amounts


class ColumnProposal(NamedTuple):
    """The type of a column, how its values are written, and what a person should check."""

    hints: TColumnSchema
    form: ValueFormat
    note: str = ""


class Column:
    """A column of texts, and the types that all of its values fit.

    Args:
        connection: a connection that has the table `texts`.
        name: the name of the column in it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        self._connection, self._text = connection, quote(name)
        self.filled = self._count(ValueFormat(), "true")

    @cached_property
    def date_formats(self) -> Sequence[str]:
        """The formats with which all values are dates, except texts for no value."""
        if not self.filled or self._number or self._flag:
            return ()
        forms = [ValueFormat(formats=[form]) for form in DATE_FORMATS]
        return [fitted.formats[0] for fitted in self._all_fitted({"data_type": "date"}, forms)]

    def propose(self, date_format: str, rows: int) -> ColumnProposal:
        """Return the proposal for the column.

        Args:
            date_format: the one that most columns of dates have.
            rows: the number of rows.
        """
        found = self._propose(date_format)
        filled = self._count(found.form, "true")
        if filled == rows:
            found.hints["nullable"] = False
        nulls = found.form.null_values
        if not nulls:
            return found
        missing = f"{self.filled - filled:,} of {self.filled:,}"
        note = f"{' and '.join(map(repr, nulls))}: no value, in {missing}"
        notes = "; ".join(filter(None, [found.note, note]))
        return ColumnProposal(found.hints, found.form, notes)

    def _propose(self, date_format: str) -> ColumnProposal:
        if not self.filled:
            return ColumnProposal(
                {"data_type": "text"}, ValueFormat(), "has no value in the sample"
            )
        return (
            self._number
            or self._flag
            or self._date(date_format)
            or self._timestamp()
            or self._time()
            or ColumnProposal({"data_type": "text"}, ValueFormat())
        )

    def _date(self, date_format: str) -> ColumnProposal | None:
        if not self.date_formats:
            return None
        form = date_format if date_format in self.date_formats else self.date_formats[0]
        fitted = self._fitted({"data_type": "date"}, ValueFormat(formats=[form]))
        assert fitted
        if form == date_format:
            fitted = ValueFormat(fitted.null_values)
        return ColumnProposal({"data_type": "date"}, fitted, self._order_of(form))

    @cached_property
    def _number(self) -> ColumnProposal | None:
        """The type of numbers, or of texts that are none although they look like them."""
        double: TColumnSchema = {"data_type": "double"}
        fitting = self._all_fitted(double, _NUMBER_FORMATS)
        form = next(fitting, None)
        if not form:
            return None
        for pattern, note in _CODES.items():
            if self._count(form, f"regexp_matches({self._text}, '{pattern}')"):
                return ColumnProposal({"data_type": "text"}, ValueFormat(), note)
        note = ""
        if "," in form.decimal + form.thousands:
            other = next((each for each in fitting if each.decimal != form.decimal), None)
            if other and self._differ(form, other):
                form, note = (
                    other,
                    "commas are between thousands, or before fractions: no value decides",
                )
        elif not note and form.decimal == ".":
            other = next((each for each in fitting if each.decimal != form.decimal), None)
            if other and self._differ(form, other):
                note = "points are before fractions, or between thousands: no value decides"
        whole = values.plain_number(self._text, form)
        if self._fits({"data_type": "bigint"}, form) and not self._count(
            form, f"contains({whole}, '.')"
        ):
            return ColumnProposal({"data_type": "bigint"}, form, note)
        hints, more = self._fraction(form)
        note = "; ".join(filter(None, [note, more]))
        return ColumnProposal(hints, form if hints["data_type"] != "text" else ValueFormat(), note)

    @cached_property
    def _flag(self) -> ColumnProposal | None:
        form = self._without_marks(f"lower({self._text}) NOT IN ('true', 'false')", ValueFormat())
        return ColumnProposal({"data_type": "bool"}, form) if form else None

    def _timestamp(self) -> ColumnProposal | None:
        hints: TColumnSchema = {"data_type": "timestamp"}
        if form := self._fitted(hints, ValueFormat()):
            # As a local time, a text with a zone does not fit.
            local = self._misfits({"data_type": "timestamp", "timezone": False}, form)
            has_zone = local == self._count(form, "true")
            return ColumnProposal(hints, form, "" if has_zone else _read_as_utc())
        if ":" not in self._example:
            return None
        parsed = ", ".join(
            f"try_strptime({literal(self._example)}, {literal(form)}) IS NOT NULL"
            for form in _TIMESTAMP_FORMATS
        )
        parsing = self._connection.execute(f"SELECT {parsed}").fetchone() or ()
        forms = [ValueFormat(formats=[form]) for form in compress(_TIMESTAMP_FORMATS, parsing)]
        form = next(self._all_fitted(hints, forms), None)
        if not form:
            return None
        notes = [self._order_of(form.formats[0], hints)]
        notes += [_read_as_utc()] * ("%z" not in form.formats[0])
        return ColumnProposal(hints, form, "; ".join(filter(None, notes)))

    def _time(self) -> ColumnProposal | None:
        form = self._fitted({"data_type": "time"}, ValueFormat())
        return ColumnProposal({"data_type": "time"}, form) if form else None

    @cached_property
    def _example(self) -> str:
        """A value of the column; "" if it has none."""
        marks = ", ".join(map(literal, _NO_VALUE))
        query = f"SELECT {self._text} FROM texts WHERE {self._text} NOT IN ('', {marks}) LIMIT 1"
        found = self._connection.execute(query).fetchone()
        return str(found[0]) if found else ""

    def _all_fitted(
        self, hints: TColumnSchema, forms: Sequence[ValueFormat]
    ) -> Iterator[ValueFormat]:
        """Yield the formats that all values fit, each with the texts for no value."""
        # One value decides about most formats, in one query.
        if not forms or not re.search("[0-9]", self._example):
            return
        text = literal(self._example)
        conditions = ", ".join(
            values.is_lossless(cleaned, values.typed(cleaned, hints, form), hints, form)
            for form in forms
            for cleaned in [values.cleaned(text, form)]
        )
        fits = self._connection.execute(f"SELECT {conditions}").fetchone() or ()
        fitting = (self._fitted(hints, form) for form in compress(forms, fits))
        yield from filter(None, fitting)

    def _fitted(self, hints: TColumnSchema, form: ValueFormat) -> ValueFormat | None:
        """Return a format with the texts for no value; None if other values do not fit."""
        return self._without_marks(self._misfit(hints, form), form)

    def _without_marks(self, misfit: str, form: ValueFormat) -> ValueFormat | None:
        """Return a format with the texts for no value, if only they meet a condition."""
        others = self._connection.execute(
            f"SELECT DISTINCT {self._text} FROM {self._rows(form)} WHERE {misfit} LIMIT {len(_NO_VALUE) + 1}"
        ).fetchall()
        marks = sorted(mark for (mark,) in others)
        if not _NO_VALUE.issuperset(marks):
            return None
        fitted = ValueFormat(marks or (), form.trim, form.decimal, form.thousands, form.formats)
        return fitted if self._count(fitted, "true") else None

    def _rows(self, form: ValueFormat) -> str:
        return f"(SELECT {values.cleaned(self._text, form)} AS {self._text} FROM texts)"

    def _misfit(self, hints: TColumnSchema, form: ValueFormat) -> str:
        value = values.typed(self._text, hints, form)
        return f"NOT ({values.is_lossless(self._text, value, hints, form)})"

    def _count(self, form: ValueFormat, condition: str) -> int:
        query = f"SELECT count(*) FROM {self._rows(form)} WHERE {self._text} IS NOT NULL AND ({condition})"
        (count,) = self._connection.execute(query).fetchone() or (0,)
        return int(count)

    def _misfits(self, hints: TColumnSchema, form: ValueFormat) -> int:
        return self._count(form, self._misfit(hints, form))

    def _fits(self, hints: TColumnSchema, form: ValueFormat) -> bool:
        return not self._misfits(hints, form)

    def _differ(self, one: ValueFormat, other: ValueFormat) -> bool:
        """Return whether a number has another value with another format."""
        double: TColumnSchema = {"data_type": "double"}
        first, second = (values.typed(self._text, double, form) for form in (one, other))
        return self._count(one, f"{first} <> {second}") > 0

    def _fraction(self, form: ValueFormat) -> tuple[TColumnSchema, str]:
        """Return a decimal for amounts, and for numbers with more digits than a double has."""
        number = values.plain_number(self._text, form)
        scale = f"length(split_part({number}, '.', 2))"
        digits = f"length(regexp_replace({number}, '[^0-9]', '', 'g'))"
        least, most, longest = self._connection.execute(
            f"SELECT min({scale}), max({scale}), max({digits}) FROM {self._rows(form)}"
        ).fetchone() or (0, 0, 0)
        if self._count(form, f"contains(lower({self._text}), 'e')"):
            return (
                {"data_type": "double"},
                "has numbers with an exponent; codes such as 12E5 are text",
            )
        if longest > _MAX_DIGITS:
            exact: TColumnSchema = {"data_type": "decimal", "precision": 38, "scale": most}
            if self._fits(exact, form):
                return exact, "has more digits than a double"
            return {"data_type": "text"}, "numbers with more digits than a decimal has"
        if 0 < least == most <= _MAX_SCALE:
            return {"data_type": "decimal", "precision": 18, "scale": most}, ""
        return {"data_type": "double"}, ""

    def _order_of(self, form: str, hints: TColumnSchema | None = None) -> str:
        """Return which values decide whether the day or the month is first, and what a year of two digits is."""
        century = "the century is missing: 68 is 2068, 69 is 1969" if "%y" in form else ""
        return "; ".join(filter(None, [self._first_of(form, hints), century]))

    def _first_of(self, form: str, hints: TColumnSchema | None) -> str:
        day, month = form.find("%d"), form.find("%m")
        if form.startswith("%Y") or month < 0:
            return ""
        swapped = form.translate(str.maketrans("dm", "md"))
        deciding = self._misfits(hints or {"data_type": "date"}, ValueFormat(formats=[swapped]))
        first = "day" if day < month else "month"
        return f"the {first} is first: {deciding:,} of {self.filled:,} values decide"


def _read_as_utc() -> str:
    return "without a time zone: read as UTC"
