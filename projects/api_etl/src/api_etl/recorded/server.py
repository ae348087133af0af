"""A NeoWs server on loopback, for tests and for work without a key.

It serves recorded days (public domain, keys removed) or synthetic days by the rules of the API: the
window of at most 8 dates, the key, the request limit, the error bodies and headers. Tests can make
it fail in every way that an API fails.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from api_etl.recorded.objects import catalog, detail_of, recorded_days

__all__ = ["INVALID_KEY", "Fault", "NeowsServer", "recorded_days"]

INVALID_KEY = "INVALID"
"""The key that the server rejects."""
PAGE_SIZE = 20
"""Objects per page of the catalog."""
_CHUNK_BYTES = 10


@dataclass(frozen=True)
class Fault:
    """A change to one response. Attributes with their default change nothing.

    Attributes:
        status: the HTTP status.
        content_type: the header of that name.
        headers: more headers; a header with the value None is not sent.
        body: the body to send instead.
        delay: seconds until the response starts.
        truncate_at: bytes of the body after which the connection is closed.
        chunk_delay: seconds between every 10 bytes of the body.
    """

    status: int | None = None
    content_type: str | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: str | None = None
    delay: float = 0.0
    truncate_at: int | None = None
    chunk_delay: float = 0.0


class NeowsServer:
    """Serves /feed, /neo/browse and /neo/{id} in its own thread while its context is open.

    Attributes:
        days: objects by day; a test may revise or empty a day. The response for a day that is not in
            it is 404, so a missing recording never looks like a day without objects.
        limit: the maximum number of requests in an hour; a test may lower it.
        hour: seconds of that (sliding) hour; tests use a short one.
        failure: status, content type and body of every response, instead of a feed.
        faults: the changes to the next responses, one each; None changes nothing.
        requests: the URL path and the headers of each request so far.
        statuses: the status of each response so far.
    """

    def __init__(self, limit: int = 1000, hour: float = 3600.0) -> None:
        """Bind a free port. Serving starts with the context."""
        self.days: dict[str, list[dict[str, Any]]] = dict(recorded_days())
        self.limit, self.hour = limit, hour
        self.failure: tuple[int, str, str] | None = None
        self.faults: deque[Fault | None] = deque()
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.statuses: list[int] = []
        self._accepted: deque[float] = deque()  # the time of each accepted request of the last hour
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """The base URL, for NASA_BASE_URL."""
        return f"http://127.0.0.1:{self._http.server_port}/neo/rest/v1"

    def __enter__(self) -> Self:
        """Start serving."""
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def respond(self, url: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        """Return status, headers and body for a request."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        key = headers.get("X-Api-Key") or query.get("api_key")
        gateway = {"Content-Type": "application/json"}
        if not key:
            body = _gateway_error("API_KEY_MISSING", "No api_key was supplied.")
            return 403, gateway, body
        if key == INVALID_KEY:
            body = _gateway_error("API_KEY_INVALID", "An invalid api_key was supplied.")
            return 403, gateway, body
        retry_after = self._accept()
        gateway["X-RateLimit-Limit"] = str(self.limit)
        gateway["X-RateLimit-Remaining"] = str(max(self.limit - len(self._accepted), 0))
        if retry_after is not None:
            gateway["Retry-After"] = f"{max(1, round(retry_after))}"
            body = _gateway_error("OVER_RATE_LIMIT", "You have exceeded your rate limit.")
            return 429, gateway, body
        if self.failure:
            status, gateway["Content-Type"], body = self.failure
            return status, gateway, body
        status, document = self._document(url, query, key)
        return status, gateway, json.dumps(document)

    def _accept(self) -> float | None:
        """Count a request. Return the seconds until the next is allowed if the limit rejects it.

        As in NASA's gateway, a rejected request does not count.
        """
        with self._lock:
            now = time.monotonic()
            while self._accepted and self._accepted[0] <= now - self.hour:
                self._accepted.popleft()
            if len(self._accepted) < self.limit:
                self._accepted.append(now)
                return None
            return self._accepted[0] + self.hour - now if self._accepted else self.hour

    def next_fault(self) -> Fault:
        """Return the change to the response of the current request."""
        with self._lock:
            return (self.faults.popleft() if self.faults else None) or Fault()

    def _document(self, url: str, query: Mapping[str, str], key: str) -> tuple[int, dict[str, Any]]:
        path = urlsplit(url).path
        links = {"self": f"{self.url}{url}&api_key={key}"}
        if path.endswith("/feed"):
            return self._feed(url, query, links)
        objects = catalog(self.days.values())
        if path.endswith("/neo/browse"):
            return _page(url, query, list(objects.values()), links)
        if item := objects.get(path.rpartition("/neo/")[2]):
            return 200, {**detail_of(item), "links": links}
        return 404, _not_found(url, "")

    def _feed(
        self, url: str, query: Mapping[str, str], links: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        today = datetime.now(UTC).date()
        try:
            first = date.fromisoformat(query.get("start_date", today.isoformat()))
            last = date.fromisoformat(
                query.get("end_date", (first + timedelta(days=7)).isoformat())
            )
        except ValueError as error:
            return 400, _bad_request(url, str(error))
        first, last = min(first, last), max(first, last)
        if last - first > timedelta(days=7):
            return 400, _bad_request(url, "The Feed date limit is only 7 Days")
        window = [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
        for day in window:
            if day not in self.days:
                recorded = ", ".join(sorted(self.days)[:20])
                return 404, _not_found(
                    url,
                    f"This server has no recording of {day}; it has {recorded}. Set NASA_API_KEY to "
                    "send the request to NASA.",
                )
        # As in NASA's responses: days are unsorted, an empty day has no key, links echo the API key.
        objects = {day: self.days[day] for day in reversed(window) if self.days[day]}
        return 200, {
            "links": links,
            "element_count": sum(map(len, objects.values())),
            "near_earth_objects": objects,
        }


def _page(
    url: str,
    query: Mapping[str, str],
    objects: list[dict[str, Any]],
    links: Mapping[str, str],
) -> tuple[int, dict[str, Any]]:
    page = query.get("page", "0")
    if not page.isdecimal():
        return 400, _bad_request(url, f"{page!r} is not a page")
    pages = -(-len(objects) // PAGE_SIZE)
    start = int(page) * PAGE_SIZE
    return 200, {
        "links": links,
        "page": {
            "size": PAGE_SIZE,
            "total_elements": len(objects),
            "total_pages": pages,
            "number": int(page),
        },
        "near_earth_objects": [detail_of(item) for item in objects[start : start + PAGE_SIZE]],
    }


def _gateway_error(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}})


def _not_found(url: str, message: str) -> dict[str, Any]:
    return {"code": 404, "http_error": "NOT_FOUND", "error_message": message, "request": url}


def _bad_request(url: str, reason: str) -> dict[str, Any]:
    return {
        "code": 400,
        "http_error": "BAD_REQUEST",
        "error_message": f"Date Format Exception - Expected format (yyyy-mm-dd) - {reason}",
        "request": url,
    }


def _handler(server: NeowsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append((self.path, dict(self.headers)))
            status, headers, body = server.respond(self.path, dict(self.headers))
            fault = server.next_fault()
            time.sleep(fault.delay)
            if fault.content_type is not None:
                headers["Content-Type"] = fault.content_type
            content = (body if fault.body is None else fault.body).encode()
            status = fault.status or status
            server.statuses.append(status)
            self.send_response(status)
            for name, value in {**headers, **fault.headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self._send(content, fault)

        def _send(self, content: bytes, fault: Fault) -> None:
            content = content if fault.truncate_at is None else content[: fault.truncate_at]
            size = _CHUNK_BYTES if fault.chunk_delay else max(len(content), 1)
            try:
                for start in range(0, len(content), size):
                    time.sleep(fault.chunk_delay)
                    self.wfile.write(content[start : start + size])
            except OSError:  # the client closed the connection
                self.close_connection = True
            if fault.truncate_at is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Log nothing; `NeowsServer.requests` has all requests."""

    return Handler
