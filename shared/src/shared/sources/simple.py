"""A source whose data stands in the code: the shortest pipeline there is."""

from collections.abc import Iterator

import dlt
from dlt.extract import DltResource


@dlt.source
def simple_source() -> DltResource:
    """Returns the one resource, `load_dict`."""

    @dlt.resource(write_disposition="replace")
    def load_dict() -> Iterator[list[dict[str, object]]]:
        """Two people, made in the code: `id` (integer) and `name` (text)."""
        data: list[dict[str, object]] = [
            {"id": 1, "name": "Alice"},
            {"id": 2, "name": "Bob"},
        ]

        yield data

    return load_dict
