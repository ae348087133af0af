"""Connections to SSH servers. A server's host key must be known; nothing is trusted at first sight."""

from pathlib import Path
from typing import Any

try:
    import asyncssh
except ImportError as error:
    raise ImportError("Add shared[sftp] to the project, to connect over SSH") from error

_KEEPALIVE_SECONDS = 15  # a server that does not answer three times is gone


class SshSettingsError(ValueError):
    """`~/.ssh/config`, a key or the file of known hosts is not valid."""


class _HostKey(asyncssh.SSHClient):
    """Remembers a host key that is not known, for the error, and refuses it."""

    host, port, shown = "", 0, "no key"

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        del addr
        self.host, self.port = host, port
        self.shown = f"{key.get_algorithm()} {key.get_fingerprint()}"
        return False


async def connect(
    server: str,
    host: str,
    *,
    known_hosts: Path,
    login_advice: str,
    timeout_seconds: float,
    **options: Any,
) -> asyncssh.SSHClientConnection:
    """Connect and log in, with the settings of `~/.ssh/config` and the keys of `~/.ssh` and of the agent.

    Args:
        server: the server, for messages, without a secret.
        host: its host name.
        known_hosts: the file with the host keys of servers; others are refused.
        login_advice: what to do if the server refuses the login.
        timeout_seconds: how long the connection and the login may take, each.
        options: of asyncssh; those that are None are left out, and come from `~/.ssh/config`.

    Raises:
        PermissionError: the host key is not known, or the server refuses the login.
        SshSettingsError: a setting is not valid.
        ConnectionError: the server cannot be reached.
    """
    host_key = _HostKey()
    try:
        return await asyncssh.connect(
            host,
            # asyncssh does not check host keys if this is None, nor if ~/.ssh/config has
            # `UserKnownHostsFile none`.
            known_hosts=str(known_hosts) if known_hosts.is_file() else b"",  # noqa: ASYNC240 - short
            client_factory=lambda: host_key,
            connect_timeout=timeout_seconds,
            login_timeout=timeout_seconds,
            keepalive_interval=_KEEPALIVE_SECONDS,
            **{name: value for name, value in options.items() if value is not None},
        )
    except asyncssh.HostKeyNotVerifiable:
        raise PermissionError(
            f"{server}: the key of the host is not in {known_hosts}, so this may be another "
            f"server. It shows {host_key.shown}. Ask who runs the server whether that is its key; "
            f"if so, add it: ssh-keyscan -p {host_key.port} {host_key.host} >> {known_hosts}"
        ) from None
    except asyncssh.PermissionDenied:
        raise PermissionError(f"{server}: the server refuses the login; {login_advice}") from None
    except ValueError as error:
        raise SshSettingsError(
            f"{server}: ~/.ssh/config, a key or {known_hosts} is not valid: {error}"
        ) from None
    except (OSError, asyncssh.Error) as error:
        reason = getattr(error, "reason", "") or str(error) or type(error).__name__
        raise ConnectionError(f"{server} cannot be reached: {reason}") from None
