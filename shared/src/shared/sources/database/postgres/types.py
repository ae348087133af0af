"""Which type of the warehouse a type of Postgres has, and the SQL that reads it without a loss.

What Arrow or the warehouse cannot have, such as infinity in a column of dates, fails with the name of the
column, unless the declaration loads the column as text.
"""

from dataclasses import dataclass
from typing import Any

from dlt.common.schema.typing import TColumnSchema

_MAX_DECIMAL_DIGITS = 38
_NUMERIC_HEADER = 4  # bytes that a type modifier counts

_SAME: dict[str, Any] = {
    "bool": {"data_type": "bool"},
    "int2": {"data_type": "bigint"},
    "int4": {"data_type": "bigint"},
    "int8": {"data_type": "bigint"},
    "float4": {"data_type": "double"},
    "float8": {"data_type": "double"},
    "text": {"data_type": "text"},
    "varchar": {"data_type": "text"},
    "bytea": {"data_type": "binary"},
    "time": {"data_type": "time"},
}
"""Types that Arrow has, and that are read as they are."""

_CAST: dict[str, Any] = {
    "oid": ("{}::bigint", {"data_type": "bigint"}),
    "json": ("{}::text", {"data_type": "json"}),
    "jsonb": ("{}::text", {"data_type": "json"}),
    "hstore": ("{}::jsonb::text", {"data_type": "json"}),
    "money": ("{}::numeric::text", {"data_type": "text"}),
}
"""Types that are read with other SQL."""

_LIMITS = {
    "date": ("0001-01-01", "9999-12-31"),
    "timestamp": ("0001-01-01", "9999-12-31 23:59:59.999999"),
    "timestamptz": ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"),
}
"""The first and the last value that Arrow, Python and all warehouses have."""


@dataclass(frozen=True)
class PostgresType:
    """A column's type.

    Attributes:
        name: the name of the base type in pg_type, such as `numeric`.
        modifier: its type modifier, which has the digits of a numeric; -1 if it has none.
        is_array: whether it is an array.
        is_composite: whether it is a row.
        full_name: what format_type() returns.
    """

    name: str
    modifier: int
    is_array: bool
    is_composite: bool
    full_name: str

    @property
    def digits(self) -> tuple[int, int] | None:
        """Precision and scale of a numeric; None if it declares none, or more than decimals have."""
        if self.name != "numeric" or self.modifier < _NUMERIC_HEADER or self.is_array:
            return None
        bits = self.modifier - _NUMERIC_HEADER
        precision, scale = bits >> 16 & 0xFFFF, ((bits & 0x7FF) ^ 0x400) - 0x400
        fits = precision <= _MAX_DECIMAL_DIGITS and 0 <= scale <= precision
        return (precision, scale) if fits else None


def reading_of(
    name: str, quoted: str, kind: PostgresType, declared: TColumnSchema | None
) -> tuple[str, dict[str, Any]]:
    """Return the SQL that reads a column, and dlt's hints of what it returns.

    Args:
        name: the column's name, for errors.
        quoted: the same in quotes.
        kind: its type.
        declared: hints that replace those of the type.
    """
    expression, hints = _natural(name, quoted, kind)
    if declared is None or not declared.get("data_type"):
        return expression, {**hints, **(declared or {})}
    wanted = declared["data_type"]
    if wanted == hints["data_type"] and wanted != "decimal":
        return expression, {**hints, **declared}
    if wanted == "text":
        return f"{quoted}::text", dict(declared)
    if wanted == "decimal":
        digits = (declared.get("precision") or 38, declared.get("scale") or 0)
        return _decimal(name, f"{quoted}::numeric", digits), dict(declared)
    return f"{quoted}::{_CASTS[str(wanted)]}", dict(declared)


_CASTS = {
    "bool": "boolean",
    "bigint": "bigint",
    "double": "double precision",
    "timestamp": "timestamptz",
    "date": "date",
    "time": "time",
    "json": "jsonb::text",
    "binary": "bytea",
    "wei": "numeric::text",
}
"""The SQL type of what a declaration wants, by dlt's type."""


def _natural(name: str, quoted: str, kind: PostgresType) -> tuple[str, dict[str, Any]]:
    if kind.is_array or kind.is_composite:
        return f"to_jsonb({quoted})::text", {"data_type": "json"}
    if digits := kind.digits:
        hints = {"data_type": "decimal", "precision": digits[0], "scale": digits[1]}
        return _finite(name, quoted, "numeric", f"{quoted} <> 'NaN'"), hints
    if kind.name in _LIMITS:
        first, last = _LIMITS[kind.name]
        within = f"{quoted} BETWEEN '{first}' AND '{last}'"
        hints = {"data_type": "date" if kind.name == "date" else "timestamp"}
        if kind.name != "date":
            hints["timezone"] = kind.name == "timestamptz"
        return _finite(name, quoted, kind.name, within), hints
    if kind.name in _SAME:
        return quoted, dict(_SAME[kind.name])
    if kind.name in _CAST:
        template, hints = _CAST[kind.name]
        return template.format(quoted), dict(hints)
    return f"{quoted}::text", {"data_type": "text"}


def _finite(name: str, quoted: str, cast: str, condition: str) -> str:
    """Return SQL that fails with the column's name where a value does not meet a condition.

    Postgres has no function that raises an error, so a text that is no value is cast. The text depends
    on the row, because Postgres computes constants before it reads.
    """
    note = f" in the column {name}, which the warehouse cannot store: load it as text".replace(
        "'", "''"
    )
    return (
        f"CASE WHEN {quoted} IS NULL OR ({condition}) THEN {quoted} "
        f"ELSE ({quoted}::text || '{note}')::{cast} END"
    )


def _decimal(name: str, numeric: str, digits: tuple[int, int]) -> str:
    precision, scale = digits
    fits = f"{numeric} = round({numeric}, {scale}) AND abs({numeric}) < 1e{precision - scale}"
    return (
        f"round({_finite(name, numeric, 'numeric', f'{numeric} <> $$NaN$$ AND {fits}')}, {scale})"
    )
