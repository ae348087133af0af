"""What `etl new NAME --from FILE` writes: the declaration of the file's format, and a sample."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli.source_code import file_name, files_read, source_code

if TYPE_CHECKING:  # what it imports takes long
    from shared.sources.proposal import Proposal

SAMPLE_ROWS = 100
"""How many rows of the file the project has as its sample."""


class ScaffoldError(Exception):
    """The project cannot be created; the message gives the reason and the next step."""


def propose(path: Path) -> "Proposal":
    """Return the format that the rows of a file propose, or those of a folder's files.

    Raises:
        ScaffoldError: nothing can be proposed.
    """
    from shared.sources import proposals

    with _scaffold_errors():
        return proposals.propose_folder(path) if path.is_dir() else proposals.propose(path)


def propose_url(url: str, folder: Path) -> "Proposal":
    """Return the format that the rows of a file on a web server propose.

    Args:
        url: the URL of the file.
        folder: gets the file.

    Raises:
        ScaffoldError: nothing can be proposed.
    """
    from shared.sources import proposals
    from shared.sources.download import download

    with _scaffold_errors():
        return replace(proposals.propose(download(url, folder)), folder=url.rpartition("/")[0])


@contextmanager
def _scaffold_errors() -> Iterator[None]:
    from shared.sources.drop_folder import InvalidFileError

    try:
        yield
    except (InvalidFileError, ImportError) as error:
        raise ScaffoldError(f"{error}. Nothing was changed.") from None


def write_source(package: Path, name: str, proposal: "Proposal", *, sample: bool = True) -> None:
    """Write the source and the sample of a project that loads files like the proposal's.

    Args:
        package: the folder of the project's package.
        name: the name of the pipeline.
        proposal: what its file proposes.
        sample: whether the project gets rows of the file.
    """
    from shared.sources.proposals import write_sample

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
    from shared.sources.made_up import write_made_up
    from shared.sources.proposal import open_sample

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
