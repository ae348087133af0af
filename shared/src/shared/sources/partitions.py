"""The partitions of a run, as a source gets them: keys, time windows and dimensions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Self


class TimeWindow(NamedTuple):
    """A half-open time window: from `start`, before `end`; both have a time zone."""

    start: datetime
    end: datetime


class PartitionKey(str):
    """The key of a partition. It is a text, so a source that needs only the key treats it as one.

    Attributes:
        window: the time window of the partition; None if its key is not a time.
        dimensions: the key of each dimension, by its name; empty if there is one dimension.
    """

    __slots__ = ("dimensions", "window")

    window: TimeWindow | None
    dimensions: Mapping[str, "PartitionKey"]

    def __new__(
        cls,
        key: str,
        window: TimeWindow | None = None,
        dimensions: Mapping[str, "PartitionKey"] | None = None,
    ) -> Self:
        """Return the key; with one time window among the dimensions, it is the partition's window."""
        self = super().__new__(cls, key)
        self.dimensions = dimensions or {}
        windows = [key.window for key in self.dimensions.values() if key.window]
        self.window = window or (windows[0] if len(windows) == 1 else None)
        return self


def merge_windows(windows: Sequence[TimeWindow]) -> list[TimeWindow]:
    """Return the windows in order; those that adjoin or overlap become one."""
    merged: list[TimeWindow] = []
    for window in sorted(windows):
        if merged and window.start <= merged[-1].end:
            merged[-1] = TimeWindow(merged[-1].start, max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return merged


def time_window(partitions: Sequence[str]) -> TimeWindow | None:
    """Return the time window of some partitions; None if they have none or do not adjoin.

    A source passes it to an API, or to a cursor as `initial_value` and `end_value`.
    """
    windows = [window for key in partitions if (window := getattr(key, "window", None))]
    merged = merge_windows(windows)
    return merged[0] if len(merged) == 1 and len(windows) == len(partitions) else None
