"""The format of dropped files."""

from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import CsvFormat


def _money(description: str, nullable: bool = True) -> TColumnSchema:
    return {
        "data_type": "decimal",
        "precision": 18,
        "scale": 4,
        "nullable": nullable,
        "description": description,
    }


_COLUMNS: dict[str, TColumnSchema] = {
    "date": {"data_type": "date", "nullable": False, "description": "Trading day."},
    "share_price": _money("Closing price of the share, in US dollars.", nullable=False),
    "amount": _money("Shares traded on the day."),
    "spend": _money("Opening price, in US dollars."),
    "shift": _money("Highest price of the day, in US dollars."),
    "spread": _money("Lowest price of the day, in US dollars."),
}

SHARE_PRICES = CsvFormat(
    columns=_COLUMNS, date_format="%Y/%m/%d", rules={"share_price": "share_price > 0"}
)
"""The format that a file must have."""
