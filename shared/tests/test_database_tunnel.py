"""A database behind an SSH server is read through a tunnel, which trusts only known host keys."""

import getpass
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from shared import warehouse
from shared.sources.database import Table, database_source
from shared.sources.database.base import DatabaseError
from shared.sources.database.tunnel import open_tunnel, tunneled
from shared.testing.postgres_server import PostgresServer
from shared.testing.sftp_server import SftpServer

SSHD = "/usr/sbin/sshd"
WRONG = "a wrong/password#1"
DATABASE_PASSWORD = "the-password-of-the-database"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Start OpenSSH's server for the current user, and yield its URL and its folder of keys."""
    if not Path(SSHD).exists():
        pytest.skip(f"{SSHD} of openssh-server is not installed")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    lines = [
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'key.pub'}",
        "PidFile none",
        "StrictModes no",
        "PasswordAuthentication no",
    ]
    (folder / "config").write_text("\n".join(lines) + "\n")
    command = [SSHD, "-D", "-e", "-f", str(folder / "config")]
    if os.geteuid() == 0:  # then it needs /run/sshd, which only its system service creates
        script = 'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        first = server.stderr.readline()
        if "listening" not in first:
            server.kill()
            pytest.skip(f"sshd does not start: {first}")
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}", folder
        server.terminate()


@pytest.fixture(scope="module")
def ssh_server() -> Iterator[SftpServer]:
    with SftpServer() as started:
        yield started


@pytest.fixture
def known_hosts(ssh_server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with the server's host key, in a home without keys."""
    ssh_server.logins = 0
    (tmp_path / "known_hosts").write_text(ssh_server.known_hosts)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path / "known_hosts"


def ssh_url(server: SftpServer) -> str:
    return f"ssh://{server.user}@127.0.0.1:{server.port}"


def is_open(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0


def test_postgres_is_read_through_a_real_ssh_server(
    sshd: tuple[str, Path], warehouse_server: PostgresServer
) -> None:
    server, folder = sshd
    url = warehouse_server.database().replace("+psycopg2", "")
    with tunneled(
        url, server, known_hosts=folder / "known_hosts", key_file=folder / "key"
    ) as through:
        assert f":{warehouse_server.port}/" not in through
        with dbapi.connect(through) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            assert cursor.fetchall() == [(url.rpartition("/")[2],)]
        with psycopg2.connect(through) as client, client.cursor() as rows:
            rows.execute("SELECT sum(n)::bigint FROM generate_series(1, 1000000) AS n")
            assert rows.fetchall() == [(500000500000,)]
        client.close()


def test_a_load_reads_through_the_tunnel_of_its_settings(
    ssh_server: SftpServer,
    known_hosts: Path,
    warehouse_server: PostgresServer,
    tmp_warehouse: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tmp_warehouse
    url = warehouse_server.database().replace("+psycopg2", "")
    with psycopg2.connect(url) as client, client.cursor() as rows:
        rows.execute("CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 3) AS n")
    client.close()
    behind = url.replace("@127.0.0.1", "@db.private") + "?sslmode=disable"
    monkeypatch.setenv("SFTP_KNOWN_HOSTS", str(known_hosts))
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", behind)
    monkeypatch.setenv("SOURCES__SHOP__SSH_TUNNEL", ssh_url(ssh_server))
    monkeypatch.setenv("SOURCES__SHOP__SSH_PASSWORD", WRONG)
    plan = warehouse.plan_load(
        warehouse.pipeline("shop_pipeline", "shop_data"),
        database_source([Table("orders")], name="shop"),
    )
    with pytest.raises(Exception, match=r"refuses the login; .*ssh_password") as error:
        warehouse.load(plan)
    assert WRONG not in "".join(traceback.format_exception(error.value))
    monkeypatch.setenv("SOURCES__SHOP__SSH_PASSWORD", ssh_server.password)
    assert warehouse.load(plan).rows_loaded["orders"] == 3
    ssh_server.wait_until_clients_are_gone()
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", behind.replace("/test_", "/no_"))
    with pytest.raises(Exception, match=rf"db\.private:{warehouse_server.port}/no_.*not exist"):
        warehouse.load(plan)


def test_a_real_ssh_server_that_does_not_reach_the_database_is_an_error(
    sshd: tuple[str, Path],
) -> None:
    server, folder = sshd
    with (
        pytest.raises(DatabaseError, match=r"@127.0.0.1:\d+ does not reach 127.0.0.1:1: .*Check"),
        open_tunnel(
            server,
            "127.0.0.1",
            1,
            known_hosts=folder / "known_hosts",
            key_file=folder / "key",
        ),
    ):
        pass


def test_a_real_ssh_server_that_does_not_know_the_key_is_an_error(
    sshd: tuple[str, Path], known_hosts: Path
) -> None:
    server, folder = sshd
    with (
        pytest.raises(DatabaseError, match=r"SSH server .* refuses the login; .*ssh_key_file"),
        open_tunnel(
            server,
            "127.0.0.1",
            1,
            known_hosts=folder / "known_hosts",
            key_file=folder / "host",
        ),
    ):
        pass
    assert known_hosts


@pytest.mark.parametrize("fails", [False, True])
def test_the_tunnel_ends_with_the_block(
    ssh_server: SftpServer, known_hosts: Path, warehouse_server: PostgresServer, *, fails: bool
) -> None:
    addresses = []

    def use() -> None:
        with open_tunnel(
            ssh_url(ssh_server),
            "db.private",
            warehouse_server.port,
            known_hosts=known_hosts,
            password=ssh_server.password,
        ) as address:
            addresses.append(address)
            assert is_open(address)
            if fails:
                raise KeyError("inside")

    if fails:
        with pytest.raises(KeyError, match="inside"):
            use()
    else:
        use()
    assert not is_open(addresses[0])
    ssh_server.wait_until_clients_are_gone()


@pytest.mark.parametrize("known", ["", "[localhost]:{port} {key}", None])
def test_a_server_with_an_unknown_key_gets_no_password(
    ssh_server: SftpServer, known_hosts: Path, known: str | None
) -> None:
    key = ssh_server.key.export_public_key().decode()
    if known is None:
        known_hosts.unlink()
    else:
        known_hosts.write_text(known.format(port=ssh_server.port, key=key))
    with (
        pytest.raises(DatabaseError) as error,
        open_tunnel(
            ssh_url(ssh_server),
            "db.private",
            5432,
            known_hosts=known_hosts,
            password=ssh_server.password,
        ),
    ):
        pass
    assert ssh_server.key.get_fingerprint() in str(error.value)
    assert f"ssh-keyscan -p {ssh_server.port} 127.0.0.1 >> {known_hosts}" in str(error.value)
    assert ssh_server.logins == 0


def test_an_error_of_a_wrong_password_does_not_have_it(
    ssh_server: SftpServer, known_hosts: Path
) -> None:
    with (
        pytest.raises(
            DatabaseError, match=rf"SSH server shop@127.0.0.1:{ssh_server.port}: .*ssh_password"
        ) as error,
        open_tunnel(
            ssh_url(ssh_server), "db.private", 5432, known_hosts=known_hosts, password=WRONG
        ),
    ):
        pass
    assert WRONG not in str(error.value)
    assert ssh_server.logins == 1, "a wrong password is not tried again"


def test_a_server_that_is_down_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(
            DatabaseError, match=r"SSH server etl@127.0.0.1:1 cannot be reached: .*ssh_tunnel"
        ),
        open_tunnel("ssh://etl@127.0.0.1:1", "db.private", 5432, known_hosts=tmp_path / "none"),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"ssh://etl:{WRONG.replace('#', '%23')}@bastion", "ssh_tunnel has"),
        ("ssh://etl:secret-word@bastion", "ssh_tunnel has a password; .*ssh_password"),
        ("ssh://etl@bastion:port", "ssh_tunnel has no valid port"),
        ("https://bastion", "ssh_tunnel is not the URL of an SSH server"),
        ("etl@bastion", "ssh_tunnel is not the URL of an SSH server"),
        ("ssh://etl@bastion/database", "ssh_tunnel is not the URL of an SSH server"),
    ],
)
def test_a_wrong_url_of_an_ssh_server_is_an_error(tmp_path: Path, url: str, message: str) -> None:
    with (
        pytest.raises(DatabaseError, match=message) as error,
        open_tunnel(url, "db.private", 5432, known_hosts=tmp_path / "none"),
    ):
        pass
    assert "ssh://user@host:22" in str(error.value)
    assert "secret-word" not in str(error.value)
    assert "wrong" not in str(error.value)


@pytest.mark.parametrize(("content", "message"), [(None, "there is no file"), ("-", "not valid")])
def test_a_key_file_that_cannot_be_used_is_an_error(
    ssh_server: SftpServer, known_hosts: Path, content: str | None, message: str
) -> None:
    key = known_hosts.parent / "key"
    if content:
        key.write_text(content)
    with (
        pytest.raises(DatabaseError, match=rf"SSH server .*{message}"),
        open_tunnel(ssh_url(ssh_server), "db.private", 5432, known_hosts=known_hosts, key_file=key),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            f"postgresql://etl:{DATABASE_PASSWORD}@db.private:{{port}}/shop?sslmode=disable",
            (
                f"postgresql://etl:{DATABASE_PASSWORD}@db.private:{{local}}/shop"
                "?sslmode=disable&hostaddr=127.0.0.1"
            ),
        ),
        ("postgresql://[::1]:{port}/shop", "postgresql://[::1]:{local}/shop?hostaddr=127.0.0.1"),
        (
            f"mysql+pymysql://etl:{DATABASE_PASSWORD}@db.private:{{port}}/shop?charset=utf8",
            f"mysql+pymysql://etl:{DATABASE_PASSWORD}@127.0.0.1:{{local}}/shop?charset=utf8",
        ),
    ],
)
def test_the_url_of_a_database_points_into_the_tunnel(
    ssh_server: SftpServer,
    known_hosts: Path,
    warehouse_server: PostgresServer,
    url: str,
    expected: str,
) -> None:
    port = warehouse_server.port
    with tunneled(
        url.format(port=port),
        ssh_url(ssh_server),
        known_hosts=known_hosts,
        password=ssh_server.password,
    ) as through:
        local = through.rpartition(":")[2].partition("/")[0]
        assert local != str(port)
        assert through == expected.format(local=local)
        assert is_open(("127.0.0.1", int(local)))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://etl:{DATABASE_PASSWORD}@one,two/shop",
        f"postgresql://etl:{DATABASE_PASSWORD}@one:1,two:2/shop",
        f"postgresql://etl:{DATABASE_PASSWORD}@/shop?host=/var/run/postgresql",
        "sqlite:///shop.db",
    ],
)
def test_a_database_without_one_host_cannot_be_tunneled(tmp_path: Path, url: str) -> None:
    with (
        pytest.raises(DatabaseError, match="the URL of one server") as error,
        tunneled(url, "ssh://etl@127.0.0.1:1", known_hosts=tmp_path / "none"),
    ):
        pass
    assert DATABASE_PASSWORD not in str(error.value)


def test_without_asyncssh_the_error_says_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    monkeypatch.delitem(sys.modules, "shared.sources.ssh", raising=False)
    with (
        pytest.raises(DatabaseError, match=r"Add shared\[sftp\] to the project"),
        open_tunnel("ssh://etl@bastion", "db.private", 5432, known_hosts=tmp_path / "none"),
    ):
        pass
