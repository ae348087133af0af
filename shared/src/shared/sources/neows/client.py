"""An HTTP client for NASA's NeoWs: it retries, respects the request limit, and hides the key."""

import gc
import random
import time
from datetime import date
from http import HTTPStatus
from typing import Any

import orjson
import urllib3
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.configuration.specs import RuntimeConfiguration
from dlt.sources.helpers import requests

from shared import settings
from shared.sources.protocol import RetryLaterError
from shared.sources.rate_limit import RateLimit, retry_after

_DEMO_KEY_LIMIT = (
    "DEMO_KEY allows 30 requests an hour and 50 a day for each IP address; set NASA_API_KEY to your "
    "own key (free at https://api.nasa.gov), which allows 1,000 an hour."
)
_CHUNK_BYTES = 2**16


class NeowsError(Exception):
    """A response of NeoWs is an error, or not as the API describes it."""


class NotFoundError(NeowsError):
    """NeoWs does not have the requested object."""


class _FailedAttemptError(Exception):
    """A request failed, and another attempt may succeed."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class NeowsClient:
    """A client for the requests of one load; share it, because dlt is slow to create one.

    Server errors, failed connections and responses that are truncated, empty, too slow or not JSON are
    retried as often and as long as dlt's `RUNTIME__REQUEST_…` settings allow. Each retry waits a random
    part of the backoff, so that concurrent runs do not retry together. The client waits for the request
    limit if that takes at most `NASA_MAX_WAIT_SECONDS`.

    The key is sent in a header, because error messages repeat the URL. NASA repeats the key in links, so
    it is replaced in every response.

    Raises:
        NeowsError: NASA_API_KEY has characters that a header cannot have. From each method: the response
            is an error, or not as NeoWs describes it; the message has the window, page or object.
        RetryLaterError: from each method: the request limit is reached.
    """

    def __init__(self, metrics: dict[str, int] | None = None) -> None:
        """Read the settings; no request is sent yet.

        Args:
            metrics: counts the requests, as `requests`.
        """
        self.metrics = {} if metrics is None else metrics
        self.key = settings.get("NASA_API_KEY").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise NeowsError("NASA_API_KEY has characters that no key has; set it again.")
        self.url = settings.get("NASA_BASE_URL").rstrip("/")
        self._max_wait = settings.get_seconds("NASA_MAX_WAIT_SECONDS")
        self._settings = resolve_configuration(RuntimeConfiguration())
        timeout = self._settings.request_timeout
        self._limit = RateLimit(self.url, self.key, self._max_wait, lock_timeout=float(timeout))
        self._session = requests.Session(timeout=timeout, raise_for_status=False)
        self._session.headers.update(
            # Without `Accept` the gateway picks the type of its errors, also HTML.
            {"X-Api-Key": self.key, "Accept": "application/json"}
        )

    def feed(self, first: date, last: date) -> dict[str, list[Any]]:
        """Return the objects from `first` to `last` by day; a day without objects is missing."""
        window = f"{first} to {last}"
        query = {"start_date": first.isoformat(), "end_date": last.isoformat()}
        feed = self._get("/feed", query, window, near_earth_objects=dict)
        days: dict[str, list[Any]] = feed["near_earth_objects"]
        if invalid := [day for day, items in days.items() if not isinstance(items, list)]:
            raise NeowsError(
                f"{window}: the response has no list of objects for {', '.join(invalid)}."
            )
        count, stated = sum(map(len, days.values())), feed.get("element_count")
        if count != stated:
            raise NeowsError(
                f"{window}: the response has {count} objects but element_count is {stated}; nothing from "
                "it was loaded. Run again later."
            )
        if extra := [day for day in days if not first.isoformat() <= day <= last.isoformat()]:
            raise NeowsError(f"{window}: the response has days outside it: {', '.join(extra)}.")
        return days

    def browse(self, page: int) -> tuple[list[dict[str, Any]], int]:
        """Return a page of the catalog, counted from 0, and the number of pages."""
        query = {"page": str(page)}
        response = self._get("/neo/browse", query, f"page {page}", near_earth_objects=list)
        try:
            return response["near_earth_objects"], int(response["page"]["total_pages"])
        except (KeyError, TypeError, ValueError):
            raise NeowsError(f"page {page}: the response has no number of pages.") from None

    def object(self, spk_id: str) -> dict[str, Any]:
        """Return an object with its orbit and approaches; raise `NotFoundError` if there is none."""
        return self._get(f"/neo/{spk_id}", {}, f"object {spk_id}", close_approach_data=list)

    def _get(self, path: str, query: dict[str, str], what: str, **expected: type) -> dict[str, Any]:
        """Return a response's JSON, which has the expected fields; messages name `what`."""
        config, attempt = self._settings, 1
        while True:
            try:
                return self._attempt(path, query, what, expected)
            except _FailedAttemptError as error:
                if attempt >= config.request_max_attempts:
                    raise NeowsError(
                        f"{self.url}{path} for {what}: {error} (attempt {attempt} of "
                        f"{config.request_max_attempts}). Nothing of it was loaded; run again later."
                    ) from None
                backoff = config.request_backoff_factor * 2 ** (attempt - 1)
                backoff = random.uniform(0, min(backoff, config.request_max_retry_delay))  # noqa: S311
                time.sleep(max(backoff, error.wait))
                attempt += 1

    def _attempt(
        self, path: str, query: dict[str, str], what: str, expected: dict[str, type]
    ) -> dict[str, Any]:
        url = f"{self.url}{path}"
        body = b""

        def request() -> requests.Response:
            nonlocal body
            self.metrics["requests"] = self.metrics.get("requests", 0) + 1
            deadline = time.monotonic() + self._settings.request_timeout
            response = self._session.get(url, params=query, allow_redirects=False, stream=True)
            body = _read_body(response, deadline).replace(self.key.encode(), b"REDACTED")
            return response

        try:
            response = self._limit.send(request)
        except RetryLaterError as error:
            demo = f" {_DEMO_KEY_LIMIT}" if self.key == "DEMO_KEY" else ""
            raise RetryLaterError(f"{what}: {error}{demo}", error.retry_after) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
            raise _FailedAttemptError(f"NeoWs could not be reached: {error}") from None
        status, content = response.status_code, _parse_json(body)
        place = f"{url} for {what}: status {status}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            wait = retry_after(response) or 0.0
            if wait > self._max_wait:
                raise RetryLaterError(f"{place}; NeoWs requests a retry in {wait:.0f} s.", wait)
            raise _FailedAttemptError(f"status {status}", wait)
        if status == HTTPStatus.FORBIDDEN:
            raise NeowsError(
                f"{place}, NASA rejected the key; set NASA_API_KEY (free at https://api.nasa.gov)."
            )
        if status != HTTPStatus.OK:
            reason = content.get("error_message", "") if isinstance(content, dict) else ""
            kind = NotFoundError if status == HTTPStatus.NOT_FOUND else NeowsError
            raise kind(f"{place}. {reason}".rstrip())
        if not isinstance(content, dict) or not all(
            isinstance(content.get(name), kind) for name, kind in expected.items()
        ):
            raise _FailedAttemptError(
                f"status {status}, and the response is not as NeoWs describes it: it starts with "
                f"{body[:40]!r} and has {len(body)} bytes"
            )
        return content


def _parse_json(body: bytes) -> Any:
    """Return the JSON of a body; None where it is not JSON.

    Python's garbage collector is off meanwhile, because JSON has no cycles: after every 700 new objects
    it would also visit all of Dagster's objects, which takes longer than the parsing.
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


def _read_body(response: requests.Response, deadline: float) -> bytes:
    """Return a response's complete body.

    Raises:
        TimeoutError: it is not complete at the deadline. The timeout of the connection alone would let
            a slow response continue for hours.
    """
    chunks = []
    with response:
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            chunks.append(chunk)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the response is not complete in time ({len(chunks)} chunks)")
    return b"".join(chunks)
