"""What a CSV file must look like, and the columns that the source adds."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dlt.common.schema.typing import TColumnSchema

from shared.sources.hints import required_column

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


@dataclass(frozen=True)
class CsvFormat:
    """What a CSV file must look like for its rows to be loaded.

    Attributes:
        columns: the columns with dlt's type. The header must have exactly these, in any order.
            Timestamps are UTC, with at most microseconds.
        date_format: the format of dates, for strptime.
        rules: by column, a SQL condition about it that every row must meet.
        encoding: Python's name of the encoding. A byte order mark at the start of the file overrides
            UTF-8 with UTF-16 or UTF-32.
        allow_empty: whether a file may have only a header; its load removes the file's earlier rows.

    Raises:
        LookupError: Python does not know the encoding.
        ValueError: a rule is about an undeclared column.
    """

    columns: Mapping[str, TColumnSchema]
    date_format: str = "%Y-%m-%d"
    rules: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    allow_empty: bool = False

    def __post_init__(self) -> None:
        """Check the encoding and the columns of the rules."""
        codecs.lookup(self.encoding)
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
