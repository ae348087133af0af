"""Masks: what is done to the values of a column before they are written anywhere."""

from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema


class Mask(Protocol):
    """Changes the values of a column in memory, before a file or the warehouse has them."""

    hides_order: bool
    """Whether two values may become equal, so that the column can be no key."""

    def hints(self, hints: TColumnSchema) -> TColumnSchema:
        """Return dlt's hints of the masked column."""

    def apply(self, values: pa.Array) -> pa.Array:
        """Return the masked values, in the type of the masked hints."""


@dataclass(frozen=True)
class Constant:
    """Replaces each value that is not NULL by one text.

    Attributes:
        value: the text.
    """

    value: str = "***"
    hides_order: bool = True

    def hints(self, hints: TColumnSchema) -> TColumnSchema:
        """Return the hints of a text column."""
        kept: Any = {
            key: value
            for key, value in hints.items()
            if key not in ("precision", "scale", "timezone")
        }
        kept["data_type"] = "text"
        return kept  # type: ignore[no-any-return]

    def apply(self, values: pa.Array) -> pa.Array:
        """Return the text for each value that is not NULL."""
        return pa.array(
            [self.value if valid else None for valid in values.is_valid().to_pylist()], pa.string()
        )
