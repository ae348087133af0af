"""What each kind of storage offers, and what is known of a file in it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class InvalidFileError(Exception):
    """A path, a file or a folder that must not be loaded; the message names it and the reason."""


@dataclass(frozen=True)
class FileStat:
    """A file's size in bytes and what changes with its content; equal values mean that nobody wrote to it.

    `modified` has the time of change, and what a writer cannot set: the time of the last change of
    a local file's inode, or the ETag of an object in a bucket or on a web server.

    `is_settled` is False if one more write might leave an equal stat: the storage has times in whole
    seconds only, and the file was just written to, or only its content shows a write.
    """

    size: int
    modified: str
    is_settled: bool = field(default=True, compare=False)


class Storage(Protocol):
    """The files below a folder, by their path.

    Each method raises `InvalidFileError` for what must not be loaded, such as a link that leaves the
    folder, `FileNotFoundError` for a missing file, and another `OSError` if the storage fails.
    """

    url: str
    """The folder, for messages: without secrets."""

    can_list: bool

    def full_path(self, path: str) -> str:
        """Return the full path or the URL of a file; nothing is checked."""

    def stat(self, path: str) -> FileStat:
        """Return the stat of a file."""

    def find(self) -> dict[str, FileStat]:
        """Return all files below the folder with their stat, by path."""

    def download(self, path: str, write: Callable[[bytes], object]) -> None:
        """Pass the bytes of a file to a function; raise an error if they are not complete."""
