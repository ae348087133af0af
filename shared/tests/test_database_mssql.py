"""The SQL for SQL Server. No test has a server."""

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy

from shared.sources.database import DatabaseError, Table
from shared.sources.database.sqlalchemy.dialect import Timeouts
from shared.sources.database.sqlalchemy.mssql import SqlServer, isolation_sql

SERVER = SqlServer(
    sqlalchemy.make_url("mssql://sa:a-secret-password@db.example.com/shop"), Timeouts(60, 5)
)

COLUMNS = [
    # type, length, precision, scale
    ("bigint", 8, 19, 0),
    ("bit", 1, 1, 0),
    ("decimal", 9, 18, 2),
    ("money", 8, 19, 4),
    ("float", 8, 53, 0),
    ("datetime", 8, 23, 3),
    ("datetime2", 8, 27, 7),
    ("datetimeoffset", 10, 34, 7),
    ("date", 3, 10, 0),
    ("uniqueidentifier", 16, 0, 0),
    ("nvarchar", 40, 0, 0),
    ("varchar", -1, 0, 0),
    ("rowversion", 8, 0, 0),
    ("geography", -1, 0, 0),
    ("xml", -1, 0, 0),
]


def described(**declared: Any) -> Any:
    """Return the description of a table with a column of each type, from rows of the catalog."""

    def query(sql: str) -> list[tuple[Any, ...]]:
        if "sys.columns " in sql and "sys.indexes" not in sql:
            return [(kind, kind, kind != "bigint", *sizes) for kind, *sizes in COLUMNS]
        if "sys.indexes" in sql:
            return [("pk", True, True, "bigint"), ("i", False, False, "date")]
        return [(5, "U ", 12)] if "object_id, type" in sql else []

    return SERVER.describe(query, Table("t", schema="s", **declared))


def test_types_keys_and_indexes_are_described() -> None:
    info = described()
    assert {name: column.database_type for name, column in info.columns.items()} == {
        "bigint": "bigint",
        "bit": "bit",
        "decimal": "decimal(18,2)",
        "money": "money",
        "float": "float",
        "datetime": "datetime",
        "datetime2": "datetime2(7)",
        "datetimeoffset": "datetimeoffset(7)",
        "date": "date",
        "uniqueidentifier": "uniqueidentifier",
        "nvarchar": "nvarchar(20)",
        "varchar": "varchar(max)",
        "rowversion": "rowversion",
        "geography": "geography",
        "xml": "xml",
    }
    kinds = {name: column.hints["data_type"] for name, column in info.columns.items()}
    assert {kinds[name] for name in ("uniqueidentifier", "nvarchar", "varchar", "xml")} == {"text"}
    assert {kinds[name] for name in ("rowversion", "geography")} == {"binary"}
    assert info.columns["datetimeoffset"].hints["timezone"]
    assert not info.columns["datetime2"].hints["timezone"]
    assert not info.columns["bigint"].hints["nullable"]
    assert (info.primary_key, info.indexed) == (["bigint"], {"bigint", "date"})
    assert (info.estimated_rows, info.kind) == (12, "table")


@pytest.mark.parametrize(
    ("name", "value", "sql"),
    [
        ("bigint", "5", "5"),
        ("decimal", "1.50", "1.50"),
        ("float", "1.0000000000000001e-001", "CAST(1.0000000000000001e-001 AS float)"),
        ("datetime", "2024-01-01 10:00:00.123", "CAST('2024-01-01T10:00:00.123' AS datetime)"),
        ("datetime2", datetime(2024, 1, 1, tzinfo=UTC), "CAST('2024-01-01T00:00:00' AS datetime2(7))"),
        ("datetimeoffset", "2024-01-01T10:00:00.1+02:00", "CAST('2024-01-01T08:00:00.100000Z' AS datetimeoffset(7))"),
        ("date", "2024-01-01", "CAST('2024-01-01' AS date)"),
        ("nvarchar", "it's", "N'it''s'"),
        ("varchar", "it's", "'it''s'"),
        ("rowversion", "00FF", "0x00ff"),
    ],
)  # fmt: skip
def test_a_value_is_compared_as_its_column(name: str, value: Any, sql: str) -> None:
    assert SERVER.literal(value, described().columns[name]) == sql


@pytest.mark.parametrize(
    ("name", "value"), [("bigint", "1; DROP TABLE t"), ("date", "' OR 1=1"), ("rowversion", "x'")]
)
def test_a_value_that_is_not_of_its_type_does_not_become_sql(name: str, value: str) -> None:
    with pytest.raises(DatabaseError, match=f"column {name}"):
        SERVER.literal(value, described().columns[name])


def test_names_are_quoted_and_messages_have_no_password() -> None:
    assert SERVER.quote("a]b [c]") == "[a]]b [c]]]"
    assert SERVER.server == "mssql db.example.com:1433/shop"


def test_a_database_that_does_not_allow_snapshots_is_read_with_read_committed() -> None:
    assert isolation_sql(True) == "SET TRANSACTION ISOLATION LEVEL SNAPSHOT"
    assert isolation_sql(False) == "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"


@pytest.mark.parametrize("name", ["xml", "geography"])
def test_a_type_without_an_order_is_no_cursor(name: str) -> None:
    with pytest.raises(DatabaseError, match="cannot be a cursor"):
        SERVER.text_of(described().columns[name])
