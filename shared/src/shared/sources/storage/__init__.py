"""Where the files of a folder are: a local disk, a bucket, an SFTP server or an HTTP server."""

from shared.sources.storage.base import FileStat, InvalidFileError, Storage
from shared.sources.storage.folder_url import FolderUrl, shown_url

__all__ = ["FileStat", "InvalidFileError", "Storage", "open_storage", "shown_url"]


def open_storage(url: str) -> Storage:
    """Return the storage of a folder; nothing is read yet.

    Args:
        url: as for `DropFolder`.

    Raises:
        InvalidFileError: the URL has a password, a query or a fragment, or it is not valid.
        ImportError: the library for this kind of URL is not installed; the message names it.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if "::" in scheme:  # fsspec's own SFTP, for one, would accept any host key
        raise InvalidFileError(f"{shown_url(url)}: chained URLs are not supported; remove the ::")
    if scheme in ("sftp", "ssh"):
        from shared.sources.storage.sftp import SftpStorage

        return SftpStorage(FolderUrl.parse(url))
    if scheme in ("http", "https"):
        from shared.sources.storage.http import HttpStorage

        return HttpStorage(FolderUrl.parse(url))
    from shared.sources.storage.fsspec_storage import FsspecStorage

    return FsspecStorage(url)
