"""A source with its rows in the code: the smallest example of a pipeline."""

from collections.abc import Iterator

import dlt
from dlt.extract import DltResource


@dlt.source
def simple_source() -> DltResource:
    """Return the only resource, `load_dict`."""

    @dlt.resource(
        write_disposition="replace",
        columns={
            "id": {"data_type": "bigint", "description": "The person's number."},
            "name": {"data_type": "text", "description": "The first name."},
        },
    )
    def load_dict() -> Iterator[list[dict[str, object]]]:
        """Two people with number and name: the smallest example of a pipeline.

        Yields one list of two dictionaries with `id` (bigint) and `name` (text).
        """
        data: list[dict[str, object]] = [
            {"id": 1, "name": "Alice"},
            {"id": 2, "name": "Bob"},
        ]

        yield data

    return load_dict
