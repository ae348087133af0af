"""What `etl new NAME --from FILE` writes: the declaration of the file's format, and a sample."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what it imports takes long
    from shared.sources.proposal import Proposal

SAMPLE_ROWS = 100
"""How many rows of the file the project has as its sample."""


class ScaffoldError(Exception):
    """The project cannot be created; the message gives the reason and the next step."""


def propose(path: Path) -> "Proposal":
    """Return the format that the rows of a file propose, or those of a folder's files.

    Raises:
        ScaffoldError: nothing can be proposed from the file.
    """
    from shared.sources import proposals
    from shared.sources.drop_folder import InvalidFileError

    try:
        return proposals.propose_folder(path) if path.is_dir() else proposals.propose(path)
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
    (package / "source.py").write_text(_source_code(name, proposal, sample=sample))


def write_test_file(tests: Path, proposal: "Proposal") -> None:
    """Write a made-up file for the tests of a project without a sample."""
    from shared.sources.made_up import write_made_up

    (tests / "made_up").mkdir()
    write_made_up(proposal, tests / "made_up" / f"made_up{proposal.suffix}")


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
        f"Proposed {len(proposal.columns)} columns from {proposal.rows:,} rows of {_files(proposal)}; "
        + (f"{key} identifies a row." if key else "no one or two columns identify a row."),
        *(f"{remark}." for remark in proposal.remarks),
        *(f"Check {column}: {note}." for column, note in proposal.notes.items()),
        f"Edit them in projects/{name}_etl/src/{name}_etl/source.py.",
    ]
    return "\n".join(lines)


def _files(proposal: "Proposal") -> str:
    return proposal.file.name if proposal.files == 1 else f"{proposal.files} files"


def _source_code(name: str, proposal: "Proposal", *, sample: bool) -> str:
    """Return the module of the source: the format, with a comment for each thing to check."""
    columns = []
    for column, hints in proposal.columns.items():
        if note := proposal.notes.get(column):
            columns.append(f"        # {note}")
        columns.append(f"        {column!r}: {dict(hints)!r},")
    title = name.replace("_", " ")
    lines = "\n".join(columns)
    options = "".join(f"\n    {option}={value!r}," for option, value in proposal.options.items())
    file = ascii(_files(proposal))[1:-1].replace('"', "'")  # for a docstring
    is_csv = proposal.format_name == "CsvFormat"
    module, source = ("csv", "csv_source") if is_csv else ("files", "file_source")
    suffix = "" if is_csv else repr(proposal.suffix)
    imports, folder = (
        ("", "folder()") if sample else (", InvalidFileError", "folder() if paths else None")
    )
    return f'''"""The source of {title}: all {proposal.suffix} files of a folder."""

from collections.abc import Sequence
{"from pathlib import Path" if sample else ""}

import dlt
from dlt.extract import DltSource

from shared.sources.drop_folder import DropFolder{imports}
from shared.sources.{module} import {proposal.format_name}, {source}
{_SAMPLE if sample else ""}
FILES = {proposal.format_name}(
    columns={{
{lines}
    }},{options}
)
"""The format of a file, proposed from {proposal.rows:,} rows of {file}. A file with another format fails."""


{(_FOLDER_OR_SAMPLE if sample else _FOLDER).format(name=name, setting=folder_setting(name))}

def list_files() -> list[str]:
    """Return the files of the folder."""
    return sorted(DropFolder(folder()).list({suffix}))


def {name}_source(paths: Sequence[str]) -> DltSource:
    """Return the source of the table `{name}`: files of the folder."""
    return {source}(
        paths,
        "{name}",
        FILES,
        folder={folder},
        description="{title.capitalize()}, the rows of all files of a folder.",
    )
'''


def folder_setting(name: str) -> str:
    """Return the variable that names the folder of a pipeline's files."""
    return f"SOURCES__{name.upper()}__FOLDER"


_SAMPLE = """
SAMPLE = Path(__file__).parent / "sample"
"""

_FOLDER_OR_SAMPLE = '''def folder() -> str:
    """Return the configured folder, or the sample."""
    return dlt.config.get("sources.{name}.folder", str) or str(SAMPLE)
'''

_FOLDER = '''def folder() -> str:
    """Return the configured folder.

    Raises:
        InvalidFileError: there is none.
    """
    configured = dlt.config.get("sources.{name}.folder", str)
    if not configured:
        raise InvalidFileError(
            "Set {setting} to the folder of the files: a path, s3://…, gs://… or az://…"
        )
    return configured
'''
