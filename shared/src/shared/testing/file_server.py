"""A web server on loopback with the files of a folder, which can behave as badly as others do."""

import ssl
import threading
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote


class FileRequest(BaseHTTPRequestHandler):
    """A request for a file, GET or HEAD; `reply` answers it."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        """Answer as told, or with the file."""
        self.server.owner.requests.append(self)
        self.close_connection = True
        answer = self.server.owner.answers.get(self.path)
        if answer:
            answer(self)
        else:
            self.reply_file()

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def reply_file(self, *without: str, **other: str) -> None:
        """Answer with the file of the folder.

        Args:
            without: headers that are left out.
            other: headers in place of the usual.
        """
        file = self.server.owner.folder / unquote(self.path).lstrip("/")
        if not file.is_file():
            self.reply(404)
            return
        stat, body = file.stat(), file.read_bytes()
        headers = {
            "Content-Length": str(len(body)),
            "ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
            "Last-Modified": formatdate(stat.st_mtime, usegmt=True),
        } | {name.replace("_", "-"): value for name, value in other.items()}
        self.reply(200, body, **{n: headers[n] for n in headers if n not in without})

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer with a status, headers (with _ for -) and, to GET, a body."""
        self.send_response(status)
        if status != HTTPStatus.OK:
            headers = {"Content-Length": str(len(body))} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    owner: "FileServer"


class FileServer:
    """Serves the files of a folder while its context is open.

    Attributes:
        answers: what answers the requests for a path, as it is in the URL, instead of `reply_file`.
        requests: all requests so far.
    """

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        """Choose a free port, and https if there is a context for it."""
        self.folder = folder
        self.answers: dict[str, Callable[[FileRequest], None]] = {}
        self.requests: list[FileRequest] = []
        self._server = _Server(("127.0.0.1", 0), FileRequest)
        self._server.owner = self
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Start serving."""
        serve = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        serve.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
