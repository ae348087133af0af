"""The request limit of an API, shared by all runs on this machine."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from http import HTTPStatus

from dlt.sources.helpers.requests import Response
from filelock import FileLock, Timeout
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from shared import settings
from shared.sources.protocol import RetryLaterError

_SERIALIZE_BELOW = 20  # remaining requests
_DEFAULT_WAIT_SECONDS = 600.0


@dataclass
class LimitState:
    """What earlier responses reported about the limit.

    Attributes:
        remaining: requests that the limit still allows; None before the first response.
        resets_at: when the next request is allowed, in seconds since 1970; 0 if one is allowed now.
        observed_at: when this was reported, in seconds since 1970.
    """

    remaining: int | None = None
    resets_at: float = 0.0
    observed_at: float = 0.0


class RateLimit:
    """Sends requests while their limit allows it, across processes.

    A file next to the warehouse has the values of the response headers `X-RateLimit-Remaining` and
    `Retry-After`. While many requests remain, processes send them concurrently and count them. Near the
    limit, and before the first response, requests are serialized. So ten runs learn from one rejected
    request that the limit is reached, not from ten.
    """

    def __init__(
        self, upstream: str, credential: str, max_wait: float, lock_timeout: float = 60.0
    ) -> None:
        """Set the limit's file; nothing is read or written yet.

        Args:
            upstream: the API's URL, for messages.
            credential: the key that the API counts requests by; it is not stored.
            max_wait: maximum seconds to wait before a request.
            lock_timeout: maximum seconds to wait for the serialized request of another process.
        """
        self.upstream, self.max_wait, self.lock_timeout = upstream, max_wait, lock_timeout
        folder = settings.get_path("WAREHOUSE_PATH").with_suffix(".limits")
        digest = blake2b(f"{upstream} {credential}".encode(), digest_size=8).hexdigest()
        self._file = folder / f"{digest}.json"

    def send(self, request: Callable[[], Response]) -> Response:
        """Send a request as soon as the limit allows it, and return the response.

        Raises:
            RetryLaterError: that would take longer than the maximum wait.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        while True:
            with self._lock():
                state = self._read()
                wait = state.resets_at - time.time()
                serialized = state.remaining is None or state.remaining < _SERIALIZE_BELOW
                if wait <= 0 and serialized:
                    response = request()
                    self._record(response, serialized=True)
                elif wait <= 0:
                    assert state.remaining is not None
                    state.remaining -= 1
                    self._write(state)
            if wait <= 0 and not serialized:
                response = request()
                with self._lock():
                    self._record(response, serialized=False)
            if wait <= 0:
                if response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    return response
            elif time.monotonic() - started + wait > self.max_wait:
                raise RetryLaterError(
                    f"{self.upstream}: the request limit is used up for {wait:.0f} s more; loaded rows "
                    "are kept. Run the rest again after that.",
                    wait,
                )
            else:
                time.sleep(wait)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock the limit's file; continue without the lock after the timeout, since it is a hint."""
        lock = FileLock(self._file.with_suffix(".lock"))
        with suppress(Timeout):
            lock.acquire(timeout=self.lock_timeout)
        try:
            yield
        finally:
            lock.release()

    def _record(self, response: Response, *, serialized: bool) -> None:
        now, state = time.time(), self._read()
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            # Never 0: an API that says so would get requests without a pause.
            wait = max(retry_after(response) or _DEFAULT_WAIT_SECONDS, 0.1)
            self._write(LimitState(0, now + wait, now))
            return
        header = response.headers.get("X-RateLimit-Remaining", "")
        if header.isdecimal():
            remaining = int(header)
            if not serialized and state.remaining is not None:
                # The response does not count the concurrent requests.
                remaining = min(remaining, state.remaining)
            self._write(LimitState(remaining, state.resets_at, now))

    def _read(self) -> LimitState:
        with suppress(FileNotFoundError, ValueError, TypeError):
            state = LimitState(**json.loads(self._file.read_text()))
            # After the clock was set back, the wait would be far too long.
            return state if state.observed_at <= time.time() else LimitState()
        return LimitState()

    def _write(self, state: LimitState) -> None:
        self._file.write_text(json.dumps(asdict(state)))


def retry_after(response: Response) -> float | None:
    """Return the seconds in a response's `Retry-After`, given as seconds or as a date."""
    with suppress(InvalidHeader):
        return Retry().get_retry_after(response.raw)
    return None
