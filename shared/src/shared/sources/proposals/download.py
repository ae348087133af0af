"""Download a file to propose a format from it: once, without retries, and not without end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from dlt.sources.helpers.requests import Client, RequestException, Response

from shared.redaction import redact
from shared.sources.drop_folder import InvalidFileError

MAX_BYTES = 1_000_000_000
"""How much of a URL a proposal downloads."""

_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 20
_NEXT_STEP = "Download it yourself, and use --from with the path of the file"


@contextmanager
def open_url(url: str) -> Iterator[Response]:
    """Request a URL and yield the response, whose body is not read yet.

    Raises:
        InvalidFileError: the server does not answer, or answers with an error.
    """
    shown = redact(url)
    client = Client(_TIMEOUT_SECONDS, request_max_attempts=1, raise_for_status=False)
    try:
        with client.get(url, stream=True) as response:
            if not response.ok:
                raise InvalidFileError(
                    f"{shown} answers with {response.status_code} {response.reason}. Check the URL; "
                    "if it needs a login, download the file yourself"
                )
            yield response
    except RequestException as error:
        raise InvalidFileError(f"{shown} cannot be read: {redact(str(error))}") from None


def download(url: str, folder: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Download a file into a folder, under the name in its URL.

    Args:
        url: an http or https URL that ends with the name of a file.
        folder: an existing folder.
        max_bytes: how large the file may be.

    Raises:
        InvalidFileError: the file does not exist, is too large, or it is a web page.
    """
    parts = urlsplit(url)
    name = Path(parts.path).name
    if parts.query or parts.username or "%" in name:
        raise InvalidFileError(
            f"{redact(url)} is not the plain URL of a file: it has parameters, a user or escaped characters. "
            f"{_NEXT_STEP}"
        )
    size = 0
    with open_url(url) as response, (folder / name).open("wb") as file:
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise InvalidFileError(f"{url} is a web page and not a file. {_NEXT_STEP}")
        for chunk in response.iter_content(_CHUNK_BYTES):
            size += len(chunk)
            if size > max_bytes:
                raise InvalidFileError(
                    f"{url} has more than {max_bytes:,} bytes. Download its first rows yourself, and use "
                    "--from with the path of that file"
                )
            file.write(chunk)
    return folder / name
