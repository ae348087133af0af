"""Asks NASA's NeoWs: one request at a time, within its limit, until it is answered or fails clearly."""

import gc
import time
from datetime import date
from http import HTTPStatus
from typing import Any

import orjson
import urllib3
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.configuration.specs import RuntimeConfiguration
from dlt.sources.helpers import requests
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from shared import settings
from shared.sources.protocol import RetryLaterError
from shared.sources.rate_limit import RateLimit, retry_after

DEMO_KEY_SAYS = (
    "DEMO_KEY allows 30 requests an hour and 50 a day for each address; set NASA_API_KEY to a key of "
    "your own (free at https://api.nasa.gov), which allows 1,000 an hour."
)
_PIECE = 2**16


class NeowsError(Exception):
    """NeoWs did not answer a request as it is described."""


class NotFoundError(NeowsError):
    """NeoWs does not know what it was asked for."""


class _FailedAttemptError(Exception):
    """A request failed in a way that another attempt may mend."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class NeowsClient:
    """A client for the requests of one load; dlt takes long to make one.

    Server errors, answers that are cut, empty, too slow or no JSON, and connections that fail are
    tried again, as often and as long as dlt's `RUNTIME__REQUEST_…` settings say, after a random part
    of the backoff, so that runs side by side do not return together. A used up limit is waited for,
    if that takes no longer than `NASA_MAX_WAIT_SECONDS`.

    The key travels in a header: in the address every error message would repeat it. No answer repeats
    it either: NASA's links do, and it is struck out of what arrives.
    """

    def __init__(self, metrics: dict[str, int] | None = None) -> None:
        """Reads the settings; asks nothing yet.

        Args:
            metrics: where requests are counted, as `requests`.

        Raises:
            NeowsError: NASA_API_KEY holds what no header can carry.
        """
        self.metrics = {} if metrics is None else metrics
        self.key = settings.get("NASA_API_KEY").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise NeowsError("NASA_API_KEY holds characters that no key has; set it again.")
        self.address = settings.get("NASA_BASE_URL").rstrip("/")
        self._longest_wait = settings.get_seconds("NASA_MAX_WAIT_SECONDS")
        self._settings = resolve_configuration(RuntimeConfiguration())
        self._limit = RateLimit(
            self.address,
            self.key,
            self._longest_wait,
            patience=float(self._settings.request_timeout),
        )
        self._session = requests.Session(
            timeout=self._settings.request_timeout, raise_for_status=False
        )
        self._session.headers.update(
            {
                "X-Api-Key": self.key,
                # Else the gateway's errors follow the address, and can be HTML.
                "Accept": "application/json",
            }
        )

    def feed(self, first: date, last: date) -> dict[str, list[Any]]:
        """Returns the objects of the days from `first` to `last`, by day.

        A day without objects is missing, as it is in NASA's answer.

        Raises:
            NeowsError: any answer but such a feed.
            RetryLaterError: the request limit is used up.
        """
        what = f"{first} to {last}"
        query = {"start_date": first.isoformat(), "end_date": last.isoformat()}
        feed = self._ask("/feed", query, what, near_earth_objects=dict)
        days: dict[str, list[Any]] = feed["near_earth_objects"]
        if strange := [day for day, items in days.items() if not isinstance(items, list)]:
            raise NeowsError(f"{what}: the answer has no list of objects for {', '.join(strange)}.")
        found = sum(map(len, days.values()))
        if found != feed.get("element_count"):
            raise NeowsError(
                f"{what}: the answer has {found} objects and says it has "
                f"{feed.get('element_count')}; nothing of it was loaded. Run again later."
            )
        if strange := [day for day in days if not first.isoformat() <= day <= last.isoformat()]:
            raise NeowsError(
                f"{what}: the answer has days that were not asked for: {', '.join(strange)}."
            )
        return days

    def browse(self, page: int) -> tuple[list[dict[str, Any]], int]:
        """Returns a page of the catalog, counted from 0, and how many pages there are.

        Raises:
            NeowsError: any answer but such a page.
            RetryLaterError: the request limit is used up.
        """
        answer = self._ask(
            "/neo/browse", {"page": str(page)}, f"page {page}", near_earth_objects=list
        )
        try:
            return answer["near_earth_objects"], int(answer["page"]["total_pages"])
        except (KeyError, TypeError, ValueError):
            raise NeowsError(
                f"page {page}: the answer does not say how many pages there are."
            ) from None

    def object(self, spk_id: str) -> dict[str, Any]:
        """Returns an object with its orbit and all of its close approaches.

        Raises:
            NotFoundError: NeoWs has no such object.
            NeowsError: any other answer but an object.
            RetryLaterError: the request limit is used up.
        """
        return self._ask(f"/neo/{spk_id}", {}, f"object {spk_id}", close_approach_data=list)

    def _ask(self, path: str, query: dict[str, str], what: str, **expected: type) -> dict[str, Any]:
        """Returns an answer's JSON, which has the expected fields."""
        attempts = Retrying(
            stop=stop_after_attempt(self._settings.request_max_attempts),
            wait=self._pause,
            retry=retry_if_exception_type(_FailedAttemptError),
            reraise=True,
        )
        try:
            answer: dict[str, Any] = attempts(self._attempt, path, query, what, expected)
        except _FailedAttemptError as error:
            raise NeowsError(
                f"{self.address}{path} for {what}: {error} "
                f"(attempt {attempts.statistics['attempt_number']} of "
                f"{self._settings.request_max_attempts}). Nothing of it was loaded; run again later."
            ) from None
        return answer

    def _pause(self, state: RetryCallState) -> float:
        backoff = wait_random_exponential(
            multiplier=self._settings.request_backoff_factor,
            max=self._settings.request_max_retry_delay,
        )
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, _FailedAttemptError)
        return max(backoff(state), error.wait)

    def _attempt(
        self, path: str, query: dict[str, str], what: str, expected: dict[str, type]
    ) -> Any:
        url = f"{self.address}{path}"
        body = b""

        def send() -> requests.Response:
            nonlocal body
            self.metrics["requests"] = self.metrics.get("requests", 0) + 1
            deadline = time.monotonic() + self._settings.request_timeout
            response = self._session.get(url, params=query, allow_redirects=False, stream=True)
            body = _body(response, deadline).replace(self.key.encode(), b"REDACTED")
            return response

        try:
            response = self._limit.ask(send)
        except RetryLaterError as error:
            demo = f" {DEMO_KEY_SAYS}" if self.key == "DEMO_KEY" else ""
            raise RetryLaterError(f"{what}: {error}{demo}", error.retry_after) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
            raise _FailedAttemptError(f"NeoWs could not be reached: {error}") from None
        status = response.status_code
        answer = _parsed(body)
        place = f"{url} for {what}: status {status}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            wait = retry_after(response) or 0.0
            if wait > self._longest_wait:
                raise RetryLaterError(f"{place}; NeoWs asks to come back in {wait:.0f} s.", wait)
            raise _FailedAttemptError(f"status {status}", wait)
        if status == HTTPStatus.FORBIDDEN:
            raise NeowsError(
                f"{place}, the key was refused; set NASA_API_KEY (free at https://api.nasa.gov)."
            )
        if status != HTTPStatus.OK:
            reason = answer.get("error_message", "") if isinstance(answer, dict) else ""
            kind = NotFoundError if status == HTTPStatus.NOT_FOUND else NeowsError
            raise kind(f"{place}. {reason}".rstrip())
        if not isinstance(answer, dict) or not all(
            isinstance(answer.get(name), kind) for name, kind in expected.items()
        ):
            raise _FailedAttemptError(
                f"status {status}, and the answer is not as NeoWs describes it: it starts "
                f"{body[:40]!r} and has {len(body)} bytes"
            )
        return answer


def _parsed(body: bytes) -> Any:
    """Returns the JSON of a body; None where it is none.

    Meanwhile Python looks for no cycles, which JSON has not: after every 700 of its thousands of new
    objects it would look at all of Dagster's as well, and take longer than the parsing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    finally:
        if enabled:
            gc.enable()


def _body(response: requests.Response, deadline: float) -> bytes:
    """Returns an answer's whole body.

    Raises:
        TimeoutError: it had not arrived by the deadline; a timeout of the connection alone would let
            an answer drip in for hours.
    """
    pieces = []
    with response:
        while piece := response.raw.read1(_PIECE, decode_content=True):
            pieces.append(piece)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the answer had not arrived in time ({len(pieces)} pieces)")
    return b"".join(pieces)
