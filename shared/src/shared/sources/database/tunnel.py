"""A tunnel over SSH to a database that this machine cannot reach directly.

In dlt's settings, `ssh_tunnel` beside the credentials of a source names the SSH server, such as
`ssh://user@bastion:22`. The keys are those of the SSH agent and of `~/.ssh`, or the one of `ssh_key_file`;
a password is the secret `ssh_password`. The settings of `~/.ssh/config`, such as jump hosts, apply. The
host key of the server must be in the file of known hosts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from fsspec.asyn import get_loop, sync

from shared.sources.database.base import DatabaseError
from shared.sources.database.tls import with_parameters, with_verified_tls

_TIMEOUT_SECONDS = 60.0
_DEFAULT_PORTS = {"postgres": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}


@contextmanager
def tunneled(
    url: str,
    ssh_url: str,
    *,
    known_hosts: Path,
    password: str | None = None,
    key_file: Path | None = None,
) -> Iterator[str]:
    """Yield the URL of a database as it is reached through a tunnel, which ends with the block.

    The certificate of Postgres is verified for the host name of the URL, as `with_verified_tls` says: for
    libpq, `hostaddr` is where it connects and the host is whom it expects there.

    Args:
        url: of the database, as the SSH server reaches it.
        ssh_url: the SSH server; this and what follows are as in `open_tunnel`.
        known_hosts: the file with the host keys of servers.
        password: of the user on the SSH server.
        key_file: a private key.

    Raises:
        DatabaseError: the URL has not one host, or there is no tunnel.
    """
    url = with_verified_tls(url)
    parts = urlsplit(url)
    backend = parts.scheme.partition("+")[0].replace("postgresql", "postgres")
    user, at, hosts = parts.netloc.rpartition("@")
    if not parts.hostname or "," in hosts or backend not in _DEFAULT_PORTS:
        raise DatabaseError(
            f"{backend}://{hosts}{parts.path}: a tunnel needs the URL of one server of "
            f"{', '.join(_DEFAULT_PORTS)}, such as postgresql://user@host:5432/database."
        )
    port = parts.port or _DEFAULT_PORTS[backend]
    with open_tunnel(
        ssh_url,
        parts.hostname,
        port,
        known_hosts=known_hosts,
        password=password,
        key_file=key_file,
    ) as (local_host, local_port):
        is_postgres = backend == "postgres"
        host = hosts.removesuffix(f":{parts.port}") if is_postgres else local_host
        local = urlunsplit((parts.scheme, f"{user}{at}{host}:{local_port}", *parts[2:]))
        yield with_parameters(local, hostaddr=local_host) if is_postgres else local


@contextmanager
def open_tunnel(
    ssh_url: str,
    host: str,
    port: int,
    *,
    known_hosts: Path,
    password: str | None = None,
    key_file: Path | None = None,
) -> Iterator[tuple[str, int]]:
    """Yield an address of this machine that an SSH server forwards to another one.

    It is on loopback, so other users of this machine can connect to it as well. The tunnel ends with the
    block.

    Args:
        ssh_url: the SSH server, `ssh://user@host:port`, without a password.
        host: the host to which it forwards, by a name that the SSH server knows.
        port: its port.
        known_hosts: the file with the host keys of servers; others are refused.
        password: of the user on the SSH server, if it accepts one.
        key_file: a private key, instead of those of `~/.ssh` and of the SSH agent.

    Raises:
        DatabaseError: the SSH server or its host key is not known, it refuses the login, or it does not
            reach the host. The message names the server and the next step.
    """
    server, options = _ssh_server(ssh_url, key_file)
    connection = _connect(server, known_hosts=known_hosts, password=password, **options)
    try:
        yield "127.0.0.1", _listen(server, connection, host, port)
    finally:
        sync(get_loop(), _close, connection)


def _connect(server: str, **options: Any) -> Any:
    try:
        import asyncssh  # noqa: F401 - what `ssh` needs

        from shared.sources import ssh
    except ImportError:
        raise DatabaseError(
            "Add shared[sftp] to the project, to connect over SSH: it has asyncssh."
        ) from None
    try:
        return sync(
            get_loop(),
            ssh.connect,
            server,
            login_advice="check the user in ssh_tunnel, and add a key to the SSH agent, name it in "
            "~/.ssh/config or ssh_key_file, or set the secret ssh_password.",
            timeout_seconds=_TIMEOUT_SECONDS,
            **options,
        )
    except (ssh.SshSettingsError, PermissionError) as error:
        raise DatabaseError(str(error)) from None
    except ConnectionError as error:
        raise DatabaseError(f"{error}. Check ssh_tunnel, and that the server is up.") from None


def _listen(server: str, connection: Any, host: str, port: int) -> int:
    """Return the local port that a connection forwards."""
    import asyncssh

    try:
        return int(sync(get_loop(), _forward, connection, host, port).get_port())
    except (OSError, asyncssh.Error) as error:
        reason = getattr(error, "reason", "") or str(error) or type(error).__name__
        raise DatabaseError(
            f"{server} does not reach {host}:{port}: {reason}. Check host and port of the database as that "
            "server knows it, and AllowTcpForwarding and PermitOpen in its sshd_config."
        ) from None


def _ssh_server(ssh_url: str, key_file: Path | None) -> tuple[str, dict[str, Any]]:
    """Return the name of an SSH server for messages, and the options to connect to it."""
    example = "write it as ssh://user@host:22"
    try:
        parts = urlsplit(ssh_url)
        port = parts.port
    except ValueError:
        raise DatabaseError(f"ssh_tunnel has no valid port; {example}.") from None
    if parts.password is not None:
        raise DatabaseError(
            f"ssh_tunnel has a password; {example}, and the password as the secret ssh_password."
        )
    if parts.scheme != "ssh" or not parts.hostname or parts.path not in ("", "/"):
        raise DatabaseError(f"ssh_tunnel is not the URL of an SSH server; {example}.")
    server = f"SSH server {parts.netloc}"
    if key_file and not key_file.is_file():
        raise DatabaseError(f"{server}: there is no file {key_file}; check ssh_key_file.")
    return server, {
        "host": parts.hostname,
        "port": port,
        "username": parts.username and unquote(parts.username),
        "client_keys": [str(key_file)] if key_file else None,
    }


async def _forward(connection: Any, host: str, port: int) -> Any:
    """Connect once, so that a wrong host is an error here, and listen on a free local port."""
    _, writer = await connection.open_connection(host, port)
    writer.close()
    return await connection.forward_local_port("127.0.0.1", 0, host, port)


async def _close(connection: Any) -> None:
    """Close a connection; its listener and what it forwards end with it."""
    connection.abort()
    await connection.wait_closed()
