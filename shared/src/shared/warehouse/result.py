"""What a load did."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlt.common.pipeline import LoadInfo
from dlt.common.schema import Schema
from dlt.common.storages.load_package import LoadPackageInfo

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
        tables: what each table of the source contains after the load, nested and companion tables included.
        metrics: what the source counts, such as `requests` or `bytes_read`, by resource.
        scopes: the rows that it replaced, by table, without those of deferred partitions.
        deferred: partitions that it left to a later load, with the reasons.
        shrunken: partitions that kept less than half of their rows, by table, with the rows before and
            after.
        duration_seconds: from the first step to the last.
        unfinished: the resources that have more rows, for the next load.
        earlier: dlt's reports of the loads before, if the plan took several.
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
    unfinished: frozenset[str] = frozenset()
    earlier: Sequence[LoadInfo] = ()
    warnings: Sequence[str] = ()

    @property
    def load_packages(self) -> list[LoadPackageInfo]:
        """dlt's packages of all loads of the plan."""  # noqa: D403 - its name
        return [package for info in (*self.earlier, self.info) for package in info.load_packages]

    def followed_by(self, other: "LoadResult") -> "LoadResult":
        """Return the result of two loads of one plan: what both left, and the sums of both."""
        metrics: dict[str, dict[str, Any]] = {
            name: dict(each) for name, each in self.metrics.items()
        }
        for name, each in other.metrics.items():
            before = metrics.setdefault(name, {})
            for key, value in each.items():
                before[key] = before[key] + value if _is_number(before.get(key)) else value
        return replace(
            other,
            earlier=[*self.earlier, self.info],
            tables={**self.tables, **other.tables},
            scopes={**self.scopes, **other.scopes},
            deferred={**self.deferred, **other.deferred},
            shrunken={**self.shrunken, **other.shrunken},
            rows_loaded=dict(Counter(self.rows_loaded) + Counter(other.rows_loaded)),
            metrics=metrics,
            warnings=list(dict.fromkeys([*self.warnings, *other.warnings])),
            duration_seconds=self.duration_seconds + other.duration_seconds,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
