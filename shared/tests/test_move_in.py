"""A dlt project moves in and out: its names, tables, cursors and state go on, and no row stands twice."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.warehouse.locks.file import duckdb_path

SLOW_ON_SERVERS = True

CURSOR: Any = dlt.sources.incremental("id")
SCD2: Any = {"disposition": "merge", "strategy": "scd2"}


@dlt.source(name="crm")
def crm(upto: int) -> Iterator[DltResource]:
    """Yield what plain dlt loads: after a cursor with a nested table, by key, with history, with state."""

    @dlt.resource(name="events", write_disposition="append")
    def events(cursor: Any = CURSOR) -> Iterator[Any]:
        del cursor
        yield [{"id": n, "tags": [{"tag": n}]} for n in range(1, upto + 1)]

    @dlt.resource(name="customers", primary_key="id", write_disposition="merge")
    def customers() -> Iterator[Any]:
        state = dlt.current.resource_state()
        state["runs"] = [*state.get("runs", []), upto]
        yield [{"id": 1, "visits": upto, "runs": len(state["runs"])}, {"id": upto, "visits": 0}]

    @dlt.resource(name="prices", primary_key="id", write_disposition=SCD2)
    def prices() -> Iterator[Any]:
        yield [{"id": 1, "price": upto}]

    yield from (events, customers, prices)


class Plain:
    """The team's own pipeline of plain dlt, with its own working directory."""

    def __init__(self, folder: Path, name: str = "crm_pipeline") -> None:
        self.folder, self.name = folder, name

    def run(self, source: Any, folder: str = "plain", **how: Any) -> None:
        destination: Any = (
            dlt.destinations.duckdb(str(duckdb_path()))
            if os.environ["WAREHOUSE_TYPE"] == "duckdb"
            else dlt.destinations.postgres(os.environ["DESTINATION__WAREHOUSE__CREDENTIALS"])
        )
        pipeline = dlt.pipeline(
            self.name,
            pipelines_dir=str(self.folder / folder),
            destination=destination,
            dataset_name="crm_raw",
        )
        pipeline.run(source, **how).raise_on_failed_jobs()


@pytest.fixture
def plain(tmp_warehouse: Path) -> Plain:
    """A project of plain dlt that loads into the same database."""
    return Plain(tmp_warehouse)


def load(source: DltSource, name: str = "crm_pipeline", **how: Any) -> None:
    spec = warehouse.pipeline(name, dataset_name="crm_raw")
    options = warehouse.LoadOptions(extract_arguments=how)
    warehouse.load(warehouse.plan_load(spec, source, options=options))


def rows(sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in warehouse.query(sql)]


def assert_exact(upto: int, runs: int, first: int = 1) -> None:
    """Check every table after some runs, the first and the last with the rows until `first` and `upto`."""
    every = [(n,) for n in range(1, upto + 1)]
    assert rows("SELECT id FROM crm_raw.events ORDER BY 1") == every
    assert rows("SELECT tag FROM crm_raw.events__tags ORDER BY 1") == every
    assert rows("SELECT visits, runs FROM crm_raw.customers WHERE id = 1") == [(upto, runs)]
    assert rows("SELECT count(*) FROM crm_raw.customers") == [(upto,)]
    history = rows("SELECT price, _dlt_valid_to IS NULL FROM crm_raw.prices ORDER BY 1")
    assert history == [(n, n == upto) for n in range(first, upto + 1)]
    assert rows("SELECT DISTINCT schema_name FROM crm_raw._dlt_version") == [("crm",)]
    stored = rows("SELECT schema FROM crm_raw._dlt_version")
    assert not any("shared." in text for (text,) in stored)  # plain dlt could not import it
    assert rows("SELECT DISTINCT pipeline_name FROM crm_raw._dlt_pipeline_state") == [
        ("crm_pipeline",)
    ]


@pytest.mark.usefixtures("any_warehouse")
def test_a_project_of_plain_dlt_moves_in_and_back_out(plain: Plain) -> None:
    plain.run(crm(1))
    assert_exact(1, runs=1)
    for runs in (2, 3):  # and once more
        load(crm(2))
        assert_exact(2, runs)
    plain.run(crm(3))  # its working directory has the state from before
    assert_exact(3, runs=4)
    load(crm(4))
    plain.run(crm(5), folder="another machine")
    assert_exact(5, runs=6)


@pytest.mark.usefixtures("any_warehouse")
def test_plain_dlt_reads_what_the_first_load_stored(plain: Plain) -> None:
    for _ in range(2):
        load(crm(1))
        assert_exact(1, runs=rows("SELECT runs FROM crm_raw.customers")[0][0])
        assert rows("SELECT count(*) FROM crm_raw._dlt_version") == [(1,)]
    plain.run(crm(2))
    assert_exact(2, runs=3)


@pytest.mark.usefixtures("any_warehouse")
def test_another_pipeline_name_is_refused_with_both_names(plain: Plain) -> None:
    """With a refresh too: dlt drops only tables that the new pipeline has loaded."""
    plain.run(crm(2))
    for how in ({}, {"refresh": "drop_resources"}):
        with pytest.raises(warehouse.LoadPlanError) as refused:
            load(crm(3), "crm", **how)
        assert "pipeline crm, source crm, resource events" in str(refused.value)
        assert "pipeline crm_pipeline, source crm, resource events" in str(refused.value)
        assert_exact(2, 1, first=2)


def test_another_source_name_is_refused_with_both_names(plain: Plain) -> None:
    plain.run(crm(2))
    with pytest.raises(warehouse.LoadPlanError, match="source salesforce") as refused:
        load(crm.clone(name="salesforce")(3))
    assert "source crm, resource events" in str(refused.value)
    assert_exact(2, 1, first=2)


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_cursor_on_another_field_does_not_bring_the_rows_again() -> None:
    def append(path: str, upto: int, **how: Any) -> None:
        @dlt.source(name="crm")
        def source() -> DltResource:
            resource: DltResource = dlt.resource(
                [{"id": n, "number": n} for n in range(1, upto + 1)],
                name="events",
                write_disposition="append",
                incremental=dlt.sources.incremental(path),
            )
            return resource

        load(source(), **how)

    append("id", 2)
    with pytest.raises(warehouse.LoadPlanError, match=r"cursor number is new.*cursor id"):
        append("number", 3)
    assert rows("SELECT count(*) FROM crm_raw.events") == [(2,)]
    for upto in (3, 4):
        append("number", upto, **({"refresh": "drop_resources"} if upto == 3 else {}))
        assert rows("SELECT count(*) FROM crm_raw.events") == [(upto,)]


def test_a_resource_without_a_source_moves_in_with_the_name_that_dlt_gave_it(plain: Plain) -> None:
    """Dlt names the schema of such a resource after its pipeline."""

    @dlt.resource(name="events", write_disposition="append")
    def events(upto: int, cursor: Any = CURSOR) -> Iterator[Any]:
        del cursor
        yield [{"id": n} for n in range(1, upto + 1)]

    plain.name = "nightly"
    plain.run(events(2))
    assert rows("SELECT DISTINCT schema_name FROM crm_raw._dlt_version") == [("nightly",)]
    load(dlt.source(lambda: events(3), name="nightly")(), "nightly")
    assert rows("SELECT id FROM crm_raw.events ORDER BY 1") == [(1,), (2,), (3,)]
    plain.run(events(4))
    assert rows("SELECT id FROM crm_raw.events ORDER BY 1") == [(1,), (2,), (3,), (4,)]


@pytest.mark.usefixtures("any_warehouse")
def test_tables_of_arrow_that_have_no_load_id_get_one(plain: Plain) -> None:
    """Plain dlt adds `_dlt_load_id` to Arrow tables only if it is configured to."""

    def items(*ids: int) -> DltSource:
        @dlt.source(name="crm")
        def source() -> DltResource:
            resource: DltResource = dlt.resource(
                [pa.table({"id": list(ids)})],
                name="items",
                primary_key="id",
                write_disposition="merge",
            )
            return resource

        return source()

    plain.run(items(1))
    load(items(2))
    load(items(2, 3))
    assert rows("SELECT id FROM crm_raw.items ORDER BY 1") == [(1,), (2,), (3,)]
    assert rows("SELECT count(_dlt_load_id) FROM crm_raw.items") == [(2,)]
    with dlt.config.values({"normalize.parquet_normalizer.add_dlt_load_id": True}):
        plain.run(items(4))
    assert rows("SELECT count(*) AS n, count(_dlt_load_id) AS loaded FROM crm_raw.items") == [
        (4, 3)
    ]


def test_the_commands_of_dlt_show_a_pipeline_that_was_loaded_here(
    postgres_warehouse: str, tmp_path: Path
) -> None:
    """The documented commands, which the tests of the documents run for DuckDB."""
    load(crm(2).with_resources("events"))
    environment = {
        **os.environ,
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DESTINATION__POSTGRES__CREDENTIALS": postgres_warehouse,
    }

    def dlt_pipeline(*arguments: str) -> str:
        program = [str(Path(sys.executable).with_name("dlt")), "-y", "pipeline"]
        where = ["--pipelines-dir", str(tmp_path / "dlt"), "crm_pipeline"]
        command = [*program, *where, *arguments]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dlt_pipeline("sync", "--destination", "postgres", "--dataset-name", "crm_raw")
    assert "events with 2 table(s) and 1 resource state slot(s)" in dlt_pipeline("info")
