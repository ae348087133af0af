"""Parts of a server are killed while its queue is full: every run succeeds, and none is lost."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import psycopg2
import pytest
import requests
import yaml

from api_etl.recorded.server import NeowsServer
from shared.testing.postgres_server import PostgresServer
from stress.harness import (
    OBJECTS_SQL,
    Launcher,
    ServerWorkspace,
    Tally,
    Workspace,
    expected_objects,
    objects_of,
)
from support.graphql import GraphqlApi, LaunchError, UnreachableError
from support.processes import PROGRAMS, free_port, wait_for
from support.servers import ServerProcess

pytestmark = pytest.mark.slow  # runs for half an hour

ROOT = Path(__file__).parents[2]
LONG = 100  # trials from which this test runs: it takes 15 minutes for each warehouse
HEADER = "date,share_price,amount,spend,shift,spread\n"
FILES_SQL = """
    SELECT file_name, count(*), count(DISTINCT share_price), sum(share_price)::BIGINT
    FROM csv_data.share_prices_daily GROUP BY 1 ORDER BY 1
"""
RUNS_SQL = """
    SELECT tag.value::INTEGER, runs.run_id, status,
        (SELECT max(value) FROM run_tags WHERE run_id = runs.run_id AND key = 'dagster/will_retry'),
        (SELECT max(value) FROM run_tags WHERE run_id = runs.run_id AND key = 'dagster/auto_retry_run_id'),
        EXISTS (SELECT FROM run_tags WHERE run_id = runs.run_id AND key = 'dagster/parent_run_id')
    FROM runs JOIN run_tags AS tag ON tag.run_id = runs.run_id AND tag.key = 'stress/number'
    ORDER BY 1, runs.id
"""
T = TypeVar("T")
ACTIVE = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
PROCESS_SQL = """
    SELECT substring(event FROM 'Started process for run \\(pid: (\\d+)\\)') FROM event_logs
    WHERE run_id = %s AND event LIKE '%%Started process for run%%'
"""
DEQUEUE_ERRORS_SQL = (
    "SELECT count(*) FROM event_logs WHERE event LIKE '%dequeu%'"  # logged for failures only
)
LOCKS_SQL = (
    "SELECT FROM pg_stat_activity WHERE application_name LIKE 'pid %'"  # runs with a partition lock
)
# The intervals of the shipped instance, and shorter ones for this test.
INTERVALS = {
    "user_code_failure_retry_delay": (60, 5),
    "start_timeout_seconds": (300, 90),
    "max_runtime_seconds": (86400, 45),
    "poll_interval_seconds": (30, 5),
}


class Run(NamedTuple):
    """A run in Dagster's storage; `number` is the number of its `Work`."""

    number: int
    id: str
    status: str
    will_retry: str | None
    retry: str | None
    is_retry: bool

    @property
    def settled(self) -> bool:
        """Whether the run is finished and the daemon will not retry it."""
        will_not_retry = self.will_retry == "false" or self.retry is not None
        return self.status == "SUCCESS" or (self.status == "FAILURE" and will_not_retry)


class Work(NamedTuple):
    """The assets and the partition that a run loads."""

    location: str
    keys: list[list[str]]
    partition: str | None


class Server:
    """Postgres, a code server for each location, the webserver and the daemon."""

    def __init__(
        self, workspace: Workspace, postgres: PostgresServer, environment: dict[str, str]
    ) -> None:
        self.workspace, self.postgres = workspace, postgres
        self.address = environment["DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")
        self.folder = Path(environment["DAGSTER_HOME"])
        self.environment = {**environment, **workspace.environment}
        self.work: list[Work] = []
        instance = (self.folder / "dagster.yaml").read_text()
        for name, (shipped, short) in INTERVALS.items():
            assert instance.count(f"{name}: {shipped}\n") == 1
            instance = instance.replace(f"{name}: {shipped}\n", f"{name}: {short}\n")
        (self.folder / "dagster.yaml").write_text(instance)
        locations = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
        self.programs: dict[str, ServerProcess] = {}
        for entry in locations["load_from"]:
            server = entry["grpc_server"]
            name, server["port"] = server["location_name"], free_port()
            module = ["-m", f"{name}.definitions", "--location-name", name]
            address = ["-h", server["host"], "-p", str(server["port"])]
            self.add(name, "dagster", "api", "grpc", *module, *address)
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump(locations))
        self.locations = list(self.programs)
        self.port = free_port()
        self.api = GraphqlApi(self.port)
        locations_file = ["-w", "workspace.yaml"]
        self.add(
            "webserver",
            "dagster-webserver",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            *locations_file,
        )
        self.add("daemon", "dagster-daemon", "run", *locations_file)

    def add(self, name: str, program: str, *arguments: str) -> None:
        command = [str(PROGRAMS / program), *arguments]
        log = self.folder / "server.log"
        self.programs[name] = ServerProcess(command, self.folder, self.environment, log)

    def __enter__(self) -> Self:
        for program in self.programs.values():
            program.start()
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs.values():
            program.kill_groups()

    def wait_for(self, condition: Callable[[], T], what: str, seconds: float = 900) -> T:
        """Wait for a condition while parts of the server may be dead."""

        def describe() -> str:
            log = (self.folder / "server.log").read_text()[-3000:]
            return f"{what}: {[run for run in self.runs() if not run.settled]} {log}"

        unreachable = (UnreachableError, requests.RequestException)
        return wait_for(condition, seconds, describe, unreachable)

    def is_loaded(self) -> bool:
        """Return whether every location is loaded."""
        errors = self.api.load_errors()
        return set(errors) == set(self.locations) and not any(
            error is not None for error in errors.values()
        )

    def has_retried(self) -> bool:
        """Return whether the daemon has handled every failed run."""
        return all(run.settled for run in self.runs() if run.status == "FAILURE")

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.address)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, parameters or None)
                return cursor.fetchall()
        finally:
            connection.close()

    def runs(self) -> list[Run]:
        try:
            return [Run(*row) for row in self.sql(RUNS_SQL)]
        except psycopg2.errors.UndefinedTable:  # the first process creates them
            return []

    def status(self, run: str) -> str:
        """Return the status of a run."""
        return next(item.status for item in self.runs() if item.id == run)

    def count_loaded(self) -> int:
        """Return how many of the launched runs have loaded."""
        return len({run.number for run in self.runs() if run.status == "SUCCESS"})

    def is_finished(self) -> bool:
        """Return whether every launched run is finished."""
        runs = self.runs()
        return {run.number for run in runs} == set(range(len(self.work))) and all(
            run.settled for run in runs
        )

    def started(self, *locations: str) -> list[Run]:
        """Return the runs of these locations that are loading now."""
        return [
            run
            for run in self.runs()
            if run.status == "STARTED" and self.work[run.number].location in locations
        ]

    def launch(self, work: Work) -> None:
        """Queue a run once: if the response is lost, the run may exist already."""
        number = len(self.work)
        self.work.append(work)
        tags = {"stress/number": str(number)}
        if work.partition:
            tags["dagster/partition"] = work.partition

        def launched() -> bool:
            if any(run.number == number for run in self.runs()):
                return True
            try:
                return bool(self.api.launch(work.location, *work.keys, tags=tags))
            except LaunchError:
                return False

        self.wait_for(launched, f"launching {work}")

    def restart(self, name: str) -> None:
        """Kill a program and start it again."""
        self.programs[name].kill()
        self.programs[name].start()

    def kill_server_alone(self, location: str) -> None:
        """Kill a location's server, not its runs; start it once the queue needed it in that time."""
        runs = self.wait_for(lambda: self.started(location), f"a run of {location}")
        before = self.sql(DEQUEUE_ERRORS_SQL)
        self.programs[location].kill()
        self.wait_for(
            lambda: self.sql(DEQUEUE_ERRORS_SQL) != before and self.has_retried(), "the queue"
        )
        self.programs[location].start()
        for run in runs:
            self.wait_for(lambda: self.status(run.id) not in ACTIVE, "the run's end")  # noqa: B023
            assert self.status(run.id) == "SUCCESS"

    def kill_server_with_runs(self, location: str) -> None:
        """Kill a location's server and its runs, and start the server again."""
        program, is_killed = self.programs[location], False
        while not is_killed:
            runs = self.wait_for(lambda: self.started(location), f"a run of {location}")
            program.kill_groups()
            is_killed = any(self.status(run.id) == "STARTED" for run in runs)  # not just finished
            program.start()

    def kill_run(self) -> None:
        """Kill the process of a run."""
        is_killed = False
        while not is_killed:
            run = self.wait_for(lambda: self.started(*self.locations), "a run")[0]
            ((process,),) = self.sql(PROCESS_SQL, run.id)
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
            is_killed = self.status(run.id) != "SUCCESS"

    def crash_postgres(self, seconds: float = 0) -> None:
        """Crash Postgres during a load, and start it again after some seconds."""
        postgres_warehouse = isinstance(self.workspace, ServerWorkspace)
        self.wait_for(
            lambda: self.sql(LOCKS_SQL) if postgres_warehouse else self.started(*self.locations),
            "a load",
        )
        self.postgres.stop("immediate")
        try:
            time.sleep(seconds)
        finally:
            self.postgres.start()


def work(workspace: Workspace, number: int, rows: int) -> Work:
    """Return the work with a number, for one location after the other, and create its source data."""
    day_number, location = divmod(number, 3)
    if location == 0:
        return Work("simple_etl", [["simple", "load_dict"]], None)
    if location == 1:
        day = (date(2018, 2, 1) + timedelta(days=day_number)).isoformat()
        lines = (f"2018/01/02,{row + 1},{day_number},3,4,5\n" for row in range(rows))
        (workspace.drop / f"{day}.csv").write_text(HEADER + "".join(lines))
        keys = [["csv_data", "import_daily_file"], ["csv_data", "share_prices_daily"]]
        return Work("csv_etl", keys, day)
    day = (date(2025, 4, 1) + timedelta(days=day_number)).isoformat()
    workspace.neows.days[day] = objects_of(day, 1 + day_number % 20)
    return Work("api_etl", [["nasa_neo", "near_earth_objects"]], day)


@pytest.fixture(params=["postgres", "duckdb"])
def server(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    launcher: Launcher,
    postgres: PostgresServer,
    server_environment: dict[str, str],
) -> Iterator[Server]:
    """A server for this test; a Postgres warehouse is on the same Postgres server."""
    if request.config.getoption("--trials") < LONG:
        pytest.skip("this test takes long; it needs --trials 100")
    with NeowsServer(limit=1_000_000) as neows:
        if request.param == "postgres":
            address = postgres.warehouse()
            workspace: Workspace = ServerWorkspace(tmp_path, launcher, neows, address)
        else:
            workspace = Workspace(tmp_path, launcher, neows)
        with Server(workspace, postgres, server_environment) as started:
            started.wait_for(started.is_loaded, "the locations")
            yield started


def test_no_run_is_lost_while_parts_of_a_server_are_killed(server: Server, tally: Tally) -> None:
    """Every part of a server is killed while its queue is full: each run succeeds, exactly once."""
    count, rows = 2 * tally.requested, 10_000
    simple, csv, api = server.locations
    started_at = time.monotonic()
    for number in range(count):
        if number == count // 2:
            server.restart("webserver")
        server.launch(work(server.workspace, number, rows))
    failures: list[Callable[[], None]] = [
        lambda: server.kill_server_with_runs(csv),
        lambda: server.kill_server_alone(simple),
        lambda: server.kill_server_alone(api),
        lambda: server.restart("daemon"),
        server.kill_run,
        server.crash_postgres,
    ]
    failures = [*failures * 3, lambda: server.crash_postgres(60)]
    for number, cause_failure in enumerate(failures):
        # One after the other: the server recovers from one failure before the next.
        server.wait_for(lambda: server.is_loaded() and server.has_retried(), "the recovery")
        share = count * number // (len(failures) + 1)
        server.wait_for(lambda: server.count_loaded() >= share, "the queue")  # noqa: B023
        cause_failure()
    server.wait_for(server.is_finished, "the end", seconds=3600)
    seconds = time.monotonic() - started_at

    runs = server.runs()
    for number in range(count):
        tries = [run for run in runs if run.number == number]
        once = [run.is_retry for run in tries].count(False) == 1
        succeeded = tries[-1].status == "SUCCESS"
        tally.trial(once and succeeded, f"{server.work[number]}: {tries}")
    files = sorted(file.name for file in server.workspace.drop.iterdir())
    total = rows * (rows + 1) // 2
    assert server.workspace.rows(FILES_SQL) == [(name, rows, rows, total) for name in files]
    days = [item.partition for item in server.work if item.location == api and item.partition]
    assert server.workspace.rows(OBJECTS_SQL) == expected_objects(server.workspace.neows, days)
    assert server.workspace.rows("SELECT count(*) FROM simple.load_dict") == [(2,)]
    loaded = len(files) * rows + sum(len(server.workspace.neows.days[day]) for day in days)
    tally.promise += (
        f" ({type(server.workspace).__name__}: {60 * count / seconds:.0f} runs a minute, "
        f"{loaded:,} rows, {len(runs) - count} retries)"
    )
