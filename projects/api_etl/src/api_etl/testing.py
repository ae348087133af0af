"""Pytest fixtures for tests that use NeoWs. Pytest loads them if `api_etl` is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api_etl.recorded.server import NeowsServer


@pytest.fixture
def neows_server(
    tmp_warehouse: Path,  # noqa: ARG001 - sets its NASA_BASE_URL first
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[NeowsServer]:
    """Start a NeoWs server for the requests of one test, without waits between retries."""
    with NeowsServer() as server:
        monkeypatch.setenv("NASA_BASE_URL", server.url)
        monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0")
        yield server
