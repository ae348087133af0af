"""What files of a kind must look like, and what is read from them."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from dlt.common.schema.typing import TColumnSchema

from shared.lazy_modules import pyarrow as pa
from shared.lazy_modules import pyarrow_parquet as pq
from shared.sources.drop_folder import shorten
from shared.sources.files.sql import read_parquet
from shared.sources.hints import arrow_schema, required_column, with_source_fields
from shared.sources.names import column_name

BATCH_ROWS = 100_000
"""Rows that dlt gets at a time; limits memory."""

CHECKS_DATABASE = ":memory:files"
"""DuckDB's database in memory in which rows are checked. It exists while a connection to it is open: to
create one takes 30 ms, and another connection 0.5 ms, so one connection stays open for many files."""

FILE_NAME_COLUMN = required_column(
    "text", "The file of the row, as a path below the drop folder.", partition=True
)
"""The column added to every row. A load replaces all rows of its files."""

OnBadRows = Literal["fail", "quarantine"]
"""What a row that does not match the format does: fail its file, or go to the rejected rows."""

_TYPES = (
    *("text", "bigint", "double", "bool", "decimal"),
    *("date", "time", "timestamp", "binary", "json"),
)


class RejectedRow(NamedTuple):
    """A row that must not load: where it is in the file, why, and its text."""

    location: tuple[int, ...]
    reason: str
    raw: str


class Batch(NamedTuple):
    """Rows of a file: those that load, with the types of the table, and the others."""

    rows: "pa.Table"
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
        _check_names(self.row_columns)
        for name, hints in self.columns.items():
            if hints.get("data_type") not in _TYPES:
                raise ValueError(
                    f"The column {name} has the type {hints.get('data_type')}; "
                    f"a file has {', '.join(_TYPES)}"
                )
            if hints["data_type"] != "decimal" and hints.get("precision"):
                raise ValueError(
                    f"The column {name} has a precision; only decimals can have one here"
                )
        self._require_declared("rules", self.rules)
        self._require_declared("optional columns", self.optional)
        for name in self.optional:
            if self.columns[name].get("nullable") is False:
                raise ValueError(f"The column {name} is never NULL, so it cannot be optional")

    def _require_declared(self, what: str, names: Iterable[str]) -> None:
        if unknown := [name for name in names if name not in self.columns]:
            raise ValueError(f"There are {what} named {', '.join(unknown)}; declare these columns")

    @property
    def row_columns(self) -> Mapping[str, TColumnSchema]:
        """The columns of the rows that are read."""
        return self.columns

    @property
    def table_columns(self) -> dict[str, TColumnSchema]:
        """The columns of the table; each states whether it is nullable, because Arrow does too."""
        fields = with_source_fields(self.columns, fields=self.source_fields)
        return {
            name: {**hints, "nullable": hints.get("nullable") is not False}
            for name, hints in {"file_name": FILE_NAME_COLUMN, **self.row_columns, **fields}.items()
        }

    @property
    def source_fields(self) -> Mapping[str, str]:
        """The names that columns have in the file, where they differ."""
        return {}

    @property
    def rejected_columns(self) -> dict[str, TColumnSchema]:
        """The columns of the table of rejected rows."""
        return {
            "file_name": FILE_NAME_COLUMN,
            **self.location,
            "reason": required_column("text", "Why the row was rejected, by column."),
            "raw": required_column("text", "The text of the row in the file."),
        }

    @property
    def schema(self) -> "pa.Schema":
        """The Arrow schema of the rows that are read."""
        return arrow_schema({name: self.table_columns[name] for name in self.row_columns})

    @abstractmethod
    def read(self, file: Path) -> Iterator[Batch]:
        """Yield all rows of a local file.

        Raises:
            ValueError: the file as a whole must not load; the message is the reason.
        """

    def pushdown_select(self, file: Path, folder: Path) -> str | None:
        """Return DuckDB's SQL of all rows, typed, that fails on a bad row; None if it must not be run.

        A format overrides this where DuckDB reads its files exactly.

        Args:
            file: a local file.
            folder: an empty folder for what the query reads.
        """
        return self.checked_copy_select(self.read(file), folder)

    def checked_copy_select(self, batches: Iterator[Batch], folder: Path) -> str | None:
        """Write rows to a Parquet file, and return the SQL that reads it; None if there is a bad row, or no row."""
        copy, count = folder / "rows.parquet", 0
        try:
            with pq.ParquetWriter(copy, self.schema) as writer:
                for batch in batches:
                    if batch.rejected:
                        return None
                    writer.write_table(batch.rows)
                    count += len(batch.rows)
        except ValueError:
            return None
        return f"SELECT * FROM {read_parquet(copy, self.schema.names)}" if count else None

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


def header_names(header: Sequence[Sequence[Any]]) -> list[str]:
    """Return the names of columns, of one or several header rows; a name above others is for each of them."""
    names: list[list[str]] = [[] for _ in range(max(map(len, header), default=0))]
    for level, row in enumerate(header):
        above = None
        for column, value in zip_longest(range(len(names)), row):
            is_last = level == len(header) - 1
            above = value if value not in (None, "") or is_last else above
            if above not in (None, ""):
                names[column].append(str(above))
    return [" ".join(parts) for parts in names]


def rejected_table(table: str) -> str:
    """Return the name of the table with the rejected rows of a table."""
    return f"{table}_rejected"


def show(value: object) -> str:
    """Return a value for a message: in quotes, with invisible characters escaped, and not too long."""
    return shorten(repr(value))


def _check_names(names: Iterable[str]) -> None:
    """Raise `ValueError` if two columns would be one in the warehouse, or one is not the file's."""
    taken: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise ValueError("A column has no name; give it one in the file")
        plain = column_name(name)
        if plain == "file_name" or plain.startswith("_dlt"):
            raise ValueError(
                f"The column {name!a} has the name of a column that a load adds; give it another one"
            )
        if plain in taken:
            raise ValueError(
                f"The columns {taken[plain]!a} and {name!a} would be one column of the table"
            )
        taken[plain] = name
