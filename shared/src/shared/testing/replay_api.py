"""A web API on loopback that answers with files: for tests, and for work without the real one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def replay_api(folder: Path) -> Iterator[str]:
    """Serves the answers recorded in a folder, and yields the address.

    `GET /orders?day=2025-03-10` is answered with the folder's `orders/day=2025-03-10.json`, and with
    404 where there is no such file.
    """
    answers = partial(_Answers, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Answers(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace("?", "/", 1) + ".json")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        del message
        super().send_error(code, "There is no recorded answer; set the API's address", explain)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class says so
        """Says nothing."""
