"""The chart of the last weeks: how close the asteroids came, their size, and which are hazardous."""

import base64
import io
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from shared import warehouse

WEEKS = 4
MAX_APPROACHES = 150
"""The closest approaches are drawn; more would hide each other."""

APPROACHES_SQL = """
    SELECT name, close_approach_at, miss_distance_lunar AS lunar_distance,
        estimated_diameter_meters_max AS meters,
        coalesce(is_potentially_hazardous_asteroid, false) AS hazardous
    FROM nasa_neo.near_earth_objects
    WHERE close_approach_date BETWEEN ? AND ? AND name IS NOT NULL
        AND close_approach_at IS NOT NULL AND miss_distance_lunar IS NOT NULL
        AND estimated_diameter_meters_max IS NOT NULL
    ORDER BY miss_distance_lunar LIMIT ?
"""
_OTHER, _HAZARDOUS, _INK = "#4c78a8", "#e45756", "#333333"


def path() -> Path:
    """Return the chart's file, in the folder of the warehouse."""
    return warehouse.duckdb_path().with_name("closest_approaches.png")


def show_chart(context: dg.AssetExecutionContext, last_day: str) -> None:
    """Draw the weeks up to a day into a file, and into the metadata of that day.

    Args:
        context: the context of the run that has loaded the day.
        last_day: as YYYY-MM-DD.
    """
    last = date.fromisoformat(last_day)
    rows = warehouse.query(APPROACHES_SQL, [last - timedelta(weeks=WEEKS), last, MAX_APPROACHES])
    png, file = draw(rows, last), path()
    file.write_bytes(png)
    encoded = base64.b64encode(png).decode()
    chart = {
        "chart": dg.MetadataValue.md(f"![closest approaches](data:image/png;base64,{encoded})"),
        "chart_file": dg.MetadataValue.path(file),
    }
    # The result may be for thousands of days, and Dagster would store the chart for each.
    context.add_asset_metadata(chart, context.asset_key, partition_key=last_day)


def draw(rows: list[dict[str, Any]], last: date) -> bytes:
    """Return a PNG with a disc for each approach: date, distance, size, hazardous or not.

    Args:
        rows: dictionaries with the columns of `APPROACHES_SQL`.
        last: the last day of the time axis.
    """
    # Not imported at module level, so that the location loads fast.
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9, 4.8), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for hazardous, color in ((False, _OTHER), (True, _HAZARDOUS)):
        drawn = [row for row in rows if row["hazardous"] == hazardous]
        axes.scatter(
            [row["close_approach_at"] for row in drawn],
            [row["lunar_distance"] for row in drawn],
            s=[_area(row["meters"]) for row in drawn],
            color=color,
            alpha=0.75,
            edgecolor="white",
            linewidth=0.6,
            zorder=3,
        )
    for row in rows[:3]:
        axes.annotate(
            row["name"].strip("()"),
            (row["close_approach_at"], row["lunar_distance"]),
            xytext=(4 + _area(row["meters"]) ** 0.5 / 2, -3),
            textcoords="offset points",
            fontsize=8,
            color=_INK,
            zorder=4,
        )
    axes.axhline(1, color=_INK, linewidth=0.8, linestyle="--", zorder=2)
    axes.text(1.005, 1, "Moon", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    # Weeks that are not loaded yet are not on the axis.
    first = min((row["close_approach_at"].date() for row in rows), default=last)
    axes.set_xlim(first - timedelta(hours=6), last + timedelta(days=1))  # type: ignore[arg-type]
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylabel("lunar distances")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"Closest approaches to Earth until {last}" + ("" if rows else ": none"),
        loc="left",
        fontsize=11,
    )
    _add_legend(axes)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _add_legend(axes: Any) -> None:
    """Show what the colors and the sizes of the discs mean."""
    from matplotlib.lines import Line2D

    axes.legend(
        handles=[
            *(
                Line2D([], [], marker="o", linestyle="", color=color, label=label)
                for label, color in (("potentially hazardous", _HAZARDOUS), ("other", _OTHER))
            ),
            *(
                Line2D(
                    [],
                    [],
                    marker="o",
                    linestyle="",
                    color="#bbbbbb",
                    markersize=_area(meters) ** 0.5,
                    label=f"{meters:,} m",
                )
                for meters in (10, 100, 1000)
            ),
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.09),
        ncols=5,
        frameon=False,
        fontsize=8,
    )


def _area(meters: float) -> float:
    """Return a disc's area in points; it grows slower than the asteroid, so that small ones are visible."""
    return float(min(12 + 2.2 * meters**0.75, 900))
