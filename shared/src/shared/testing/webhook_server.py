"""A webhook for alerts on loopback, in the place of a channel's incoming webhook."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class WebhookServer:
    """Accepts messages while its context is open.

    Attributes:
        url: its URL, with a secret token.
        texts: the messages that it accepted.
        failures: statuses of the next responses, one per request; such a message is not accepted.
        refused: how many requests had such a response.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.failures: list[int] = []
        self.refused = 0
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if webhook.failures:
                    webhook.refused += 1
                    status, text = webhook.failures.pop(0), f"no, for {self.path}"
                else:
                    webhook.texts.append(body["text"])
                    status, text = 200, "ok"
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.token = "token-of-the-channel"
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/{self.token}"

    def __enter__(self) -> Self:
        """Start serving."""
        serve = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        serve.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
