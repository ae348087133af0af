"""Propose the declaration of files of any kind; the end of a name says the kind."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.proposals import csv_files
from shared.sources.proposals import typed_files as files
from shared.sources.proposals import workbooks as excel
from shared.sources.proposals.proposal import Proposal

MAX_FILES = 20
"""How many files of a folder a proposal is made from."""


_MAX_NAMES = 4  # of files, in a message


class _Kind(NamedTuple):
    propose: Callable[..., Proposal]
    write_sample: Callable[[Proposal, Path, int], None]
    may_be_compressed: bool


_JSON = _Kind(files.propose_json, files.write_sample, True)
_EXCEL = _Kind(excel.propose_excel, excel.write_sample, False)
KINDS: Mapping[str, _Kind] = {
    ".csv": _Kind(csv_files.propose, csv_files.write_sample, True),
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


def propose_folder(folder: Path) -> Proposal:
    """Propose a format for the files of a folder: for those of the most frequent kind.

    Raises:
        InvalidFileError: there are none, or they have no common format; the message is the next step.
    """
    files = sorted(DropFolder(str(folder)).list(""))
    kinds: dict[str, list[str]] = {suffix: [] for suffix in KINDS}
    for file in files:
        suffix = suffix_of(file)
        if suffix and (KINDS[suffix].may_be_compressed or file.lower().endswith(suffix)):
            kinds[suffix].append(file)
    suffix = max(kinds, key=lambda kind: len(kinds[kind]))
    chosen = kinds[suffix]
    if not chosen:
        raise InvalidFileError(f"{folder} has no file whose name ends in {', '.join(KINDS)}")
    remarks = []
    if others := [file for file in files if file not in chosen]:
        named = " and ".join(others) if len(others) < _MAX_NAMES else f"{len(others):,} files"
        remarks.append(f"Left out: {named}, which are no {suffix} files")
    if len(chosen) > MAX_FILES:
        remarks.append(f"Read the first {MAX_FILES} of {len(chosen):,} files")
    paths = [folder / file for file in chosen[:MAX_FILES]]
    try:
        found = KINDS[suffix].propose(*paths)
        # The rows of two files may be equal: a key is one within each file.
        keys = {found.key} if found.key else {KINDS[suffix].propose(path).key for path in paths}
    except InvalidFileError as error:
        raise InvalidFileError(
            f"{error}. Move the file out of the folder, or create the project from one file"
        ) from None
    return replace(
        found,
        folder=str(folder),
        files=len(paths),
        key=keys.pop() if len(keys) == 1 else (),
        remarks=[*remarks, *found.remarks],
    )


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
