"""Which type of the warehouse a type of Postgres has, and the SQL that reads it without a loss.

A value that the warehouse cannot have, such as infinity in a column of dates, is found where Arrow has it;
the declaration can load the column as text.
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
    "date": {"data_type": "date"},
    "timestamp": {"data_type": "timestamp", "timezone": False},
    "timestamptz": {"data_type": "timestamp", "timezone": True},
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
    quoted: str, kind: PostgresType, declared: TColumnSchema | None
) -> tuple[str, dict[str, Any]]:
    """Return the SQL that reads a column, and dlt's hints of what it returns.

    Args:
        quoted: the column's name in quotes.
        kind: its type.
        declared: hints that replace those of the type.
    """
    expression, hints = _natural(quoted, kind)
    if declared is None or not declared.get("data_type"):
        return expression, {**hints, **(declared or {})}
    wanted = declared["data_type"]
    if wanted == "decimal":
        digits = {"precision": declared.get("precision") or 38, "scale": declared.get("scale") or 0}
        hints |= {**declared, **digits}
    elif wanted == hints["data_type"]:
        return expression, {**hints, **declared}
    else:
        hints = dict(declared)
    return _declared(quoted, kind, str(wanted), expression), hints


def _declared(quoted: str, kind: PostgresType, wanted: str, natural: str) -> str:
    """Return the SQL from whose value Arrow makes that of a declared type; it refuses what would change."""
    text = f"{quoted}::text"
    if wanted == "json":
        is_text = kind.name in ("text", "varchar", "bpchar", "citext")
        return f"{quoted}::json::text" if is_text else f"to_json({quoted})::text"
    if wanted == "binary" and natural in (quoted, text):
        # A cast would read backslashes as escapes.
        return f"convert_to({text}, getdatabaseencoding())"
    if kind.name == "numeric" and wanted != "text":
        return f"trim_scale({quoted})::text"
    is_amount = kind.name == "money" and wanted == "decimal"
    return text if wanted in ("text", "decimal") and not is_amount else natural


def _natural(quoted: str, kind: PostgresType) -> tuple[str, dict[str, Any]]:
    if kind.is_array or kind.is_composite:
        return f"to_json({quoted})::text", {"data_type": "json"}
    if digits := kind.digits:
        hints = {"data_type": "decimal", "precision": digits[0], "scale": digits[1]}
        # The driver takes three times as long for the binary form, which it converts to text.
        return f"{quoted}::text", hints
    if kind.name in _SAME:
        return quoted, dict(_SAME[kind.name])
    if kind.name in _CAST:
        template, hints = _CAST[kind.name]
        return template.format(quoted), dict(hints)
    return f"{quoted}::text", {"data_type": "text"}
