"""What a load did."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlt.common.pipeline import LoadInfo
from dlt.common.schema import Schema

from shared.sources.protocol import RetryLaterError
from shared.warehouse.scope import PartitionScope
from shared.warehouse.statistics import TableStats


@dataclass(frozen=True)
class LoadResult:
    """What a load did.

    Attributes:
        info: dlt's report, with its load ids and jobs.
        schema: the source's schema after the load.
        database: the warehouse's name for people: the file's stem, the database, or the directory.
        rows_loaded: rows that were loaded, by table, nested tables included.
        tables: what each reported table contains after the load.
        metrics: what the source counts, such as `requests` or `bytes_read`, by resource.
        scopes: the rows that it replaced, by table, without those of deferred partitions.
        deferred: partitions that it left to a later load, with the reasons.
        shrunken: partitions that kept less than half of their rows, by table, with the rows before and
            after.
        duration_seconds: from the first step to the last.
        has_more: whether the source has more rows, for the next load.
        warnings: what the source says that could be better.
    """

    info: LoadInfo
    schema: Schema
    database: str
    rows_loaded: Mapping[str, int]
    tables: Mapping[str, TableStats]
    metrics: Mapping[str, Mapping[str, Any]]
    scopes: Mapping[str, PartitionScope]
    deferred: Mapping[str, RetryLaterError]
    shrunken: Mapping[str, Mapping[str, tuple[int, int]]]
    duration_seconds: float
    has_more: bool = False
    warnings: Sequence[str] = ()

    def followed_by(self, other: "LoadResult") -> "LoadResult":
        """Return the result of two loads of one plan: the state after the second, and the sums of both."""
        metrics: dict[str, dict[str, Any]] = {
            name: dict(each) for name, each in self.metrics.items()
        }
        for name, each in other.metrics.items():
            before = metrics.setdefault(name, {})
            for key, value in each.items():
                before[key] = before[key] + value if _is_number(before.get(key)) else value
        return replace(
            other,
            rows_loaded=dict(Counter(self.rows_loaded) + Counter(other.rows_loaded)),
            metrics=metrics,
            warnings=list(dict.fromkeys([*self.warnings, *other.warnings])),
            duration_seconds=self.duration_seconds + other.duration_seconds,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
