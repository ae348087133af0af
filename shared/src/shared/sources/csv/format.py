"""What a CSV file must look like, and the columns that the source adds."""

import codecs
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv.sql import TYPES
from shared.sources.hints import required_column
from shared.sources.names import column_name

FILE_NAME_COLUMN = required_column(
    "text", "The file of the row, as a path below the drop folder.", partition=True
)
"""The column added to every row. A load replaces all rows of its files."""

REJECTED_COLUMNS: dict[str, TColumnSchema] = {
    "file_name": FILE_NAME_COLUMN,
    "line": required_column("bigint", "The line in which the row starts; the header is line 1."),
    "reason": required_column("text", "Why the row was rejected, by column."),
    "raw": required_column("text", "The text of the row in the file, without its line break."),
}
"""The columns of a table of rejected rows."""

OnBadRows = Literal["fail", "quarantine"]
"""What a row that does not match the format does: fail its file, or go to the rejected rows."""

_DELIMITERS = frozenset("\t,;|:~^!#$%&*")
_MAX_PRECISION = 38  # DuckDB's


@dataclass(frozen=True)
class CsvFormat:
    """What a CSV file must look like for its rows to be loaded.

    Attributes:
        columns: the columns with dlt's type. The header must have exactly these, in any order.
            Timestamps are UTC, with at most microseconds.
        date_format: the format of dates, for strptime; without a time zone, which would move a date.
        rules: by column, a SQL condition about it that every row must meet.
        encoding: Python's name of the encoding. A byte order mark at the start of the file overrides
            UTF-8 with UTF-16 or UTF-32.
        trailing_delimiters: whether a row, and the header, may end in delimiters after its last value.
        delimiter: the character between values, such as ;, | or a tab.
        header_names: by column, its name in the header, where that is another one.
        null_values: by column, texts that load as NULL, such as NA.
        allow_empty: whether a file may have only a header; its load removes the file's earlier rows.

    Raises:
        LookupError: Python does not know the encoding.
        ValueError: a column, a rule or the date format cannot be used; the message says what to change.
    """

    columns: Mapping[str, TColumnSchema]
    date_format: str = "%Y-%m-%d"
    rules: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    allow_empty: bool = False
    trailing_delimiters: bool = False
    delimiter: str = ","
    header_names: Mapping[str, str] = field(default_factory=dict)
    null_values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the declaration."""
        codecs.lookup(self.encoding)
        directives = self.date_format.replace("%%", "")
        if not re.search("%-?[yYGcx]", directives):
            raise ValueError(
                f"The date format {self.date_format} has no year; DuckDB would add 1900"
            )
        if re.search("%-?[zZ]", directives):
            raise ValueError(
                f"The date format {self.date_format} has a time zone, which would move a date; "
                "declare the column as text, or as a timestamp"
            )
        if self.delimiter not in _DELIMITERS:
            raise ValueError(
                f"The delimiter {self.delimiter!r} is not a tab or one of {''.join(sorted(_DELIMITERS)[1:])}"
            )
        for name, hints in self.columns.items():
            _check_type(name, hints)
        _check_names([*self.columns])
        if unknown := self.null_values.keys() - self.columns.keys():
            raise ValueError(
                f"There are null values of {', '.join(unknown)}; declare these columns"
            )
        if single := [name for name, texts in self.null_values.items() if isinstance(texts, str)]:
            raise ValueError(f"The null values of {', '.join(single)} are one text; write a list")
        if unknown := self.header_names.keys() - self.columns.keys():
            raise ValueError(
                f"There are header names of {', '.join(unknown)}; declare these columns"
            )
        in_header = Counter(self.header_names.get(name, name) for name in self.columns)
        if twice := [name for name, count in in_header.items() if count > 1]:
            raise ValueError(f"Several columns have the name {', '.join(twice)} in the header")
        if unknown := self.rules.keys() - self.columns.keys():
            raise ValueError(f"There are rules about {', '.join(unknown)}; declare these columns")

    @property
    def table_columns(self) -> dict[str, TColumnSchema]:
        """The columns of the table; each states whether it is nullable, because Arrow does too."""
        return {
            name: {**hints, "nullable": hints.get("nullable") is not False}
            for name, hints in {"file_name": FILE_NAME_COLUMN, **self.columns}.items()
        }


def rejected_table(table: str) -> str:
    """Return the name of the table with the rejected rows of a table."""
    return f"{table}_rejected"


def _check_type(name: str, hints: TColumnSchema) -> None:
    data_type = hints.get("data_type")
    if data_type not in TYPES:
        raise ValueError(
            f"The column {name} has the type {data_type}; a CSV file has {', '.join(TYPES)}"
        )
    precision, scale = hints.get("precision"), hints.get("scale")
    if data_type == "decimal" and (
        precision is None or scale is None or not 0 <= scale <= precision <= _MAX_PRECISION
    ):
        raise ValueError(
            f"The column {name} is a decimal with precision {precision} and scale {scale}; declare both, "
            f"with at most {_MAX_PRECISION} digits"
        )


def _check_names(names: Sequence[str]) -> None:
    """Raise `ValueError` if two columns would be one in the warehouse, or one is not the file's."""
    taken: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise ValueError("A column has no name; give it one in the file")
        plain = column_name(name)
        if plain == "file_name" or plain.startswith("_dlt"):
            raise ValueError(
                f"The column {name!a} has the name of a column that a load adds; "
                "give it another one, with header_names"
            )
        if plain in taken:
            raise ValueError(
                f"The columns {taken[plain]!a} and {name!a} would be one column of the table"
            )
        taken[plain] = name
