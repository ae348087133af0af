"""Results as a table on the terminal and as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

HEADINGS = ("workload", "system", "rows", "seconds", "x limit", "CPU s", "x limit", "peak MB")
MORE_HEADINGS = ("runs", "noise", "measured on")

Result = Mapping[str, Any]


def table_row(result: Result) -> list[str]:
    """Return the row of a result in the table."""
    numbers = ("seconds", "ratio_to_limit", "cpu_seconds", "cpu_ratio_to_limit", "peak_mb")
    rows, error = result["rows"], str(result["error"]).replace("\n", " ")
    return [
        result["workload"],
        result["system"],
        f"failed: {error}" if rows is None else f"{rows:,}",
        *("" if result[name] is None else f"{result[name]:,.2f}" for name in numbers),
    ]


def show(results: Iterable[Result]) -> None:
    """Print the table."""
    table = Table(*HEADINGS)
    for result in results:
        table.add_row(*table_row(result))
    Console(width=120).print(table)


def page(results: Sequence[Result]) -> str:
    """Return the table as Markdown, with the machines that it was measured on below it."""
    machines = list(dict.fromkeys(map(_machine, results)))
    rows = [
        [
            *table_row(result),
            str(result["runs"]),
            "" if result["noise"] is None else f"{result['noise']:.0%}",
            str(machines.index(_machine(result)) + 1),
        ]
        for result in results
    ]
    lines = [f"{number}. {text}" for number, text in enumerate(machines, 1)]
    return "\n".join([markdown((*HEADINGS, *MORE_HEADINGS), rows), "Measured on:", "", *lines, ""])


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _machine(result: Result) -> str:
    return f"{result['date']}: {result['cpu']}; {result['versions']}"
