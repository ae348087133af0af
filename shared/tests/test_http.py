"""What an HTTP server answers is a complete file, or a clear error that shows no key."""

import gzip
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.testing.file_server import FileRequest, FileServer

CONTENT = b"code,n\nx,1\n"
PACKED = gzip.compress(CONTENT)
SECRET = "signature-of-the-url"
Answer = Callable[[FileRequest], None]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with FileServer(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def server(started: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """Return a server with an empty folder, which is the drop folder."""
    started.folder = tmp_path / "served"
    started.folder.mkdir()
    started.answers.clear()
    started.requests.clear()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("DROP_FOLDER", started.url)
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0")
    for name in ("NETRC", "DROP_FOLDER_PASSWORD", "DROP_FOLDER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return started


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with FileServer(tmp_path_factory.mktemp("other")) as server:
        (server.folder / "a.csv").write_bytes(CONTENT)
        yield server


def content(folder: DropFolder, path: str = "a.csv") -> bytes:
    with folder.local_copy(path) as copy:
        return copy.read_bytes()


def headers(server: FileServer, name: str) -> list[str | None]:
    return [request.headers.get(name) for request in server.requests]


VALIDATORS = [
    ((), 0), (("ETag",), 0), (("Last-Modified",), 0),
    (("ETag", "Last-Modified"), 1), (("Content-Length",), 1), (("ETag", "Content-Length"), 1),
]  # fmt: skip
"""Headers that are missing, and how many downloads a stat then takes."""


@pytest.mark.parametrize(("missing", "downloads"), VALIDATORS)
def test_equal_stats_mean_that_nobody_wrote_whatever_headers_are_missing(
    server: FileServer, missing: tuple[str, ...], downloads: int
) -> None:
    server.answers["/a.csv"] = lambda request: request.reply_file(*missing)
    file = server.folder / "a.csv"
    file.write_bytes(b"12")
    folder = DropFolder(server.url)
    before = folder.stat("a.csv")
    assert before.size == 2
    assert [request.command for request in server.requests].count("GET") == downloads
    assert folder.stat("a.csv") == before
    file.write_bytes(b"123")
    assert folder.stat("a.csv") != before


@pytest.mark.parametrize("missing", [headers for headers, _ in VALIDATORS])
def test_a_file_that_was_just_rewritten_does_not_load_whatever_headers_are_missing(
    server: FileServer, missing: tuple[str, ...]
) -> None:
    server.answers["/a.csv"] = lambda request: request.reply_file(
        *missing,
        Last_Modified="Sat, 01 Jan 2000 00:00:00 GMT",
        Date="Sat, 01 Jan 2000 00:00:09 GMT",
    )
    (server.folder / "a.csv").write_bytes(b"12")
    folder = DropFolder(server.url)
    before = folder.stat("a.csv")
    assert content(folder) == b"12"
    folder.require_unchanged({"a.csv": before})
    (server.folder / "a.csv").write_bytes(b"34")
    with pytest.raises(InvalidFileError, match="was written to while it was read"):
        folder.require_unchanged({"a.csv": before})


def test_a_download_without_a_length_that_ends_early_does_not_load(server: FileServer) -> None:
    bodies = [CONTENT, CONTENT[:5], CONTENT]  # of the stat, of the load, and of the comparison
    server.answers["/a.csv"] = lambda request: request.reply(
        200, bodies.pop(0) if request.command == "GET" else b""
    )
    folder = DropFolder(server.url)
    before = folder.stat("a.csv")
    assert content(folder) == CONTENT[:5]
    with pytest.raises(InvalidFileError, match="was written to while it was read"):
        folder.require_unchanged({"a.csv": before})


def test_a_weak_etag_does_not_say_that_the_bytes_are_equal(server: FileServer) -> None:
    server.answers["/a.csv"] = lambda request: request.reply_file("Last-Modified", ETag='W/"1"')
    (server.folder / "a.csv").write_bytes(b"12")
    assert not DropFolder(server.url).stat("a.csv").is_settled


def chunks(request: FileRequest, *pieces: bytes) -> None:
    request.reply(200, Transfer_Encoding="chunked")
    if request.command == "GET":
        request.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces))


def encoded(body: bytes, encoding: str) -> Answer:
    size = str(len(body))
    return lambda request: request.reply(
        200, body, Content_Encoding=encoding, ETag="1", Content_Length=size
    )


WHOLE: dict[str, Answer] = {
    "chunks": lambda request: chunks(request, CONTENT[:5], CONTENT[5:], b""),
    "no length": lambda request: request.reply(200, CONTENT),
    "gzip": encoded(PACKED, "gzip"),
    "two streams of gzip": encoded(gzip.compress(CONTENT[:5]) + gzip.compress(CONTENT[5:]), "GZIP"),
    "identity": encoded(CONTENT, "identity"),
    "answers GET only": lambda request: (
        request.reply(200, CONTENT) if request.command == "GET" else request.reply(405)
    ),
    "redirect": lambda request: request.reply(302, Location=f"/b.csv?sig={SECRET}"),
    "redirect to a name with signs": lambda request: request.reply(302, Location="/%23 1%3F.csv"),
}


@pytest.mark.parametrize("how", WHOLE)
def test_a_complete_file_is_read_however_it_is_sent(server: FileServer, how: str) -> None:
    server.answers["/a.csv"] = WHOLE[how]
    server.answers[f"/b.csv?sig={SECRET}"] = lambda request: request.reply(200, CONTENT)
    (server.folder / "# 1?.csv").write_bytes(CONTENT)
    folder = DropFolder(server.url)
    assert content(folder) == CONTENT
    folder.require_unchanged({"a.csv": folder.stat("a.csv")})
    assert set(headers(server, "Accept-Encoding")) == {"identity"}


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "identity"])
def test_the_label_of_a_compressed_file_does_not_decompress_it_twice(
    server: FileServer, encoding: str
) -> None:
    server.answers["/a.csv.gz"] = encoded(PACKED, encoding)
    assert content(DropFolder(server.url), "a.csv.gz") == CONTENT


CUT: dict[str, Answer] = {
    "short body": lambda request: request.reply(200, CONTENT, Content_Length="12", ETag="1"),
    "chunks": lambda request: chunks(request, CONTENT),
    "inside a chunk": lambda request: request.reply(200, b"f\r\nabc", Transfer_Encoding="chunked"),
    "no length, but in HEAD": lambda request: (
        request.reply(200, CONTENT)
        if request.command == "GET"
        else request.reply(200, Content_Length="12", ETag="1")
    ),
    "gzip": encoded(PACKED[:-3], "gzip"),
    "gzip without its end": encoded(PACKED[:-8], "gzip"),
    "gzip that is none": encoded(CONTENT, "gzip"),
}


@pytest.mark.parametrize("how", CUT)
def test_a_download_that_is_cut_off_is_an_error(server: FileServer, how: str) -> None:
    server.answers["/a.csv"] = CUT[how]
    folder = DropFolder(server.url)
    with pytest.raises(ConnectionError, match=rf"{server.url}: the download of a.csv was cut off"):
        content(folder)
    with pytest.raises(ConnectionError, match="cut off"):
        folder.content_hash("a.csv")


ERRORS: dict[str, tuple[Answer, type[Exception], str]] = {
    "404": (lambda request: request.reply(404), InvalidFileError, "'a.csv' is not in the drop"),
    "410": (lambda request: request.reply(410), InvalidFileError, "'a.csv' is not in the drop"),
    "401": (lambda request: request.reply(401), PermissionError, "401; .*DROP_FOLDER_PASSWORD"),
    "403": (lambda request: request.reply(403), PermissionError, "403; .*DROP_FOLDER_TOKEN"),
    "503": (lambda request: request.reply(503), ConnectionError, "a.csv with status 503"),
    "204": (lambda request: request.reply(204), ConnectionError, "a.csv with status 204"),
    "brotli": (encoded(b"x", "br"), InvalidFileError, "encoded as br"),
    "loop": (
        lambda request: request.reply(302, Location=f"/a.csv?sig={SECRET}"),
        ConnectionError,
        "TooManyRedirects",
    ),
    "redirect to nothing": (
        lambda request: request.reply(302, Location=f"http://127.0.0.1:1/?sig={SECRET}"),
        ConnectionError,
        "refused",
    ),
    "redirect to nonsense": (
        lambda request: request.reply(302, Location=f"http://[{SECRET}/"),
        ConnectionError,
        "ValueError|InvalidURL",
    ),
    "redirect to another protocol": (
        lambda request: request.reply(302, Location=f"file:///etc/passwd?{SECRET}"),
        ConnectionError,
        "InvalidSchema",
    ),
    "a folder": (
        lambda request: request.reply(301, Location="/a.csv/"),
        InvalidFileError,
        "is a folder",
    ),
}


@pytest.mark.parametrize("how", ERRORS)
def test_an_error_names_the_folder_and_shows_no_query(server: FileServer, how: str) -> None:
    answer, kind, message = ERRORS[how]
    for path in ("/a.csv", f"/a.csv?sig={SECRET}"):
        server.answers[path] = answer
    server.answers["/a.csv/"] = lambda request: request.reply(200, b"<html>", Content_Length="6")
    with pytest.raises(kind, match=message) as error:
        content(DropFolder(server.url))
    assert SECRET not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_temporary_failure_is_requested_again(server: FileServer) -> None:
    failures = [503, 429, 500, 502]

    def answer(request: FileRequest) -> None:
        if failures:
            request.reply(failures.pop())
        else:
            request.reply(200, CONTENT, Content_Length=str(len(CONTENT)), ETag="1")

    server.answers["/a.csv"] = answer
    assert content(DropFolder(server.url)) == CONTENT
    assert len(server.requests) == 5


def test_a_folder_on_http_cannot_be_listed(server: FileServer) -> None:
    folder = DropFolder(server.url)
    assert not folder.can_list
    with pytest.raises(InvalidFileError, match=r"cannot be listed, .* name the files"):
        folder.list()


def test_a_server_that_cannot_be_reached_is_named(server: FileServer) -> None:
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:1/x: .*refused"):
        DropFolder("http://127.0.0.1:1/x").stat("a.csv")


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def test_only_the_server_of_the_drop_folder_gets_its_password(
    server: FileServer, other_server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other_server.requests.clear()
    monkeypatch.setenv("DROP_FOLDER_PASSWORD", "pä:ss/word")
    with_user = server.url.replace("//", "//us%40er@")
    monkeypatch.setenv("DROP_FOLDER", with_user)
    server.answers["/a.csv"] = lambda request: request.reply(
        302, Location=f"{other_server.url}/a.csv"
    )
    assert content(DropFolder(with_user)) == CONTENT
    assert headers(server, "Authorization") == [basic("us@er", "pä:ss/word")]
    assert headers(other_server, "Authorization") == [None]
    with pytest.raises(PermissionError, match="no password for this user"):
        DropFolder(other_server.url.replace("//", "//us%40er@")).stat("a.csv")
    assert content(DropFolder(other_server.url)) == CONTENT
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password of-netrc\n")
    assert content(DropFolder(other_server.url)) == CONTENT
    assert headers(other_server, "Authorization") == [None, None, basic("me", "of-netrc")]


@pytest.mark.parametrize("netrc", ["", "machine 127.0.0.1 login me password of-netrc\n"])
def test_only_the_server_of_the_drop_folder_gets_its_token(
    server: FileServer,
    other_server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    netrc: str,
) -> None:
    (tmp_path / ".netrc").write_text(netrc)
    monkeypatch.setenv("DROP_FOLDER_TOKEN", "the-token\n")
    (server.folder / "a.csv").write_bytes(CONTENT)
    assert content(DropFolder(server.url)) == CONTENT
    assert headers(server, "Authorization") == ["Bearer the-token"]
    other_server.requests.clear()
    assert content(DropFolder(other_server.url)) == CONTENT
    assert "Bearer the-token" not in headers(other_server, "Authorization")


@pytest.mark.parametrize("sign", ["?", "#"])
def test_a_url_with_a_query_is_refused_and_not_shown(sign: str) -> None:
    with pytest.raises(InvalidFileError, match=r"https://host/x: .* no \? and no #") as error:
        DropFolder(f"https://host/x{sign}key={SECRET}")
    assert SECRET not in str(error.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Return a self-signed certificate for loopback, and the context of a server that shows it."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", *key, *subject], cwd=folder, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


def test_a_server_must_have_a_trusted_certificate_and_must_not_redirect_to_http(
    server: FileServer,
    certificate: tuple[Path, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trusted, context = certificate
    (server.folder / "a.csv").write_bytes(CONTENT)
    with FileServer(server.folder, context) as secure:
        with pytest.raises(ConnectionError, match=r"https://127.*CERTIFICATE_VERIFY_FAILED"):
            content(DropFolder(secure.url))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        assert content(DropFolder(secure.url)) == CONTENT
        secure.answers["/a.csv"] = lambda request: request.reply(
            302, Location=f"{server.url}/a.csv"
        )
        with pytest.raises(PermissionError, match=r"redirects a\.csv to http"):
            content(DropFolder(secure.url))
