"""Files on SFTP and HTTP servers load with the promises of local files. The servers run on loopback."""

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltSource

from shared import warehouse
from shared.sources.csv import CsvFormat, csv_source
from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.files import ParquetFormat, file_source
from shared.testing.file_server import FileRequest, FileServer
from shared.testing.sftp_server import SftpServer

LONG_AGO = (1_000_000_000, 1_000_000_000)
COLUMNS: dict[str, TColumnSchema] = {"code": {"data_type": "text"}, "n": {"data_type": "bigint"}}
SPEC = warehouse.pipeline("remote_pipeline", dataset_name="remote")


@dataclass
class Remote:
    """A folder on a server: its URL, where it is, and how to disturb a download."""

    url: str
    folder: Path
    disturb: Callable[[str, Callable[[], object]], None]
    cut: Callable[[str], None]
    files: DropFolder = field(init=False)

    def __post_init__(self) -> None:
        self.files = DropFolder(self.url)

    def write(self, name: str, content: bytes, times: tuple[int, int] | None = LONG_AGO) -> Path:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        if times:
            os.utime(file, times)
        return file


@pytest.fixture(scope="module")
def sftp_server() -> Iterator[SftpServer]:
    with SftpServer() as server:
        yield server


@pytest.fixture(scope="module")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with FileServer(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def sftp(sftp_server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(sftp_server.known_hosts)
    url = sftp_server.url(tmp_path / "remote")
    sftp_server.on_read, sftp_server.hides_links = None, False
    monkeypatch.setenv("DROP_FOLDER", url)
    monkeypatch.setenv("DROP_FOLDER_PASSWORD", sftp_server.password)
    monkeypatch.setenv("SFTP_KNOWN_HOSTS", str(known_hosts))

    def disturb(name: str, action: Callable[[], object]) -> None:
        done: list[str] = []

        def act(connection: object, path: str, offset: int) -> None:
            if path.endswith(name) and offset and not done:  # some of it is read
                done.append(path)
                action()

        sftp_server.on_read = act

    def cut(name: str) -> None:
        sftp_server.on_read = lambda connection, path, offset: (
            connection.abort() if path.endswith(name) and offset else None
        )

    return Remote(url, tmp_path / "remote", disturb, cut)


@pytest.fixture
def http(file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    file_server.folder = tmp_path / "remote"
    file_server.answers.clear()
    file_server.requests.clear()
    monkeypatch.setenv("DROP_FOLDER", file_server.url)

    def disturb(name: str, action: Callable[[], object]) -> None:
        def answer(request: FileRequest) -> None:
            request.reply_file()
            if request.command == "GET":
                del file_server.answers[request.path]
                action()

        file_server.answers[f"/{quote(name)}"] = answer

    def cut(name: str) -> None:
        file_server.answers[f"/{quote(name)}"] = lambda request: request.reply_file(
            Content_Length=str((file_server.folder / name).stat().st_size + 1)
        )

    return Remote(file_server.url, tmp_path / "remote", disturb, cut)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "remote").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))  # without keys, ssh's settings and ~/.netrc
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0")
    for name in ("SSH_AUTH_SOCK", "NETRC", "DROP_FOLDER_PASSWORD", "DROP_FOLDER_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["sftp", "http"])
def remote(request: pytest.FixtureRequest) -> Remote:
    """Return an empty folder, on a server of each kind."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Remote)
    return found


def csv(rows: int, code: str = "x") -> bytes:
    return b"code,n\n" + b"".join(b"%s,%d\n" % (code.encode(), n) for n in range(rows))


def parquet(rows: int, code: str = "x") -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table({"code": [code] * rows, "n": range(rows)}), target, compression="none")
    return target.getvalue()


def source_of(name: str) -> DltSource:
    if name.endswith(".parquet"):
        return file_source([name], "rows", ParquetFormat(COLUMNS))
    return csv_source([name], "rows", CsvFormat(COLUMNS))


def load(name: str) -> None:
    warehouse.load(warehouse.plan_load(SPEC, source_of(name), [name]))


def loaded() -> list[tuple[str, str, int]]:
    rows = warehouse.query(
        "SELECT file_name, code, count(DISTINCT n) AS n FROM remote.rows GROUP BY ALL ORDER BY ALL"
    )
    return [(row["file_name"], row["code"], row["n"]) for row in rows]


def read(source: DltSource) -> int:
    return sum(len(batch) for batch in source)


@pytest.mark.parametrize("rows", [10, 200_000], ids=["small", "pushed down"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_rerun_leaves_the_same_rows(
    tmp_warehouse: Path, request: pytest.FixtureRequest, kind: str, rows: int
) -> None:
    content = {"csv": csv, "parquet": parquet}[kind]
    for server in ("sftp", "http"):  # sets the drop folder
        remote: Remote = request.getfixturevalue(server)
        name = f"{server} 1.{kind}"
        remote.write(name, content(rows))
        load(name)
        load(name)
    assert loaded() == [(f"http 1.{kind}", "x", rows), (f"sftp 1.{kind}", "x", rows)]
    remote.write(name, content(3, "changed"), None)
    load(name)
    assert loaded() == [(f"http 1.{kind}", "changed", 3), (f"sftp 1.{kind}", "x", rows)]
    assert not list(tmp_warehouse.glob("warehouse.working/*")), "no copy is left"


@pytest.mark.parametrize("age", [LONG_AGO, None], ids=["old", "just written"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_is_rewritten_while_it_is_read_does_not_load(
    remote: Remote, kind: str, age: tuple[int, int] | None
) -> None:
    content = {"csv": csv, "parquet": parquet}[kind]
    name = f"a.{kind}"
    second = int(remote.write(name, content(10), age).stat().st_mtime)
    os.utime(remote.folder / name, (second, second))
    # A file that was just written gets the same size and time again, as by a write in the same second.
    later = second if age is None else second + 1
    remote.disturb(name, lambda: remote.write(name, content(10, "y"), (later, later)))
    with pytest.raises(Exception, match=rf"{name} was written to while it was read"):
        read(source_of(name))
    assert read(source_of(name)) == 10


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_that_disappears_while_it_is_read_does_not_load(remote: Remote, name: str) -> None:
    file = remote.write(name, csv(10) if name == "a.csv" else parquet(10))
    remote.disturb(name, file.unlink)
    with pytest.raises(Exception, match=rf"'{name}' is not in the drop folder {remote.url}"):
        read(source_of(name))


@pytest.mark.parametrize("rows", [20_000, 800_000], ids=["small", "pushed down"])
def test_nothing_loads_if_the_connection_is_cut(
    tmp_warehouse: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setenv("DROP_FOLDER", remote.url)
    remote.write("a.csv", csv(5))
    load("a.csv")
    remote.write("a.csv", csv(rows, "cut"), None)
    remote.cut("a.csv")
    with pytest.raises(Exception, match=rf"{remote.url}: .*(cut off|[Ll]ost)"):
        load("a.csv")
    assert loaded() == [("a.csv", "x", 5)]


NAMES = [
    "with space.csv", "ü€😀.csv", "a?b.csv", "a#b.csv", "100%.csv", "%41.csv", "%2e%2e%2fx.csv", "a+b&c=d;e.csv",
    "it's \"quoted\".csv", "[a]*{b}.csv", "~a.csv", "a:b.csv", "back\\slash.csv", "below/ä #1?.csv",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_may_have_signs_that_mean_something_in_a_url(remote: Remote, name: str) -> None:
    content = name.encode() * 3
    remote.write(name, content)
    remote.write("decoy.csv", b"")
    with remote.files.local_copy(name) as copy:
        assert copy.read_bytes() == content
    assert remote.files.stat(name).size == len(content)
    if remote.files.can_list:
        assert remote.files.list()[name] == remote.files.stat(name)


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.csv", content)
    return target.getvalue()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
    "zip": zipped,
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_file_is_decompressed(remote: Remote, kind: str, tmp_path: Path) -> None:
    content = csv(1000)
    name = f"a.csv.{kind}"
    remote.write(name, COMPRESSED[kind](content))
    kept = tmp_path / "kept"
    kept.mkdir()
    with remote.files.local_copy(name, kept) as copy:
        assert copy.read_bytes() == content
    assert [file.name for file in kept.rglob("*") if file.is_file()] == ["copy"]
    remote.write(name, COMPRESSED[kind](content)[:-5])
    with (
        pytest.raises(InvalidFileError, match="cannot be decompressed"),
        remote.files.local_copy(name),
    ):
        pass


def test_a_file_that_is_too_large_is_refused_before_it_fills_the_disk(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.write("a.csv", csv(1000))
    monkeypatch.setenv("MAX_UNCOMPRESSED_BYTES", "1000")
    with (
        pytest.raises(InvalidFileError, match="MAX_UNCOMPRESSED_BYTES"),
        remote.files.local_copy("a.csv"),
    ):
        pass


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../outside.csv", "not a path below"),
        ("below/../../outside.csv", "not a path below"),
        ("/etc/passwd", "not a path below"),
        ("./a.csv", "not a path below"),
        ("sftp://other/x.csv", "not a path below"),
        ("https://other/x.csv", "not a path below"),
        ("missing.csv", "is not in"),
        ("a.csv/x.csv", "is not in"),
        ("bad\udce4.csv", "is not UTF-8"),
    ],
)
def test_a_path_that_is_not_a_file_below_the_folder_is_refused(
    remote: Remote, tmp_path: Path, path: str, why: str
) -> None:
    remote.write("a.csv", b"")
    (tmp_path / "outside.csv").write_text("secret")
    for use in (remote.files.resolve, remote.files.stat, remote.files.content_hash):
        with pytest.raises(InvalidFileError, match=why):
            use(path)
    with pytest.raises(InvalidFileError, match=why), remote.files.local_copy(path):
        pass


def test_equal_stats_mean_that_nobody_wrote(remote: Remote) -> None:
    file = remote.write("a.csv", b"12")
    before = remote.files.stat("a.csv")
    assert remote.files.stat("a.csv") == before
    assert before.is_settled
    for content, times in [(b"123", LONG_AGO), (b"12", (LONG_AGO[0], LONG_AGO[1] + 1))]:
        remote.write(file.name, content, times)
        assert remote.files.stat("a.csv") != before
    remote.write("a.csv", b"12", None)
    assert not remote.files.stat("a.csv").is_settled, "one more write may leave an equal stat"
    remote.files.require_unchanged({"a.csv": remote.files.stat("a.csv")})
