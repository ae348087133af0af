"""A receiver of alerts on loopback: what a channel's incoming webhook is to `shared.orchestration.alerts`."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class WebhookServer:
    """Takes messages while entered as a context.

    Attributes:
        url: its address, with a token as a real one has.
        texts: the messages it took.
        failures: statuses that it answers first, one a request; such a message is not taken.
        refused: how many requests it has answered so.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.failures: list[int] = []
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.failures:
                    receiver.refused += 1
                    status, answer = receiver.failures.pop(0), f"no, for {self.path}"
                else:
                    receiver.texts.append(body["text"])
                    status, answer = 200, "ok"
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keeps a test's output its own."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.token = "token-of-the-channel"
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/{self.token}"

    def __enter__(self) -> Self:
        """Starts it."""
        serve = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        serve.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()
