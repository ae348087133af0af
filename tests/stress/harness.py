"""The parts of the stress tests: processes to run and to kill, a warehouse for each test, a tally."""

import copy
import json
import subprocess
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import psycopg2.errors
import sqlglot

from api_etl.recorded.server import NeowsServer, recorded_days
from support.processes import python

Rows = list[tuple[Any, ...]]


class Launcher:
    """Runs assets in separate processes; see launcher.py."""

    def __init__(self, *modules: str) -> None:
        self.process = subprocess.Popen(
            [python(), str(Path(__file__).parent / "launcher.py"), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.read_line("ready")

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)

    def read_line(self, expected: str = "") -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        assert line, "the launcher died"
        assert not expected or line == expected
        return line

    def run(self, commands: list[dict[str, Any]]) -> list[int]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(commands) + "\n")
        self.process.stdin.flush()
        codes: list[int] = json.loads(self.read_line())
        return codes


class Workspace:
    """A warehouse, a drop folder and a NeoWs server for one test, and the runs that use them."""

    def __init__(self, folder: Path, launcher: Launcher, neows: NeowsServer) -> None:
        self.folder, self.launcher, self.neows = folder, launcher, neows
        self.drop = folder / "drop"
        self.drop.mkdir()
        self.file = folder / "warehouse.duckdb"
        self.environment = {
            "WAREHOUSE_PATH": str(self.file),
            "DROP_FOLDER": str(self.drop),
            "WAREHOUSE_WAIT_SECONDS": "120",
            "NASA_BASE_URL": neows.url,
        }

    def command(self, module: str, *keys: str, **more: Any) -> dict[str, Any]:
        """Return the command that runs assets of a location."""
        environment = {**self.environment, **more.pop("environment", {})}
        log = str(self.folder / "log")
        return {"module": module, "keys": keys, "log": log, "environment": environment, **more}

    def run(self, *commands: dict[str, Any]) -> list[int]:
        """Run commands concurrently and return their exit codes."""
        return self.launcher.run(list(commands))

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def rows(self, sql: str) -> Rows:
        """Read with DuckDB alone, without this project's code; an absent table has no rows."""
        if not self.file.exists():
            return []
        with duckdb.connect(str(self.file), read_only=True) as connection:
            try:
                return connection.execute(sql).fetchall()
            except duckdb.CatalogException:
                return []


class ServerWorkspace(Workspace):
    """The same with a Postgres database as its warehouse."""

    def __init__(self, folder: Path, launcher: Launcher, neows: NeowsServer, address: str) -> None:
        super().__init__(folder, launcher, neows)
        self.address = address
        self.environment |= {
            "WAREHOUSE_TYPE": "postgres",
            "ETL_ENVIRONMENT": "production",
            "DESTINATION__WAREHOUSE__CREDENTIALS": address,
        }

    def rows(self, sql: str) -> Rows:
        """Read with psycopg2 alone; the query is translated from DuckDB's SQL."""
        connection = psycopg2.connect(self.address)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sqlglot.transpile(sql, read="duckdb", write="postgres")[0])
                return cursor.fetchall()
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
            return []
        finally:
            connection.close()


class Tally:
    """Counts the trials of a promise; `--trials` is how many a test makes."""

    def __init__(self, promise: str, trials: int) -> None:
        self.promise, self.requested = promise, trials
        self.trials = 0
        self.failures: list[str] = []
        self.started_at = self.ended_at = time.monotonic()

    def result(self) -> tuple[str, int, int, float]:
        """Return the promise, the number of trials and of failures, and the seconds they took."""
        return self.promise, self.trials, len(self.failures), self.ended_at - self.started_at

    def trial(self, success: bool, message: str = "") -> None:
        """Count a trial; `message` describes it if the promise was not kept."""
        self.trials += 1
        self.ended_at = time.monotonic()
        if not success:
            self.failures.append(message)


def objects_of(day: str, count: int, version: int = 0) -> list[dict[str, Any]]:
    """Return the feed of a day: objects like the recorded ones, which differ by day and version."""
    recorded = [item for items in recorded_days().values() for item in items]
    epoch = int(datetime.fromisoformat(f"{day}T12:00+00:00").timestamp() * 1000)
    feed = []
    for n in range(count):
        item = copy.deepcopy(recorded[(n + version) % len(recorded)])
        item["neo_reference_id"] = f"{day}-{version}-{n}"
        item["name"] = f"version {version}"
        item["close_approach_data"][0] |= {
            "close_approach_date": day,
            "epoch_date_close_approach": epoch,
        }
        feed.append(item)
    return feed


OBJECTS_SQL = """
    SELECT close_approach_date::VARCHAR, neo_reference_id
    FROM nasa_neo.near_earth_objects ORDER BY 1, 2
"""


def expected_objects(neows: NeowsServer, days: Iterable[str]) -> Rows:
    """Return the rows of `OBJECTS_SQL` if the days are loaded exactly."""
    return sorted((day, item["neo_reference_id"]) for day in days for item in neows.days[day])
