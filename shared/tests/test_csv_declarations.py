"""A CSV format that cannot be read, or not exactly, is an error where it is declared."""

import pytest
from dlt.common.schema.typing import TColumnSchema

from shared.sources.csv import CsvFormat, ValueFormat
from shared.warehouse.rows.naming import NamingConvention

TEXT: TColumnSchema = {"data_type": "text"}
COLUMNS: dict[str, TColumnSchema] = {"n": {"data_type": "bigint"}, "b": TEXT}


@pytest.mark.parametrize(
    "delimiter", ["", ";;", '"', "\n", "\r", " ", "a", "1", ".", "-", "\u00a7"]
)
def test_a_character_that_values_have_is_no_delimiter(delimiter: str) -> None:
    with pytest.raises(ValueError, match="is not a tab or one of"):
        CsvFormat(COLUMNS, delimiter=delimiter)


@pytest.mark.parametrize("date_format", ["%Y-%m-%d %z", "%Y-%m-%d %Z", "%z%Y-%m-%d"])
def test_a_date_format_with_a_time_zone_is_an_error_of_the_declaration(date_format: str) -> None:
    with pytest.raises(ValueError, match="has a time zone, which would move a date"):
        CsvFormat({"day": {"data_type": "date"}}, date_format=date_format)


@pytest.mark.parametrize("date_format", ["%d/%m", "%b %d", "%d.%m.%%Y", ""])
def test_a_date_format_without_a_year_is_an_error_of_the_declaration(date_format: str) -> None:
    with pytest.raises(ValueError, match="has no year"):
        CsvFormat({"day": {"data_type": "date"}}, date_format=date_format)


@pytest.mark.parametrize(
    "name",
    ["file_name", "File Name", "fileName", "_dlt_load_id", "_dlt_id", "_dlt_text_0", "_Dlt Line"],
)
def test_a_column_with_the_name_of_one_of_ours_is_an_error_of_the_declaration(name: str) -> None:
    with pytest.raises(ValueError, match="has the name of a column that a load adds"):
        CsvFormat({"a": TEXT, name: TEXT})


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "A"), ("a b", "a_b"), ("userId", "user_id"), ("\u00e9", "e\u0301"), ("\u00c9t\u00e9", "\u00e9T\u00c9"), ("a", "a "), ("a-b", "a b")],
)  # fmt: skip
def test_columns_that_would_be_one_are_an_error_of_the_declaration(one: str, other: str) -> None:
    names = NamingConvention(63)
    same = names.normalize_identifier(one) == names.normalize_identifier(other)
    if not same:
        CsvFormat({one: TEXT, other: TEXT})
        return
    with pytest.raises(ValueError, match="would be one column"):
        CsvFormat({one: TEXT, other: TEXT})


@pytest.mark.parametrize(
    ("header_names", "message"),
    [
        ({"cost": "Cost"}, "There are header names named cost; declare these columns"),
        ({"b": "n"}, "Several columns have the name n in the header"),
        ({"b": "x", "n": "x"}, "Several columns have the name x in the header"),
    ],
)
def test_header_names_belong_to_one_column_each(header_names: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CsvFormat(COLUMNS, header_names=header_names)


@pytest.mark.parametrize(
    ("null_values", "message"),
    [
        ({"cost": ["NA"]}, "There are value formats named cost; declare these columns"),
        ({"n": "NA"}, "null_values is one text; write a list"),
    ],
)
def test_null_values_are_lists_of_declared_columns(
    null_values: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CsvFormat(COLUMNS, values={name: ValueFormat(texts) for name, texts in null_values.items()})
