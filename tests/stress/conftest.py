"""The stress tests' fixtures."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api_etl.recorded.server import NeowsServer
from shared.testing.postgres_server import PostgresServer
from stress.harness import Launcher, ServerWorkspace, Tally, Workspace


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
    """A workspace for one test; with the parameter `postgres` its warehouse is a Postgres database."""
    with NeowsServer(limit=1_000_000) as neows:
        if getattr(request, "param", "duckdb") == "postgres":
            server: PostgresServer = request.getfixturevalue("warehouse_server")
            address = server.warehouse()
            yield ServerWorkspace(tmp_path, launcher, neows, address)
        else:
            yield Workspace(tmp_path, launcher, neows)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Count the trials of the test's promise, which is its docstring, for the table at the end."""
    promise = (request.function.__doc__ or request.function.__name__).splitlines()[0]
    if "workspace" in request.fixturenames and isinstance(
        request.getfixturevalue("workspace"), ServerWorkspace
    ):
        promise += " (Postgres)"
    counted = Tally(promise, int(request.config.getoption("--trials")))
    yield counted
    request.node.user_properties.append(("stress", counted.result()))
    assert counted.trials, "the test made no trial"
    assert counted.failures == []


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Tally]]:
    """Create tallies of the stock pattern: the table shows its failures, and they fail no test."""
    tallies: list[Tally] = []

    def start(promise: str) -> Tally:
        tallies.append(
            Tally(f"STOCK PATTERN: {promise}", int(request.config.getoption("--trials")))
        )
        return tallies[-1]

    yield start
    for tally in tallies:
        assert tally.trials, "the test made no trial"
        request.node.user_properties.append(("stress", tally.result()))
