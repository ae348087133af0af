"""The module that `etl new` writes for files: their format, their folder and their source."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what it imports takes long
    from shared.sources.proposals.proposal import Proposal


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

_LIST = '''def list_files() -> list[str]:
    """Return the files of the folder."""
    return sorted(DropFolder(folder()).list({suffix}))
'''

_LIST_ONE = '''def list_files() -> list[str]:
    """Return the file; a web server does not list its files."""
    return [{name!r}]
'''


def source_code(name: str, proposal: "Proposal", *, sample: bool) -> str:
    """Return the module of the source: the format, with a comment for each thing to check."""
    columns = []
    for column, hints in proposal.columns.items():
        if note := proposal.notes.get(column):
            columns.append(f"        # {note}")
        columns.append(f"        {column!r}: {dict(hints)!r},")
    title = name.replace("_", " ")
    lines = "\n".join(columns)
    options = "".join(
        (f"\n    # {proposal.notes[option]}" if option in proposal.notes else "")
        + f"\n    {option}={value!r},"
        for option, value in proposal.options.items()
    )
    formats = ", ValueFormat" if "values" in proposal.options else ""
    file = ascii(files_read(proposal))[1:-1].replace('"', "'")  # for a docstring
    is_csv = proposal.format_name == "CsvFormat"
    module, source = ("csv", "csv_source") if is_csv else ("files", "file_source")
    suffix = "" if is_csv else repr(proposal.suffix)
    one = file_name(proposal)
    needed = [*([] if one else ["DropFolder"]), *([] if sample else ["InvalidFileError"])]
    imports = f"from shared.sources.drop_folder import {', '.join(needed)}" if needed else ""
    folder = "folder()" if sample else "folder() if paths else None"
    what = f"the file {file}" if one else f"all {proposal.suffix} files of a folder"
    return f'''"""The source of {title}: {what}."""

from collections.abc import Sequence
{"from pathlib import Path" if sample else ""}

import dlt
from dlt.extract import DltSource

{imports}
from shared.sources.{module} import {proposal.format_name}{formats}, {source}
{_SAMPLE if sample else ""}
FILES = {proposal.format_name}(
    columns={{
{lines}
    }},{options}
)
"""The format of a file, proposed from {proposal.rows:,} rows of {file}. A file with another format fails."""


{(_FOLDER_OR_SAMPLE if sample else _FOLDER).format(name=name, setting=folder_setting(name))}

{_LIST_ONE.format(name=one) if one else _LIST.format(suffix=suffix)}

def {name}_source(paths: Sequence[str]) -> DltSource:
    """Return the source of the table `{name}`: files of the folder."""
    return {source}(
        paths,
        "{name}",
        FILES,
        folder={folder},
        description="{title.capitalize()}, the rows of {"a file" if one else "all files of a folder"}.",
    )
'''


def folder_setting(name: str) -> str:
    """Return the variable that names the folder of a pipeline's files."""
    return f"SOURCES__{name.upper()}__FOLDER"


def files_read(proposal: "Proposal") -> str:
    """Return from which files a proposal is made."""
    return proposal.file.name if proposal.files == 1 else f"{proposal.files} files"


def file_name(proposal: "Proposal") -> str:
    """Return the file that a project loads, if its folder cannot be listed; "" if it loads all files."""
    return proposal.file.name if is_url(proposal.folder) else ""


def is_url(source: str) -> bool:
    """Return whether `--from` names something on a web server."""
    return source.startswith(("http://", "https://"))
