"""Steps on several machines: they use all workers, and survive the kill of any worker.

Each worker is a separate process group. The workers share Redis, Dagster's database and the warehouse,
as machines do.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from shared.cli.locations import code_locations
from shared.settings import SETTINGS
from shared.testing.postgres_server import PostgresServer
from support.paused_steps import ROWS
from support.processes import python, wait_for
from support.redis_server import RedisServer
from support.servers import query_postgres

T = TypeVar("T")

NUMBERS = "key:parts/numbers"

STOCK = "dagster_celery.app"
"""The application of dagster-celery, without this project's settings."""

VISIBILITY_TIMEOUT = float(SETTINGS["WORKERS_MAX_STEP_SECONDS"].default) + 60


def count_rows(environment: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """Read with psycopg2 alone: each part, its number of rows, and of distinct rows."""
    sql = (
        "SELECT part, count(*), count(DISTINCT number) FROM parts.numbers "
        "GROUP BY part ORDER BY part"
    )
    return query_postgres(environment, sql, "DESTINATION__WAREHOUSE__CREDENTIALS")


class Machines:
    """Workers that share a Redis, and the steps that the test pauses."""

    def __init__(self, environment: dict[str, str], redis: RedisServer, folder: Path) -> None:
        self.redis, self.folder, self.log = redis, folder, folder / "log"
        self.pauses = folder / "pauses"
        self.pauses.mkdir()
        self.environment = {
            **environment,
            "WORKERS_REDIS_URL": redis.url,
            "PAUSE_FOLDER": str(self.pauses),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            self.kill(process)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program in a separate process group."""
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [python(), "-m", *command],
                env={**self.environment, **environment},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a program and all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def worker(
        self, name: str, app: str = "shared.orchestration.workers", **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker that executes one step at a time."""
        if app == STOCK:
            environment |= dict.fromkeys(
                ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"), self.redis.url
            )
        options = ["-A", app, "worker", "--concurrency", "1", "--loglevel", "INFO"]
        return self.start("celery", *options, "--hostname", name, WORKER=name, **environment)

    def materialize(self, asset: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a run."""
        command = [
            "asset",
            "materialize",
            "-m",
            "support.paused_steps",
            "--select",
            asset,
            *options,
        ]
        return self.start("dagster", *command, **environment)

    def wait_for(self, condition: Callable[[], T], seconds: float = 300) -> T:
        """Wait for a condition; on a timeout the error shows the end of the log."""
        return wait_for(condition, seconds, lambda: self.log.read_text()[-5000:])

    def attempts(self, step: str) -> list[int]:
        """Return the processes that have started a step."""
        return [int(file.suffix[1:]) for file in self.pauses.glob(f"{step}.*")]

    def wait_for_start(self, step: str, times: int = 1) -> list[int]:
        """Wait until a step has started this many times, and return its processes."""
        return self.wait_for(
            lambda: processes if len(processes := self.attempts(step)) >= times else []
        )

    def worker_of(self, process: int) -> tuple[str, int]:
        """Return the name and the process of the worker that executes a step."""
        (file,) = self.pauses.glob(f"*.{process}")
        name, pid = file.read_text().split()
        return name, int(pid)

    def pause(self, *steps: str) -> None:
        for step in steps:
            (self.pauses / step).touch()

    def release(self, step: str) -> None:
        (self.pauses / step).unlink()

    def statuses(self) -> list[str]:
        return [
            status
            for (status,) in query_postgres(self.environment, "SELECT status FROM runs ORDER BY id")
        ]

    def starts(self) -> int:
        """Return how many steps were started according to Dagster."""
        sql = "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'STEP_START'"
        return int(query_postgres(self.environment, sql)[0][0])

    def unacknowledged(self) -> int:
        """Return the number of steps that no worker has acknowledged."""
        return int(self.redis.client.zcard("unacked_index"))

    def queued(self) -> int:
        """Return the number of steps that wait for a worker."""
        keys = self.redis.client.keys("dagster*")
        return sum(self.redis.client.llen(key) for key in keys)

    def expire_visibility_timeout(self) -> None:
        """Make the visibility timeout expire: shift the times at which workers got their steps."""
        for step in self.redis.client.zrange("unacked_index", 0, -1):
            self.redis.client.zincrby("unacked_index", -VISIBILITY_TIMEOUT, str(step))


@pytest.fixture
def machines(
    server_environment: dict[str, str], postgres: PostgresServer, tmp_path: Path
) -> Iterator[Machines]:
    address = postgres.warehouse()
    environment = {
        **server_environment,
        "WAREHOUSE_TYPE": "postgres",
        "ETL_ENVIRONMENT": "production",
        "DESTINATION__WAREHOUSE__CREDENTIALS": address,
    }
    with RedisServer(tmp_path) as redis, Machines(environment, redis, tmp_path) as started:
        yield started


@pytest.mark.slow
def test_a_backfill_runs_on_several_machines_and_survives_each_kill(
    machines: Machines,
) -> None:
    machines.pause("a", "b")
    workers = {name: machines.worker(name) for name in ("one@machine", "two@machine")}
    backfill = [
        "-m",
        "support.paused_steps",
        "-j",
        "numbers_job",
        "--partitions",
        "a,b,c",
        "--noprompt",
    ]
    assert machines.start("dagster", "job", "backfill", *backfill).wait(300) == 0
    machines.start("dagster._daemon", "run", "-m", "support.paused_steps")
    (first,), (second,) = machines.wait_for_start("a"), machines.wait_for_start("b")
    names = [machines.worker_of(process)[0] for process in (first, second)]
    assert set(names) == workers.keys()

    os.kill(first, signal.SIGKILL)  # the process of a step; its worker goes on
    machines.wait_for_start("a", times=2)
    machines.release("a")
    machines.wait_for(lambda: machines.statuses().count("SUCCESS") == 2)

    machines.redis.kill()
    machines.wait_for(lambda: machines.log.read_text().count("Cannot connect to redis") >= 4)
    machines.redis.start()

    machines.kill(workers[names[1]])  # a worker with its steps
    machines.expire_visibility_timeout()
    machines.wait_for_start("b", times=2)
    machines.release("b")
    machines.wait_for(lambda: machines.statuses() == ["SUCCESS"] * 3)

    assert count_rows(machines.environment) == [(part, ROWS, ROWS) for part in "abc"]
    assert machines.starts() == 5
    machines.wait_for(lambda: machines.unacknowledged() + machines.queued() == 0)


@pytest.mark.slow
def test_with_the_default_settings_of_celery_the_step_of_a_killed_machine_is_lost(
    machines: Machines,
) -> None:
    machines.pause("a")
    worker = machines.worker("one@machine", app=STOCK)
    lost = machines.materialize(NUMBERS, "--partition", "a")
    machines.wait_for_start("a")
    machines.kill(worker)
    # The broker has forgotten the step, so no other worker can get it.
    assert machines.unacknowledged() + machines.queued() == 0
    machines.worker("two@machine", app=STOCK)
    assert machines.materialize(NUMBERS, "--partition", "b").wait(300) == 0
    assert len(machines.attempts("a")) == 1
    assert machines.statuses() == ["STARTED", "SUCCESS"]
    assert lost.poll() is None


def test_a_finished_step_of_a_killed_machine_does_not_run_again(
    machines: Machines,
) -> None:
    machines.pause("a")
    worker = machines.worker("one@machine")
    run = machines.materialize(NUMBERS, "--partition", "a")
    (step,) = machines.wait_for_start("a")
    os.kill(machines.worker_of(step)[1], signal.SIGSTOP)  # it cannot acknowledge the step
    machines.release("a")
    assert run.wait(300) == 0
    machines.kill(worker)
    assert machines.unacknowledged() == 1
    machines.expire_visibility_timeout()
    machines.worker("two@machine")
    machines.wait_for(lambda: "Task already completed" in machines.log.read_text())
    machines.wait_for(lambda: machines.unacknowledged() + machines.queued() == 0)
    assert machines.starts() == 1
    assert count_rows(machines.environment) == [("a", ROWS, ROWS)]


@pytest.mark.slow
def test_a_step_that_kills_its_process_runs_three_times(machines: Machines) -> None:
    machines.worker("one@machine")
    assert machines.materialize("self_killing").wait(300) == 1
    assert machines.statuses() == ["FAILURE"]
    assert len(machines.attempts("self_killing")) == 3
    assert machines.unacknowledged() + machines.queued() == 0


def test_the_time_limit_of_a_step_is_below_the_visibility_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORKERS_REDIS_URL", "redis://127.0.0.1:1")
    from shared.orchestration import workers

    settings = workers.app.conf
    assert settings.broker_transport_options["visibility_timeout"] > settings.task_time_limit > 0


def test_a_step_that_exceeds_its_time_limit_is_killed_and_its_run_fails(
    machines: Machines,
) -> None:
    machines.pause("a")
    limit = {"WORKERS_MAX_STEP_SECONDS": "2"}
    machines.worker("one@machine", **limit)
    assert machines.materialize(NUMBERS, "--partition", "a", **limit).wait(300) == 1
    assert machines.statuses() == ["FAILURE"]
    assert "TimeLimitExceeded(2.0" in machines.log.read_text()
    assert machines.unacknowledged() + machines.queued() == 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [("", {"in_process", "without celery"}), ("redis://127.0.0.1:1", {"celery", "with celery"})],
)
def test_the_environment_decides_where_steps_run(
    process_environment: dict[str, str], url: str, expected: set[str]
) -> None:
    modules = ", ".join(code_locations().values())
    script = f"""if True:
        import sys, {modules}
        for module in ({modules}):
            print(module.defs.executor.name)
        print('with celery' if 'celery' in sys.modules else 'without celery')
    """
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        env={**process_environment, "WORKERS_REDIS_URL": url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(loaded.stdout.splitlines()) == expected


def test_a_worker_without_a_redis_url_names_the_variable(
    process_environment: dict[str, str],
) -> None:
    worker = subprocess.run(
        [python(), "-m", "celery", "-A", "shared.orchestration.workers", "worker"],
        env={**process_environment, "WORKERS_REDIS_URL": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert worker.returncode != 0
    assert "WORKERS_REDIS_URL is not set" in worker.stderr
