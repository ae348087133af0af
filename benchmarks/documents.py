"""Write the measured figures into the documents, so that none of them is typed.

A figure's place is between two comments, `<!-- figures: NAME -->` and `<!-- end of figures -->`.
Run this file after a change of `BLOCKS`; `run.py` calls it after each measurement.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import Result, markdown

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

Results = Mapping[tuple[str, str], Result]


@dataclass(frozen=True)
class Block:
    """A table of figures.

    Attributes:
        first: the heading of the first column.
        rows: by the text of the first column, a workload and a system.
        columns: by heading, the text of a result.
    """

    first: str
    rows: Mapping[str, tuple[str, str]]
    columns: Mapping[str, Callable[[Result], str]]

    def table(self, results: Results) -> str:
        """Return the table in Markdown; a result that was not measured has no row."""
        found = {text: results[key] for text, key in self.rows.items() if key in results}
        rows = [
            [text, *(value(result) for value in self.columns.values())]
            for text, result in found.items()
            if result["seconds"] is not None
        ]
        return markdown((self.first, *self.columns), rows)


def _number(name: str, form: str) -> Callable[[Result], str]:
    return lambda result: "" if result[name] is None else format(result[name], form)


def _seconds(result: Result) -> str:
    seconds = result["seconds"]
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.1f}"  # noqa: PLR2004 - three digits


RATIO = _number("ratio_to_limit", ",.2f")
ROWS = _number("rows", ",")
NOISE = _number("noise", ".0%")
RUNS = _number("runs", "")
COMPARED: Mapping[str, Callable[[Result], str]] = {
    "seconds": _seconds,
    "as a multiple of the limit": RATIO,
    "spread of the limit's runs": NOISE,
    "runs": RUNS,
}


def _pairs(texts: Mapping[str, str], system: str = "ours") -> dict[str, tuple[str, str]]:
    return {text: (workload, system) for workload, text in texts.items()}


BLOCKS = {
    "compare": Block(
        "system",
        {
            "DuckDB alone": ("csv_replace_1m", "limit"),
            "this repository": ("csv_replace_1m", "ours"),
            "this repository, as a Dagster run": ("csv_replace_1m", "ours_dagster"),
            "dlt alone, its `filesystem` source with DuckDB": ("csv_replace_1m", "dlt_filesystem"),
            "Singer tap and target, as Meltano would run them": ("csv_replace_1m", "singer"),
            "dlt as in tutorials, rows from pandas": ("csv_replace_1m", "course"),
        },
        {
            "seconds": _seconds,
            "CPU seconds, imports included": _number("cpu_seconds", ",.1f"),
            "rows loaded": ROWS,
        },
    ),
    "postgres": Block(
        "a million rows of CSV into Postgres",
        {
            "Postgres' own `COPY`": ("csv_postgres_1m", "limit"),
            "this repository": ("csv_postgres_1m", "ours"),
            "plain dlt with Arrow": ("csv_postgres_1m", "dlt_postgres"),
        },
        COMPARED,
    ),
    "writers": Block(
        "eight processes, 125,000 rows each",
        {
            "into one DuckDB file": ("writers_8", "ours"),
            "into Postgres": ("writers_8", "ours_postgres"),
        },
        {
            "seconds": _seconds,
            "rows a second": lambda result: f"{result['rows'] / result['seconds']:,.0f}",
        },
    ),
    "files": Block(
        "a load into DuckDB",
        _pairs(
            {
                "csv_replace_1m": "1,000,000 rows of CSV",
                "csv_replace_10m": "10,000,000 rows of CSV",
                "jsonl_replace_1m": "1,000,000 JSON lines",
                "jsonl_replace_5m": "5,000,000 JSON lines",
                "parquet_replace_1m": "1,000,000 rows of Parquet",
                "parquet_replace_10m": "10,000,000 rows of Parquet",
                "neows_100k": "100,000 asteroids from an API on loopback",
            }
        ),
        {**COMPARED, "peak MB": _number("peak_mb", ",.0f")},
    ),
    "fixed": Block(
        "a process that loads two rows",
        {
            "the imports of Dagster, dagster-dlt and dlt alone": ("tiny_run", "limit"),
            "a pipeline, which does not import Dagster": ("tiny_run", "ours"),
            "plain dlt, with the rows in a list": ("tiny_run", "plain_dlt"),
            "a Dagster run": ("tiny_run", "ours_dagster"),
            "a Dagster run by plain dagster-dlt, with the rows in a list": (
                "tiny_run",
                "plain_dagster",
            ),
            "a Dagster run of an asset that does nothing": ("tiny_run", "dagster"),
        },
        COMPARED,
    ),
    "partitions": Block(
        "one run",
        {
            f"partitions: {many:,}, {text}": (f"partitions_{many}", system)
            for many in (1, 365, 3650)
            for system, text in {"dagster": "Dagster alone", "ours": "loaded"}.items()
        },
        {"seconds": _seconds, "rows": ROWS},
    ),
    "unique_check": Block(
        "what the check reads",
        {
            "one partition, by DuckDB alone": ("unique_check_20m", "limit"),
            "one partition": ("unique_check_20m", "ours"),
            "one partition, and the keys of the whole table": ("unique_check_20m", "ours_key"),
            "the whole table": ("unique_check_20m", "ours_whole"),
        },
        {"seconds": _number("seconds", ",.2f"), "rows": ROWS, "runs": RUNS},
    ),
    "tables": Block(
        "the definitions of a location",
        {
            f"{many:,} tables, {text}": (f"tables_{many}", system)
            for many in (20, 200, 2000)
            for system, text in {"limit": "plain Dagster assets", "ours": "loaded by dlt"}.items()
        },
        {"seconds": _seconds, "peak MB": _number("peak_mb", ",.0f")},
    ),
    "locations": Block(
        "a workspace",
        {
            f"{many} locations, {text}": (f"locations_{many}", system)
            for many in (3, 10, 30, 100)
            for system, text in {
                "limit": "`dagster dev`, locations that only import",
                "ours": "`dagster dev`",
                "ours_preloaded": "`etl dev`",
            }.items()
        },
        {"seconds": _seconds, "GB": lambda result: f"{result['peak_mb'] / 1024:.2f}"},
    ),
}


CSV_BYTES = 705_572_048
"""The size of the file of `csv_replace_10m`."""

DAY = 86_400


def scale(results: Results) -> str:
    """Return the table of docs/scale.md: what was measured, and what the plan needs."""

    def value(workload: str, name: str, system: str = "ours") -> float:
        return float(results[workload, system][name])

    def slope(prefix: str, few: int, many: int, name: str, system: str = "ours") -> float:
        more, less = (value(f"{prefix}_{size}", name, system) for size in (many, few))
        return (more - less) / (many - few)

    def location(command: str, system: str) -> list[str]:
        mb, seconds = (slope("locations", 3, 30, name, system) for name in ("peak_mb", "seconds"))
        return [
            f"one more code location, `{command}`",
            f"{mb:,.0f} MB, {seconds:,.1f} s to load",
            f"100 locations: {mb / 10.24:,.1f} GB, {seconds / 0.6:,.1f} min on one machine",
        ]

    table = slope("tables", 20, 2000, "seconds")
    run = value("tiny_run", "cpu_seconds", "ours_dagster")
    load = value("csv_replace_10m", "cpu_seconds") / (CSV_BYTES / 1e9)
    partition = slope("partitions", 1, 3650, "seconds")
    rows = [
        location("dagster dev", "ours"),
        location("etl dev", "ours_preloaded"),
        [
            "the definitions of one more table",
            f"{table * 1000:,.1f} ms",
            f"20 tables of a team: {table * 20:,.2f} s",
        ],
        [
            "a Dagster run, imports included",
            f"{run:,.1f} CPU s",
            f"2,000 runs a day: {run * 2000 / DAY:,.2f} cores",
        ],
        [
            "1 GB of CSV into DuckDB",
            f"{load:,.0f} CPU s",
            f"1 TB a day: {load * 1000 / DAY:,.2f} cores",
        ],
        [
            "one more partition in a run",
            f"{partition * 1000:,.1f} ms",
            f"the first backfill, 7.3 million: {partition * 7.3e6 / 3600:,.1f} h",
        ],
    ]
    return markdown(("what", "measured here", "for the plan"), rows)


def write_figures(text: str, results: Results) -> str:
    """Return a document with the figures of all of its blocks."""

    def figures(found: re.Match[str]) -> str:
        table = scale(results) if found[2] == "scale" else BLOCKS[found[2]].table(results)
        return f"{found[1]}\n{table}\n{found[3]}"

    return _BLOCK.sub(figures, text)


def documents_with_figures(measured: Iterable[Result]) -> dict[Path, str]:
    """Return the documents that have figures, with those of some results."""
    results = {(each["workload"], each["system"]): each for each in measured}
    texts = {file: file.read_text() for file in sorted(ROOT.glob("docs/*.md"))}
    return {
        file: write_figures(text, results) for file, text in texts.items() if _BLOCK.search(text)
    }


def update_documents(measured: Iterable[Result]) -> None:
    """Write the figures of some results into the documents."""
    for file, text in documents_with_figures(measured).items():
        file.write_text(text)


if __name__ == "__main__":
    latest: list[Any] = json.loads((ROOT / "benchmarks/results/latest.json").read_text())
    update_documents(latest)
