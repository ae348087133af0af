"""Dagster's servers as separate processes, each on a free port while it is entered as a context."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg2
import requests

from support.graphql import FINISHED, GraphqlApi, LaunchError, UnreachableError
from support.processes import PROGRAMS, free_port, python, wait_for

T = TypeVar("T")


def query_postgres(
    environment: Mapping[str, str], sql: str, variable: str = "DAGSTER_POSTGRES_URL"
) -> list[tuple[Any, ...]]:
    """Return the rows of a query to the database that a variable of the environment names."""
    connection = psycopg2.connect(environment[variable].replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


class ServerProcess:
    """A program in its own process group, with a free port; it runs while entered as a context."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self.command, self.folder, self.environment = list(command), folder, environment
        self.log, self.port = log, free_port()
        self.groups: list[int] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Interrupt the group, as Ctrl-C does, and kill what is left of it after a minute."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def start(self) -> None:
        """Start the program; it may be started again after it was killed."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # If the tests run in the background, SIGINT is ignored, and a child inherits that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )

        self.groups.append(self.process.pid)

    def kill_groups(self) -> None:
        """Kill the processes and all that they started, as the end of a container does."""
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait(30)

    def kill(self) -> None:
        """Kill the process itself; the processes that it started go on."""
        self.process.kill()
        self.process.wait(30)

    def wait_for(self, condition: Callable[[], T], seconds: float = 300) -> T:
        """Wait for a condition; on a timeout the error shows the end of the log."""
        not_ready = (UnreachableError, requests.ConnectionError)
        return wait_for(condition, seconds, lambda: self.log.read_text()[-3000:], not_ready)


class Webserver(ServerProcess):
    """`dagster-webserver` on the loopback interface; `api` is its GraphQL API."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        super().__init__([], folder, environment, log)
        program = [python(), str(PROGRAMS / "dagster-webserver")]
        where = ["-h", "127.0.0.1", "-p", str(self.port)]
        self.command = [*program, *where, "-w", "workspace.yaml"]
        self.api = GraphqlApi(self.port)

    def loaded_locations(self) -> set[str]:
        """Return the locations that are loaded, once each is loaded or has failed to load."""

        def finished() -> dict[str, str | None]:
            errors = self.api.load_errors()
            return {} if "" in errors.values() else errors

        return {name for name, error in self.wait_for(finished).items() if error is None}

    def launch(self, location: str, *assets: Sequence[str]) -> str:
        """Launch a run, once the webserver has noticed that the location is back."""

        def launched() -> str | None:
            try:
                return self.api.launch(location, *assets)
            except LaunchError:
                self.api.reload(location)
                return None

        return str(self.wait_for(launched, seconds=120))

    def final_status(self, run: str) -> str:
        """Wait for the end of a run and return its status."""

        def finished() -> str | None:
            status = self.api.status(run)
            return status if status in FINISHED else None

        return str(self.wait_for(finished))


class DagsterDev(Webserver):
    """`dagster dev -w workspace.yaml`, as a user starts it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        super().__init__(folder, environment, log)
        dagster = [python(), "-m", "dagster"]
        self.command = [*dagster, "dev", "-w", "workspace.yaml", "-p", str(self.port)]


class EtlDev(DagsterDev):
    """`etl dev`, as a user starts it, in a Python that has imported nothing."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        super().__init__(folder, environment, log)
        self.command = [str(PROGRAMS / "etl"), "dev", "-p", str(self.port)]


class Daemon(ServerProcess):
    """`dagster-daemon`."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        program = [python(), str(PROGRAMS / "dagster-daemon")]
        super().__init__([*program, "run", "-w", "workspace.yaml"], folder, environment, log)


class CodeServer(ServerProcess):
    """A location's own server, `dagster api grpc`."""

    def __init__(self, location: str, environment: Mapping[str, str], log: Path) -> None:
        super().__init__([], log.parent, environment, log)
        self.location = location
        self.serve("-m", f"{location}.definitions")

    def serve(self, *code: str) -> None:
        """Set the code that the next start serves: `-m MODULE` or `-f FILE`."""
        server = [python(), "-m", "dagster", "api", "grpc", *code]
        self.command = [*server, "-p", str(self.port), "--location-name", self.location]

    def __exit__(self, *_: object) -> None:
        """Kill the server and the runs that it started."""
        self.kill_groups()
