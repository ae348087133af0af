"""What files of a kind must look like, and what is read from them."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import REJECTED_COLUMNS
from shared.sources.drop_folder import shorten
from shared.sources.hints import arrow_schema

BATCH_ROWS = 100_000
"""Rows that dlt gets at a time; limits memory."""

_TYPES = {
    *("text", "bigint", "double", "bool", "decimal"),
    *("date", "time", "timestamp", "binary", "json"),
}


class RejectedRow(NamedTuple):
    """A row that must not load: where it is in the file, why, and its text."""

    location: tuple[int, ...]
    reason: str
    raw: str


class Batch(NamedTuple):
    """Rows of a file: those that load, with the types of the table, and the others."""

    rows: pa.Table
    rejected: list[RejectedRow]


@dataclass(frozen=True)
class FileFormat(ABC):
    """What a file must look like for its rows to be loaded.

    Attributes:
        columns: the columns with dlt's types, except `wei`. Only decimals have a `precision`.
            A timestamp is an instant; with `"timezone": False` it is a local time.
        rules: by column, a SQL condition about it that every row must meet.
        optional: columns that may be missing; then they are NULL. Without it, a missing column is an
            error, as an undeclared one always is.
        allow_empty: whether a file may have no rows; its load removes the file's earlier rows.

    Raises:
        ValueError: a column, a rule or an optional column cannot be declared in this way.
    """

    columns: Mapping[str, TColumnSchema]
    rules: Mapping[str, str] = field(default_factory=dict)
    optional: Collection[str] = ()
    allow_empty: bool = False

    location: ClassVar[Mapping[str, TColumnSchema]]
    """The columns that say where in its file a rejected row is."""

    def __post_init__(self) -> None:
        """Check the declaration."""
        names = {name.lower() for name in self.columns}
        if len(names) < len(self.columns):
            raise ValueError("Two columns differ only in case; the warehouse has one of them")
        for name, hints in self.columns.items():
            if name.lower() == "file_name" or name.lower().startswith("_dlt"):
                raise ValueError(f"The column {name} is one that each table has; rename it")
            if hints["data_type"] not in _TYPES:
                raise ValueError(f"{name} is {hints['data_type']}; files have {sorted(_TYPES)}")
            if hints["data_type"] != "decimal" and hints.get("precision"):
                raise ValueError(f"{name} has a precision; only decimals can have one here")
        for name in {*self.rules, *self.optional} - self.columns.keys():
            raise ValueError(f"There is a rule about {name}, or it is optional; declare it")
        for name in self.optional:
            if self.columns[name].get("nullable") is False:
                raise ValueError(f"{name} is never NULL, so it cannot be optional")

    @property
    def table_columns(self) -> dict[str, TColumnSchema]:
        """The columns of the table; each states whether it is nullable, because Arrow does too."""
        return {
            name: {**hints, "nullable": hints.get("nullable") is not False}
            for name, hints in {
                "file_name": REJECTED_COLUMNS["file_name"],
                **self.columns,
            }.items()
        }

    @property
    def rejected_columns(self) -> dict[str, TColumnSchema]:
        """The columns of the table of rejected rows."""
        file_name, reason, raw = (REJECTED_COLUMNS[name] for name in ("file_name", "reason", "raw"))
        return {"file_name": file_name, **self.location, "reason": reason, "raw": raw}

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the declared columns."""
        return arrow_schema({name: self.table_columns[name] for name in self.columns})

    @abstractmethod
    def read(self, file: Path) -> Iterator[Batch]:
        """Yield all rows of a local file.

        Raises:
            ValueError: the file as a whole must not load; the message is the reason.
        """

    def pushdown_select(self, file: Path) -> str | None:
        """Return SQL of all rows, typed, that fails on a bad row; None if `read` has to check them."""
        del file
        return None

    def column_problems(self, names: Iterable[str]) -> list[str]:
        """Return which columns are missing, undeclared or repeated."""
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        found = {
            "is missing": [*(self.columns.keys() - seen - set(self.optional))],
            "is not declared": [*(seen - self.columns.keys())],
            "is there twice": repeated,
        }
        return [
            f"column {show(name)} {problem}"
            for problem, each in found.items()
            for name in sorted(each)
        ]


def show(value: object) -> str:
    """Return a value for a message: in quotes, with invisible characters escaped, and not too long."""
    return shorten(repr(value))
