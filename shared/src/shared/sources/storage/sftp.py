"""Folders on SFTP servers. A server's host key must be known; nothing is trusted at first sight."""

import asyncio
import stat
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from urllib.parse import unquote

from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.configuration.specs import RuntimeConfiguration
from fsspec.asyn import get_loop, sync
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shared import settings
from shared.sources.storage.base import FileStat, InvalidFileError
from shared.sources.storage.folder_url import FolderUrl

try:
    import asyncssh

    from shared.sources import ssh
except ImportError as error:
    raise ImportError("Add shared[sftp] to the project, to read files over SFTP") from error

_READ_BYTES = 4 << 20  # requested in parallel
_IDLE_SECONDS = 30.0  # then the connection is closed; something else may keep the folder alive
_SETTLED_SECONDS = 60  # times are in whole seconds, and the clocks may differ


class SftpStorage:
    """A folder on an SFTP server.

    The settings of the connection, such as keys and jump hosts, are those of `~/.ssh/config`, and its
    keys those of `~/.ssh` and of the SSH agent. A connection is retried as dlt's requests are.
    """

    can_list = True

    def __init__(self, url: FolderUrl) -> None:
        """Keep the URL; nothing is connected yet."""
        self.url, self._folder = url.shown, url
        self._root = unquote(url.path) or "/"
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._users = 0

    def full_path(self, path: str) -> str:
        """Return the path of a file on the server."""
        return f"{self._root.rstrip('/')}/{path}"

    def stat(self, path: str) -> FileStat:
        """Return the stat of a file; see `Storage`."""
        _, found = self._run(self._file, path)
        return _stat(found)

    def find(self) -> dict[str, FileStat]:
        """Return all files below the folder that can be read; links that leave it are left out."""
        found: dict[str, FileStat] = self._run(self._find)
        return found

    def download(self, path: str, write: Callable[[bytes], object]) -> None:
        """Pass the bytes of a file to a function; see `Storage`."""
        self._run(self._download, path, write)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a method on the event loop of fsspec; raise only errors that `Storage` names."""
        if self._connection is None or self._connection.is_closed():
            self._connect()
        try:
            return sync(get_loop(), self._use, self._connection, function, *args)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            raise FileNotFoundError(args[0] if args else self.url) from None
        except asyncssh.SFTPPermissionDenied:
            raise PermissionError(
                f"{self.url}: the server's user may not read {args[0] if args else 'it'}"
            ) from None
        except asyncssh.Error as error:
            raise ConnectionError(f"{self.url}: {type(error).__name__}: {error.reason}") from None

    async def _use(
        self, connection: asyncssh.SSHClientConnection, function: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a method with the connection, which is closed if nothing uses it for a while."""
        if self._idle:
            self._idle.cancel()
        self._users += 1
        try:
            return await function(self._sftp, *args)
        finally:
            self._users -= 1
            if not self._users:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(_IDLE_SECONDS, connection.abort)

    def _connect(self) -> None:
        config = resolve_configuration(RuntimeConfiguration())
        retry = Retrying(
            stop=stop_after_attempt(config.request_max_attempts),
            wait=wait_random_exponential(
                multiplier=config.request_backoff_factor, max=config.request_max_retry_delay
            ),
            retry=retry_if_exception_type(ConnectionError),
            reraise=True,
        )
        retry(sync, get_loop(), self._open, config.request_timeout)

    async def _open(self, timeout: float) -> None:  # noqa: ASYNC109 - asyncssh has its own timeouts
        try:
            connection = await ssh.connect(
                self.url,
                self._folder.host,
                known_hosts=settings.get_path("SFTP_KNOWN_HOSTS"),
                login_advice="add a key to the SSH agent or name it in ~/.ssh/config, or set "
                "DROP_FOLDER_PASSWORD, or add the server to ~/.netrc",
                timeout_seconds=timeout,
                port=self._folder.port,
                username=self._folder.user and unquote(self._folder.user),
                password=self._folder.password(),
            )
        except ssh.SshSettingsError as error:
            raise InvalidFileError(str(error)) from None
        try:
            # Names that are not UTF-8 must not make a listing fail.
            sftp = await connection.start_sftp_client(path_errors="surrogateescape")
        except (OSError, asyncssh.Error) as error:
            connection.abort()
            reason = getattr(error, "reason", "") or str(error) or type(error).__name__
            raise ConnectionError(f"{self.url} cannot be reached: {reason}") from None
        weakref.finalize(self, get_loop().call_soon_threadsafe, connection.abort)
        self._connection, self._sftp = connection, sftp

    async def _real_path(self, sftp: asyncssh.SFTPClient, path: str) -> str:
        """Return a file's path without links; raise `InvalidFileError` if it leaves the folder."""
        root = str(await sftp.realpath(self._root)).rstrip("/")
        real = str(await sftp.realpath(self.full_path(path)))
        inside = real.startswith(f"{root}/")
        folders = real[len(root) + 1 :].split("/") if inside else []
        for depth in range(len(folders)):
            # Some servers do not follow links here.
            link = await sftp.lstat("/".join((root, *folders[: depth + 1])))
            inside = inside and not stat.S_ISLNK(link.permissions or 0)
        if not inside:
            raise InvalidFileError(f"{path!r} links to a file outside the drop folder {self.url}")
        return real

    async def _file(self, sftp: asyncssh.SFTPClient, path: str) -> tuple[str, asyncssh.SFTPAttrs]:
        """Return a file's path without links and its attributes; a pipe would block when it is read."""
        real = await self._real_path(sftp, path)
        attributes = await sftp.stat(real)
        if not _is_file(attributes):
            is_folder = stat.S_ISDIR(attributes.permissions or 0)
            what = "a folder, not a file" if is_folder else "not a regular file"
            raise InvalidFileError(f"{path!r} in the drop folder {self.url} is {what}")
        return real, attributes

    async def _find(self, sftp: asyncssh.SFTPClient) -> dict[str, FileStat]:
        await sftp.stat(self._root)
        found, folders = {}, [""]
        while folders:
            folder = folders.pop()
            # A folder may be gone by now, or closed for this user.
            unreadable = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPPermissionDenied)
            with suppress(*unreadable if folder else ()):
                async for entry in sftp.scandir(self.full_path(folder)):
                    name, attributes = str(entry.filename), entry.attrs
                    if name.startswith(".") or "/" in name:
                        continue
                    if stat.S_ISDIR(attributes.permissions or 0):
                        folders.append(f"{folder}{name}/")
                        continue
                    if stat.S_ISLNK(attributes.permissions or 0):
                        with suppress(InvalidFileError, asyncssh.SFTPError):
                            _, attributes = await self._file(sftp, folder + name)
                    if _is_file(attributes):
                        found[folder + name] = _stat(attributes)
        return found

    async def _download(
        self, sftp: asyncssh.SFTPClient, path: str, write: Callable[[bytes], object]
    ) -> None:
        real, _ = await self._file(sftp, path)
        size = 0
        async with sftp.open(real, "rb") as file:
            while content := cast("bytes", await file.read(_READ_BYTES)):
                size += len(content)
                write(content)
            if (await file.stat()).size not in (size, None):
                raise InvalidFileError(f"{path} was written to while it was read; load it again")


def _is_file(attributes: asyncssh.SFTPAttrs) -> bool:
    # A server that states no type has files only.
    return attributes.permissions is None or stat.S_ISREG(attributes.permissions)


def _stat(attributes: asyncssh.SFTPAttrs) -> FileStat:
    age = time.time() - (attributes.mtime or time.time())
    return FileStat(attributes.size or 0, str(attributes.mtime), age > _SETTLED_SECONDS)
