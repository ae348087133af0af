"""The torture suite's fixtures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.testing.neows_server import NeowsServer
from torture.harness import Launcher, Tally, Workspace


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """The process that forks the runs, one for the session."""
    started = Launcher()
    yield started
    assert started.process.stdin
    started.process.stdin.close()
    started.process.wait(30)


@pytest.fixture
def workspace(tmp_path: Path, launcher: Launcher) -> Iterator[Workspace]:
    """A workspace of the test's own."""
    with NeowsServer(limit=1_000_000) as neows:
        yield Workspace(tmp_path, launcher, neows)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts the trials of the test's promise (its docstring), for the table at the end."""
    promise = (request.function.__doc__ or request.function.__name__).splitlines()[0]
    counted = Tally(promise, int(request.config.getoption("--trials")))
    yield counted
    result = (counted.promise, counted.trials, len(counted.failures))
    request.node.user_properties.append(("torture", result))
    assert counted.trials, "no trial was made"
    assert counted.failures == []
