"""What `etl new NAME --from FILE` writes: the declaration of the file's format, and a sample."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what it imports takes long
    from shared.sources.csv.propose import Proposal

SAMPLE_ROWS = 100
"""How many rows of the file the project has as its sample."""


class ScaffoldError(Exception):
    """The project cannot be created; the message gives the reason and the next step."""


def propose(file: Path) -> "Proposal":
    """Return the format that a CSV file's rows propose.

    Raises:
        ScaffoldError: nothing can be proposed from the file.
    """
    from shared.sources.csv import InvalidFileError
    from shared.sources.csv.propose import propose as propose_format

    try:
        return propose_format(file)
    except InvalidFileError as error:
        raise ScaffoldError(f"{error}. Nothing was changed.") from None


def write_source(package: Path, name: str, proposal: "Proposal") -> None:
    """Write the source and the sample of a project that loads files like the proposal's.

    Args:
        package: the folder of the project's package.
        name: the name of the pipeline.
        proposal: what its file proposes.
    """
    from shared.sources.csv.propose import sample_lines

    sample = package / "sample"
    sample.mkdir()
    text = "".join(sample_lines(proposal, SAMPLE_ROWS))
    # A compressed file's sample is not compressed.
    (sample / f"{proposal.file.name.partition('.csv')[0]}.csv").write_text(text, newline="")
    (package / "source.py").write_text(_source_code(name, proposal))


def key_code(proposal: "Proposal") -> str:
    """Return the columns that identify a row of the table, as Python's list; "" if there are none."""
    return repr(["file_name", *proposal.key]) if proposal.key else ""


def summary(name: str, proposal: "Proposal") -> str:
    """Return what was proposed, and what a person should check."""
    key = " and ".join(proposal.key)
    lines = [
        f"Proposed {len(proposal.columns)} columns from {proposal.rows:,} rows of {proposal.file.name}; "
        + (f"{key} identifies a row." if key else "no one or two columns identify a row."),
        *(f"Check {column}: {note}." for column, note in proposal.notes.items()),
        f"Edit them in projects/{name}_etl/src/{name}_etl/source.py.",
    ]
    return "\n".join(lines)


def _source_code(name: str, proposal: "Proposal") -> str:
    """Return the module of the source: the format, with a comment for each thing to check."""
    columns = []
    for column, hints in proposal.columns.items():
        if note := proposal.notes.get(column):
            columns.append(f"        # {note}")
        columns.append(f"        {column!r}: {dict(hints)!r},")
    title = name.replace("_", " ")
    lines = "\n".join(columns)
    others: dict[str, object] = {"delimiter": proposal.delimiter != "," and proposal.delimiter}
    others["null_values"] = dict(proposal.null_values)
    options = "".join(f"\n    {name}={value!r}," for name, value in others.items() if value)
    return f'''"""The source of {title}: all CSV files of a folder."""

from collections.abc import Sequence
from pathlib import Path

import dlt
from dlt.extract import DltSource

from shared.sources.csv import CsvFormat, DropFolder, csv_source

SAMPLE = Path(__file__).parent / "sample"

FILES = CsvFormat(
    columns={{
{lines}
    }},
    date_format={proposal.date_format!r},{options}
)
"""The format of a file, proposed from {proposal.rows:,} rows of {proposal.file.name}. A file with another format fails."""


def folder() -> str:
    """Return the configured folder, or the sample."""
    return dlt.config.get("sources.{name}.folder", str) or str(SAMPLE)


def list_files() -> list[str]:
    """Return the files of the folder."""
    return sorted(DropFolder(folder()).list())


def {name}_source(paths: Sequence[str]) -> DltSource:
    """Return the source of the table `{name}`: files of the folder."""
    return csv_source(
        paths,
        table="{name}",
        csv_format=FILES,
        folder=folder(),
        description="{title.capitalize()}, the rows of all files of a folder.",
    )
'''
