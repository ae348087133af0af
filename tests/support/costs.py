"""Counts what a run costs: SQL statements, connections, files and events. Counts do not depend on a clock."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlglot.dialects.dialect import Dialect

_CREATES = os.O_CREAT | os.O_WRONLY | os.O_RDWR
_opened: list[Counter[str]] = []
"""The counters to which the audit hook adds; a hook stays until the process ends."""


def _count_file(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened and arguments[2] & _CREATES:
        _opened[-1]["files"] += 1


sys.addaudithook(_count_file)


@contextmanager
def duckdb_costs() -> Iterator[Counter[str]]:
    """Yield the counts of this block: DuckDB's `statements` and `connections`, and `files` opened to write.

    Files that Arrow or DuckDB write themselves are not among them. `parsed` are the texts that sqlglot
    parses, also a type's name.
    """
    counts: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return call

    connection = duckdb.DuckDBPyConnection
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(duckdb, "connect", counting("connections", duckdb.connect))
        for name in ("execute", "executemany", "sql"):
            method = getattr(connection, name)
            patched.setattr(connection, name, counting("statements", method))
        patched.setattr(Dialect, "tokenize", counting("parsed", Dialect.tokenize))
        _opened.append(counts)
        try:
            yield counts
        finally:
            _opened.pop()


@contextmanager
def postgres_costs(log: Path) -> Iterator[Counter[str]]:
    """Yield the counts of this block: `statements` and `connections` in the log of a Postgres server.

    Args:
        log: the log of a server with `log_statement=all` and `log_connections=on`.
    """
    counts: Counter[str] = Counter()
    start = log.stat().st_size
    yield counts
    with log.open(encoding="utf-8") as lines:
        lines.seek(start)
        for line in lines:
            counts["statements"] += "LOG:  statement: " in line
            counts["connections"] += "LOG:  connection authorized" in line


def assert_growth(
    counts: Mapping[int, Mapping[str, int]], cost: str, *, constant: int, slope: int
) -> None:
    """Check that a cost is at most a constant and so much for each part.

    Args:
        counts: by the number of parts, what was counted.
        cost: the name of the count.
        constant: what no part costs, at most.
        slope: what one part adds, at most.
    """
    found = {size: of_size[cost] for size, of_size in sorted(counts.items())}
    assert any(found.values()), f"nothing counted {cost}"
    allowed = {size: constant + slope * size for size in found}
    above = {size: count for size, count in found.items() if count > allowed[size]}
    assert not above, f"{cost}: {found}; at most {constant} and {slope} for each"
