# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["matplotlib>=3.10"]
# ///
"""Draws results/latest.json: what a million rows take, and how cost grows."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

folder = Path(sys.argv[1])
results = json.loads((folder / "latest.json").read_text())
mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "benchmarks", "font.size": 9, "axes.spines.top": False}
mpl.rcParams |= {"axes.spines.right": False}
NAMES = {
    "limit": "DuckDB alone",
    "ours": "this workspace",
    "ours_dagster": "this workspace, as a Dagster run",
    "dlt_filesystem": "dlt filesystem, read_csv_duckdb",
    "singer": "Singer tap and target",
    "course": "pandas, dictionaries, dlt",
}


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(folder / name, bbox_inches="tight", metadata={"Date": None}, facecolor="white")


rows = [
    each for each in results if each["workload"] == "csv_replace_1m" and each["seconds"] is not None
]
if rows:
    rows.sort(key=lambda each: -each["seconds"])
    figure, axes = plt.subplots(figsize=(7, 0.35 * len(rows) + 0.6))
    labels = [NAMES.get(each["system"], each["system"]) for each in rows]
    ours = ["#2a78b8" if each["system"].startswith("ours") else "#b8bfc6" for each in rows]
    bars = axes.barh(labels, [each["seconds"] for each in rows], color=ours)
    labels_of_bars = [f"{each['ratio_to_limit']:.1f}x, {each['peak_mb']:,.0f} MB" for each in rows]
    axes.bar_label(bars, labels_of_bars, padding=3)
    axes.set_xscale("log")
    axes.set_xlim(right=max(each["seconds"] for each in rows) * 6)
    axes.set_xlabel("seconds for a CSV file of 1,000,000 rows into DuckDB (log scale)")
    save(figure, "latest.svg")

figure, panels = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
for panel, (prefix, label) in zip(
    panels,
    {
        "csv_replace_": "million rows",
        "partitions_": "partitions",
        "locations_": "locations",
    }.items(),
    strict=True,
):
    for system, color in {"limit": "#b8bfc6", "ours": "#2a78b8"}.items():
        points = sorted(
            (int(each["workload"].removeprefix(prefix).removesuffix("m")), each["seconds"])
            for each in results
            if each["workload"].startswith(prefix)
            and each["system"] == system
            and each["seconds"] is not None
        )
        if points:
            panel.plot(*zip(*points, strict=True), "o-", color=color, label=NAMES[system])
            panel.legend(frameon=False)
    panel.set(xlabel=label, ylabel="seconds", ylim=(0, None), xlim=(0, None))
save(figure, "growth.svg")
