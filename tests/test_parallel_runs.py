"""Runs at the same moment, in separate processes, land all of their rows in the one warehouse."""

import subprocess
import sys
from pathlib import Path

import duckdb
from shared.testing.neows_server import NeowsServer, recorded_days

LAUNCH = """
import sys
import dagster as dg

module, partition, *keys = sys.argv[1:]
defs = __import__(f"{module}.definitions", fromlist=["defs"]).defs
print("ready", flush=True)
sys.stdin.readline()
result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
    asset_selection=[dg.AssetKey(key.split("/")) for key in keys],
    partition_key=partition or None,
    raise_on_error=False,
)
sys.exit(0 if result.success else 1)
"""


def run_at_once(environment: dict[str, str], runs: list[list[str]], log: Path) -> list[int]:
    """Starts a process for each run, lets all go at the same moment, and returns their exit codes."""
    with log.open("w") as told:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", LAUNCH, *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
            )
            for arguments in runs
        ]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate()
        return [process.returncode for process in processes]


def count(environment: dict[str, str], sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(environment["WAREHOUSE_PATH"], read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_eight_partitions_run_at_once_land_eight_of_eight(
    process_environment: dict[str, str], tmp_path: Path
) -> None:
    days = [f"2025-03-{day}" for day in range(10, 18)]
    with NeowsServer() as server:
        environment = {**process_environment, "NASA_BASE_URL": server.url}
        runs = [["api_etl", day, "nasa_neo/near_earth_objects"] for day in days]
        codes = run_at_once(environment, runs, tmp_path / "log")
    assert codes == [0] * 8, (tmp_path / "log").read_text()[-5000:]
    landed = count(
        environment,
        "SELECT close_approach_date::VARCHAR, count(*), count(DISTINCT neo_reference_id) "
        "FROM nasa_neo.near_earth_objects GROUP BY 1 ORDER BY 1",
    )
    assert landed == [(day, len(recorded_days()[day]), len(recorded_days()[day])) for day in days]


def test_three_locations_run_at_once_without_a_lock_error(
    process_environment: dict[str, str], tmp_path: Path
) -> None:
    with NeowsServer() as server:
        environment = {**process_environment, "NASA_BASE_URL": server.url}
        runs = [
            ["simple_etl", "", "simple/load_dict"],
            ["csv_etl", "", "csv_data/import_file", "csv_data/share_prices"],
            ["api_etl", "", "nasa_neo/asteroids"],
        ]
        codes = run_at_once(environment, runs * 2, tmp_path / "log")
    assert codes == [0] * 6, (tmp_path / "log").read_text()[-5000:]
    assert count(environment, "SELECT count(*) FROM simple.load_dict") == [(2,)]
    assert count(environment, "SELECT count(*) FROM csv_data.share_prices") == [(8,)]
    assert count(environment, "SELECT count(*) FROM nasa_neo.asteroids") == [(15,)]
