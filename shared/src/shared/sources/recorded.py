"""A web API on loopback that replays recorded responses, for work without the real API."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def replay_api(folder: Path) -> Iterator[str]:
    """Serve the responses in a folder.

    The response to `GET /orders?day=2025-03-10` is the file `orders/day=2025-03-10.json`, or 404 if
    that file does not exist.

    Yields:
        The base URL.
    """
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace("?", "/", 1) + ".json")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        del message
        super().send_error(code, "There is no recorded response; set the URL of the API", explain)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Log nothing."""
