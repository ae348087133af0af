"""A NeoWs server on loopback, for tests and for work without a key.

It serves days that NASA really answered (public domain, keys removed) by the API's rules: the window
of at most 8 dates, the key, the request limit, the error bodies and headers.
"""

import json
import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

INVALID_KEY = "INVALID"
"""The one key the server refuses."""


@cache
def recorded_days() -> Mapping[str, list[dict[str, Any]]]:
    """Returns the recorded objects by day: 2015-04-01 to 06, 2018-12-06 to 12, 2025-03-10 to 17."""
    days: dict[str, list[dict[str, Any]]] = {}
    for feed in (files("shared.testing") / "neows_days").iterdir():
        days |= json.loads(feed.read_text())["near_earth_objects"]
    return days


class NeowsServer:
    """Serves /feed in a thread of its own while entered as a context.

    Attributes:
        days: objects by day; a test may revise or empty a day. A day that is not in it at all is
            answered with 404, so that a missing recording never looks like a day without objects.
        limit: requests allowed in all, as of NASA's hour.
        failure: status, content type and body to answer every request with, instead of a feed.
        requests: the address and the headers of each request so far.
    """

    def __init__(self, limit: int = 1000) -> None:
        """Binds a free port; nothing is served before the context is entered."""
        self.days: dict[str, list[dict[str, Any]]] = dict(recorded_days())
        self.limit = limit
        self.failure: tuple[int, str, str] | None = None
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """The base address, for NASA_BASE_URL."""
        return f"http://127.0.0.1:{self._http.server_port}/neo/rest/v1"

    def __enter__(self) -> Self:
        """Starts serving."""
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops serving."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, address: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        """Returns status, headers and body for a request."""
        self.requests.append((address, headers))
        remaining = self.limit - len(self.requests)
        gateway = {
            "Content-Type": "application/json",
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(remaining, 0)),
        }
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        key = headers.get("X-Api-Key") or query.get("api_key")
        if not key:
            return 403, gateway, _gateway_error("API_KEY_MISSING", "No api_key was supplied.")
        if key == INVALID_KEY:
            return (
                403,
                gateway,
                _gateway_error("API_KEY_INVALID", "An invalid api_key was supplied."),
            )
        if remaining < 0:
            gateway["Retry-After"] = "2870"
            return (
                429,
                gateway,
                _gateway_error("OVER_RATE_LIMIT", "You have exceeded your rate limit."),
            )
        if self.failure:
            status, gateway["Content-Type"], body = self.failure
            return status, gateway, body
        status, answer = self._feed(address, query, key)
        return status, gateway, json.dumps(answer)

    def _feed(self, address: str, query: Mapping[str, str], key: str) -> tuple[int, dict[str, Any]]:
        if not urlsplit(address).path.endswith("/feed"):
            return 404, {
                "code": 404,
                "http_error": "NOT_FOUND",
                "error_message": "",
                "request": address,
            }
        today = datetime.now(UTC).date()
        try:
            first = date.fromisoformat(query.get("start_date", today.isoformat()))
            last = date.fromisoformat(
                query.get("end_date", (first + timedelta(days=7)).isoformat())
            )
        except ValueError as error:
            return 400, _bad_request(address, str(error))
        first, last = min(first, last), max(first, last)
        if last - first > timedelta(days=7):
            return 400, _bad_request(address, "The Feed date limit is only 7 Days")
        asked = [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
        for day in asked:
            if day not in self.days:
                return 404, {
                    "code": 404,
                    "http_error": "NOT_FOUND",
                    "error_message": f"This server has no recording of {day}; it has "
                    f"{', '.join(sorted(self.days))}. Set NASA_API_KEY to ask NASA.",
                    "request": address,
                }
        # As NASA does: days come unsorted, a day without objects has no key, links echo the API key.
        found = {day: self.days[day] for day in reversed(asked) if self.days[day]}
        return 200, {
            "links": {"self": f"{self.url}{address}&api_key={key}"},
            "element_count": sum(map(len, found.values())),
            "near_earth_objects": found,
        }


def _gateway_error(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}})


def _bad_request(address: str, reason: str) -> dict[str, Any]:
    return {
        "code": 400,
        "http_error": "BAD_REQUEST",
        "error_message": f"Date Format Exception - Expected format (yyyy-mm-dd) - {reason}",
        "request": address,
    }


def _handler(server: NeowsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = server.answer(self.path, dict(self.headers))
            content = body.encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Stays silent; `NeowsServer.requests` has them all."""

    return Handler
