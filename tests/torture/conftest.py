"""The torture suite's fixtures."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api_etl.recorded.server import NeowsServer
from shared.testing.postgres_server import PostgresServer
from torture.harness import Launcher, ServerWorkspace, Tally, Workspace


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """The process that forks the runs, one for the session."""
    started = Launcher("simple_etl", "csv_etl", "api_etl")
    yield started
    started.close()


@pytest.fixture
def workspace(
    request: pytest.FixtureRequest, tmp_path: Path, launcher: Launcher
) -> Iterator[Workspace]:
    """A workspace of the test's own; with the parameter `postgres` its warehouse is a server."""
    with NeowsServer(limit=1_000_000) as neows:
        if getattr(request, "param", "duckdb") == "postgres":
            server: PostgresServer = request.getfixturevalue("warehouse_server")
            address = server.warehouse()
            yield ServerWorkspace(tmp_path, launcher, neows, address)
        else:
            yield Workspace(tmp_path, launcher, neows)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts the trials of the test's promise (its docstring), for the table at the end."""
    promise = (request.function.__doc__ or request.function.__name__).splitlines()[0]
    if "workspace" in request.fixturenames and isinstance(
        request.getfixturevalue("workspace"), ServerWorkspace
    ):
        promise += " (Postgres)"
    counted = Tally(promise, int(request.config.getoption("--trials")))
    yield counted
    request.node.user_properties.append(("torture", counted.result()))
    assert counted.trials, "no trial was made"
    assert counted.failures == []


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Tally]]:
    """Makes a tally of the stock pattern; its failures stand in the table and fail nothing."""
    counted: list[Tally] = []

    def start(promise: str) -> Tally:
        counted.append(
            Tally(f"STOCK PATTERN: {promise}", int(request.config.getoption("--trials")))
        )
        return counted[-1]

    yield start
    for tally in counted:
        assert tally.trials, "no trial was made"
        request.node.user_properties.append(("torture", tally.result()))
