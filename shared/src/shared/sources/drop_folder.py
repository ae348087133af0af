"""The drop folder: list, check, hash and decompress its files, wherever they are."""

import gzip
import hashlib
import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import xxhash

from shared import settings
from shared.lazy_modules import pyarrow as pa
from shared.sources.storage import FileStat, InvalidFileError, open_storage

__all__ = ["DropFolder", "FileStat", "InvalidFileError", "hash_content", "shorten"]

_MAX_MESSAGE_CHARS = 400


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


class DropFolder:
    """A folder of files: local, in a bucket, or on an SFTP or HTTP server.

    Args:
        url: a local path, s3://bucket/folder, gs://..., az://..., sftp://user@host/folder or
            https://host/folder. A path of sftp starts at the server's root. Passwords come from
            elsewhere (docs/load-files.md).

    Raises:
        InvalidFileError: the URL has a password, a query or a fragment, or it is not valid.
        ImportError: the library for this kind of URL is not installed; the message names it.
    """

    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)
        self.url = self._storage.url
        self.can_list = self._storage.can_list
        self._is_local = getattr(self._storage, "is_local", False)
        self._contents: dict[str, str] = {}  # hashes of what was downloaded

    def resolve(self, path: str) -> str:
        """Return a file's full path or URL.

        Raises:
            InvalidFileError: the path leaves the folder, or it is missing or not a file.
        """
        self.stat(path)
        return self._storage.full_path(path)

    def list(self, suffix: str = ".csv") -> dict[str, FileStat]:
        """Return the files below the folder whose names have a suffix, compressed ones too, by path.

        Hidden files, links that leave the folder and special files are left out.

        Args:
            suffix: the end of the names in lower case, without that of a compression.

        Raises:
            InvalidFileError: the folder itself does not exist.
        """
        try:
            found = self._storage.find()
        except FileNotFoundError:
            raise InvalidFileError(
                f"The drop folder {self.url} does not exist; set DROP_FOLDER or create the folder"
            ) from None
        suffixes = (suffix, *(f"{suffix}{packed}" for packed in _DECOMPRESSORS))
        return {
            path: stat
            for path, stat in found.items()
            if path.lower().endswith(suffixes)
            and not any(part.startswith(".") for part in path.split("/"))
        }

    def stat(self, path: str) -> FileStat:
        """Return a file's size and time of change; raise `InvalidFileError` as `resolve` does."""
        with self._checked(path):
            return self._storage.stat(path)

    @contextmanager
    def _checked(self, path: str) -> Iterator[None]:
        """Check a path; inside, a file that is missing is an `InvalidFileError`."""
        # With ./ or // in a path, one file would load under two names.
        plain = str(PurePosixPath(path))
        if path != plain or "://" in path or plain.startswith("/") or ".." in plain.split("/"):
            raise InvalidFileError(f"{path!r} is not a path below the drop folder {self.url}")
        if any("\ud800" <= character <= "\udfff" for character in path):
            raise InvalidFileError(f"{path!r} has a name that is not UTF-8; rename it")
        try:
            yield
        except FileNotFoundError:
            raise InvalidFileError(f"{path!r} is not in the drop folder {self.url}") from None

    def require_unchanged(self, stats: Mapping[str, FileStat]) -> None:
        """Raise `InvalidFileError` if a file was written to since its stat.

        If a write might not show in the stat, the file is downloaded again and its content compared
        with that of `local_copy`.
        """
        for path, before in stats.items():
            if not before.is_settled and path in self._contents:
                is_equal = self.content_hash(path) == self._contents[path]
            else:
                is_equal = self.stat(path) == before
            if not is_equal:
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
        compression = Path(path).suffix.lower()
        is_packed = compression in _DECOMPRESSORS
        if self._is_local:
            file = Path(self.resolve(path))
            if not is_packed:
                yield file
                return
        kept = nullcontext(tempfile.mkdtemp(dir=folder)) if folder else None
        with kept or tempfile.TemporaryDirectory() as parent:
            copy = Path(parent) / "copy"
            if not self._is_local:
                file = Path(parent) / "packed" if is_packed else copy
                self._download(path, file)
            if is_packed:
                _decompress(path, file, copy)
            if is_packed and not self._is_local:
                file.unlink()
            yield copy

    def content_hash(self, path: str) -> str:
        """Return the 128-bit XXH3 hash of a file's bytes, in hexadecimal."""
        digest = xxhash.xxh3_128()
        with self._checked(path):
            self._storage.download(path, digest.update)
        return digest.hexdigest()

    def _download(self, path: str, target: Path) -> None:
        digest = xxhash.xxh3_128()
        with self._checked(path), target.open("wb") as file:
            write_limited = _limited(path, file, target.parent)

            def write(content: bytes) -> None:
                digest.update(content)
                write_limited(content)

            self._storage.download(path, write)
        self._contents[path] = digest.hexdigest()


def _decompress(path: str, packed: Path, target: Path) -> None:
    with packed.open("rb") as file, target.open("wb") as copy:
        write = _limited(path, copy, target.parent)
        try:
            with _DECOMPRESSORS[Path(path).suffix.lower()](file) as source:
                while content := source.read(_COPY_BYTES):
                    write(content)
        except _DECOMPRESSION_ERRORS as error:
            if getattr(error, "errno", None):  # the disk failed, the file may be valid
                raise
            raise InvalidFileError(
                f"{path} cannot be decompressed: {shorten(str(error))}"
            ) from None


def _limited(path: str, target: BinaryIO, folder: Path) -> Callable[[bytes], None]:
    """Return a function that writes, and raises an error above `MAX_UNCOMPRESSED_BYTES`."""
    limit = settings.get_int("MAX_UNCOMPRESSED_BYTES") or shutil.disk_usage(folder).free // 2
    size = 0

    def write(content: bytes) -> None:
        nonlocal size
        size += len(content)
        if size > limit:
            raise InvalidFileError(
                f"{path} has more than {limit:,} bytes when it is decompressed; "
                "set MAX_UNCOMPRESSED_BYTES if that is right"
            )
        target.write(content)

    return write


def hash_content(file: BinaryIO) -> str:
    """Return the 128-bit XXH3 hash of an open file, in hexadecimal."""
    return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()  # type: ignore[arg-type]
