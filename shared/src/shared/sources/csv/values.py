"""How the values of a column are written in a file, and the SQL that reads them without a change."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from zoneinfo import ZoneInfo

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import duckdb
from shared.sources.quoting import literal

ISO_DATE = "%Y-%m-%d"

EPOCHS: Mapping[str, tuple[int, int]] = {
    "epoch_s": (1_000_000, 6),
    "epoch_ms": (1_000, 3),
    "epoch_us": (1, 0),
}
"""Formats of timestamps that are numbers: their unit in microseconds, and the digits of a fraction."""

IS_STRICT_JSON = "is_strict_json"
"""The function of DuckDB that checks JSON; `CsvFile` registers it."""

_DUCKDB_TYPES: Mapping[str | None, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "binary": "BLOB",
    "json": "VARCHAR",
}
_NUMBERS = {"bigint", "double", "decimal"}
_TIMES = {"date", "time", "timestamp"}
_THOUSANDS = ("", ",", ".", "'", "_", " ", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}")
_SPACES = "\t \N{NO-BREAK SPACE}"
_OFFSET = "[+-]((0[0-9]|1[0-3])(:?[0-5][0-9])?|14(:?00)?)"
_HAS_OFFSET = f":[0-9.]+(Z|{_OFFSET})$"
_SHIFTS = (
    "30 MINUTES",
    "1 HOUR",
    "2 HOURS",
    "3 HOURS",
    "24 HOURS",
)  # of clocks, for summer time and otherwise
_ADJACENT_DIGITS = re.compile("%-?[dfgGHIjmMSuUVwWyY]%-?[dfgGHIjmMSuUVwWyY]")
_IN_RANGE = "BETWEEN 1000 AND 9999"  # years: 18 is not 2018, and Python has no later ones


@dataclass(frozen=True, repr=False)
class ValueFormat:
    """How the values of a column are written in the file.

    Attributes:
        null_values: texts that load as NULL, such as NA. "" is a value of two quotes.
        trim: whether spaces and tabs around a value are removed; a value of spaces alone is NULL then.
        decimal: the character before the fraction of a number, `.` or `,`.
        thousands: the character between groups of three digits, such as `.`, `,`, `'` or a space.
        formats: formats of dates, times or timestamps for strptime; for timestamps also `epoch_s`,
            `epoch_ms` and `epoch_us`, the time since 1970 in UTC. A value that two of them read
            differently is bad. Default: ISO 8601; for dates the `date_format` of the file.
        timezone: the time zone of timestamps without one, such as Europe/Berlin; default: UTC. A
            local time that does not exist there, or exists twice, is bad.

    Raises:
        ValueError: an option cannot have its value; the message says what to change.
        ZoneInfoNotFoundError: the time zone is unknown.
    """

    null_values: Sequence[str] = ()
    trim: bool = False
    decimal: str = "."
    thousands: str = ""
    formats: Sequence[str] = ()
    timezone: str = ""

    def __post_init__(self) -> None:
        """Check the options."""
        for option in ("null_values", "formats"):
            if isinstance(getattr(self, option), str):
                raise ValueError(f"{option} is one text; write a list")  # noqa: TRY004 - a declaration
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal is {self.decimal!r}; it can be . or ,")
        if self.thousands not in _THOUSANDS or self.thousands == self.decimal:
            raise ValueError(
                f"thousands is {self.thousands!r}; it can be one of "
                f"{', '.join(map(repr, _THOUSANDS[1:]))}, and is not the decimal character"
            )
        if self.timezone:
            ZoneInfo(self.timezone)

    def __repr__(self) -> str:
        """Return the code of the declaration, without defaults."""
        stated = [
            f"{each.name}={value!r}"
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        ]
        return f"ValueFormat({', '.join(stated)})"

    def check_column(self, name: str, hints: TColumnSchema) -> None:
        """Raise `ValueError` if an option does not belong to a column's type."""
        kind = hints["data_type"]
        if (self.decimal, self.thousands) != (".", "") and kind not in _NUMBERS:
            raise ValueError(f"The column {name} is {kind}; decimal and thousands are for numbers")
        if self.timezone and (kind != "timestamp" or not hints.get("timezone", True)):
            raise ValueError(f"The column {name} has no instants; a time zone is for timestamps")
        if self.formats and kind not in _TIMES:
            raise ValueError(f"The column {name} is {kind}; formats are for dates and times")
        epochs = EPOCHS.keys() & self.formats
        if epochs and (len(self.formats) > 1 or kind != "timestamp" or self.timezone):
            raise ValueError(
                f"The column {name} has the format {min(epochs)}, which stands alone, for timestamps in UTC"
            )
        for form in self.formats if not epochs else ():
            check_date_format(form, hints)


PLAIN_FORMAT = re.compile(r"(?:%[YymdHMSf]|[ \w./:,-])*", re.ASCII)
"""Formats that DuckDB accepts for certain, so that loading a location does not start it."""


def check_date_format(form: str, hints: TColumnSchema) -> None:
    """Raise `ValueError` if values of a column cannot be read with a format."""
    if form == ISO_DATE:
        return
    kind, directives = hints["data_type"], form.replace("%%", "")
    if re.search("%-?[zZ]", directives) and (
        kind != "timestamp" or not hints.get("timezone", True)
    ):
        raise ValueError(
            f"The date format {form} has a time zone, which would move a date; "
            "declare the column as text, or as a timestamp"
        )
    if kind != "time" and not re.search("%-?[yYGcx]", directives):
        raise ValueError(f"The date format {form} has no year; DuckDB would add 1900")
    if not PLAIN_FORMAT.fullmatch(form):
        try:
            with duckdb.connect() as connection:
                connection.execute(f"SELECT try_strptime('', {literal(form)})")
        except duckdb.Error as error:
            raise ValueError(f"The format {form} is not one of strptime: {error}") from None
    if kind == "date" and re.search("%-?[HIMSfgpcX]", directives):
        raise ValueError(
            f"The date format {form} has a time of the day, which a date would lose; declare a timestamp"
        )
    if re.search("%-?Z", directives):
        raise ValueError(
            f"The format {form} has the name of a time zone, and several zones have the same; use %z for "
            "offsets, or state the zone in ValueFormat"
        )
    if "%n" in directives:
        raise ValueError(f"The format {form} has nanoseconds; a load keeps microseconds")


def duckdb_type(hints: TColumnSchema) -> str:
    """Return DuckDB's type for a column."""
    if hints["data_type"] == "decimal":
        return f"DECIMAL({hints['precision']}, {hints['scale']})"
    return _DUCKDB_TYPES[hints["data_type"]]


def cleaned(text: str, form: ValueFormat, *, empty_is_null: bool = False) -> str:
    """Return the SQL of a text of the file without spaces that are trimmed; NULL where it has no value."""
    nulls = dict.fromkeys([*([""] if empty_is_null or form.trim else ()), *form.null_values])
    value = f"trim({text}, {literal(_SPACES)})" if form.trim else text
    if not nulls:
        return value
    if len(nulls) == 1:
        return f"nullif({value}, {literal(*nulls)})"
    return f"CASE WHEN {value} NOT IN ({', '.join(map(literal, nulls))}) THEN {value} END"


def typed(text: str, hints: TColumnSchema, form: ValueFormat) -> str:
    """Return the SQL expression of a text as the column's type; NULL where it does not fit."""
    kind = hints["data_type"]
    if kind in _NUMBERS:
        text = plain_number(text, form)
    if kind == "binary":
        return f"TRY(from_base64({text}))"
    readings = [*_readings(text, hints, form)]
    return f"coalesce({', '.join(readings)})" if len(readings) > 1 else readings[0]


def plain_number(text: str, form: ValueFormat) -> str:
    """Return the SQL of the text of a number without thousands, and with a decimal point."""
    if form.thousands:
        text = f"replace({text}, {literal(form.thousands)}, '')"
    return text if form.decimal == "." else f"replace({text}, {literal(form.decimal)}, '.')"


def _readings(text: str, hints: TColumnSchema, form: ValueFormat) -> Iterator[str]:
    """Yield the SQL of a text as a value, with each of the formats."""
    kind = hints["data_type"]
    if kind not in _TIMES or not form.formats:
        value = f"TRY_CAST({text} AS {duckdb_type(hints)})"
        if kind == "timestamp" and hints.get("timezone", True):
            # As a TIMESTAMP, DuckDB drops an offset.
            value = (
                f"CASE WHEN regexp_matches({text}, '{_HAS_OFFSET}') "
                f"THEN timezone('UTC', TRY_CAST({text} AS TIMESTAMPTZ)) "
                f"ELSE {_as_utc(value, form.timezone) if form.timezone else value} END"
            )
        yield value
        return
    for each in form.formats:
        if each in EPOCHS:
            microseconds = f"TRY_CAST({text} AS DECIMAL(38, 6)) * {EPOCHS[each][0]}"
            yield f"TRY(make_timestamp(({microseconds})::BIGINT))"
            continue
        value = f"try_strptime({text}, {literal(each)})"
        if has_offset(each):
            value = f"timezone('UTC', {value})"
        elif form.timezone:
            value = _as_utc(value, form.timezone)
        yield value if kind == "timestamp" else f"{value}::{duckdb_type(hints)}"


def has_offset(form: str) -> bool:
    """Return whether texts in a format have an offset from UTC."""
    return re.search("%-?z", form.replace("%%", "")) is not None


def _as_utc(local: str, timezone: str) -> str:
    return f"timezone('UTC', timezone({literal(timezone)}, {local}))"


def is_lossless(text: str, value: str, hints: TColumnSchema, form: ValueFormat) -> str:
    """Return the SQL condition that a text keeps its meaning as a value of the column's type."""
    kind = hints["data_type"]
    conditions = [f"{value} IS NOT NULL"]
    if kind in ("date", "timestamp"):
        # Rejects infinity and epoch too, which are dates for DuckDB.
        conditions.append(f"year({value}) {_IN_RANGE} AND regexp_matches({text}, '[0-9]')")
    if pattern := _pattern(hints, form):
        conditions.append(f"regexp_full_match({text}, {literal(pattern)})")
    if kind == "double":
        conditions += [f"isfinite({value})", _keeps_digits(text, value, form)]
    if kind == "binary":
        conditions.append(f"to_base64({value}) = {text}")
    if kind == "json":
        # DuckDB alone accepts NaN and a comma at the end.
        conditions.append(f"json_valid({text}) AND {IS_STRICT_JSON}({text})")
    if len(form.formats) > 1:
        conditions += [
            f"coalesce({reading} = {value}, true)" for reading in _readings(text, hints, form)
        ]
    conditions += [
        f"(try_strptime({text}, {literal(each)}) IS NULL OR ({condition}))"
        for each in form.formats
        if each not in EPOCHS
        for condition in _format_checks(text, each)
    ]
    if form.timezone:
        conditions.append(_is_one_instant(text, value, hints, form))
    return f"{text} IS NULL OR coalesce({' AND '.join(conditions)}, false)"


def _keeps_digits(text: str, value: str, form: ValueFormat) -> str:
    """Return the SQL condition that a double has the integer of a text, and is not 0 for another number."""
    number = plain_number(text, form)
    return (
        f"(strlen({text}) < 16 OR regexp_matches({number}, '[.eE]') "
        f"OR TRY_CAST({value} AS HUGEINT) = TRY_CAST({number} AS HUGEINT)) "
        f"AND ({value} <> 0 OR NOT regexp_matches({text}, '^[^eE]*[1-9]'))"
    )


def _format_checks(text: str, form: str) -> Iterator[str]:
    """Yield SQL conditions about texts that DuckDB reads with a format, but not as a person does."""
    directives, reading = form.replace("%%", ""), f"try_strptime({text}, {literal(form)})"
    # Digits that can be split in two ways, and day 366 of a year with 365 days.
    if "%j" in directives or _ADJACENT_DIGITS.search(directives):
        yield f"strftime({reading}, {literal(form)}) = {text}"
    if re.search("%-?[aA]", directives):
        yield f"contains(lower({text}), lower(strftime({reading}, '%a')))"
    if directives.endswith("%z"):
        yield f"regexp_matches({text}, '(Z|{_OFFSET})$')"


def _pattern(hints: TColumnSchema, form: ValueFormat) -> str | None:
    """Return the regular expression of the texts of a type, where DuckDB's casts accept more."""
    kind = hints["data_type"]
    point, group = re.escape(form.decimal), re.escape(form.thousands)
    # 0.123 has no thousands: its point is a decimal point of another format.
    digits = f"([1-9][0-9]{{0,2}}({group}[0-9]{{3}})+|[0-9]+)" if group else "[0-9]+"
    if kind == "double":
        # DuckDB reads 1_0 as 10, and accepts infinity.
        return f"[+-]?({digits}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"
    if kind in _NUMBERS:
        # DuckDB silently rounds 1.5 to 2 for a bigint, and decimals that exceed the scale.
        scale = hints.get("scale") if kind == "decimal" else 0
        return f"[+-]?({digits})?({point}[0-9]{{0,{scale}}}0*)?"
    if form.formats:
        _, places = EPOCHS.get(form.formats[0], (0, None))
        # A fraction that is smaller than a microsecond would be rounded.
        return None if places is None else "-?[0-9]+" + f"([.][0-9]{{1,{places}}})?" * bool(places)
    if kind == "time":
        return "([01][0-9]|2[0-3])(:[0-5][0-9]){1,2}([.][0-9]{1,6})?"
    if kind == "timestamp":
        # DuckDB drops digits after the microseconds.
        zone = f"(Z|{_OFFSET})?" if hints.get("timezone", True) else ""
        return f"[0-9-]{{10}}([ T][0-9:]{{5,8}}([.][0-9]{{1,6}})?{zone})?" + "Z?" * bool(zone)
    return None


def _is_one_instant(text: str, value: str, hints: TColumnSchema, form: ValueFormat) -> str:
    """Return the SQL condition that a local time exists in its zone, once."""
    zone = literal(form.timezone)
    formats = [each for each in form.formats if not has_offset(each)]
    if form.formats and not formats:
        return "true"
    # As local times, texts with offsets are not read.
    plain = [*_readings(text, {**hints, "timezone": False}, ValueFormat(formats=formats))]
    local = f"coalesce({', '.join(plain)})" if len(plain) > 1 else plain[0]
    has_zone = f"regexp_matches({text}, '{_HAS_OFFSET}')"
    is_zoned = f"{local} IS NULL" if form.formats else has_zone

    def clock(instant: str) -> str:
        return f"timezone({zone}, timezone('UTC', {instant}))"

    others = [f"{clock(f'{value} {sign} INTERVAL {shift}')}" for sign in "+-" for shift in _SHIFTS]
    # Most clocks are not near a change, and two of its times show that.
    before, after = (clock(f"{value} {sign} INTERVAL 26 HOURS") for sign in "-+")
    return (
        f"CASE WHEN {is_zoned} OR epoch({after} - {before}) = 52 * 3600 THEN true "
        f"ELSE {clock(value)} = {local} AND {local} NOT IN ({', '.join(others)}) END"
    )


def is_canonical(text: str, value: str, hints: TColumnSchema) -> str:
    """Return the SQL condition that DuckDB writes a value exactly like the text; then it fits."""
    condition = f"{text} = {value}::VARCHAR"
    if hints["data_type"] in ("date", "timestamp"):
        condition += f" AND year({value}) {_IN_RANGE}"
    if hints["data_type"] == "double":
        condition += f" AND isfinite({value})"
    return condition


def may_be_canonical(hints: TColumnSchema, form: ValueFormat) -> bool:
    """Return whether `is_canonical` may decide about the values of a column, which is fast."""
    kind = hints["data_type"]
    is_iso = not form.formats or (kind == "date" and [*form.formats] == [ISO_DATE])
    is_plain = (form.decimal, form.thousands, form.timezone) == (".", "", "")
    return is_iso and is_plain and kind in _NUMBERS | {"bool", "date", "timestamp"}
