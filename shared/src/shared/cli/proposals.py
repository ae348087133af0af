"""What `etl new NAME --from FILE` writes: the declaration of the file's format, and a sample."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.cli.source_code import file_name, files_read, folder_setting, source_code

if TYPE_CHECKING:  # what it imports takes long
    from shared.sources.proposals.proposal import Proposal

SAMPLE_ROWS = 100
"""How many rows of the file the project has as its sample."""


class ScaffoldError(Exception):
    """The project cannot be created; the message gives the reason and the next step."""


@dataclass(frozen=True)
class FromFiles:
    """A project for files, written from their proposal.

    Attributes:
        proposal: what the files propose.
        sample: whether the project gets rows of them.
    """

    proposal: "Proposal"
    sample: bool

    def answers(self) -> dict[str, str | bool]:
        """Return the answers to copier's questions."""
        return {
            "source": "file",
            "key": key_code(self.proposal),
            "dependency": dependency(self.proposal),
            "sample": self.sample,
            "file_name": file_name(self.proposal),
        }

    def write(self, project: Path, name: str) -> None:
        """Write into a rendered project what depends on the files."""
        write_source(project / "src" / f"{name}_etl", name, self.proposal, sample=self.sample)
        if not self.sample:
            write_test_file(project / "tests", self.proposal)

    def summary(self, name: str) -> str:
        """Return what was proposed, and what a person should check."""
        return summary(name, self.proposal)

    def commands(self, name: str) -> dict[str, str]:
        """Return what to run, with its purpose."""
        run = f"uv run etl run {name}_etl"
        folder = shlex.quote(self.proposal.folder or str(self.proposal.file.parent))
        what = "the file" if file_name(self.proposal) else "all files of its folder"
        return {
            **({run: "load its sample"} if self.sample else {}),
            f"{folder_setting(name)}={folder} {run}": f"load {what}",
        }


def propose(path: Path) -> "Proposal":
    """Return the format that the rows of a file propose, or those of a folder's files.

    Raises:
        ScaffoldError: nothing can be proposed.
    """
    from shared.sources.proposals import kinds

    with scaffold_errors():
        return kinds.propose_folder(path) if path.is_dir() else kinds.propose(path)


def propose_url(url: str, folder: Path) -> "Proposal":
    """Return the format that the rows of a file on a web server propose.

    Args:
        url: the URL of the file.
        folder: gets the file.

    Raises:
        ScaffoldError: nothing can be proposed.
    """
    from shared.sources.proposals import kinds
    from shared.sources.proposals.download import download

    with scaffold_errors():
        return replace(kinds.propose(download(url, folder)), folder=url.rpartition("/")[0])


def is_url_of_file(url: str) -> bool:
    """Return whether a URL names a file of a known kind: by the end of its path, without parameters."""
    from shared.sources.proposals.kinds import suffix_of

    parts = urlsplit(url)
    return not parts.query and bool(suffix_of(parts.path))


@contextmanager
def scaffold_errors() -> Iterator[None]:
    """Raise `ScaffoldError` for what cannot be read, and for a library that is not installed."""
    from shared.sources.database.base import DatabaseError
    from shared.sources.drop_folder import InvalidFileError

    try:
        yield
    except (DatabaseError, InvalidFileError, ImportError) as error:
        raise ScaffoldError(f"{error}. Nothing was changed.") from None


def write_source(package: Path, name: str, proposal: "Proposal", *, sample: bool = True) -> None:
    """Write the source and the sample of a project that loads files like the proposal's.

    Args:
        package: the folder of the project's package.
        name: the name of the pipeline.
        proposal: what its file proposes.
        sample: whether the project gets rows of the file.
    """
    from shared.sources.proposals.kinds import write_sample

    if sample:
        (package / "sample").mkdir()
        write_sample(proposal, package / "sample", SAMPLE_ROWS)
    (package / "source.py").write_text(source_code(name, proposal, sample=sample))


def write_test_file(tests: Path, proposal: "Proposal") -> None:
    """Write a made-up file for the tests of a project without a sample.

    Args:
        tests: the folder of the project's tests.
        proposal: what its files propose.
    """
    from shared.sources.proposals.made_up import write_made_up
    from shared.sources.proposals.proposal import open_sample

    made_up = tests / "made_up" / f"made_up{proposal.suffix}"
    made_up.parent.mkdir()
    write_made_up(proposal, made_up)
    if (name := file_name(proposal)).endswith(proposal.suffix):
        made_up.rename(made_up.with_name(name))
    elif name:  # the project loads a compressed file of this name
        with open_sample(proposal, made_up.parent) as compressed:
            compressed.write(made_up.read_text())
        made_up.unlink()


def dependency(proposal: "Proposal") -> str:
    """Return the requirement of a project for `shared`, with the extra that its files need."""
    return "shared[excel]" if proposal.format_name == "ExcelFormat" else "shared"


def key_code(proposal: "Proposal") -> str:
    """Return the columns that identify a row of the table, as Python's list; "" if there are none."""
    from shared.sources.names import column_name

    names = ["file_name", *map(column_name, proposal.key)]
    return repr(names) if proposal.key else ""


def summary(name: str, proposal: "Proposal") -> str:
    """Return what was proposed, and what a person should check."""
    key = " and ".join(proposal.key)
    lines = [
        f"Proposed {len(proposal.columns)} columns from {proposal.rows:,} rows of {files_read(proposal)}; "
        + (f"{key} identifies a row." if key else "no one or two columns identify a row."),
        *(f"{remark}." for remark in proposal.remarks),
        *(f"Check {column}: {note}." for column, note in proposal.notes.items()),
        f"Edit them in projects/{name}_etl/src/{name}_etl/source.py.",
    ]
    return "\n".join(lines)
