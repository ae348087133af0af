"""Propose the declaration of files of any kind; the end of a name says the kind."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from shared.sources.csv import propose as csv
from shared.sources.drop_folder import InvalidFileError
from shared.sources.files import propose as files
from shared.sources.files import propose_excel as excel
from shared.sources.proposal import Proposal


class _Kind(NamedTuple):
    propose: Callable[[Path], Proposal]
    write_sample: Callable[[Proposal, Path, int], None]
    may_be_compressed: bool


_JSON = _Kind(files.propose_json, files.write_sample, True)
_EXCEL = _Kind(excel.propose_excel, excel.write_sample, False)
KINDS: Mapping[str, _Kind] = {
    ".csv": _Kind(csv.propose, csv.write_sample, True),
    ".parquet": _Kind(files.propose_parquet, files.write_sample, False),
    **dict.fromkeys(files.JSON_SUFFIXES, _JSON),
    **dict.fromkeys((".xlsx", ".xlsm"), _EXCEL),
}
"""How files of a kind are read, by how their names end."""


def propose(file: Path) -> Proposal:
    """Propose a format for a file.

    Raises:
        InvalidFileError: it is of no known kind, or cannot be read; the message is the next step.
    """
    suffix = suffix_of(file.name)
    if not suffix:
        names = [*KINDS]
        raise InvalidFileError(
            f"{file.name}: its name must end in {', '.join(names[:-1])} or {names[-1]}; rename it"
        )
    if not KINDS[suffix].may_be_compressed and not file.name.lower().endswith(suffix):
        raise InvalidFileError(f"{file.name}: decompress it first")
    return KINDS[suffix].propose(file)


def write_sample(proposal: Proposal, folder: Path, rows: int) -> None:
    """Write the first rows of a proposal's file into a folder, as a file of its name.

    Args:
        proposal: what the file proposes.
        folder: an existing folder.
        rows: how many rows.
    """
    KINDS[proposal.suffix].write_sample(proposal, folder, rows)


def suffix_of(name: str) -> str:
    """Return how a file's name ends, without the suffix of a compression; "" if it is of no known kind."""
    last_two = reversed(Path(name.lower()).suffixes[-2:])
    return next((suffix for suffix in last_two if suffix in KINDS), "")
