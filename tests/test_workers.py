"""Steps on several machines: they spread over the workers, and outlive whichever of them is killed.

Each worker here is a process group of its own, which shares with the others what machines would share:
Redis, Dagster's database and the warehouse.
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

NUMBERS = "key:letters/numbers"

STOCK = "dagster_celery.app"
"""The workers of dagster-celery as it is, without this project's settings."""

VISIBILITY_TIMEOUT = float(SETTINGS["WORKERS_MAX_STEP_SECONDS"].default) + 60


def landed(environment: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """Reads the warehouse, as a stranger does: each letter, its rows, and how many differ."""
    sql = (
        "SELECT letter, count(*), count(DISTINCT number) FROM letters.numbers "
        "GROUP BY letter ORDER BY letter"
    )
    return query_postgres(environment, sql, "DESTINATION__WAREHOUSE__CREDENTIALS")


class Machines:
    """Workers that share a Redis, and the steps that the test holds."""

    def __init__(self, environment: dict[str, str], redis: RedisServer, folder: Path) -> None:
        self.redis, self.folder, self.log = redis, folder, folder / "log"
        self.hold = folder / "hold"
        self.hold.mkdir()
        self.environment = {
            **environment,
            "WORKERS_REDIS_URL": redis.url,
            "PAUSE_FOLDER": str(self.hold),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            self.kill(process)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a program in a process group of its own."""
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
        """Kills a program and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def worker(
        self, name: str, app: str = "shared.orchestration.workers", **environment: str
    ) -> subprocess.Popen[bytes]:
        """Starts a worker that executes one step at a time."""
        if app == STOCK:
            environment |= dict.fromkeys(
                ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"), self.redis.url
            )
        options = ["-A", app, "worker", "--concurrency", "1", "--loglevel", "INFO"]
        return self.start("celery", *options, "--hostname", name, WORKER=name, **environment)

    def materialize(self, asset: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a run."""
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

    def wait_for(self, found: Callable[[], T], seconds: float = 300) -> T:
        """Returns what `found` returns, once that is something."""
        return wait_for(found, seconds, lambda: self.log.read_text()[-5000:])

    def tries(self, step: str) -> list[int]:
        """Returns the processes that have begun a step."""
        return [int(file.suffix[1:]) for file in self.hold.glob(f"{step}.*")]

    def begun(self, step: str, times: int = 1) -> list[int]:
        """Waits until a step has begun so many times."""
        return self.wait_for(lambda: tries if len(tries := self.tries(step)) >= times else [])

    def worker_of(self, process: int) -> tuple[str, int]:
        """Return the name and the process of the worker that executes a step."""
        (file,) = self.hold.glob(f"*.{process}")
        name, pid = file.read_text().split()
        return name, int(pid)

    def held(self, *steps: str) -> None:
        for step in steps:
            (self.hold / step).touch()

    def let_go(self, step: str) -> None:
        (self.hold / step).unlink()

    def statuses(self) -> list[str]:
        return [
            status
            for (status,) in query_postgres(self.environment, "SELECT status FROM runs ORDER BY id")
        ]

    def starts(self) -> int:
        """Returns how often a step was started, as Dagster tells it."""
        sql = "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'STEP_START'"
        return int(query_postgres(self.environment, sql)[0][0])

    def unacknowledged(self) -> int:
        """Returns the steps that Redis keeps until their worker says that they are done."""
        return int(self.redis.client.zcard("unacked_index"))

    def queued(self) -> int:
        """Returns the steps that wait for a worker."""
        keys = self.redis.client.keys("dagster*")
        return sum(self.redis.client.llen(key) for key in keys)

    def let_time_pass(self) -> None:
        """Lets the visibility timeout pass for what Redis keeps, by when it was given to a worker."""
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
        "DESTINATION__WAREHOUSE__CREDENTIALS": address,
    }
    with RedisServer(tmp_path) as redis, Machines(environment, redis, tmp_path) as made:
        yield made


def test_a_backfill_runs_on_several_machines_and_outlives_whatever_is_killed(
    machines: Machines,
) -> None:
    machines.held("a", "b")
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
    (first,), (second,) = machines.begun("a"), machines.begun("b")
    names = [machines.worker_of(process)[0] for process in (first, second)]
    assert set(names) == workers.keys()

    os.kill(first, signal.SIGKILL)  # a process, whose worker lives on
    machines.begun("a", times=2)
    machines.let_go("a")
    machines.wait_for(lambda: machines.statuses().count("SUCCESS") == 2)

    machines.redis.kill()
    machines.wait_for(lambda: machines.log.read_text().count("Cannot connect to redis") >= 4)
    machines.redis.start()

    machines.kill(workers[names[1]])  # a worker, with all that it executes
    machines.let_time_pass()
    machines.begun("b", times=2)
    machines.let_go("b")
    machines.wait_for(lambda: machines.statuses() == ["SUCCESS"] * 3)

    assert landed(machines.environment) == [(letter, ROWS, ROWS) for letter in "abc"]
    assert machines.starts() == 5
    machines.wait_for(lambda: machines.unacknowledged() + machines.queued() == 0)


def test_with_celery_s_own_settings_a_killed_machine_s_step_is_lost_and_its_run_never_ends(
    machines: Machines,
) -> None:
    machines.held("a")
    worker = machines.worker("one@machine", app=STOCK)
    lost = machines.materialize(NUMBERS, "--partition", "a")
    machines.begun("a")
    machines.kill(worker)
    # No broker remembers it, so no worker gets it, whenever and from wherever it may come.
    assert machines.unacknowledged() + machines.queued() == 0
    machines.worker("two@machine", app=STOCK)
    assert machines.materialize(NUMBERS, "--partition", "b").wait(300) == 0
    assert len(machines.tries("a")) == 1
    assert machines.statuses() == ["STARTED", "SUCCESS"]
    assert lost.poll() is None


def test_a_step_that_was_done_when_its_machine_was_killed_does_not_run_again(
    machines: Machines,
) -> None:
    machines.held("a")
    worker = machines.worker("one@machine")
    run = machines.materialize(NUMBERS, "--partition", "a")
    (step,) = machines.begun("a")
    os.kill(
        machines.worker_of(step)[1], signal.SIGSTOP
    )  # so that it cannot tell Redis, as the step itself does
    machines.let_go("a")
    assert run.wait(300) == 0
    machines.kill(worker)
    assert machines.unacknowledged() == 1
    machines.let_time_pass()
    machines.worker("two@machine")
    machines.wait_for(lambda: "Task already completed" in machines.log.read_text())
    machines.wait_for(lambda: machines.unacknowledged() + machines.queued() == 0)
    assert machines.starts() == 1
    assert landed(machines.environment) == [("a", ROWS, ROWS)]


def test_a_step_that_kills_its_process_is_tried_three_times(machines: Machines) -> None:
    machines.worker("one@machine")
    assert machines.materialize("deadly").wait(300) == 1
    assert machines.statuses() == ["FAILURE"]
    assert len(machines.tries("deadly")) == 3
    assert machines.unacknowledged() + machines.queued() == 0


def test_a_step_is_stopped_before_redis_may_give_it_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORKERS_REDIS_URL", "redis://127.0.0.1:1")
    from shared.orchestration import workers

    settings = workers.app.conf
    assert settings.broker_transport_options["visibility_timeout"] > settings.task_time_limit > 0


def test_a_step_that_takes_too_long_is_stopped_and_its_run_fails(
    machines: Machines,
) -> None:
    machines.held("a")
    limit = {"WORKERS_MAX_STEP_SECONDS": "2"}
    machines.worker("one@machine", **limit)
    assert machines.materialize(NUMBERS, "--partition", "a", **limit).wait(300) == 1
    assert machines.statuses() == ["FAILURE"]
    assert "TimeLimitExceeded(2.0" in machines.log.read_text()
    assert machines.unacknowledged() + machines.queued() == 0


@pytest.mark.parametrize(
    ("address", "told"),
    [("", {"in_process", "without celery"}), ("redis://127.0.0.1:1", {"celery", "with celery"})],
)
def test_the_environment_alone_says_where_steps_are_executed(
    process_environment: dict[str, str], address: str, told: set[str]
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
        env={**process_environment, "WORKERS_REDIS_URL": address},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(loaded.stdout.splitlines()) == told


def test_a_worker_without_an_address_says_so(process_environment: dict[str, str]) -> None:
    worker = subprocess.run(
        [python(), "-m", "celery", "-A", "shared.orchestration.workers", "worker"],
        env={**process_environment, "WORKERS_REDIS_URL": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert worker.returncode != 0
    assert "WORKERS_REDIS_URL is not set" in worker.stderr
