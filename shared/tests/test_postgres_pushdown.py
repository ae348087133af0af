"""Postgres: DuckDB reads a file while its rows are copied, with the rows and errors of the slow way."""

from pathlib import Path
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from shared import warehouse
from shared.sources.csv import CsvFormat, csv_source
from shared.sources.drop_folder import InvalidFileError
from shared.sources.files import source
from shared.warehouse.destinations.postgres import PushdownCopyJob
from shared.warehouse.errors import find_cause

COLUMNS: dict[str, Any] = {
    "id": {"data_type": "bigint", "nullable": False},
    "day": {"data_type": "date"},
    "at": {"data_type": "timestamp"},
    "clock": {"data_type": "timestamp", "timezone": False},
    "hour": {"data_type": "time"},
    "price": {"data_type": "decimal", "precision": 18, "scale": 2},
    "share": {"data_type": "double"},
    "paid": {"data_type": "bool"},
    "data": {"data_type": "binary"},
    "größe": {"data_type": "text"},
}
HEADER = ",".join(COLUMNS)
ROWS = (
    "1,2024-02-29,2024-02-29T10:00:00+02:00,2024-02-29T10:00:00,23:59:59.000001,-1.50,0.1,true,AP8=,a",
    '-9223372036854775808,,,,,,,,,"a ""b"", c; {d} \\ ?\n ü"',
    "3,9999-12-31,1969-12-31T23:59:59Z,1900-01-01T00:00:00,00:00:00,9999999999999999.99,-1e300,false,,''",
)
NAMES = ("a.csv", "b'; [1].csv")

jobs: list[PushdownCopyJob] = []


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = PushdownCopyJob.run
    monkeypatch.setattr(PushdownCopyJob, "run", lambda job: (jobs.append(job), run(job))[1])  # type: ignore[func-returns-value]
    jobs.clear()


def failure(name: str) -> str:
    """Return why a file does not load."""
    with pytest.raises(PipelineStepFailed) as caught:
        load(name)
    return str(find_cause(caught.value, InvalidFileError))


def write(folder: Path, name: str, *rows: str) -> None:
    (folder / "drop" / name).write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")


def load(*names: str) -> warehouse.LoadResult:
    files = csv_source(names, "items", CsvFormat(columns=COLUMNS))
    return warehouse.load(
        warehouse.plan_load(warehouse.pipeline("files", "files"), files, list(names))
    )


def stored() -> list[tuple[Any, ...]]:
    rows = warehouse.query("SELECT * FROM files.items ORDER BY file_name, id")
    return [
        tuple(
            bytes(value) if isinstance(value, memoryview) else value
            for name, value in row.items()
            if name != "_dlt_load_id"
        )
        for row in rows
    ]


@pytest.mark.usefixtures("postgres_warehouse")
def test_the_fast_way_loads_the_rows_of_the_slow_way_and_replaces_those_of_its_files(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        write(tmp_warehouse, name, *ROWS)
    load(*NAMES)
    expected = stored()
    assert len(expected) == 6
    assert not jobs
    monkeypatch.setattr(source, "_PUSHDOWN_MIN_BYTES", 0)
    result = load(*NAMES)
    assert len(jobs) == 1
    assert result.rows_loaded["items"] == 6
    assert stored() == expected
    ids = {row["id"] for row in warehouse.query("SELECT _dlt_load_id AS id FROM files.items")}
    assert ids == {package.load_id for package in result.load_packages}
    # Rows of the other file stay.
    write(tmp_warehouse, NAMES[1], ROWS[0])
    assert load(NAMES[1]).tables["items"].row_count == 4
    assert stored() == expected[:3] + [row for row in expected[3:] if row[1] == 1]
    # A bad row is named as in the slow way, and nothing changes.
    expected = stored()
    for bad in ("x", "2,2023-02-29", "2,,,,,1.005", "2,,,,,,,,,a\0b", ""):
        write(tmp_warehouse, NAMES[0], ROWS[0], bad + "," * (9 - bad.count(",")))
        jobs.clear()
        message = failure(NAMES[0])
        monkeypatch.setattr(source, "_PUSHDOWN_MIN_BYTES", 10**9)
        assert message == failure(NAMES[0])
        monkeypatch.setattr(source, "_PUSHDOWN_MIN_BYTES", 0)
        assert stored() == expected
    assert jobs


@pytest.mark.usefixtures("postgres_warehouse")
def test_a_file_that_changes_while_it_is_copied_does_not_load(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_PUSHDOWN_MIN_BYTES", 0)
    write(tmp_warehouse, "a.csv", *ROWS)
    load("a.csv")
    expected = stored()
    copied = PushdownCopyJob._insert

    def change(job: PushdownCopyJob, *arguments: Any) -> int:
        rows = copied(job, *arguments)
        write(tmp_warehouse, "a.csv", ROWS[0], ROWS[0])
        return rows

    monkeypatch.setattr(PushdownCopyJob, "_insert", change)
    write(tmp_warehouse, "a.csv", ROWS[0])
    load("a.csv")  # the fast way fails, so the slow way reads the new content
    assert len(stored()) == 2
    assert stored() != expected
