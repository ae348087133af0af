"""What a CSV file must look like for its rows to be loaded."""

import codecs
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv.file import open_csv
from shared.sources.csv.pushdown import can_push_down, strict_select_sql
from shared.sources.csv.rows import Dialect, Row, iter_rows
from shared.sources.csv.values import ISO_DATE, ValueFormat, check_date_format
from shared.sources.files.format import Batch, FileFormat
from shared.sources.hints import column, required_column

EXTRA_COLUMNS = "extra_columns"
"""The column with the values of undeclared columns, where a format keeps them."""

_DELIMITERS = frozenset("\t,;|:~^!#$%&*")
_QUOTES = ('"', "'", "")
_MAX_PRECISION = 38  # DuckDB's


@dataclass(frozen=True)
class CsvFormat(FileFormat):
    """What a CSV file must look like for its rows to be loaded.

    Attributes:
        columns: the columns with dlt's types, except `wei`; the header must have exactly these, in any
            order. Decimals have `precision` and `scale`. A timestamp is an instant, in UTC unless the
            text or its `ValueFormat` says another zone; with `"timezone": False` it is a local time.
            JSON must be strict, and `binary` is Base64.
        date_format: the format of dates, for strptime; without a time zone, which would move a date.
        values: by column, how its values are written in the file.
        encoding: Python's name of the encoding. A byte order mark at the start of the file overrides
            UTF-8 with UTF-16 or UTF-32.
        delimiter: the character between values, such as ;, | or a tab.
        quote: the character around values that have delimiters or line breaks; "" if there is none.
        escape: the character before a quote inside of quotes: the quote again, or a backslash. Files with
            backslashes are read row by row.
        trailing_delimiters: whether a row, and the header, may end in delimiters after its last value.
        header_rows: the number of header rows. 0: there is none, and `columns` has the columns in their
            order. Several: their names are joined by a space; a name over several columns is for each.
        header_names: by column, its name in the header, where that is another one.
        extra_columns: what a column of the header that is not declared does: `fail`; `ignore`; or `json`,
            which loads the texts of all of them as an object into the column `extra_columns`.
        skip_lines: the number of lines before the header.
        comment: how lines begin that are skipped, such as #.
        footer: how each line of the footer begins. A file that does not end in them is incomplete, and
            does not load.

    Raises:
        LookupError: Python does not know the encoding.
        ValueError: as `FileFormat`; an option that cannot be used. The message says what to change.
    """

    date_format: str = ISO_DATE
    values: Mapping[str, ValueFormat] = field(default_factory=dict)
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    trailing_delimiters: bool = False
    header_rows: int = 1
    header_names: Mapping[str, str] = field(default_factory=dict)
    extra_columns: Literal["fail", "ignore", "json"] = "fail"
    skip_lines: int = 0
    comment: str = ""
    footer: Sequence[str] = ()

    location: ClassVar[Mapping[str, TColumnSchema]] = {
        "line": required_column("bigint", "The line in which the row starts; the first is 1."),
    }

    def __post_init__(self) -> None:
        """Check the declaration."""
        super().__post_init__()
        codecs.lookup(self.encoding)
        check_date_format(self.date_format, {"data_type": "date"})
        for name, hints in self.columns.items():
            _check_decimal(name, hints)
        self._require_declared("value formats", self.values)
        for name, form in self.values.items():
            form.check_column(name, self.columns[name])
        self._check_header()
        if self.delimiter not in _DELIMITERS:
            raise ValueError(
                f"The delimiter {self.delimiter!r} is not a tab or one of {''.join(sorted(_DELIMITERS)[1:])}"
            )
        if self.quote not in _QUOTES or self.escape not in ("", self.quote, "\\"):
            raise ValueError(
                f"quote is {self.quote!r}, and escape {self.escape!r}; quotes can be \", ' or none, and the "
                "escape is the same quote, or a backslash"
            )
        if isinstance(self.footer, str):
            raise ValueError("footer is one text; write a list")  # noqa: TRY004 - a declaration
        if not all(map(str.strip, self.footer)):
            raise ValueError("A footer line begins with a text; a blank one would fit each line")
        if self.comment and self.comment[0] in (self.delimiter, self.quote):
            raise ValueError("A comment cannot begin with the delimiter or the quote")

    def _check_header(self) -> None:
        if self.extra_columns not in ("fail", "ignore", "json"):
            raise ValueError(
                f"extra_columns is {self.extra_columns!r}; it can be fail, ignore or json"
            )
        self._require_declared("header names", self.header_names)
        in_header = Counter(self.header_names.get(name, name) for name in self.columns)
        if twice := [name for name, count in in_header.items() if count > 1]:
            raise ValueError(f"Several columns have the name {', '.join(twice)} in the header")
        if min(self.header_rows, self.skip_lines) < 0:
            raise ValueError("header_rows and skip_lines are numbers of lines; they are at least 0")
        needs_header = self.header_names or self.optional or self.extra_columns != "fail"
        if not self.header_rows and needs_header:
            raise ValueError(
                "A file without a header cannot have header_names, optional columns or extra_columns"
            )

    @property
    def row_columns(self) -> Mapping[str, TColumnSchema]:
        """The columns of the rows: the declared ones, and where it is kept the rest as JSON."""
        if self.extra_columns != "json":
            return self.columns
        rest = column("json", "The texts of the columns that are not declared, by their names.")
        if EXTRA_COLUMNS in self.columns:
            raise ValueError(f"The column {EXTRA_COLUMNS} is the one of the columns not declared")
        return {**self.columns, EXTRA_COLUMNS: rest}

    @property
    def source_fields(self) -> Mapping[str, str]:
        """The names that columns have in the header, where they differ."""
        return self.header_names

    is_delimited: ClassVar[bool] = True
    """Whether DuckDB's reader of CSV may read the rows."""

    def split_rows(self, lines: Iterator[str], number: int, width: int) -> Iterator[Row]:
        """Yield the rows of a file, also those that must not load.

        Args:
            lines: the lines below the header, from `read_lines`.
            number: the number of the first of them.
            width: the number of values in a row.
        """
        return iter_rows(lines, number, width, Dialect.of(self))

    def value_format(self, name: str) -> ValueFormat:
        """Return how the values of a column are written."""
        form = self.values.get(name, ValueFormat())
        if self.columns[name]["data_type"] == "date" and not form.formats:
            return replace(form, formats=(self.date_format,))
        return form

    def read(self, file: Path) -> Iterator[Batch]:
        """Yield the rows of a file; see `FileFormat.read`."""
        with open_csv(file, self) as opened:
            yield from opened.batches()

    def pushdown_select(self, file: Path, folder: Path) -> str | None:
        """Return SQL of all rows; see `FileFormat`. DuckDB reads the file itself if it reads it exactly."""
        try:
            with open_csv(file, self, folder) as opened:
                if can_push_down(opened):
                    return strict_select_sql(opened)
                return self.checked_copy_select(opened.batches(), folder)
        except ValueError:
            return None


def _check_decimal(name: str, hints: TColumnSchema) -> None:
    precision, scale = hints.get("precision"), hints.get("scale")
    if hints["data_type"] == "decimal" and (
        precision is None or scale is None or not 0 <= scale <= precision <= _MAX_PRECISION
    ):
        raise ValueError(
            f"The column {name} is a decimal with precision {precision} and scale {scale}; declare both, "
            f"with at most {_MAX_PRECISION} digits"
        )
