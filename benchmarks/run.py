"""Measure loads by this workspace, by other systems and by DuckDB alone; see README.md."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from bench_data import DATA, ITEMS_OPTIONS, database, feeds, items
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class System:
    """One way to load: its script, further arguments, and the maximum number of runs."""

    script: str
    arguments: tuple[str, ...] = ()
    max_runs: int = 99


LIMIT, OURS = System("limit.py"), System("ours.py")
SLOW = {
    "dlt_filesystem": System("dlt_filesystem.py"),
    "ingestr": System("ingestr.py", max_runs=1),
    "singer": System("singer.py", max_runs=1),
    "course": System("course.py", max_runs=1),
}


@dataclass(frozen=True)
class Workload:
    """What is loaded, its size, and the systems; `with_imports` measures the whole process."""

    kind: str
    size: int
    systems: Mapping[str, System]
    with_imports: bool = False
    max_runs: int = 99

    def data(self) -> str:
        """Return the input of the systems: a file, a folder or a number; create it if it is missing."""
        if self.kind in ITEMS_OPTIONS:
            return str(items(self.size, self.kind))
        if self.kind == "neows":
            return str(feeds(self.size))
        if self.kind == "database":
            return database(self.size)
        return str(self.size)


WORKLOADS = {
    "csv_replace_1m": Workload(
        "csv",
        1_000_000,
        {"limit": LIMIT, "ours": OURS, "ours_dagster": System("ours.py", ("dagster",))} | SLOW,
    ),
    "csv_replace_3m": Workload("csv", 3_000_000, {"limit": LIMIT, "ours": OURS}, max_runs=3),
    "csv_replace_10m": Workload(
        "csv",
        10_000_000,
        {
            "limit": LIMIT,
            "ours": OURS,
            "ours_dagster": System("ours.py", ("dagster",)),
            "ours_changed": System("ours.py", ("changed",), max_runs=3),
            "ours_unchanged": System("ours.py", ("unchanged",), max_runs=3),
            "dlt_filesystem": System("dlt_filesystem.py", max_runs=1),
        },
    ),
    "csv_replace_30m": Workload("csv", 30_000_000, {"limit": LIMIT, "ours": OURS}, max_runs=1),
    "csv_bucket_1m": Workload(
        "csv",
        1_000_000,
        {"limit": LIMIT, "ours": OURS, "ours_bucket": System("ours.py", ("bucket",))},
        max_runs=3,
    ),
    "csv_postgres_1m": Workload(
        "csv",
        1_000_000,
        {
            "limit": System("limit_postgres.py"),
            "ours": System("ours.py", ("postgres",)),
            "dlt_postgres": System("dlt_postgres.py", max_runs=1),
        },
    ),
    **{
        f"{kind}_replace_{millions}m": Workload(
            kind, millions * 1_000_000, {"limit": LIMIT, "ours": OURS}
        )
        for kind, millions in (("jsonl", 1), ("jsonl", 5), ("parquet", 1), ("parquet", 10))
    },
    "writers_8": Workload(
        "number",
        8,
        {
            "ours": System("ours_writers.py"),
            "ours_postgres": System("ours_writers.py", ("postgres",)),
        },
        max_runs=3,
    ),
    "neows_100k": Workload(
        "neows",
        100_000,
        {
            "limit": System("limit_neows.py"),
            "ours": System("ours_neows.py"),
            "course": System("course_neows.py", max_runs=1),
        },
    ),
    "tiny_run": Workload(
        "csv",
        2,
        {
            "limit": System("imports.py"),
            "ours": OURS,
            "ours_dagster": System("ours.py", ("dagster",)),
        },
        with_imports=True,
    ),
    **{
        f"partitions_{many}": Workload(
            "number",
            many,
            {"limit": System("limit_partitions.py"), "ours": System("ours_partitions.py")},
            max_runs=1,
        )
        for many in (1, 30, 365, 3650)
    },
    **{
        f"locations_{many}": Workload(
            "number", many, {"ours": System("ours_locations.py")}, max_runs=1
        )
        for many in (3, 10, 30)
    },
}


def database_systems(kind: str) -> dict[str, System]:
    """Return the systems that copy a table of Postgres into a warehouse of a kind."""
    ours, plain = "ours_database.py", "dlt_database.py"
    systems = {
        "limit": System("limit_database.py", (kind,)),
        "ours": System(ours, (kind,)),
        "ours_incremental": System(ours, (kind, "incremental")),
        "dlt_sqlalchemy": System(plain, (kind, "sqlalchemy"), max_runs=2),
        "dlt_pyarrow": System(plain, (kind, "pyarrow"), max_runs=2),
        "dlt_connectorx": System(plain, (kind, "connectorx"), max_runs=2),
    }
    return systems | ({"sling": System("sling_database.py", (kind,))} if kind == "postgres" else {})


def large_systems(kind: str) -> dict[str, System]:
    """Return those of `database_systems` of which the memory for a large table is of interest."""
    return {name: system for name, system in database_systems(kind).items() if "dlt" not in name}


for kind in ("duckdb", "postgres"):
    nothing_new = {"ours": System("ours_database.py", (kind, "nothing_new"))}
    WORKLOADS |= {
        f"postgres_{kind}_2m": Workload("database", 2_000_000, database_systems(kind)),
        f"postgres_{kind}_20m": Workload("database", 20_000_000, large_systems(kind), max_runs=1),
        f"postgres_{kind}_nothing_new": Workload("database", 2_000_000, nothing_new),
    }
BY_REQUEST = {
    "csv_replace_100m": Workload("csv", 100_000_000, {"limit": LIMIT, "ours": OURS}, max_runs=1),
    "locations_100": Workload("number", 100, {"ours": System("ours_locations.py")}, max_runs=1),
}


@dataclass
class Measured:
    """What the runs of a system took; the seconds are without start and imports."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    rows: int | None = None
    error: str | None = None


def find_uv() -> str:
    """Return the uv program; without one, exit with a message that names the next step."""
    uv = os.environ.get("UV") or "uv"
    if found := shutil.which(uv):
        return found
    sys.stderr.write(
        f"{uv} was not found. Run `make bench`, which installs uv into .uv/, "
        "or add the folder of uv to PATH.\n"
    )
    sys.exit(2)


def interpreter(script: Path) -> str:
    """Return the Python for a script: the workspace's, or one with the script's dependencies."""
    if "# /// script" not in script.read_text():
        return sys.executable
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    uv = find_uv()
    subprocess.run([uv, "sync", "--quiet", "--script", str(script)], check=True, env=clean)
    found = subprocess.run(
        [uv, "python", "find", "--script", str(script)],
        check=True,
        env=clean,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def run_once(workload: Workload, system: System, data: str, measured: Measured) -> None:
    """Run a system once, in its own process and folder."""
    script = HERE / "systems" / system.script
    python = interpreter(script)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
            started_at = time.perf_counter()
            process = subprocess.Popen(
                [python, script, data, folder, *system.arguments],
                stdout=out,
                stderr=err,
                env={**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false", "DO_NOT_TRACK": "1"},
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started_at
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            lines = [line for line in out.read().splitlines() if line.startswith("{")]
            if process.returncode or not lines:
                measured.error = err.read()[-300:].strip() or f"exit code {process.returncode}"
                return
        result = json.loads(lines[-1])
        measured.rows = result["rows"] if "rows" in result else count_rows(folder)
        measured.seconds.append(seconds if workload.with_imports else result["seconds"])
        measured.cpu.append(result.get("cpu_seconds") or usage.ru_utime + usage.ru_stime)
        measured.peak_mb.append(result.get("peak_mb") or usage.ru_maxrss / 1024)
    finally:
        shutil.rmtree(folder)


def count_rows(folder: Path) -> int:
    """Return the number of rows that a run loaded into its DuckDB file."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        ((counted,),) = connection.execute("SELECT count(*) FROM bench.items").fetchall()
    return int(counted)


def measure(name: str, workload: Workload, runs: int) -> list[dict[str, Any]]:
    """Run the systems of a workload alternately and return the result of each."""
    data = workload.data()
    measured = {system: Measured() for system in workload.systems}
    for n in range(min(runs, workload.max_runs)):
        for system_name, system in workload.systems.items():
            results = measured[system_name]
            if n < system.max_runs and results.error is None:
                run_once(workload, system, data, results)
                outcome = results.error or f"{results.seconds[-1]:.2f} s"
                sys.stderr.write(f"{name}, {system_name}, run {n + 1}: {outcome}\n")
    limit = measured.get("limit")

    def median(numbers: list[float], reference: list[float] | None = None) -> float | None:
        if not numbers or reference == []:
            return None
        return round(
            statistics.median(numbers) / (statistics.median(reference) if reference else 1), 3
        )

    return [
        {
            "workload": name,
            "system": system,
            "rows": found.rows,
            "seconds": median(found.seconds),
            "ratio_to_limit": median(found.seconds, limit.seconds) if limit else None,
            "cpu_seconds": median(found.cpu),
            "cpu_ratio_to_limit": median(found.cpu, limit.cpu) if limit else None,
            "peak_mb": median(found.peak_mb),
            "runs": len(found.seconds),
            "error": found.error,
        }
        for system, found in measured.items()
    ]


HEADINGS = ("workload", "system", "rows", "seconds", "x limit", "CPU s", "x limit", "peak MB")


def table_row(result: Mapping[str, Any]) -> list[str]:
    """Return the row of a result in the table."""
    numbers = ("seconds", "ratio_to_limit", "cpu_seconds", "cpu_ratio_to_limit", "peak_mb")
    rows, error = result["rows"], str(result["error"]).replace("\n", " ")
    return [
        result["workload"],
        result["system"],
        f"failed: {error}" if rows is None else f"{rows:,}",
        *("" if result[name] is None else f"{result[name]:,.2f}" for name in numbers),
    ]


def show(results: Iterable[Mapping[str, Any]]) -> None:
    """Print the table."""
    table = Table(*HEADINGS)
    for result in results:
        table.add_row(*table_row(result))
    Console(width=120).print(table)


def page(results: Iterable[Mapping[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(table_row, results)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Measure, print, and write results/latest.json and the charts."""
    parser = argparse.ArgumentParser(description=__doc__)
    workloads = WORKLOADS | BY_REQUEST
    parser.add_argument("workloads", nargs="*", help=", ".join(workloads))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := set(options.workloads) - workloads.keys():
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(workloads)}")
    find_uv()  # before the first measurement: the charts need it as well
    DATA.mkdir(exist_ok=True)
    options.results.mkdir(exist_ok=True)
    latest = options.results / "latest.json"
    for name in options.workloads or WORKLOADS:
        results = measure(name, workloads[name], options.runs)
        before = json.loads(latest.read_text()) if latest.exists() else []
        kept = [each for each in before if each["workload"] != name]
        order = list(workloads)
        kept = sorted([*kept, *results], key=lambda each: order.index(each["workload"]))
        latest.write_text(json.dumps(kept, indent=2) + "\n")
    measured = json.loads(latest.read_text())
    show(measured)
    (options.results / "latest.md").write_text(page(measured))
    plot = HERE / "plot.py"
    subprocess.run([interpreter(plot), plot, options.results], check=True)


if __name__ == "__main__":
    main()
