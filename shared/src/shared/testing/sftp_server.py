"""An SFTP server on loopback, with a password and a host key of its own. It forwards connections."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import asyncssh


class SftpServer:
    """Serves the whole disk, as OpenSSH does, while its context is open.

    It forwards connections to ports of this machine, whatever the host's name, as if that were the name
    of a private network.

    Attributes:
        user: the user that may log in.
        password: the user's password.
        on_read: called before each read with the connection, the path and the offset.
        logins: how many logins there were.
        hides_links: whether the real path of a file is one with links, as on some servers.
    """

    def __init__(self, user: str = "shop", password: str = "p@ss/word #1?") -> None:
        self.user, self.password, self.logins = user, password, 0
        self.on_read: Callable[[asyncssh.SSHServerConnection, str, int], None] | None = None
        self.hides_links = False
        self._connections: list[asyncssh.SSHServerConnection] = []
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def known_hosts(self) -> str:
        """The line of the server's host key for a file of known hosts."""
        return f"[127.0.0.1]:{self.port} {self.key.export_public_key().decode()}"

    def url(self, folder: Path) -> str:
        """Return the URL of a folder, without the password."""
        return f"sftp://{self.user}@127.0.0.1:{self.port}{folder.as_uri().removeprefix('file://')}"

    def __enter__(self) -> Self:
        """Start serving."""
        self._thread.start()
        self._server = self._run(self._listen())
        self.port: int = self._server.get_port()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_until_clients_are_gone(self) -> None:
        """Return when all connections are closed; raise `TimeoutError` if they stay open."""
        for connection in self._connections:
            self._run(connection.wait_closed())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> asyncssh.SSHAcceptor:
        server = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                server._connections.append(conn)
                self._connection = conn

            def connection_requested(
                self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
            ) -> Any:
                del dest_host, orig_host, orig_port
                return self._connection.forward_connection("127.0.0.1", dest_port)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                server.logins += 1
                return (username, password) == (server.user, server.password)

        class Files(asyncssh.SFTPServer):
            def read(self, file_obj: Any, offset: int, size: int) -> Any:
                if server.on_read:
                    server.on_read(
                        cast("asyncssh.SSHServerConnection", self.channel.get_connection()),
                        os.fsdecode(file_obj.name),
                        offset,
                    )
                return super().read(file_obj, offset, size)

            def realpath(self, path: bytes) -> Any:
                return path if server.hides_links else super().realpath(path)

        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self.key],
            server_factory=Login,
            sftp_factory=Files,
        )

    async def _close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.abort()
            await connection.wait_closed()
