"""Measure loads by this workspace, by other systems and by DuckDB alone; see README.md."""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from bench_data import DATA
from documents import update_documents
from measure import HERE, find_uv, interpreter, measure
from report import page, show
from workloads import BY_REQUEST, WORKLOADS

RESULTS = HERE / "results"


def main() -> None:
    """Measure, print, and write results/latest.json, the charts, and the figures of the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    workloads = WORKLOADS | BY_REQUEST
    parser.add_argument("workloads", nargs="*", help=", ".join(workloads))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--systems", nargs="*", default=[], help="only these, and the limit")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := set(options.workloads) - workloads.keys():
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(workloads)}")
    find_uv()  # before the first measurement: the charts need it as well
    DATA.mkdir(exist_ok=True)
    options.results.mkdir(exist_ok=True)
    latest = options.results / "latest.json"
    for name in options.workloads or WORKLOADS:
        results = measure(name, workloads[name], options.runs, options.systems)
        write_results(latest, results, list(workloads))
    measured = json.loads(latest.read_text())
    show(measured)
    (options.results / "latest.md").write_text(page(measured))
    plot = HERE / "plot.py"
    subprocess.run([interpreter(plot), plot, options.results], check=True)
    if options.results == RESULTS:
        update_documents(measured)


def write_results(latest: Path, results: list[dict[str, Any]], order: list[str]) -> None:
    """Add results to a file; they replace those of the same workload and system."""
    before = json.loads(latest.read_text()) if latest.exists() else []
    new = {(each["workload"], each["system"]) for each in results}
    kept = [each for each in before if (each["workload"], each["system"]) not in new]
    together = sorted([*kept, *results], key=lambda each: order.index(each["workload"]))
    latest.write_text(json.dumps(together, indent=2) + "\n")


if __name__ == "__main__":
    main()
