"""Loads stay exact in Postgres and in files: lost connections, unexpected types, formats and names."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pyarrow as pa
import pytest
from adbc_driver_manager.dbapi import Cursor
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from shared import warehouse
from shared.warehouse.destinations.filesystem import partition_dir

REPLACED: Any = {"disposition": "merge", "strategy": "delete-insert"}


def source_of(data: Any, name: str = "items", disposition: Any = None, **hints: Any) -> DltSource:
    """Return a source of one table; its rows are replaced by the column with the hint `partition`."""

    @dlt.source(name="exact")
    def exact() -> DltResource:
        resource: DltResource = dlt.resource(
            [data],
            name=name,
            columns=dict(hints),
            write_disposition=disposition or REPLACED,
        )
        return resource

    return exact()


PIPELINE = warehouse.pipeline("exact_pipeline", dataset_name="exact")


def load(source: DltSource, *partitions: str, **how: Any) -> warehouse.LoadResult:
    options = warehouse.LoadOptions(extract_arguments=how)
    return warehouse.load(warehouse.plan_load(PIPELINE, source, partitions, options))


def count(table: str = "items") -> int:
    (row,) = warehouse.query(f"SELECT count(*) AS n FROM exact.{table}")
    return int(row["n"])


@pytest.fixture
def on_files(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the warehouse an empty directory, and return it."""
    folder = tmp_warehouse / "lake"
    monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__BUCKET_URL", folder.as_uri())
    return folder


DAY = {"data_type": "text", "partition": True}
THREE = pa.table({"day": ["mon"] * 3, "n": [1, 2, 3]})


def test_a_connection_that_ends_while_rows_are_copied_duplicates_none(
    postgres_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(source_of(THREE, day=DAY), "mon")
    original, lost = Cursor.adbc_ingest, threading.Event()

    def losing(self: Cursor, table: str, *rest: Any, **named: Any) -> int:
        if table == "items" and not lost.is_set():
            lost.set()
            with psycopg2.connect(postgres_warehouse) as other, other.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = "
                    "'idle in transaction' AND datname = current_database()"
                )
        return original(self, table, *rest, **named)

    monkeypatch.setattr(Cursor, "adbc_ingest", losing)
    loaded = load(source_of(THREE, day=DAY), "mon")
    assert lost.is_set()
    assert count() == 3
    assert loaded.tables["items"].row_count == 3


@pytest.mark.usefixtures("postgres_warehouse")
def test_rows_of_many_files_and_of_repeated_runs_are_loaded_once() -> None:
    rows = [{"day": "mon", "n": n} for n in range(100)]
    with dlt.config.values({"data_writer.file_max_items": 10, "data_writer.buffer_max_items": 10}):
        load(source_of(rows, day=DAY), "mon")
        for data in (rows, rows[:30]):
            load(source_of(data, day=DAY), "mon")
    assert count() == 30


@pytest.mark.parametrize("kind", ["postgres_warehouse", "on_files"])
@pytest.mark.parametrize("file_format", ["csv", "insert_values", "jsonl"])
def test_a_file_format_of_a_resource_does_not_change_what_is_replaced(
    request: pytest.FixtureRequest, kind: str, file_format: Any
) -> None:
    request.getfixturevalue(kind)
    for _ in range(2):
        source = source_of([{"day": "mon", "n": n} for n in range(3)], day=DAY)
        source.items.apply_hints(file_format=file_format)
        load(source, "mon")
    assert count() == 3


WRONG = {
    "text": (pa.array(["12345678"]), "bigint"),
    "number": (pa.array([1], pa.int64()), "timestamp"),
    "unsigned": (pa.array([2**63 + 5], pa.uint64()), "bigint"),
    "word": (pa.array(["soon"]), "date"),
    "fraction": (pa.array([1.5]), "bigint"),
}


@pytest.mark.usefixtures("postgres_warehouse")
@pytest.mark.parametrize("what", WRONG)
def test_a_value_of_another_type_is_loaded_unchanged_or_not_at_all(what: str) -> None:
    values, data_type = WRONG[what]
    table = pa.table({"day": ["mon"], "value": values})
    source = source_of(table, day=DAY, value={"data_type": data_type})
    if what == "text":
        load(source, "mon")
        assert warehouse.query("SELECT value FROM exact.items") == [{"value": 12345678}]
        return
    with pytest.raises((PipelineStepFailed, warehouse.WarehouseError)):
        load(source, "mon")


@pytest.mark.usefixtures("postgres_warehouse")
def test_numbers_of_other_widths_are_loaded_unchanged() -> None:
    numbers = {
        "narrow": pa.array([7], pa.int16()),
        "single": pa.array([0.5], pa.float32()),
        "whole": pa.array([3], pa.int64()),
    }
    hints: dict[str, Any] = {name: {"data_type": "double"} for name in ("single", "whole")}
    narrow = {"data_type": "bigint", "precision": 32}
    load(source_of(pa.table({"day": ["mon"], **numbers}), day=DAY, narrow=narrow, **hints), "mon")
    rows = warehouse.query("SELECT narrow, single, whole FROM exact.items")
    assert rows == [{"narrow": 7, "single": 0.5, "whole": 3.0}]


OTHER_TEXTS: dict[str, tuple[Any, str, str]] = {
    "timestamp": (datetime(2025, 3, 10, tzinfo=UTC), "timestamp", "2025-03-10"),
    "number": (5, "bigint", "05"),
    "decimal": (Decimal("1.50"), "decimal", "1.5"),
    "bool": (True, "bool", "True"),
}


@pytest.mark.parametrize("kind", ["tmp_warehouse", "postgres_warehouse", "on_files"])
@pytest.mark.parametrize("what", OTHER_TEXTS)
def test_a_partition_key_is_compared_as_a_value_of_the_column(
    request: pytest.FixtureRequest, kind: str, what: str
) -> None:
    request.getfixturevalue(kind)
    value, data_type, key = OTHER_TEXTS[what]
    for _ in range(2):
        load(source_of([{"key": value}], key={"data_type": data_type, "partition": True}), key)
    assert count() == 1


@pytest.mark.parametrize(
    ("value", "data_type", "key"),
    [(5, "bigint", "five"), (datetime(2025, 3, 10, tzinfo=UTC).date(), "date", "2025-3-10")],
)
def test_a_partition_key_that_is_no_value_of_the_column_is_refused(
    tmp_warehouse: Path, value: object, data_type: str, key: str
) -> None:
    source = source_of([{"key": value}], key={"data_type": data_type, "partition": True})
    with pytest.raises(warehouse.LoadPlanError, match=rf"items.key is {data_type}, .* '{key}'"):
        load(source, key)
    assert not list(tmp_warehouse.glob("*.duckdb"))


def test_nested_rows_of_a_replaced_table_are_removed(on_files: Path) -> None:
    for kids in ([{"a": 1}, {"a": 2}], []):
        load(source_of([{"n": 1, "kids": kids}], disposition="replace"))
    assert count() == 1
    assert not list(on_files.rglob("items__kids/*.parquet"))


def test_a_table_keeps_its_files_if_its_name_begins_with_the_name_of_another(
    on_files: Path,
) -> None:
    for name in ("items_of_today", "items", "items"):
        load(source_of(THREE, name=name, disposition="replace"))
    assert (count("items_of_today"), count("items")) == (3, 3)
    assert len(list(on_files.rglob("items/*.parquet"))) == 1


def test_a_file_layout_that_prevents_replacement_is_refused(
    on_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__WAREHOUSE__LAYOUT", "{table_name}/{load_id}/{file_id}.{ext}")
    with pytest.raises(warehouse.WarehouseConfigError, match="LAYOUT"):
        load(source_of(THREE, day=DAY), "mon")
    assert not on_files.exists()


def test_an_unfinished_file_of_a_killed_run_is_not_read_and_is_removed(on_files: Path) -> None:
    load(source_of(THREE, day=DAY), "mon")
    left = on_files / "exact" / "items" / "tue" / "1.a.parquet.part"
    left.parent.mkdir()
    left.write_bytes(b"PAR1 and no more")
    assert count() == 3
    tuesday = pa.table({"day": ["tue"], "n": [1]})
    load(source_of(tuesday, day=DAY), "tue")
    assert count() == 4
    assert not left.exists()


PARTITIONS = ["", ".", "..", "a/b", "a%2Fb", "50%", "*?[x]", "é 日", "a.b", "%00", "mon=tue"]


def test_each_partition_has_its_own_directory(on_files: Path) -> None:
    assert len({partition_dir(name) for name in PARTITIONS}) == len(PARTITIONS)
    for name in PARTITIONS * 2:
        load(source_of(pa.table({"day": [name], "n": [1]}), day=DAY), name)
    rows = warehouse.query("SELECT day, count(*) AS n FROM exact.items GROUP BY 1")
    assert {row["day"]: row["n"] for row in rows} == dict.fromkeys(PARTITIONS, 1)
    assert all(file.is_relative_to(on_files) for file in on_files.rglob("*"))


def test_what_files_cannot_replace_is_refused_and_nothing_is_written(on_files: Path) -> None:
    keyed = source_of(
        [{"id": 1}], disposition="merge", id={"data_type": "bigint", "primary_key": True}
    )
    with pytest.raises(PipelineStepFailed, match="items merges by key"):
        load(keyed)
    nested = source_of([{"day": "mon", "kids": [{"a": 1}]}], day=DAY)
    with pytest.raises(PipelineStepFailed, match="items__kids is nested"):
        load(nested, "mon")
    assert not list(on_files.rglob("items*/**/*.parquet"))


@pytest.fixture(params=["postgres_warehouse", "on_files"])
def three_rows(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue(request.param)
    load(source_of(THREE, day=DAY), "mon")
    return str(request.param)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT min(n), min(n) FROM exact.items", []),
        ("SELECT date_diff('month', DATE '2025-01-31', DATE '2025-03-01') AS months", []),
        ("SELECT ? AS value FROM exact.items", [float("nan")]),
        ("SELECT ? AS value FROM exact.items", [b"bytes"]),
        ("SELECT $other AS value FROM exact.items", []),
        ("SELECT ? AS value FROM exact.items", []),
        ("SELECT n FROM exact.missing", []),
    ],
)
def test_a_query_that_engines_interpret_differently_is_refused(
    three_rows: str, sql: str, parameters: Sequence[object]
) -> None:
    with pytest.raises(warehouse.QueryError):
        warehouse.query(sql, parameters)
    assert three_rows


def test_a_query_can_have_common_table_expressions_and_casts_of_parameters(three_rows: str) -> None:
    sql = (
        "WITH items AS (SELECT * FROM exact.items WHERE day = ?) "
        "SELECT ?::DATE AS day, sum(n)::BIGINT AS n FROM items WHERE n > - ?::INTEGER"
    )
    rows = warehouse.query(sql, ["mon", "2025-03-10", 5])
    assert [(str(row["day"]), row["n"]) for row in rows] == [("2025-03-10", 6)], three_rows


def test_a_wrong_url_scheme_is_named_without_the_password(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tmp_warehouse
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    address = "postgresql+psycopg2://me:s3cret@127.0.0.1:9/x"
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", address)
    with pytest.raises(
        warehouse.WarehouseConfigError, match="must begin with postgresql://"
    ) as caught:
        warehouse.query("FROM exact.items")
    assert "s3cret" not in str(caught.value)
