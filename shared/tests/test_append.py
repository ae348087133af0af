"""Rows after a cursor are appended exactly once, wherever a load is killed and whatever is refused."""

import os
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from shared import warehouse
from shared.testing.killed_loads import RECORDED, killed_load

SLOW_ON_SERVERS = True

SPEC = warehouse.pipeline("shop_pipeline", "shop")
SMALL_FILES = {"data_writer.file_max_items": 1, "data_writer.buffer_max_items": 1}


@dlt.source(name="shop")
def shop(upto: int) -> Iterator[DltResource]:
    """Serves rows with nested rows of two levels, flat rows in several files, and a snapshot."""

    @dlt.resource(write_disposition="append")
    def orders(after: Any = dlt.sources.incremental("id")) -> Iterator[Any]:  # noqa: B008 - as dlt documents it
        yield [{"id": i, "lines": [{"n": i, "taxes": [{"n": i}]}]} for i in range(1, upto + 1)]

    @dlt.resource(write_disposition="append")
    def visits(after: Any = dlt.sources.incremental("id")) -> Iterator[Any]:  # noqa: B008 - as dlt documents it
        yield from ({"id": i} for i in range(1, upto + 1))

    yield from (orders, visits)
    yield dlt.resource([{"id": upto}], name="totals")


def load(source: DltSource) -> warehouse.LoadResult:
    with dlt.config.values(SMALL_FILES):
        return warehouse.load(warehouse.plan_load(SPEC, source))


def numbers(table: str, column: str = "id") -> list[int]:
    rows = warehouse.query(f"SELECT {column} AS n FROM shop.{table} ORDER BY 1")
    return [row["n"] for row in rows]


def stored() -> list[list[int]]:
    return [
        numbers("visits"),
        numbers("orders"),
        numbers("orders__lines", "n"),
        numbers("orders__lines__taxes", "n"),
    ]


def up_to(last: int) -> list[list[int]]:
    return [list(range(1, last + 1))] * 4


JOBS = ["orders", "orders__lines", "visits", "_dlt_pipeline_state"]
POINTS = [*JOBS, *RECORDED]


@pytest.fixture
def on_files(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the warehouse an empty directory, and return it."""
    folder = tmp_warehouse / "lake"
    monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__BUCKET_URL", folder.as_uri())
    return folder


def kill_at(points: Iterable[str]) -> None:
    load(shop(2))
    for upto, point in enumerate(points, start=3):
        assert killed_load(point, partial(load, shop(upto))) == -signal.SIGKILL, point
        load(shop(upto))
        assert stored() == up_to(upto), point
    assert numbers("totals") == [upto]


def test_a_killed_load_is_added_once(any_warehouse: str) -> None:
    kill_at(POINTS)
    assert warehouse.query("SELECT * FROM shop._dlt_loads WHERE status <> 0") == []
    for table in warehouse.list_tables():
        assert table.last_load is None or table.last_load.status == "complete"


@pytest.mark.usefixtures("on_files")
def test_a_killed_load_is_added_once_to_files() -> None:
    kill_at(point for point in POINTS if not point.startswith("_dlt"))


def test_a_load_that_removes_the_rows_of_a_killed_one_says_so(any_warehouse: str) -> None:
    load(shop(2))
    mark_as_unfinished()
    log: list[str] = []
    with dlt.config.values(SMALL_FILES):
        warehouse.load(warehouse.plan_load(SPEC, shop(2)), log.append)
    assert [line for line in log if "had appended; it did not complete" in line]
    assert stored() == up_to(2)  # the cursor is the one before that load


def execute(sql: str) -> None:
    """Run a statement in the warehouse."""
    if os.environ["WAREHOUSE_TYPE"] == "duckdb":
        with warehouse.exclusive_connection() as connection:
            connection.execute(sql)
        return
    import psycopg2

    url = os.environ["DESTINATION__WAREHOUSE__CREDENTIALS"]
    with psycopg2.connect(url) as connected, connected.cursor() as cursor:
        cursor.execute(sql)


def mark_as_unfinished() -> None:
    """Make the load look as if it had been killed after it committed its rows."""
    execute("UPDATE shop._dlt_loads SET status = 1")


def two(numbers: list[int]) -> DltSource:
    """Return a source of two resources."""
    big = pa.table({"id": [*range(len(numbers))], "n": numbers})
    tables = [pa.table({"id": [*range(len(numbers))]}), big]
    hints: Any = {"write_disposition": "append", "columns": {"n": {"data_type": "bigint"}}}
    resources = [
        dlt.resource(
            [table.slice(i, 1) for i in range(len(numbers))],
            name=name,
            incremental=dlt.sources.incremental("id"),
            **(hints if name == "big" else {}),
        )
        for name, table in zip(("small", "big"), tables, strict=True)
    ]
    return DltSource(dlt.Schema("shop"), "shop", resources)


def test_a_load_of_which_the_database_refuses_a_part_adds_nothing(any_warehouse: str) -> None:
    load(two([7]))
    execute("CREATE UNIQUE INDEX one_of_each ON shop.big (n)")
    with pytest.raises(PipelineStepFailed):
        load(two([7, 4, 5, 7, 6]))
    assert (numbers("small"), numbers("big", "n")) == ([0], [7])
    load(two([7, 4, 5, 6]))
    assert (numbers("small"), numbers("big", "n")) == ([0, 1, 2, 3], [4, 5, 6, 7])


def test_rows_stay_whose_loads_are_no_longer_recorded(any_warehouse: str) -> None:
    load(shop(2))
    if any_warehouse == "duckdb":
        with warehouse.exclusive_connection() as connection:
            connection.execute("DELETE FROM shop._dlt_loads WHERE status = 0")
        load(shop(4))  # the cursor is lost with the records, so all rows come again
        assert stored()[0] == [1, 1, 2, 2, 3, 4]


def test_a_load_without_an_append_asks_one_query_more(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    original = DuckDbSqlClient.execute_query

    def counted(self: DuckDbSqlClient, query: Any, *arguments: Any, **named: Any) -> Any:
        statements.append(str(query))
        return original(self, query, *arguments, **named)

    monkeypatch.setattr(DuckDbSqlClient, "execute_query", counted)
    source = DltSource(dlt.Schema("shop"), "shop", [dlt.resource([{"id": 1}], name="totals")])
    warehouse.load(warehouse.plan_load(SPEC, source))
    warehouse.load(warehouse.plan_load(SPEC, source))
    assert sum('"status" = 1' in statement for statement in statements) == 2
    assert not [s for s in statements if "INSERT" in s and ", 1," in s]
