"""What of a file would load with a format, before anything loads."""

from dataclasses import dataclass, field
from pathlib import Path

from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.files import FileFormat, validate_file


@dataclass(frozen=True)
class FileCheck:
    """What of a file would load.

    Attributes:
        rows: how many rows fit the format; 0 if the file as a whole does not.
        bad_rows: how many rows do not fit.
        problems: the bad rows, with their place, column and reason, or what is wrong with the file as a
            whole, such as its header.
    """

    rows: int = 0
    bad_rows: int = 0
    problems: list[str] = field(default_factory=list)


def check_file(file: Path, file_format: FileFormat, max_errors: int) -> FileCheck:
    """Read all rows of a file as a load does, and return what would load.

    Args:
        file: a local file, which may be compressed.
        file_format: what it must look like.
        max_errors: how many bad rows to name.

    Raises:
        InvalidFileError: the file does not exist.
    """
    if not file.is_file():
        raise InvalidFileError(f"{file} is not a file")
    problems = validate_file(file.name, file_format, "fail", max_errors, str(file.parent))
    rows = bad_rows = 0
    try:
        with DropFolder(str(file.parent)).local_copy(file.name) as copy:
            for batch in file_format.read(copy):
                rows += len(batch.rows)
                bad_rows += len(batch.rejected)
    except (ValueError, RecursionError, InvalidFileError):  # it is among the problems
        return FileCheck(problems=problems)
    return FileCheck(rows, bad_rows, problems)
