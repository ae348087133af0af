"""An SFTP server is known before anything is sent to it, and its links do not leave the folder."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import asyncssh
import pytest

from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.storage import sftp
from shared.testing.sftp_server import SftpServer

WRONG = "a wrong/password#1"


@pytest.fixture(scope="module")
def server() -> Iterator[SftpServer]:
    with SftpServer() as started:
        yield started


@pytest.fixture
def folder(server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the drop folder, on a server whose key is known."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(server.known_hosts)
    folder = tmp_path / "drop"
    folder.mkdir()
    server.logins, server.hides_links = 0, False
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DROP_FOLDER", server.url(folder))
    monkeypatch.setenv("DROP_FOLDER_PASSWORD", server.password)
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0")
    for name in ("SSH_AUTH_SOCK", "NETRC", "SFTP_KNOWN_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def open_folder(server: SftpServer, folder: Path) -> DropFolder:
    return DropFolder(server.url(folder))


OTHER_KEY = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()


@pytest.mark.parametrize("scheme", ["sftp", "ssh", "SFTP", "simplecache::sftp"])
def test_no_way_to_write_the_url_skips_the_check_of_the_key(
    server: SftpServer, folder: Path, scheme: str
) -> None:
    (folder.parent / ".ssh" / "known_hosts").write_text("")
    url = server.url(folder).replace("sftp", scheme)
    with pytest.raises((PermissionError, InvalidFileError), match=r"key of the host|chained"):
        DropFolder(url).list()
    assert server.logins == 0


@pytest.mark.parametrize("config", ["", "UserKnownHostsFile none", "StrictHostKeyChecking no"])
@pytest.mark.parametrize(
    "known", ["", "[127.0.0.1]:{port} {key}", "[localhost]:{port} {own}", None]
)
def test_a_server_with_an_unknown_key_gets_no_password(
    server: SftpServer, folder: Path, known: str | None, config: str
) -> None:
    own = server.key.export_public_key().decode()
    file = folder.parent / ".ssh" / "known_hosts"
    if known is None:
        file.unlink()
    else:
        file.write_text(known.format(port=server.port, key=OTHER_KEY, own=own))
    (folder.parent / ".ssh" / "config").write_text(f"Host *\n  {config}\n")
    with pytest.raises(PermissionError) as error:
        open_folder(server, folder).list()
    message = str(error.value)
    assert server.key.get_fingerprint() in message
    assert f"ssh-keyscan -p {server.port} 127.0.0.1 >> {file}" in message
    assert server.logins == 0


def test_known_hosts_may_be_elsewhere(
    server: SftpServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / ".ssh" / "known_hosts").rename(tmp_path / "mounted")
    monkeypatch.setenv("SFTP_KNOWN_HOSTS", str(tmp_path / "mounted"))
    assert open_folder(server, folder).list() == {}


def test_an_error_of_a_wrong_password_does_not_have_it(
    server: SftpServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("DROP_FOLDER_PASSWORD", WRONG)
    with pytest.raises(
        PermissionError, match=r"refuses the login; .*DROP_FOLDER_PASSWORD"
    ) as error:
        open_folder(server, folder).list()
    assert WRONG not in f"{error.value} {caplog.text}"
    assert server.logins == 1, "a wrong password is not tried again"


def test_another_server_does_not_get_the_password_of_the_drop_folder(
    server: SftpServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROP_FOLDER", "sftp://shop@elsewhere.example/drop")
    with pytest.raises(PermissionError, match="refuses the login"):
        open_folder(server, folder).list()
    assert server.logins == 0
    netrc = folder.parent / ".netrc"
    netrc.write_text(f'machine 127.0.0.1 login {server.user} password "{server.password}"\n')
    netrc.chmod(0o600)
    assert open_folder(server, folder).list() == {}


def test_a_password_in_netrc_is_for_its_user(
    server: SftpServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DROP_FOLDER_PASSWORD")
    netrc = folder.parent / ".netrc"
    netrc.write_text(f'machine 127.0.0.1 login other password "{server.password}"\n')
    with pytest.raises(PermissionError, match="refuses the login"):
        open_folder(server, folder).list()
    assert server.logins == 0


def test_the_settings_of_ssh_apply(
    server: SftpServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = f"Host partner\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
    (folder.parent / ".ssh" / "config").write_text(config)
    (folder / "a.csv").write_text("x")
    monkeypatch.setenv("DROP_FOLDER", f"sftp://partner{folder}")
    assert list(DropFolder(f"sftp://partner{folder}").list()) == ["a.csv"]


def test_an_invalid_file_of_known_hosts_is_reported(server: SftpServer, folder: Path) -> None:
    (folder.parent / ".ssh" / "known_hosts").write_text("garbage\n")
    with pytest.raises(InvalidFileError, match=r"known_hosts is not valid"):
        open_folder(server, folder).list()


LINKS = {
    "link.csv": "../outside.csv",
    "below/link.csv": "../../outside.csv",
    "circle.csv": "circle.csv",
    "nowhere.csv": "nothing.csv",
}


def make_links(folder: Path) -> None:
    (folder.parent / "outside.csv").write_text("secret")
    (folder / "below").mkdir()
    (folder / "linked").symlink_to(folder.parent)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    (folder / "good.csv").write_text("x")
    (folder / ".hidden.csv").write_text("x")
    (folder / "below" / "good.csv").write_text("x")
    (folder / "inside.csv").symlink_to("below/good.csv")
    os.mkfifo(folder / "pipe.csv")


@pytest.mark.parametrize("hides_links", [False, True])
def test_a_link_does_not_leave_the_folder(
    server: SftpServer, folder: Path, hides_links: bool
) -> None:
    make_links(folder)
    server.hides_links = hides_links
    files = open_folder(server, folder)
    inside = [] if hides_links else ["inside.csv"]
    assert sorted(files.list()) == ["below/good.csv", "good.csv", *inside]
    for name in ("link.csv", "below/link.csv", "linked/outside.csv"):
        with pytest.raises(InvalidFileError, match="links to a file outside"):
            files.stat(name)
        with pytest.raises(InvalidFileError, match="links to a file outside"):
            files.content_hash(name)
    for name, why in {"below": "is a folder", "pipe.csv": "not a regular file"}.items():
        with pytest.raises(InvalidFileError, match=why):
            files.content_hash(name)
    for name in ("circle.csv", "nowhere.csv"):
        with pytest.raises((InvalidFileError, OSError)):
            files.stat(name)
    for name in inside:
        assert files.list()[name] == files.stat("below/good.csv")


def test_a_listing_shows_that_an_upload_goes_on(server: SftpServer, folder: Path) -> None:
    files, file = open_folder(server, folder), folder / "a.csv"
    seen = []
    with file.open("wb") as upload:
        for _ in range(3):
            upload.write(b"n\n")
            upload.flush()
            os.utime(file, (1, 1))
            seen.append(files.list()["a.csv"])
    assert [stat.size for stat in seen] == [2, 4, 6]
    assert seen[-1] == files.list()["a.csv"] == files.stat("a.csv")


def test_a_folder_that_cannot_be_read_hides_no_other_file(server: SftpServer, folder: Path) -> None:
    (folder / "a.csv").write_text("x")
    with pytest.raises(InvalidFileError, match=r"does not exist; set DROP_FOLDER"):
        open_folder(server, folder / "nothing").list()
    (folder / "bad\udce4.csv").write_text("x")
    assert "a.csv" in open_folder(server, folder).list()


def test_a_lost_connection_is_opened_again(server: SftpServer, folder: Path) -> None:
    (folder / "a.csv").write_text("x")
    files = open_folder(server, folder)

    def cut(connection: asyncssh.SSHServerConnection, path: str, offset: int) -> None:
        connection.abort()

    server.on_read = cut
    with pytest.raises(ConnectionError, match=r"sftp://.*lost"):
        files.content_hash("a.csv")
    server.on_read = None
    assert files.content_hash("a.csv")
    assert server.logins == 2


def test_a_connection_ends_with_its_folder(
    server: SftpServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp, "_IDLE_SECONDS", 10**6)
    files = open_folder(server, folder)
    files.list()
    del files
    gc.collect()
    server.wait_until_clients_are_gone()


def test_an_idle_connection_is_closed_and_opened_again(
    server: SftpServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = open_folder(server, folder)
    monkeypatch.setattr(sftp, "_IDLE_SECONDS", 0)
    for logins in (1, 2):
        assert files.list() == {}
        assert server.logins == logins
        server.wait_until_clients_are_gone()


def test_a_server_that_cannot_be_reached_is_named(folder: Path) -> None:
    with pytest.raises(ConnectionError, match=r"sftp://shop@127.0.0.1:1/drop cannot be reached"):
        DropFolder("sftp://shop@127.0.0.1:1/drop").stat("a.csv")


def test_without_asyncssh_the_error_says_what_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    monkeypatch.delitem(sys.modules, "shared.sources.storage.sftp", raising=False)
    with pytest.raises(ImportError, match=r"Add shared\[sftp\] to the project"):
        import_module("shared.sources.storage.sftp")


@pytest.mark.parametrize("scheme", ["sftp", "https", "s3", "gs"])
def test_a_url_with_a_password_is_refused_and_not_shown(scheme: str) -> None:
    for secret in ("topsecret", "t%40p", "12#4", "1?34", "12/34", "p:q"):
        url = f"{scheme}://user:{secret}@host/folder"
        if scheme in ("s3", "gs") and secret in ("12#4", "1?34", "12/34"):
            continue  # a URL without a password: the host ends before it
        with pytest.raises(InvalidFileError) as error:
            DropFolder(url)
        assert secret not in str(error.value)
