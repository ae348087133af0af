"""Text files whose values have fixed positions in a line."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

from shared.sources.csv.format import CsvFormat
from shared.sources.csv.rows import Row, row_problem
from shared.sources.quoting import quote

_OF_CSV = ("delimiter", "quote", "escape", "trailing_delimiters", "header_names", "extra_columns")


@dataclass(frozen=True)
class FixedWidthFormat(CsvFormat):
    """What a file with values at fixed positions must look like; it is read row by row.

    Spaces around values are padding; a value of spaces alone is NULL. Values are as in `CsvFormat`.

    Attributes:
        positions: by column, the positions of its first and last character; the first of a line is 1.
            Characters that no column has are not read.
        spaces_at_end: whether each line has all of its characters. With False, spaces at the end may be missing.
        header_rows: the number of lines with names, which are not read.

    Raises:
        ValueError: as `CsvFormat`; also for an option of it that has no effect here.
    """

    positions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    spaces_at_end: bool = True
    header_rows: int = 0

    is_delimited = False

    def __post_init__(self) -> None:
        """Check the declaration."""
        super().__post_init__()
        defaults = {each.name: each.default for each in fields(CsvFormat)}
        for option in (*_OF_CSV, "optional"):
            if getattr(self, option) and getattr(self, option) != defaults[option]:
                raise ValueError(f"{option} has no effect in a file of fixed width")
        self._require_declared("positions", self.positions)
        for name in self.columns:
            first, last = self.positions.get(name, (0, 0))
            if not 1 <= first <= last:
                raise ValueError(
                    f"The column {name} has the positions {first} to {last}; declare the first and the last "
                    "one, from 1"
                )

    def split_rows(self, lines: Iterator[str], number: int, width: int) -> Iterator[Row]:
        """Yield the rows of lines; see `CsvFormat.split_rows`."""
        positions = [self.positions[name] for name in self.columns]
        end = max(last for _, last in positions)
        for line_number, line in enumerate(lines, number):
            raw = line.removesuffix("\n").removesuffix("\r")
            if not raw.strip() or (self.comment and raw.startswith(self.comment)):
                continue
            reason = ""
            if raw[end:].strip() or (self.spaces_at_end and len(raw) < end):
                reason = f"it has {len(raw)} characters, and its columns have {end}"
            raw, reason = row_problem(raw, reason)
            cut = [raw[first - 1 : last].strip() for first, last in positions]
            values = self.delimiter.join(quote(value) if value else "" for value in cut)
            yield Row(line_number, raw, reason, self.delimiter * (width - 1) if reason else values)
