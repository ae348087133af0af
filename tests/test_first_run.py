"""The first command: `etl run` loads every asset of all locations, and a rerun changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb

from shared.cli.locations import code_locations
from support.processes import etl

TABLES = {
    "simple.load_dict": 2,
    "csv_data.share_prices": 8,
    "csv_data.share_prices_daily": 19,
    "csv_data.share_prices_by_file": 19,
    "nasa_neo.asteroids": 15,
    "nasa_neo.near_earth_objects": 180,
    "nasa_neo.sentry_approaches": 14,
    "nasa_neo.daily_summary": 15,
    "nasa_neo.sentry_objects": 7,
    "nasa_neo.catalog": 240,
}


def loaded(environment: dict[str, str]) -> dict[str, list[tuple[object, ...]]]:
    """Return the columns of every table that a rerun must not change."""
    columns = "NOT starts_with(name, '_dlt') AND name <> 'crawl_number'"
    with duckdb.connect(environment["WAREHOUSE_PATH"], read_only=True) as connection:
        return {
            table: connection.execute(
                f"SELECT COLUMNS(lambda name: {columns}) FROM {table} ORDER BY ALL"
            ).fetchall()
            for table in TABLES
        }


def test_the_first_run_loads_every_asset_and_a_second_keeps_the_same_rows(
    etl_environment: dict[str, str],
) -> None:
    first = etl(etl_environment, "run")
    assert first.returncode == 0, first.stdout + first.stderr
    rows = loaded(etl_environment)
    assert {table: len(content) for table, content in rows.items()} == TABLES
    for table, count in TABLES.items():
        (line,) = (line for line in first.stdout.splitlines() if f" {table} " in f" {line} ")
        assert line.split()[0] == table.replace(".", "/")
        assert line.split()[1] == str(count)
    assert "recorded days, http://127.0.0.1:" in " ".join(first.stdout.split())
    assert "NASA_API_KEY is not set: api_etl sends its requests to a local server" in first.stdout
    commands = first.stdout.partition("Next:\n")[2].splitlines()
    assert [line.split()[0] for line in commands[2:]] == ["cat"]
    assert [" run " in line for line in commands[:2]] == [True, True]

    second = etl(etl_environment, "run")
    assert second.returncode == 0
    assert loaded(etl_environment) == rows

    # The tables of two pipelines join.
    joined = etl(
        etl_environment,
        "query",
        "SELECT count(*) AS pairs FROM simple.load_dict CROSS JOIN csv_data.share_prices",
    )
    assert joined.returncode == 0
    assert "16" in joined.stdout


def test_a_failed_asset_makes_the_command_fail_and_is_named(
    etl_environment: dict[str, str],
) -> None:
    drop = Path(etl_environment["WAREHOUSE_PATH"]).parent / "workspace" / "data" / "drop"
    (drop / "2018-01-22.csv").write_text("no,header\n")
    done = etl(etl_environment, "run", "csv_etl")
    assert done.returncode == 1
    output = " ".join(done.stdout.split())
    assert (
        "failed csv_data/import_file: check file_is_loadable: 2018-01-22.csv: the header is no"
        in output
    )
    assert (
        "failed csv_data/share_prices: not run, because a check of an asset that it depends on failed"
        in output
    )
    assert "Next:" not in output


def test_a_location_that_does_not_load_fails_alone(etl_environment: dict[str, str]) -> None:
    file = Path(etl_environment["WAREHOUSE_PATH"]).parent / "workspace" / "workspace.yaml"
    file.write_text(file.read_text().replace("csv_etl.definitions", "csv_etl.gone"))
    done = etl(etl_environment, "run", "csv_etl", "simple_etl")
    assert done.returncode == 1
    assert "failed csv_etl: ModuleNotFoundError: No module named 'csv_etl.gone'" in done.stdout
    assert "simple.load_dict" in done.stdout


def test_with_a_key_the_same_code_sends_requests_to_nasa(etl_environment: dict[str, str]) -> None:
    environment = {
        **etl_environment,
        "NASA_API_KEY": "mine",
        "NASA_BASE_URL": "http://127.0.0.1:9/neo",  # nothing listens: tests send no requests to NASA
        "RUNTIME__REQUEST_MAX_ATTEMPTS": "1",
    }
    done = etl(environment, "run", "api_etl")
    assert done.returncode == 1
    assert "NASA_API_KEY is not set" not in done.stdout
    assert "NeoWs could not be reached" in " ".join(done.stdout.split())


def test_an_unknown_location_is_one_clear_line(etl_environment: dict[str, str]) -> None:
    done = etl(etl_environment, "run", "sales_etl")
    assert done.returncode == 2
    expected = "No code location 'sales_etl'; workspace.yaml has {}."
    assert done.stderr == expected.format(", ".join(code_locations())) + "\n"
    assert not done.stdout


def test_an_invalid_query_is_an_error_without_a_traceback(etl_environment: dict[str, str]) -> None:
    with duckdb.connect(etl_environment["WAREHOUSE_PATH"]) as connection:
        connection.execute("CREATE SCHEMA simple; CREATE TABLE simple.load_dict (id BIGINT)")
    for sql in ("SELECT * FROM nowhere", "SELEC", "DROP TABLE simple.load_dict", ""):
        done = etl(etl_environment, "query", sql)
        assert done.returncode == 1
        assert "Error" in done.stderr or "Only SELECT queries" in done.stderr
        assert not done.stdout
        assert "Traceback" not in done.stdout + done.stderr


def test_help_lists_the_commands_without_importing_dagster() -> None:
    code = "import sys, shared.cli; assert 'dagster' not in sys.modules, 'slow'"
    subprocess.run([sys.executable, "-c", code], check=True)
    shown = subprocess.run(
        [sys.executable, "-m", "shared.cli", "--help"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "run" in shown
    assert "query" in shown
