"""Files with made-up rows, for tests of a format without the data that it was proposed from."""

import base64
import csv
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import CsvFormat
from shared.sources.files import ParquetFormat
from shared.sources.files.json_text import dump_json
from shared.sources.proposals.proposal import Proposal

_Row = dict[str, Any]


def write_made_up(proposal: Proposal, path: Path) -> None:
    """Write a file with two rows that fit a proposal and have nothing of its file's values.

    Args:
        proposal: the names of the columns, their types and the options of the format.
        path: the file to create.
    """
    rows = [{name: _value(hints, n) for name, hints in proposal.columns.items()} for n in (1, 2)]
    match proposal.format_name:
        case "CsvFormat":
            _write_csv(proposal, rows, path)
        case "ParquetFormat":
            schema = ParquetFormat(proposal.columns).schema
            pq.write_table(pa.Table.from_pylist(rows, schema), path)
        case "ExcelFormat":
            _write_excel(rows, proposal.options, path)
        case "JsonLinesFormat":
            path.write_text("".join(f"{dump_json(_json(row))}\n" for row in rows), "utf-8")
        case _:
            path.write_text(dump_json([_json(row) for row in rows]), "utf-8")


def _value(hints: TColumnSchema, number: int) -> Any:
    zone = None if hints.get("timezone") is False else UTC
    return {
        "text": "ab"[number - 1],
        "bigint": number,
        "double": number + 0.5,
        "decimal": Decimal(number).scaleb(-(hints.get("scale") or 0)),
        "bool": number == 1,
        "date": date(2025, 3, number),
        "timestamp": datetime(2025, 3, number, 12, tzinfo=zone),
        "time": time(number),
        "binary": b"ab"[number - 1 : number],
        "json": "[]",
    }[str(hints["data_type"])]


def _write_csv(proposal: Proposal, rows: list[_Row], path: Path) -> None:
    csv_format = CsvFormat(proposal.columns, **proposal.options)

    def text(name: str, value: Any) -> str:
        form = csv_format.value_format(name)
        if form.formats:
            return str(value.strftime(form.formats[0]))
        if isinstance(value, datetime):
            return value.strftime("%Y-%m-%d %H:%M:%S")
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return (
            str(value).lower() if isinstance(value, bool) else str(value).replace(".", form.decimal)
        )

    header = [csv_format.header_names.get(name, name) for name in csv_format.columns]
    with path.open("w", encoding=csv_format.encoding, newline="") as file:
        file.write("made up\n" * csv_format.skip_lines)
        writer = csv.writer(
            file,
            delimiter=csv_format.delimiter,
            lineterminator="\n",
            quotechar=csv_format.quote or None,
            quoting=csv.QUOTE_MINIMAL if csv_format.quote else csv.QUOTE_NONE,
        )
        writer.writerows([header] * csv_format.header_rows)
        writer.writerows([text(*each) for each in row.items()] for row in rows)
        file.writelines(f"{line}\n" for line in csv_format.footer)


def _write_excel(rows: list[_Row], options: Mapping[str, Any], path: Path) -> None:
    from openpyxl import Workbook

    workbook = Workbook()
    sheet = workbook.active
    sheet.title = options.get("sheet", "Sheet")
    corner = sheet[re.split(":", options.get("cells", "A1"))[0]]
    for down, row in enumerate([[*rows[0]], *(row.values() for row in rows)]):
        for right, value in enumerate(row):
            sheet.cell(corner.row + down, corner.column + right).value = value
    workbook.save(path)


def _json(row: _Row) -> _Row:
    def value(each: Any) -> Any:
        if isinstance(each, bytes):
            return base64.b64encode(each).decode()
        return each.isoformat() if isinstance(each, date | time) else each

    return {name: [] if each == "[]" else value(each) for name, each in row.items()}
