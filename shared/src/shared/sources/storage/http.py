"""Folders on HTTP servers, whose files are known by name: HTTP has no listing."""

import gzip
import zlib
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import urllib3
import xxhash
from dlt.sources.helpers import requests
from requests import PreparedRequest
from requests.auth import HTTPBasicAuth

from shared.sources.storage.base import FileStat, InvalidFileError
from shared.sources.storage.folder_url import FolderUrl

_READ_BYTES = 1 << 20
_SETTLED = timedelta(seconds=60)  # times are in whole seconds, and servers may have several clocks
_HEAD_REFUSED = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_IMPLEMENTED,
)
"""What servers reply that know GET only."""

_WITHOUT_URL = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.SSLError,
    urllib3.exceptions.TimeoutError,
)
"""Errors whose text has no URL. The URL of a redirect may have a key."""


class HttpStorage:
    """A folder on an HTTP server.

    Requests are retried as dlt's settings `RUNTIME__REQUEST_…` say; a body that is cut off is not.
    Redirects are followed, but not from https to http, and no other server gets the password.
    """

    can_list = False

    def __init__(self, url: FolderUrl) -> None:
        """Keep the URL; nothing is requested yet."""
        self.url, self._folder = url.shown, url

    def full_path(self, path: str) -> str:
        """Return the URL of a file; each sign of its name is escaped."""
        return f"{self.url}/{quote(path)}"

    def stat(self, path: str) -> FileStat:
        """Return the stat of a file; see `Storage`.

        It comes from the headers of a HEAD request. Without a length, or without ETag and
        Last-Modified, it is the hash of the file, which is downloaded for it.
        """
        with closing(self._request("HEAD", path)) as response:
            headers = response.headers
        size, etag = headers.get("Content-Length", ""), headers.get("ETag", "")
        modified = headers.get("Last-Modified", "")
        if not size.isdecimal() or not (etag or modified):
            return self._stat_of_content(path)
        is_settled = _is_old(modified, headers.get("Date", "")) if modified else bool(etag)
        return FileStat(
            int(size),
            " ".join(filter(None, (modified, etag))),
            is_settled and not etag.startswith("W/"),
        )

    def find(self) -> dict[str, FileStat]:
        """Raise `InvalidFileError`: HTTP has no listing."""
        raise InvalidFileError(
            f"{self.url} cannot be listed, because HTTP has no listing; name the files, as a partition "
            "or as a path, or use a bucket, SFTP or a local folder"
        )

    def download(self, path: str, write: Callable[[bytes], object]) -> None:
        """Pass the bytes of a file to a function; see `Storage`."""
        size = 0
        with closing(self._request("GET", path)) as response:
            source = _decoded(response, path)
            while content := self._read(source, path):
                size += len(content)
                write(content)
            has_end = "Content-Length" in response.headers or response.raw.chunked
        if not has_end and source is response.raw and size != self._length(path, size):
            raise self._cut_off(path, "it is too short")

    def _read(self, source: Any, path: str) -> bytes:
        try:
            content: bytes = source.read(_READ_BYTES)
        except (urllib3.exceptions.HTTPError, EOFError, OSError, zlib.error) as error:
            raise self._cut_off(path, type(error).__name__) from None
        return content

    def _length(self, path: str, default: int) -> int:
        with closing(self._request("HEAD", path)) as response:
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdecimal() else default

    def _cut_off(self, path: str, why: str) -> ConnectionError:
        return ConnectionError(f"{self.url}: the download of {path} was cut off ({why})")

    @cached_property
    def _session(self) -> requests.Session:
        client = requests.Client(raise_for_status=False)
        client.configure()
        session = client.session
        session.headers["Accept-Encoding"] = "identity"  # lengths are those of the file
        user, password = self._folder.user, self._folder.password()
        if user is None and (token := self._folder.token()):
            session.auth = _bearer(token)
        elif user is not None and password is None:
            raise PermissionError(
                f"{self.url}: there is no password for this user; set DROP_FOLDER_PASSWORD, or add the "
                "server to ~/.netrc"
            )
        elif user is not None and password is not None:
            session.auth = HTTPBasicAuth(unquote(user).encode(), password.encode())
        return session

    def _request(self, method: str, path: str) -> requests.Response:
        """Return a successful response, whose body is not read yet."""
        url = f"{self._folder.address}/{quote(path)}"
        try:
            response = self._session.request(method, url, stream=True, allow_redirects=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise ConnectionError(f"{self.url}: {_reason(error)}") from None
        if method == "HEAD" and response.status_code in _HEAD_REFUSED:
            response.close()
            return self._request("GET", path)
        try:
            self._require_file(response, path)
        except Exception:
            response.close()
            raise
        return response

    def _require_file(self, response: requests.Response, path: str) -> None:
        status = response.status_code
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise FileNotFoundError(path)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise PermissionError(
                f"{self.url}: the server refuses {path} with status {status}; write the user into the "
                "URL and set DROP_FOLDER_PASSWORD, or set DROP_FOLDER_TOKEN, or add the server to "
                "~/.netrc"
            )
        if status != HTTPStatus.OK:
            raise ConnectionError(f"{self.url}: the server answers {path} with status {status}")
        hops = [urlsplit(hop.url) for hop in (*response.history, response)]
        if self._folder.scheme == "https" and any(hop.scheme != "https" for hop in hops):
            raise PermissionError(
                f"{self.url}: the server redirects {path} to http, which anybody on the way can change"
            )
        if hops[-1].path == f"{hops[0].path}/":
            raise InvalidFileError(
                f"{path!r} in the drop folder {self.url} is a folder, not a file"
            )

    def _stat_of_content(self, path: str) -> FileStat:
        digest, size = xxhash.xxh3_128(), 0

        def count(content: bytes) -> None:
            nonlocal size
            digest.update(content)
            size += len(content)

        self.download(path, count)
        # Without a length, another download may be cut off unnoticed.
        return FileStat(size, digest.hexdigest(), is_settled=False)


def _decoded(response: requests.Response, path: str) -> Any:
    """Return the body of a response as a file, decompressed if only the response is compressed."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    # Some servers label what is in a .gz file so, although they send the file itself.
    if encoding == "identity" or ("gzip" in encoding and path.lower().endswith(".gz")):
        return response.raw
    if encoding in ("gzip", "x-gzip"):
        return gzip.GzipFile(fileobj=response.raw, mode="rb")
    raise InvalidFileError(
        f"{path}: the server sends it encoded as {encoding}, which was not requested; switch that off "
        "for these files"
    )


def _is_old(modified: str, date: str) -> bool:
    """Return whether a file was written long before a response; False if that is not known."""
    try:
        return parsedate_to_datetime(date) - parsedate_to_datetime(modified) >= _SETTLED
    except (TypeError, ValueError):
        return False


def _bearer(token: str) -> Callable[[PreparedRequest], PreparedRequest]:
    def authorize(request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorize


def _reason(error: Exception) -> str:
    """Return why a request failed, without the URL, which may be that of a redirect with a key."""
    cause = error.args[0] if error.args else None
    cause = getattr(cause, "reason", None) or cause
    return str(cause) if isinstance(cause, _WITHOUT_URL) else type(error).__name__
