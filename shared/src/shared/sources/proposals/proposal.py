"""What the rows of one file say about its format: a proposal, which a person edits."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import combinations
from pathlib import Path
from typing import Any, TextIO

import duckdb
import fsspec
import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema

from shared.sources.quoting import quote

MAX_ROWS = 200_000
"""How many rows a proposal is made from."""

_MAX_KEY_CANDIDATES = 8
_KEY_NAME = re.compile(r"(^|_)(id|key|code|number|no|symbol)$", re.IGNORECASE)


@dataclass(frozen=True)
class Proposal:
    """What a file's rows say about its format.

    Attributes:
        file: the file.
        format_name: the class of its format, such as `CsvFormat`.
        suffix: how the names of such files end, without the suffix of a compression.
        rows: how many rows were read.
        columns: the columns, with dlt's types.
        key: the columns whose values identify a row; none if no one or two columns do.
        notes: what a person should check, by column or option.
        options: other arguments of the format.
        remarks: what a person should know about the choice of the rows.
        files: how many files were read.
        folder: the path or the URL of the folder with such files; "" for that of the file.
    """

    file: Path
    format_name: str
    suffix: str
    rows: int
    columns: Mapping[str, TColumnSchema]
    key: Sequence[str]
    notes: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    files: int = 1
    folder: str = ""


def find_key(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, TColumnSchema],
    rows: int,
) -> Sequence[str]:
    """Return one or two columns without two equal rows; those with the name of a key come first.

    A number alone is a key only by its name or in the first column: amounts differ by chance.

    Args:
        connection: a connection that has the table.
        table: the name of the table with the rows.
        columns: its columns; a column that may be NULL is not a key.
        rows: the number of its rows.
    """
    filled = [name for name, hints in columns.items() if not hints.get("nullable", True)]
    kinds = {name: columns[name]["data_type"] for name in filled}
    candidates = sorted(
        (name for name in filled if kinds[name] in ("text", "bigint", "date", "timestamp")),
        key=lambda name: not _KEY_NAME.search(name),
    )[:_MAX_KEY_CANDIDATES]
    first = next(iter(columns))
    single = [
        (name,)
        for name in candidates
        if kinds[name] != "bigint" or name == first or _KEY_NAME.search(name)
    ]
    for key in (*single, *combinations(candidates, 2)):
        names = ", ".join(map(quote, key))
        distinct = f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM {table})"
        if connection.execute(distinct).fetchone() == (rows,):
            return key
    return ()


def find_key_of_table(table: pa.Table, columns: Mapping[str, TColumnSchema]) -> Sequence[str]:
    """Return the key of an Arrow table, as `find_key` does."""
    with duckdb.connect() as connection:
        connection.register("rows_of_file", table)
        return find_key(connection, "rows_of_file", columns, table.num_rows)


@contextmanager
def open_sample(proposal: Proposal, folder: Path) -> Iterator[TextIO]:
    """Create a file in a folder with the name of a proposal's file, and with its compression.

    With another name, the rows of the sample would stay in the table beside those of the file.
    """
    file = folder / proposal.file.name
    encoding = proposal.options.get("encoding", "utf-8")
    if file.suffix.lower() == ".zst":  # which fsspec does not write
        stream = pa.CompressedOutputStream(pa.OSFile(str(file), "wb"), "zstd")
        with stream, TextIOWrapper(stream, encoding=encoding, newline="") as sample:
            yield sample
        return
    options = {"compression": "infer", "encoding": encoding, "newline": ""}
    with fsspec.open(str(file), "wt", **options) as sample:
        yield sample
