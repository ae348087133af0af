"""What a location's process tells the command that started it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunSelection:
    """What a location is asked to run.

    Attributes:
        selections: assets in Dagster's selection syntax; none for all of the location.
        partitions: the first and the last of the partitions to run; none for the sample's.
    """

    selections: tuple[str, ...] | None = None
    partitions: tuple[str, str] | None = None


@dataclass(frozen=True)
class Plan:
    """What a location would run; nothing has run yet.

    Attributes:
        location: the location.
        assets: the names of what it would run.
        all_assets: the names of what it could run.
        unknown: the selections that name nothing of it.
        problem: why it cannot run what it is asked for, in one line; empty if it can.
    """

    location: str
    assets: tuple[str, ...]
    all_assets: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class AssetResult:
    """What became of an asset (or, with an empty name, of a location that did not load)."""

    location: str
    asset: str
    status: Literal["waiting", "running", "done", "skipped", "failed"]
    rows: int | None = None
    seconds: float = 0.0
    table: str = ""
    error: str = ""
