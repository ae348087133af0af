"""Runs a system in its own process and folder, and the systems of a workload alternately."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import psutil
from workloads import System, Workload

HERE = Path(__file__).parent
PACKAGES = ("dlt", "dagster", "dagster-dlt", "duckdb", "pyarrow")


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


@cache
def machine() -> dict[str, str]:
    """Return where a result comes from: the date, the processor, and the versions of what ran."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = round(psutil.virtual_memory().total / 2**30)
    packages = [f"{package} {version(package)}" for package in PACKAGES]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": f"{os.cpu_count()} x {models[0] if models else platform.processor()}, {memory} GB",
        "versions": ", ".join([f"Python {platform.python_version()}", *packages]),
    }


@cache
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


def measure(
    name: str, workload: Workload, runs: int, only: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Run the systems of a workload alternately and return the result of each.

    Args:
        name: the workload's.
        workload: what to load.
        runs: how often; a workload or a system may have a lower maximum.
        only: the systems to run beside the limit; by default all.
    """
    data = workload.data()
    systems = {
        system_name: system
        for system_name, system in workload.systems.items()
        if not only or system_name in {"limit", *only}
    }
    measured = {system: Measured() for system in systems}
    for n in range(min(runs, workload.max_runs)):
        for system_name, system in systems.items():
            results = measured[system_name]
            if n < system.max_runs and results.error is None:
                run_once(workload, system, data, results)
                outcome = results.error or f"{results.seconds[-1]:.2f} s"
                sys.stderr.write(f"{name}, {system_name}, run {n + 1}: {outcome}\n")
    limit = measured.get("limit", Measured())
    return [
        {
            "workload": name,
            "system": system,
            "rows": found.rows,
            "seconds": median(found.seconds),
            "ratio_to_limit": ratio(found.seconds, limit.seconds),
            "cpu_seconds": median(found.cpu),
            "cpu_ratio_to_limit": ratio(found.cpu, limit.cpu),
            "peak_mb": median(found.peak_mb),
            "runs": len(found.seconds),
            "noise": noise(limit.seconds),
            "error": found.error,
            **machine(),
        }
        for system, found in measured.items()
    ]


def median(numbers: Sequence[float]) -> float | None:
    """Return the median; None without numbers."""
    return round(statistics.median(numbers), 3) if numbers else None


def ratio(numbers: Sequence[float], limit: Sequence[float]) -> float | None:
    """Return the median as a multiple of that of the limit; None without one of them."""
    if not numbers or not limit:
        return None
    return round(statistics.median(numbers) / statistics.median(limit), 3)


def noise(seconds: Sequence[float]) -> float | None:
    """Return the spread of the limit's runs, as a share of their median; None for fewer than two."""
    if len(seconds) < 2:  # noqa: PLR2004 - one run has no spread
        return None
    return round((max(seconds) - min(seconds)) / statistics.median(seconds), 3)
