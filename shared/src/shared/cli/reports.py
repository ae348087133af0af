"""The messages between a location's process and the command that starts it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LOGS = Path(".dagster/etl_run")
"""The folder of the log that each location's process writes."""


@dataclass(frozen=True)
class RunSelection:
    """What a location runs.

    Attributes:
        selections: assets in Dagster's selection syntax; None for the complete location.
        partitions: the first and the last partition to run; None for those of the sample.
        tags: the tags of the runs.
        logs: the folder of the logs.
    """

    selections: tuple[str, ...] | None = None
    partitions: tuple[str, str] | None = None
    tags: tuple[tuple[str, str], ...] = ()
    logs: Path = LOGS


@dataclass(frozen=True)
class Plan:
    """What a location would run. Nothing has run yet.

    Attributes:
        location: the location's name.
        assets: the assets that it would run.
        all_assets: the assets that it can run.
        unknown: the selections that match none of its assets.
        error: why it cannot run the selection, in one line; empty if it can.
        notice: what the user must know about the data, in one line; empty if there is nothing.
        upstream: the assets of other locations that the assets read.
    """

    location: str
    assets: tuple[str, ...]
    all_assets: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    error: str = ""
    notice: str = ""
    upstream: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckResult:
    """The result of a check, the first failed one of several runs; `severity` is ERROR or WARN."""

    name: str
    passed: bool
    severity: str
    description: str


@dataclass(frozen=True)
class AssetResult:
    """The result of one asset, or, with an empty name, of a location that did not load."""

    location: str
    asset: str
    status: Literal["waiting", "running", "done", "skipped", "failed"]
    rows: int | None = None
    seconds: float = 0.0
    table: str = ""
    error: str = ""
    checks: tuple[CheckResult, ...] = ()
