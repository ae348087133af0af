"""The sample of `api_etl`: a local NeoWs server with recorded days, for work without an API key."""

from collections.abc import Iterator
from contextlib import contextmanager

from api_etl.recorded.server import NeowsServer
from shared import settings


@contextmanager
def serve() -> Iterator[dict[str, str]]:
    """Serve the recorded days if neither an API key nor a URL is set.

    `tool.etl.sample` in pyproject.toml names this function, and `etl run` calls it.

    Yields:
        The URL of the server as NASA_BASE_URL; nothing if requests go to the API.
    """
    if settings.is_default("NASA_API_KEY") and settings.is_default("NASA_BASE_URL"):
        with NeowsServer() as server:
            yield {"NASA_BASE_URL": server.url}
    else:
        yield {}
