"""What a team declares about a table of a database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, get_args

from dlt.common.schema.typing import TColumnSchema

from shared.sources.database.masks import Mask

Mode = Literal["full", "incremental", "append", "mirror", "history", "window", "changes"]
"""What a load reads of a table, and what it replaces in the warehouse.

- `full`: all rows; the table is replaced in one transaction.
- `incremental`: the rows that are new or changed since the last load; they are upserted by the key.
- `append`: the rows that are new since the last load; each is added once.
- `mirror`: all rows; they are upserted by the key, and rows that are gone are deleted.
- `history`: all rows; a changed row closes its old version and adds a new one (`scd2`).
- `window`: the rows whose cursor is in the time window of the run's partitions; these are replaced.
- `changes`: the changes that Postgres wrote to its log since the last load (logical replication).
"""

_NEEDS_KEY = ("incremental", "mirror", "history", "changes")
_ALL_ROWS = ("full", "mirror", "history")


class TableDeclarationError(ValueError):
    """A `Table` says something that cannot be loaded exactly; the message says what to write."""


@dataclass(frozen=True)
class Table:
    """A table, view or partitioned table of a database, and how it is loaded.

    Attributes:
        name: its name in the database, in the database's own case.
        mode: what a load reads and replaces; see `Mode`.
        schema: the schema of the database; by default the one that the connection has.
        key: the columns that identify a row; by default the primary key of the database.
        cursor: a column that grows with each new or changed row, such as `updated_at`. A table of
            Postgres needs none for `incremental` and `append`: new rows are found by their transactions.
        overlap: how much later than its cursor value a row may commit. If it is given, a load reads
            by the cursor's index and again from `overlap` before the last value. Without it, Postgres
            reads exactly the rows of transactions that the last load did not see, with one scan of
            the table; other databases use `cursors.DEFAULT_OVERLAP`.
        columns: the columns to load; by default all that are not excluded, new ones included.
        exclude: columns that are not read.
        masks: by column, what is done to its values before they are written anywhere.
        types: by column, dlt's hints that replace those of the database's type, such as
            `{"data_type": "decimal", "precision": 18, "scale": 2}` for a numeric without a scale.
        table: the name in the warehouse; by default `name`.
        rows_per_load: a first load of a larger table commits so many rows at a time, in the order of
            its key, and a killed one goes on after the last commit.
        description: what the table is, for its users.
    """

    name: str
    mode: Mode = "full"
    schema: str | None = None
    key: str | Sequence[str] = ()
    cursor: str | None = None
    overlap: timedelta | int | None = None
    columns: Sequence[str] = ()
    exclude: Sequence[str] = ()
    masks: Mapping[str, Mask] = field(default_factory=dict)
    types: Mapping[str, TColumnSchema] = field(default_factory=dict)
    table: str = ""
    rows_per_load: int = 5_000_000
    description: str = ""

    def __post_init__(self) -> None:
        """Reject what cannot be loaded.

        Raises:
            TableDeclarationError: see its message.
        """
        for objection, applies in self._objections().items():
            if applies:
                raise TableDeclarationError(f"Table {self.full_name}: {objection}")

    @property
    def full_name(self) -> str:
        """The name in the database, with its schema if that is declared."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def target(self) -> str:
        """The table's name in the warehouse."""
        return self.table or self.name

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The declared key; empty if it is the primary key of the database."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    def _objections(self) -> dict[str, bool]:
        masked = {*self.masks} & {*self.key_columns, *filter(None, [self.cursor])}
        selected = {*self.key_columns, *filter(None, [self.cursor]), *self.masks, *self.types}
        left_out = selected & {*self.exclude} | (
            selected - {*self.columns} if self.columns else set()
        )
        return {
            f"the mode is {self.mode!r}; it must be one of {', '.join(get_args(Mode))}.": (
                self.mode not in get_args(Mode)
            ),
            "the mode window needs a cursor, the time column whose window a partition loads.": (
                self.mode == "window" and not self.cursor
            ),
            f"the mode {self.mode} reads all rows and has no cursor; leave it out, or write "
            'mode="incremental".': self.mode in _ALL_ROWS and self.cursor is not None,
            "an overlap belongs to a cursor, with the modes incremental and append.": (
                self.overlap is not None
                and not (self.cursor and self.mode in ("incremental", "append"))
            ),
            f"{', '.join(sorted(masked))} is a key or the cursor, whose values decide what is loaded; "
            "mask another column, or exclude it.": any(
                self.masks[name].hides_order or name == self.cursor for name in masked
            ),
            f"{', '.join(sorted(left_out))} is declared, and left out by columns or exclude.": bool(
                left_out
            ),
            "rows_per_load must be 1 or more.": self.rows_per_load < 1,
        }


def needs_key(mode: Mode) -> bool:
    """Return whether rows of a mode are found again by their key."""
    return mode in _NEEDS_KEY
