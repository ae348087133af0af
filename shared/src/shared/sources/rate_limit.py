"""An upstream's request limit, of which all runs of this machine have one view."""

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

_ONE_AT_A_TIME_BELOW = 20
_UNTOLD_WAIT_SECONDS = 600.0


@dataclass
class _Known:
    """What the answers so far told.

    Attributes:
        remaining: requests that the limit still allows; None before the first answer.
        until: when it allows the next, if it is used up, as seconds since 1970.
        told_at: when that was told.
    """

    remaining: int | None = None
    until: float = 0.0
    told_at: float = 0.0


class RateLimit:
    """Lets requests through while their limit lasts, whichever process makes them.

    What the headers `X-RateLimit-Remaining` and `Retry-After` of an answer tell stands in a file
    beside the warehouse. While plenty is left requests go out side by side, and each process counts
    its own down; near the limit, and before anything is known, one goes out at a time, so that ten
    runs learn of a used up limit from one refused request rather than ten.
    """

    def __init__(
        self, upstream: str, credential: str, longest_wait: float, patience: float = 60.0
    ) -> None:
        """Touches nothing yet.

        Args:
            upstream: the address that the limit belongs to, for messages.
            credential: whom upstream counts; it is not stored.
            longest_wait: seconds that may be waited for a request.
            patience: seconds after which a request that another process makes is waited for no more.
        """
        self.upstream, self.longest_wait, self.patience = upstream, longest_wait, patience
        folder = settings.get_path("WAREHOUSE_PATH").with_suffix(".limits")
        whose = blake2b(f"{upstream} {credential}".encode(), digest_size=8).hexdigest()
        self._file = folder / f"{whose}.json"

    def ask(self, send: Callable[[], Response]) -> Response:
        """Returns the answer to a request, once the limit lets it through.

        Raises:
            RetryLaterError: that would take longer than the longest wait.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        while True:
            with self._turn():
                known = self._read()
                wait = known.until - time.time()
                alone = known.remaining is None or known.remaining < _ONE_AT_A_TIME_BELOW
                if wait <= 0 and alone:
                    response = self._take(send, alone=True)
                elif wait <= 0:
                    assert known.remaining is not None
                    known.remaining -= 1
                    self._write(known)
            if wait <= 0:
                if not alone:
                    response = self._take(send, alone=False)
                if response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    return response
                continue
            if time.monotonic() - began + wait > self.longest_wait:
                raise RetryLaterError(
                    f"{self.upstream}: the request limit is used up for {wait:.0f} s more; what has "
                    "landed stays, run the rest again then.",
                    wait,
                )
            time.sleep(wait)

    def _take(self, send: Callable[[], Response], *, alone: bool) -> Response:
        """Sends a request and keeps what its answer tells of the limit."""
        response = send()
        if alone:
            self._note(response, alone=True)
        else:
            with self._turn():
                self._note(response, alone=False)
        return response

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits for the others; one that hangs holds nobody up for long, for what is kept is a hint."""
        lock = FileLock(self._file.with_suffix(".lock"))
        with suppress(Timeout):
            lock.acquire(timeout=self.patience)
        try:
            yield
        finally:
            lock.release()

    def _note(self, response: Response, *, alone: bool) -> None:
        known = self._read()
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            # Never at once: an upstream that says 0 would be asked without end.
            wait = max(retry_after(response) or _UNTOLD_WAIT_SECONDS, 0.1)
            self._write(_Known(0, time.time() + wait, time.time()))
            return
        told = response.headers.get("X-RateLimit-Remaining", "")
        if told.isdecimal():
            # Requests of others may be under way that this answer does not count.
            remaining = int(told) if alone or known.remaining is None else known.remaining
            self._write(_Known(min(int(told), remaining), known.until, time.time()))

    def _read(self) -> _Known:
        with suppress(FileNotFoundError, ValueError, TypeError):
            known = _Known(**json.loads(self._file.read_text()))
            # A clock that was set back since would wait for far too long.
            return known if known.told_at <= time.time() else _Known()
        return _Known()

    def _write(self, known: _Known) -> None:
        self._file.write_text(json.dumps(asdict(known)))


def retry_after(response: Response) -> float | None:
    """Returns the seconds that an answer's `Retry-After` asks to wait, whether seconds or a date."""
    with suppress(InvalidHeader):
        return Retry().get_retry_after(response.raw)
    return None
