"""Rows that replace others go into their table in the transaction that deletes the old ones, unstaged."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import duckdb
import psycopg2
import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from shared import warehouse
from shared.sources.csv import CsvFormat, csv_source
from shared.sources.hints import APPEND_EACH_RUN
from shared.testing.killed_loads import in_forked_process, kill
from shared.warehouse import new_keys
from shared.warehouse.destinations import duckdb as duckdb_jobs
from shared.warehouse.destinations import pushdown_job
from shared.warehouse.destinations.direct import DirectJob
from shared.warehouse.scope import LoadState

SLOW_ON_SERVERS = True

SPEC = warehouse.pipeline("shop_pipeline", "shop")
REPLACE: dict[str, Any] = {"write_disposition": "replace"}


def merge(strategy: str = "delete-insert", key: Any = "id") -> dict[str, Any]:
    return {"write_disposition": {"disposition": "merge", "strategy": strategy}, "primary_key": key}


def rows_of(ids: Sequence[Any], value: int) -> pa.Table:
    return pa.table({"id": [*ids], "value": [value] * len(ids)})


def load(*items: Any, **hints: Any) -> warehouse.LoadResult:
    resource = dlt.resource([*items], name="orders", **hints)
    if hints["write_disposition"] == "append":
        resource.apply_hints(additional_table_hints=APPEND_EACH_RUN)
    source = DltSource(dlt.Schema("shop"), "shop", [resource])
    return warehouse.load(warehouse.plan_load(SPEC, source))


def stored(columns: str = "id, value") -> list[tuple[Any, ...]]:
    rows = warehouse.query(f"SELECT {columns} FROM shop.orders ORDER BY {columns}")
    return [tuple(row.values()) for row in rows]


def staged_tables() -> set[str]:
    """Return the tables that loads have staged."""
    rows = warehouse.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop_staging'"
    )
    return {row["table_name"] for row in rows if not row["table_name"].startswith("_dlt")}


def seen_by_another_connection(any_warehouse: str) -> int:
    """Return the number of rows that a reader sees now."""
    address = os.environ.get("DESTINATION__WAREHOUSE__CREDENTIALS", "")
    connect: Any = psycopg2.connect if any_warehouse == "postgres" else duckdb.connect
    with closing(connect(address or os.environ["WAREHOUSE_PATH"])) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM shop.orders")
        ((count,),) = cursor.fetchall()
    return int(count)


@pytest.fixture
def few_rows_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for keys that a table does not have yet, however few rows a load brings."""
    monkeypatch.setattr(new_keys, "_MIN_ROWS", 1)


def test_a_reader_never_sees_a_replaced_table_empty(
    any_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(rows_of([1, 2, 3], 1), **REPLACE)
    original, seen = DirectJob._files, []

    def reading(self: DirectJob) -> Any:
        seen.append(seen_by_another_connection(any_warehouse))
        return original(self)

    monkeypatch.setattr(DirectJob, "_files", reading)
    load(rows_of([4, 5], 2), **REPLACE)
    assert seen == [3]
    assert seen_by_another_connection(any_warehouse) == 2
    assert staged_tables() == set()


@pytest.mark.usefixtures("any_warehouse")
def test_a_replacement_that_fails_after_its_delete_leaves_the_old_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(rows_of([1, 2, 3], 1), **REPLACE)
    with monkeypatch.context() as patched:
        patched.setattr(DirectJob, "_files", stop)
        with pytest.raises(PipelineStepFailed, match="stopped by the test"):
            load(rows_of([4], 2), **REPLACE)
    assert stored() == [(1, 1), (2, 1), (3, 1)]
    load(rows_of([4], 2), **REPLACE)
    assert stored() == [(4, 2)]


def stop(_: object) -> Any:
    raise DatabaseTerminalException(RuntimeError("stopped by the test"))


@pytest.mark.usefixtures("any_warehouse")
def test_a_replacement_that_is_killed_after_its_delete_leaves_the_old_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(rows_of([1, 2, 3], 1), **REPLACE)

    def killed() -> None:
        monkeypatch.setattr(DirectJob, "_files", lambda _: kill())
        load(rows_of([4], 2), **REPLACE)

    assert in_forked_process(killed) == -signal.SIGKILL
    assert stored() == [(1, 1), (2, 1), (3, 1)]
    load(rows_of([4], 2), **REPLACE)
    assert stored() == [(4, 2)]


@pytest.mark.usefixtures("any_warehouse")
def test_a_table_is_replaced_by_the_rows_of_all_its_files_and_by_none() -> None:
    rows = [{"id": n, "value": 1} for n in range(30)]
    for _ in range(2):
        with dlt.config.values(
            {"data_writer.file_max_items": 10, "data_writer.buffer_max_items": 10}
        ):
            assert load(rows, **REPLACE).rows_loaded == {"orders": 30}
        assert len(stored()) == 30
    load(**REPLACE)
    assert stored() == []


@pytest.mark.usefixtures("any_warehouse")
def test_nested_rows_are_replaced_with_their_roots() -> None:
    load([{"id": 1, "value": 1}], **REPLACE)
    for value in (2, 3):
        load([{"id": n, "value": value, "lines": [{"n": n}]} for n in range(value)], **REPLACE)
        lines = warehouse.query("SELECT n FROM shop.orders__lines ORDER BY n")
        assert [row["n"] for row in lines] == [*range(value)]
        assert stored() == [(n, value) for n in range(value)]
    load([{"id": 1, "value": 4}], **REPLACE)
    assert warehouse.query("SELECT n FROM shop.orders__lines") == []
    assert stored() == [(1, 4)]


@pytest.mark.usefixtures("any_warehouse", "few_rows_are_enough")
@pytest.mark.parametrize("strategy", ["delete-insert", "upsert", "cdc"])
def test_a_merge_of_new_keys_is_inserted_and_one_of_known_keys_replaces(strategy: str) -> None:
    load(rows_of([1, 2, 3], 1), **merge(strategy))
    assert staged_tables() == set()
    for _ in range(2):
        load(rows_of([3, 4], 2), **merge(strategy))
        kept = [] if strategy == "cdc" else [(1, 1), (2, 1)]
        assert stored() == [*kept, (3, 2), (4, 2)]
    assert staged_tables() == {"orders"}


@pytest.mark.usefixtures("any_warehouse", "few_rows_are_enough")
def test_key_ranges_of_a_first_load_are_inserted_one_after_the_other() -> None:
    for first in (0, 10, 20):
        load(rows_of(range(first, first + 10), 1), **merge())
    assert stored("id") == [(n,) for n in range(30)]
    assert staged_tables() == set()
    load(rows_of([5, 25], 2), **merge())
    assert sorted(row for row in stored() if row[1] == 2) == [(5, 2), (25, 2)]
    assert len(stored()) == 30


KNOWN: dict[str, tuple[list[Any], list[Any]]] = {
    "text": (["a", "B", "ä"], ["ä", "a"]),
    "text between others": (["a", "c"], ["a", "b"]),
    "negative": ([-5, 0, 5], [-9, 0]),
    "great": ([2**63 - 1, -(2**63)], [2**63 - 1]),
}


@pytest.mark.usefixtures("any_warehouse", "few_rows_are_enough")
@pytest.mark.parametrize("kind", KNOWN)
def test_a_row_with_a_known_key_is_never_inserted_beside_the_old_one(kind: str) -> None:
    before, after = KNOWN[kind]
    load(rows_of(before, 1), **merge())
    load(rows_of(after, 2), **merge())
    expected = {**dict.fromkeys(before, 1), **dict.fromkeys(after, 2)}
    assert sorted(stored()) == sorted(expected.items())


@pytest.mark.usefixtures("any_warehouse", "few_rows_are_enough")
def test_a_key_of_two_columns_is_known_only_if_both_are() -> None:
    def rows(shop: str, ids: Sequence[int], value: int) -> pa.Table:
        return rows_of(ids, value).append_column("shop", pa.array([shop] * len(ids)))

    key = merge(key=["shop", "id"])
    load(rows("north", [1, 2], 1), **key)
    load(rows("south", [1, 2], 1), **key)
    load(rows("south", [2, 3], 2), **key)
    assert stored("shop, id, value") == [
        ("north", 1, 1),
        ("north", 2, 1),
        ("south", 1, 1),
        ("south", 2, 2),
        ("south", 3, 2),
    ]


@pytest.mark.usefixtures("any_warehouse", "few_rows_are_enough")
def test_one_row_of_a_repeated_key_stays() -> None:
    for _ in range(2):
        load(rows_of([1, 1, 2], 1), rows_of([2, 3], 1), **merge())
        assert stored() == [(1, 1), (2, 1), (3, 1)]


@pytest.mark.usefixtures("any_warehouse", "few_rows_are_enough")
def test_rows_that_are_marked_as_deleted_are_not_inserted() -> None:
    rows = rows_of([1, 2], 1).append_column("gone", pa.array([True, False]))
    columns: Any = {"gone": {"data_type": "bool", "hard_delete": True}}
    load(rows, columns=columns, **merge())
    assert stored() == [(2, 1)]


@pytest.mark.usefixtures("few_rows_are_enough")
def test_a_connection_that_ends_with_the_commit_of_new_keys_doubles_none(
    postgres_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = dbapi.Connection.commit

    def losing(self: Any) -> None:
        original(self)
        raise dbapi.OperationalError("lost", status_code=0)

    with monkeypatch.context() as patched:
        patched.setattr(dbapi.Connection, "commit", losing)
        with pytest.raises(PipelineStepFailed, match="lost"):
            load(rows_of([1, 2], 1), **merge())
    assert stored() == [(1, 1), (2, 1)]
    load(rows_of([1, 2], 2), **merge())
    assert stored() == [(1, 2), (2, 2)]


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("hints", [REPLACE, merge(), {"write_disposition": "append"}])
def test_rows_that_need_more_memory_than_usual_are_loaded(
    hints: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_jobs, "_BATCH_MEMORY_MB", 1)
    monkeypatch.setattr(duckdb_jobs, "_BATCH_MEMORY_MB_PER_COLUMN", 0)
    wide = rows_of(range(1000), 1).append_column("text", pa.array(["x" * 10_000] * 1000))
    load(wide, **hints)
    assert stored("count(*)") == [(1000,)]


@pytest.mark.usefixtures("tmp_warehouse")
def test_the_warehouse_reads_a_file_that_needs_more_memory_than_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushdown_job, "_MEMORY_MB", 1)
    monkeypatch.setattr(pushdown_job, "_MEMORY_MB_PER_THREAD", 0)
    monkeypatch.setattr(pushdown_job, "_MEMORY_MB_PER_COLUMN", 0)
    text = "x" * 10_000
    rows = "".join(f"{n},{text}\n" for n in range(1000))
    (tmp_path / "wide.csv").write_text(f"id,text\n{rows}")
    columns: dict[str, Any] = {"id": {"data_type": "bigint"}, "text": {"data_type": "text"}}
    source = csv_source(["wide.csv"], "orders", CsvFormat(columns=columns), folder=str(tmp_path))
    messages: list[str] = []
    result = warehouse.load(warehouse.plan_load(SPEC, source, ["wide.csv"]), messages.append)
    assert result.rows_loaded == {"orders": 1000}
    assert result.tables["orders"].partition_row_counts == {"wide.csv": 1000}
    assert not [message for message in messages if "row-by-row" in message]


def test_a_job_that_ends_leaves_the_limit_of_memory_to_the_jobs_that_run() -> None:
    with duckdb.connect() as connection:

        def limit() -> Any:
            return connection.execute("SELECT current_setting('memory_limit')").fetchall()

        unlimited = limit()
        client = SimpleNamespace(
            state=LoadState(), sql_client=SimpleNamespace(execute_sql=connection.execute)
        )
        with duckdb_jobs.memory_limit(client, 300):
            limited = limit()
            with duckdb_jobs.memory_limit(client, 100):
                assert limit() == limited
            assert limit() == limited != unlimited
            with duckdb_jobs.memory_limit(client, sys.maxsize):
                assert limit() == unlimited
        assert limit() == unlimited


def test_a_copy_to_postgres_keeps_a_part_of_a_file_in_memory(
    postgres_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, most = dbapi.Cursor.adbc_ingest, 0

    def measuring(self: Any, table: str, reader: pa.RecordBatchReader, **named: Any) -> Any:
        def batches() -> Any:
            nonlocal most
            for batch in reader:
                most = max(most, pa.total_allocated_bytes() - before)
                yield batch

        before = pa.total_allocated_bytes()
        copied = pa.RecordBatchReader.from_batches(reader.schema, batches())
        return original(self, table, copied, **named)

    rows = 10_000
    part = pa.table({"id": [*range(rows)], "text": [os.urandom(100).hex() for _ in range(rows)]})
    monkeypatch.setattr(dbapi.Cursor, "adbc_ingest", measuring)
    load(*[part] * 20, **REPLACE)
    assert stored("count(*)") == [(20 * rows,)]
    assert 0 < most < 20_000_000  # of 40 MB
