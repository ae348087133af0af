"""A NeoWs server on loopback, for tests and for work without a key.

It serves days that NASA really answered (public domain, keys removed), or made-up ones, by the API's
rules: the window of at most 8 dates, the key, the request limit, the error bodies and headers. On
request it fails in every way that an API does.
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

from shared.testing.neows_objects import catalog, detail_of, recorded_days

__all__ = ["INVALID_KEY", "Fault", "NeowsServer", "recorded_days"]

INVALID_KEY = "INVALID"
"""The one key the server refuses."""
PAGE_SIZE = 20
"""Objects of a page of the catalog."""
_SLOWLY = 10  # bytes of a dripping answer


@dataclass(frozen=True)
class Fault:
    """How an answer goes wrong; what is left at its default stays as it would have been.

    Attributes:
        status: the HTTP status.
        content_type: the header of that name.
        headers: further headers; one with the value None is left out.
        body: what is sent instead.
        delay: seconds until the answer starts.
        cut_at: bytes of the body after which the connection is closed.
        drip: seconds between every 10 bytes of the body.
    """

    status: int | None = None
    content_type: str | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: str | None = None
    delay: float = 0.0
    cut_at: int | None = None
    drip: float = 0.0


class NeowsServer:
    """Serves /feed, /neo/browse and /neo/{id} in a thread of its own while entered as a context.

    Attributes:
        days: objects by day; a test may revise or empty a day. A day that is not in it at all is
            answered with 404, so that a missing recording never looks like a day without objects.
        limit: requests allowed in an hour; it may shrink meanwhile.
        hour: seconds of that hour, any that ends now, so that tests need not wait for a long one.
        failure: status, content type and body to answer every request with, instead of a feed.
        faults: what happens to the next answers, one each; None to an answer that stays as it is.
        requests: the address and the headers of each request so far.
        statuses: the status of each answer so far.
    """

    def __init__(self, limit: int = 1000, hour: float = 3600.0) -> None:
        """Binds a free port; nothing is served before the context is entered."""
        self.days: dict[str, list[dict[str, Any]]] = dict(recorded_days())
        self.limit, self.hour = limit, hour
        self.failure: tuple[int, str, str] | None = None
        self.faults: deque[Fault | None] = deque()
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.statuses: list[int] = []
        self._taken: deque[float] = deque()  # when each request of the last hour was let through
        self._one_at_a_time = threading.Lock()
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
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        key = headers.get("X-Api-Key") or query.get("api_key")
        gateway = {"Content-Type": "application/json"}
        if not key:
            body = _gateway_error("API_KEY_MISSING", "No api_key was supplied.")
            return 403, gateway, body
        if key == INVALID_KEY:
            body = _gateway_error("API_KEY_INVALID", "An invalid api_key was supplied.")
            return 403, gateway, body
        refused_for = self._take()
        gateway["X-RateLimit-Limit"] = str(self.limit)
        gateway["X-RateLimit-Remaining"] = str(max(self.limit - len(self._taken), 0))
        if refused_for is not None:
            gateway["Retry-After"] = f"{max(1, round(refused_for))}"
            body = _gateway_error("OVER_RATE_LIMIT", "You have exceeded your rate limit.")
            return 429, gateway, body
        if self.failure:
            status, gateway["Content-Type"], body = self.failure
            return status, gateway, body
        status, answer = self._answer(address, query, key)
        return status, gateway, json.dumps(answer)

    def _take(self) -> float | None:
        """Counts a request; returns the seconds until the next is allowed if this one is not.

        As at NASA's gateway, a refused request does not count.
        """
        with self._one_at_a_time:
            now = time.monotonic()
            while self._taken and self._taken[0] <= now - self.hour:
                self._taken.popleft()
            if len(self._taken) < self.limit:
                self._taken.append(now)
                return None
            return self._taken[0] + self.hour - now if self._taken else self.hour

    def next_fault(self) -> Fault:
        """Returns what happens to the request that has just come."""
        with self._one_at_a_time:
            return (self.faults.popleft() if self.faults else None) or Fault()

    def _answer(
        self, address: str, query: Mapping[str, str], key: str
    ) -> tuple[int, dict[str, Any]]:
        path = urlsplit(address).path
        links = {"self": f"{self.url}{address}&api_key={key}"}
        if path.endswith("/feed"):
            return self._feed(address, query, links)
        objects = catalog(self.days.values())
        if path.endswith("/neo/browse"):
            return _page(address, query, list(objects.values()), links)
        if item := objects.get(path.rpartition("/neo/")[2]):
            return 200, {**detail_of(item), "links": links}
        return 404, _not_found(address, "")

    def _feed(
        self, address: str, query: Mapping[str, str], links: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
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
                had = ", ".join(sorted(self.days)[:20])
                return 404, _not_found(
                    address,
                    f"This server has no recording of {day}; it has {had}. Set NASA_API_KEY to ask "
                    "NASA.",
                )
        # As NASA does: days come unsorted, a day without objects has no key, links echo the API key.
        found = {day: self.days[day] for day in reversed(asked) if self.days[day]}
        return 200, {
            "links": links,
            "element_count": sum(map(len, found.values())),
            "near_earth_objects": found,
        }


def _page(
    address: str,
    query: Mapping[str, str],
    objects: list[dict[str, Any]],
    links: Mapping[str, str],
) -> tuple[int, dict[str, Any]]:
    page = query.get("page", "0")
    if not page.isdecimal():
        return 400, _bad_request(address, f"{page!r} is no page")
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


def _not_found(address: str, message: str) -> dict[str, Any]:
    return {"code": 404, "http_error": "NOT_FOUND", "error_message": message, "request": address}


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
            server.requests.append((self.path, dict(self.headers)))
            status, headers, body = server.answer(self.path, dict(self.headers))
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
            whole = content if fault.cut_at is None else content[: fault.cut_at]
            size = _SLOWLY if fault.drip else max(len(whole), 1)
            try:
                for start in range(0, len(whole), size):
                    time.sleep(fault.drip)
                    self.wfile.write(whole[start : start + size])
            except OSError:  # whoever asked has lost patience
                self.close_connection = True
            if fault.cut_at is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Stays silent; `NeowsServer.requests` has them all."""

    return Handler
