"""The drop folder: list, check, hash and decompress its files, local or in a bucket."""

import gzip
import hashlib
import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import xxhash

from shared import settings

_MAX_MESSAGE_CHARS = 400


class InvalidFileError(Exception):
    """A path or a file that must not be loaded; the message names it and the reason."""


def shorten(text: str, length: int = _MAX_MESSAGE_CHARS) -> str:
    """Return a text, cut to the length that a message may quote."""
    return text if len(text) <= length else f"{text[:length]}…"


def _arrow_stream(codec: str) -> Callable[[BinaryIO], AbstractContextManager[BinaryIO]]:
    # Arrow detects a truncated stream, and bytes after its end.
    return lambda file: pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)


@contextmanager
def _only_member(file: BinaryIO) -> Iterator[BinaryIO]:
    with zipfile.ZipFile(file) as archive:
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not _OF_MACOS.search(member.filename)
        ]
        if len(members) != 1:
            raise zipfile.BadZipFile(f"it has {len(members)} files, and must have one")
        with archive.open(members[0]) as member:
            yield member  # type: ignore[misc]


_DECOMPRESSORS: Mapping[str, Callable[[BinaryIO], AbstractContextManager[Any]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),  # skips zeros after the end
    ".bz2": _arrow_stream("bz2"),
    ".zst": _arrow_stream("zstd"),
    ".xz": lzma.LZMAFile,
    ".zip": _only_member,
}
_DECOMPRESSION_ERRORS = (
    OSError, EOFError, RuntimeError, lzma.LZMAError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
_OF_MACOS = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|\._)")  # what Finder adds to an archive
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class FileStat:
    """A file's size in bytes and what changes with its content; equal values mean that nobody wrote to it.

    `modified` has the time of change, and what a writer cannot set: the time of the last change of
    a local file's inode, or the ETag of an object in a bucket.
    """

    size: int
    modified: str

    @classmethod
    def from_listing(cls, info: Mapping[str, Any]) -> "FileStat":
        """Return the stat in a file's entry of an fsspec listing."""
        times = ("mtime", "LastModified", "updated", "last_modified")
        modified = next((info[time] for time in times if info.get(time)), None)
        # fsspec calls the time of the inode "created".
        marks = (info[mark] for mark in ("created", "ETag", "etag") if info.get(mark))
        return cls(size=info["size"], modified=" ".join(map(str, (modified, *marks))))


class DropFolder:
    """A folder of files, local or in a bucket.

    Args:
        url: a local path, s3://bucket/folder, gs://... or az://... Credentials come from the
            variables of the storage's own library (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Without the cache, a listing has files that were just written.
        self.files, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        self.is_local = "file" in self.files.protocol

    def resolve(self, path: str) -> str:
        """Return a file's full path or URL.

        Raises:
            InvalidFileError: the path leaves the folder, or it is missing or not a file.
        """
        full = self._resolve_inside(path)
        if any("\ud800" <= character <= "\udfff" for character in path):
            raise InvalidFileError(f"{path!r} has a name that is not UTF-8; rename it")
        if self.files.isdir(full):
            raise InvalidFileError(
                f"{path!r} in the drop folder {self.url} is a folder, not a file"
            )
        if not self.files.exists(full):
            raise InvalidFileError(f"{path!r} is not in the drop folder {self.url}")
        if self.is_local and not Path(full).is_file():
            raise InvalidFileError(f"{path!r} in the drop folder {self.url} is not a regular file")
        return full

    def _resolve_inside(self, path: str) -> str:
        # With ./ or // in a path, one file would load under two names.
        plain = str(PurePosixPath(path))
        if path != plain or "://" in path or plain.startswith("/") or ".." in plain.split("/"):
            raise InvalidFileError(f"{path!r} is not a path below the drop folder {self.url}")
        full = f"{self._root}/{path}"
        if self.is_local:
            try:
                inside = Path(full).resolve().is_relative_to(Path(self._root).resolve())
            except (OSError, RuntimeError):  # links that form a circle
                inside = False
            if not inside:
                raise InvalidFileError(
                    f"{path!r} links to a file outside the drop folder {self.url}"
                )
        return full

    def list(self, suffix: str = ".csv") -> dict[str, FileStat]:
        """Return the files below the folder whose names have a suffix, compressed ones too, by path.

        Hidden files, links that leave the folder and special files are left out.

        Args:
            suffix: the end of the names in lower case, without that of a compression.

        Raises:
            InvalidFileError: the folder itself does not exist.
        """
        if not self.files.exists(self._root):
            raise InvalidFileError(
                f"The drop folder {self.url} does not exist; set DROP_FOLDER or create the folder"
            )
        stats, suffixes = {}, (suffix, *(f"{suffix}{packed}" for packed in _DECOMPRESSORS))
        for full, info in self.files.find(self._root, detail=True).items():
            path = str(PurePosixPath(full).relative_to(self._root))
            if not path.lower().endswith(suffixes) or any(
                p.startswith(".") for p in path.split("/")
            ):
                continue
            with suppress(InvalidFileError):
                if self.is_local and not Path(self._resolve_inside(path)).is_file():
                    continue
                stats[path] = FileStat.from_listing(info)
        return stats

    def stat(self, path: str) -> FileStat:
        """Return a file's size and time of change; raise `InvalidFileError` as `resolve` does."""
        return FileStat.from_listing(self.files.info(self.resolve(path)))

    def require_unchanged(self, stats: Mapping[str, FileStat]) -> None:
        """Raise `InvalidFileError` if a file was written to since its stat."""
        for path, before in stats.items():
            if self.stat(path) != before:
                raise InvalidFileError(f"{path} was written to while it was read; load it again")

    @contextmanager
    def local_copy(self, path: str, folder: Path | None = None) -> Iterator[Path]:
        """Yield a local, decompressed file: the file itself, or a copy.

        The suffix names the compression: .gz, .bz2, .xz, .zst, or .zip with one file in it.

        Args:
            path: a file below the drop folder.
            folder: keeps the copy; without it, the copy is deleted after the block.

        Raises:
            InvalidFileError: the path must not be read, or the compressed file is damaged or too large.
        """
        full = self.resolve(path)
        compression = Path(path).suffix.lower()
        if self.is_local and compression not in _DECOMPRESSORS:
            yield Path(full)
            return
        kept = nullcontext(tempfile.mkdtemp(dir=folder)) if folder else None
        with kept or tempfile.TemporaryDirectory() as parent:
            copy = Path(parent) / "copy"
            with self.files.open(full, "rb") as file, copy.open("wb") as target:
                try:
                    with _DECOMPRESSORS.get(compression, nullcontext)(file) as source:
                        _copy(path, source, target, Path(parent))
                except _DECOMPRESSION_ERRORS as error:
                    if getattr(error, "errno", None):  # the storage failed, the file may be valid
                        raise
                    raise InvalidFileError(
                        f"{path} cannot be decompressed: {shorten(str(error))}"
                    ) from None
            yield copy

    def content_hash(self, path: str) -> str:
        """Return the 128-bit XXH3 hash of a file's bytes, in hexadecimal."""
        with self.files.open(self.resolve(path), "rb") as file:
            return hash_content(file)


def _copy(path: str, source: BinaryIO, target: BinaryIO, folder: Path) -> None:
    """Copy an open file; raise `InvalidFileError` if it is larger than `MAX_UNCOMPRESSED_BYTES`."""
    limit = settings.get_int("MAX_UNCOMPRESSED_BYTES") or shutil.disk_usage(folder).free // 2
    size = 0
    while content := source.read(_COPY_BYTES):
        size += len(content)
        if size > limit:
            raise InvalidFileError(
                f"{path} has more than {limit:,} bytes when it is decompressed; "
                "set MAX_UNCOMPRESSED_BYTES if that is right"
            )
        target.write(content)


def hash_content(file: BinaryIO) -> str:
    """Return the 128-bit XXH3 hash of an open file, in hexadecimal."""
    return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()  # type: ignore[arg-type]
