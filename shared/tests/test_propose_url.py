"""The URL of a file proposes what the file proposes; what cannot be a file is one clear error."""

import gzip
import runpy
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.cli.proposals import propose, propose_url, write_source, write_test_file
from shared.sources.drop_folder import InvalidFileError
from shared.sources.proposals.download import download


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The URL of a folder on a web server with some files."""
    folder = tmp_path / "site" / "exports"
    folder.mkdir(parents=True)
    (folder / "orders.csv").write_text("id,v\n1,a\n2,b\n")
    (folder / "orders.html").write_text("<html></html>")
    handler = partial(Quiet, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/exports"
        server.shutdown()
        thread.join()


def test_a_file_is_proposed_and_the_source_names_it(site: str, tmp_path: Path) -> None:
    found = propose_url(f"{site}/orders.csv", tmp_path)
    assert found.folder == site
    assert found.columns["id"] == {"data_type": "bigint", "nullable": False}
    package = tmp_path / "package"
    package.mkdir()
    write_source(package, "orders", found)
    assert site not in (package / "source.py").read_text(), "the folder is a setting"
    module = runpy.run_path(str(package / "source.py"))
    assert module["list_files"]() == ["orders.csv"], "a web server does not list its files"
    source = module["orders_source"](module["list_files"]())
    assert [row["id"] for table in source for row in table.to_pylist()] == [1, 2]


@pytest.mark.parametrize("name", ["orders.csv", "orders.csv.gz"])
def test_without_a_sample_the_tests_have_a_file_of_its_name(
    site: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "site" / "exports" / "orders.csv.gz").write_bytes(gzip.compress(b"id,v\n1,a\n"))
    found = propose_url(f"{site}/{name}", tmp_path)
    (tmp_path / "tests").mkdir()
    write_test_file(tmp_path / "tests", found)
    (file,) = (tmp_path / "tests" / "made_up").iterdir()
    assert file.name == name
    made_up = propose(file)
    assert (made_up.rows, made_up.columns) == (2, found.columns)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.csv", r"gone\.csv answers with 404 .*Check the URL"),
        ("orders.html", r"is a web page and not a file\. Download it yourself"),
        ("orders.csv?password=hunter22", r"\?password=\*\*\* is not the plain URL of a file"),
        ("or%20ders.csv", "is not the plain URL of a file"),
    ],
)
def test_what_is_no_file_is_refused_with_the_next_step(
    site: str, tmp_path: Path, path: str, message: str
) -> None:
    with pytest.raises(InvalidFileError, match=message):
        download(f"{site}/{path}", tmp_path)


def test_a_password_is_not_shown(site: str, tmp_path: Path) -> None:
    url = site.replace("://", "://ann:hunter22@")
    with pytest.raises(InvalidFileError) as raised:
        download(f"{url}/orders.csv", tmp_path)
    assert "hunter22" not in str(raised.value)


def test_a_file_that_is_too_large_is_not_downloaded_to_its_end(site: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"has more than 5 bytes\. Download its first rows"):
        download(f"{site}/orders.csv", tmp_path, max_bytes=5)


def test_a_server_that_does_not_answer_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"http://127\.0\.0\.1:9/a\.csv cannot be read: "):
        download("http://127.0.0.1:9/a.csv", tmp_path)
