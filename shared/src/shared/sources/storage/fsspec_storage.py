"""Local folders and buckets, through fsspec."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from shared.sources.storage.base import FileStat, InvalidFileError
from shared.sources.storage.folder_url import require_no_password

_READ_BYTES = 1 << 20


class FsspecStorage:
    """A local folder, or one in a bucket."""

    can_list = True

    def __init__(self, url: str) -> None:
        """Open nothing yet; raise what `open_storage` raises."""
        require_no_password(url)
        self.url = url
        # Without the cache, a listing has files that were just written.
        self._files, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        self.is_local = "file" in self._files.protocol

    def full_path(self, path: str) -> str:
        """Return the path of a local file, or the name of an object with its bucket."""
        return f"{self._root}/{path}"

    def stat(self, path: str) -> FileStat:
        """Return the stat of a file; see `Storage`."""
        full = self.full_path(path)
        self._require_inside(path)
        if self._files.isdir(full):
            raise InvalidFileError(
                f"{path!r} in the drop folder {self.url} is a folder, not a file"
            )
        if not self._files.exists(full):
            raise FileNotFoundError(path)
        if self.is_local and not Path(full).is_file():
            raise InvalidFileError(f"{path!r} in the drop folder {self.url} is not a regular file")
        return _stat(self._files.info(full))

    def find(self) -> dict[str, FileStat]:
        """Return all files below the folder; special files and links that leave it are left out."""
        if not self._files.exists(self._root):
            raise FileNotFoundError(self.url)
        found = {}
        for full, info in self._files.find(self._root, detail=True).items():
            path = str(PurePosixPath(full).relative_to(self._root))
            with suppress(InvalidFileError):
                self._require_inside(path)
                if not self.is_local or Path(full).is_file():
                    found[path] = _stat(info)
        return found

    def download(self, path: str, write: Callable[[bytes], object]) -> None:
        """Pass the bytes of a file to a function; see `Storage`."""
        self.stat(path)  # a pipe would block
        with self._files.open(self.full_path(path), "rb") as file:
            while content := file.read(_READ_BYTES):
                write(content)

    def _require_inside(self, path: str) -> None:
        if not self.is_local:
            return
        try:
            full = Path(self.full_path(path))
            inside = full.resolve().is_relative_to(Path(self._root).resolve())
        except (OSError, RuntimeError):  # links that form a circle
            inside = False
        if not inside:
            raise InvalidFileError(f"{path!r} links to a file outside the drop folder {self.url}")


def _stat(info: Mapping[str, Any]) -> FileStat:
    """Return the stat in a file's entry of an fsspec listing."""
    times = ("mtime", "LastModified", "updated", "last_modified")
    modified = next((info[time] for time in times if info.get(time)), None)
    # fsspec calls the time of the inode "created".
    marks = (info[mark] for mark in ("created", "ETag", "etag") if info.get(mark))
    return FileStat(size=info["size"], modified=" ".join(map(str, (modified, *marks))))
