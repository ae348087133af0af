"""Descriptions of tables and columns are comments in the database, whatever a load replaces."""

from collections.abc import Iterator
from typing import Any

import dlt
import pytest
from dlt.extract import DltSource

from shared import warehouse
from shared.warehouse.comments import Descriptions, update_comments
from shared.warehouse.destinations import sql
from support.warehouse_client import execute

SLOW_ON_SERVERS = True

DIFFICULT = 'it\'s 100% "ü"; --\nsecond line \\ $$ %s {x}'
COMMENTS = {
    "duckdb": """
        SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'shop'
        UNION ALL SELECT table_name, '', comment FROM duckdb_tables() WHERE schema_name = 'shop'
    """,
    "postgres": """
        SELECT relname AS table_name, attname AS column_name, col_description(c.oid, attnum) AS comment
        FROM pg_attribute JOIN pg_class AS c ON attrelid = c.oid
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'shop') AND attnum > 0
        UNION ALL SELECT relname, '', obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'shop') AND relkind = 'r'
    """,
}
SPEC = warehouse.pipeline("shop_pipeline", "shop")


def comments() -> dict[str, str]:
    rows = warehouse.query(COMMENTS[warehouse.warehouse_type()])
    return {
        f"{row['table_name']}.{row['column_name']}".rstrip("."): row["comment"]
        for row in rows
        if row["comment"] and not row["table_name"].startswith("_dlt")
    }


def shop(description: str, **hints: Any) -> DltSource:
    @dlt.resource(
        columns={"id": {"data_type": "bigint", "description": description}},
        nested_hints={
            "lines": dlt.mark.make_nested_hints(
                columns={"art": {"data_type": "text", "description": "What."}}
            )
        },
        **hints,
    )
    def orders() -> Iterator[Any]:
        """Orders of a day.

        For programmers.
        """
        yield {"id": 1, "lines": [{"art": "a"}]}

    @dlt.resource(write_disposition="replace", columns={"id": {"description": description}})
    def visits() -> Iterator[Any]:
        yield {"id": 1}

    visits.apply_hints(additional_table_hints={"description": DIFFICULT})
    return DltSource(dlt.Schema("shop"), "shop", [orders, visits])


def load(source: DltSource) -> warehouse.LoadResult:
    return warehouse.load(warehouse.plan_load(SPEC, source))


KINDS: list[dict[str, Any]] = [
    {"write_disposition": "replace"},
    {"write_disposition": "merge", "primary_key": "id"},
]


@pytest.mark.parametrize("hints", KINDS, ids=["replace", "merge"])
def test_any_client_sees_what_tables_and_columns_contain_after_each_load(
    hints: dict[str, Any], any_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any_warehouse not in COMMENTS:
        assert not load(shop("The number.", **hints)).warnings
        return
    changed: list[int] = []

    def count(*arguments: Any) -> int:
        changed.append(update_comments(*arguments))
        return changed[-1]

    monkeypatch.setattr(sql, "update_comments", count)
    load(shop(DIFFICULT, **hints))
    first = comments()
    assert first["orders"] == "Orders of a day."
    assert first["orders.id"] == first["visits"] == first["visits.id"] == DIFFICULT
    assert first["orders__lines.art"] == "What."
    assert first["orders._dlt_id"] == "The row's identifier, set by dlt."
    # The same again: rows are replaced, comments stay, and none is compared.
    load(shop(DIFFICULT, **hints))
    assert comments() == first
    load(shop("The number.", **hints))
    assert comments() == {**first, "orders.id": "The number.", "visits.id": "The number."}
    assert changed == [len(first), 2]
    # A text that an earlier load had, as after a revert.
    load(shop(DIFFICULT, **hints))
    assert comments() == first
    load(shop("The number.", **hints))
    assert changed == [len(first), 2, 2, 2]
    # A table that is created again has its comments again.
    execute("shop", "DROP TABLE shop.visits")
    load(shop("The number.", **hints))
    assert comments()["visits.id"] == "The number."


def test_comments_that_cannot_change_are_a_warning_and_the_rows_are_loaded(
    tmp_warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("must be owner of table visits")

    monkeypatch.setattr(sql, "update_comments", refuse)
    result = load(shop("The number.", write_disposition="replace"))
    (warning,) = result.warnings
    assert "must be owner of table visits" in warning
    assert warehouse.query("SELECT count(*) AS n FROM shop.visits") == [{"n": 1}]


def test_a_view_and_an_unusual_name_can_be_commented(tmp_warehouse: Any) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute('CREATE SCHEMA "s ""x"; CREATE VIEW "s ""x"."v\'1" AS SELECT 1 AS "a b"')

        def execute(statement: str) -> Any:
            return connection.execute(statement).fetchall()

        wanted = {
            "v'1": Descriptions("A view.", {"a b": "A column."}),
            "missing": Descriptions("-"),
        }
        assert update_comments(execute, "duckdb", 's "x', wanted) == 2
        assert update_comments(execute, "duckdb", 's "x', wanted) == 0
        assert execute("SELECT comment FROM duckdb_views() WHERE view_name = 'v''1'") == [
            ("A view.",)
        ]
    assert update_comments(pytest.fail, "ducklake", "s", wanted) == 0
