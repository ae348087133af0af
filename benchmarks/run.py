"""Times loads of the same file by this workspace, by others and by DuckDB alone; see README.md."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GENERATED = """
    COPY (
        SELECT i AS id,
            DATE '2015-01-01' + (hash(i) % 4000)::INTEGER AS day,
            'C' || lpad((hash(i * 7) % 100000)::VARCHAR, 6, '0') AS code,
            ((hash(i * 3) % 10000000) / 100)::DECIMAL(18, 2) AS price,
            hash(i * 5) % 1000 AS pieces,
            'item number ' || (hash(i * 11) % 1000000) || ' of the list' AS note
        FROM range({rows}) AS numbers(i)
    ) TO '{file}' (HEADER)
"""


@dataclass(frozen=True)
class System:
    """One way to load: its script, what it gets besides, and how often at most it is run."""

    script: str
    arguments: tuple[str, ...] = ()
    most_runs: int = 99
    most_rows: int = 100_000_000


SYSTEMS = {
    "limit": System("limit.py"),
    "ours": System("ours.py"),
    "ours_dagster": System("ours.py", ("dagster",)),
    "dlt_filesystem": System("dlt_filesystem.py"),
    "ingestr": System("ingestr.py", most_runs=1, most_rows=1_000_000),
    "course": System("course.py", most_runs=1, most_rows=1_000_000),
}


@dataclass
class Measured:
    """What the runs of a system took; seconds are its own, without start and imports."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    rows: int | None = None
    error: str | None = None


def interpreter(script: Path) -> str:
    """Returns the Python that runs a script: the workspace's, or one with what the script names."""
    if "# /// script" not in script.read_text():
        return sys.executable
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    uv = os.environ.get("UV", "uv")
    subprocess.run([uv, "sync", "--quiet", "--script", str(script)], check=True, env=clean)
    found = subprocess.run(
        [uv, "python", "find", "--script", str(script)],
        check=True,
        env=clean,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def run_once(python: str, system: System, file: Path, measured: Measured) -> None:
    """Runs a system once, in a process and a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
            process = subprocess.Popen(
                [python, HERE / "systems" / system.script, file, folder, *system.arguments],
                stdout=out,
                stderr=err,
                env={**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false", "DO_NOT_TRACK": "1"},
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            told = [line for line in out.read().splitlines() if line.startswith("{")]
            if process.returncode or not told:
                measured.error = err.read()[-300:].strip() or f"exit code {process.returncode}"
                return
        with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
            (counted,) = connection.execute("SELECT count(*) FROM bench.items").fetchall()
        measured.rows = counted[0]
        measured.seconds.append(json.loads(told[0])["seconds"])
        measured.cpu.append(usage.ru_utime + usage.ru_stime)
        measured.peak_mb.append(usage.ru_maxrss / 1024)
    finally:
        shutil.rmtree(folder)


def measure(rows: int, runs: int, names: list[str], data: Path) -> list[dict[str, object]]:
    """Runs the systems in turns, and returns a result for each."""
    file = data / f"items_{rows}.csv"
    if not file.exists():
        duckdb.sql(GENERATED.format(rows=rows, file=file))
    chosen = {name: SYSTEMS[name] for name in names if rows <= SYSTEMS[name].most_rows}
    pythons = {name: interpreter(HERE / "systems" / each.script) for name, each in chosen.items()}
    measured = {name: Measured() for name in chosen}
    for n in range(runs):
        for name, system in chosen.items():
            if n < system.most_runs and measured[name].error is None:
                began = time.perf_counter()
                run_once(pythons[name], system, file, measured[name])
                took = time.perf_counter() - began
                sys.stderr.write(f"{rows:,} rows, {name}, run {n + 1}: {took:.1f} s\n")
    limit = measured["limit"]
    results: list[dict[str, object]] = []
    for name, found in measured.items():
        done = bool(found.seconds)
        results.append(
            {
                "workload": f"csv_replace_{rows // 1_000_000}m",
                "system": name,
                "rows": found.rows,
                "seconds": statistics.median(found.seconds) if done else None,
                "ratio_to_limit": statistics.median(found.seconds)
                / statistics.median(limit.seconds)
                if done
                else None,
                "cpu_seconds": statistics.median(found.cpu) if done else None,
                "cpu_ratio_to_limit": statistics.median(found.cpu) / statistics.median(limit.cpu)
                if done
                else None,
                "peak_mb": statistics.median(found.peak_mb) if done else None,
                "runs": len(found.seconds),
                "error": found.error,
            }
        )
    return results


def show(results: list[dict[str, object]]) -> None:
    """Prints the table."""
    table = Table("workload", "system", "rows", "seconds", "x limit", "CPU s", "x limit", "peak MB")
    for each in results:
        numbers = (
            f"{value:,.2f}" if isinstance(value, float) else str(value or "")
            for value in (
                each["seconds"],
                each["ratio_to_limit"],
                each["cpu_seconds"],
                each["cpu_ratio_to_limit"],
                each["peak_mb"],
            )
        )
        told = f"{each['rows']:,}" if each["rows"] else str(each["error"])
        table.add_row(str(each["workload"]), str(each["system"]), told, *numbers)
    Console().print(table)


def main() -> None:
    """Measures, prints, and writes results/latest.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--data", type=Path, default=HERE / "data")
    asked = parser.parse_args()
    asked.data.mkdir(exist_ok=True)
    names = ["limit", *(name for name in asked.systems if name != "limit")]
    results = [each for rows in asked.rows for each in measure(rows, asked.runs, names, asked.data)]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    show(results)


if __name__ == "__main__":
    main()
