"""The Sentry objects of a day, with their orbits and approaches: one request for each object."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import dlt

from shared.sources.hints import (
    REPLACE_PARTITIONS,
    CompanionTable,
    arrow_schema,
    with_companion_tables,
)
from shared.sources.neows.client import NeowsClient, NotFoundError
from shared.sources.neows.columns import SENTRY_APPROACH_COLUMNS, SENTRY_COLUMNS
from shared.sources.neows.rows import approach_rows, detail_rows, to_rows
from shared.sources.protocol import RetryLaterError, defer_partitions

_APPROACHES = CompanionTable(
    "All known past and future approaches of the Sentry objects, to any planet.",
    SENTRY_APPROACH_COLUMNS,
)


@dlt.source(name="neows")
def neows_sentry_objects(
    days: Sequence[str], sentry_ids: Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
) -> Any:
    """Load each Sentry object that passes on some days: those that may hit Earth.

    Args:
        days: calendar days as YYYY-MM-DD; a load replaces all rows of its days.
        sentry_ids: returns the SPK-IDs of the Sentry objects by day. It runs while the load has its
            partition locks.
    """

    @dlt.resource(selected=False)
    def days_with_objects() -> Iterator[dict[str, Any]]:
        ids = sentry_ids(days)
        for day in sorted(days):
            yield {"day": day, "spk_ids": ids.get(day, [])}

    objects: dict[str, dict[str, Any] | None] = {}
    limits: list[RetryLaterError] = []

    @dlt.transformer(data_from=days_with_objects, columns=SENTRY_COLUMNS, **REPLACE_PARTITIONS)
    def sentry_objects(passed: Mapping[str, Any]) -> Iterator[Any]:
        """The objects that may hit Earth (NASA's Sentry list), with their orbits.

        One row for each object and day on which it passes.

        Yields Arrow tables with `SENTRY_COLUMNS` and with `SENTRY_APPROACH_COLUMNS`, one for each object;
        times are UTC. An object that NASA no longer has is left out.

        Raises:
            NeowsError: a response is not an object, or a value has another type.
            RetryLaterError: the request limit is reached.
        """
        day, ids = passed["day"], passed["spk_ids"]
        if day == min(days):
            yield arrow_schema(SENTRY_COLUMNS).empty_table()
            yield _APPROACHES.empty("sentry_approaches")
        try:
            if not limits:
                unknown = [spk_id for spk_id in ids if spk_id not in objects]
                objects.update(_request_objects(unknown) if unknown else {})
        except RetryLaterError as error:
            limits.append(error)
        if limits:
            defer_partitions([day], limits[0])
            return
        for item in filter(None, map(objects.get, ids)):
            yield to_rows([(day, item)], partial(detail_rows, columns=SENTRY_COLUMNS, day=day))
            approaches = to_rows([(day, item)], partial(approach_rows, day=day))
            yield dlt.mark.with_table_name(approaches, "sentry_approaches")

    return with_companion_tables(sentry_objects, {"sentry_approaches": _APPROACHES})


def _request_objects(spk_ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """Return objects by their SPK-ID; None for one that NASA does not have."""
    client = NeowsClient(dlt.current.resource_metrics())
    objects: dict[str, dict[str, Any] | None] = {}
    for spk_id in spk_ids:
        try:
            objects[spk_id] = client.object(spk_id)
        except NotFoundError:
            objects[spk_id] = None
    return objects
