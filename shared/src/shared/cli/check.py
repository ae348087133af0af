"""`etl check`: say what of a file would load, before anything loads."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.locations import WorkspaceError, code_locations, interpreters
from shared.cli.terminal import AsJson, console, fail, print_json, user_path

if TYPE_CHECKING:  # importing dlt takes a second
    from shared.sources.files.check import FileCheck

MAX_BAD_ROWS = 20
"""How many bad rows of a file are listed."""


class _NoFormatError(Exception):
    """No format, or several, fit a file; the message is the next step."""


def check(
    context: typer.Context,
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="Such as orders_etl.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Local files.")],
    *,
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="The format, if the location has several."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List all bad rows, not only 20.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check files against the format that a code location declares; nothing is loaded or changed.

    For each file: how many rows would load, each bad row with its place, column and reason, and what is
    wrong with its header. The exit code is 1 if something would not load.

    LOCATION declares the format as a constant of a module, such as FILES in source.py.
    """
    from shared.sources.drop_folder import InvalidFileError

    try:
        formats = _formats(location)
        results = {
            file: _check(
                user_path(context, file),
                formats,
                format_name,
                sys.maxsize if every else MAX_BAD_ROWS,
            )
            for file in files
        }
    except (_NoFormatError, WorkspaceError, InvalidFileError) as error:
        fail(f"{str(error).rstrip('.')}. Nothing was checked.", 2)
    if as_json:
        print_json([{"file": file, **asdict(result)} for file, (_, result) in results.items()])
    else:
        for file, (name, result) in results.items():
            _print(file, name, result)
    if any(result.problems for _, result in results.values()):
        raise typer.Exit(1)


def _formats(location: str) -> dict[str, Any]:
    """Return the formats that a location declares, by their names.

    Raises:
        _NoFormatError: the location is unknown, cannot be imported here or declares none.
        WorkspaceError: workspace.yaml is missing or invalid.
    """
    from shared.sources.files import FileFormat

    locations = code_locations()
    name = location if location in locations else f"{location}_etl"
    if name not in locations:
        raise _NoFormatError(
            f"No code location {location!r}; workspace.yaml has {', '.join(locations)}."
        )
    package = locations[name].partition(".")[0]
    try:
        modules = list(_modules(package))
    except ImportError as error:
        python = interpreters().get(name)
        own = f" It has its own Python: {python} -m shared.cli check." if python else ""
        raise _NoFormatError(f"{package} cannot be imported: {error}.{own}") from None
    found: dict[str, Any] = {}
    for module in modules:
        for constant, value in vars(module).items():
            if isinstance(value, FileFormat) and value not in found.values():
                found[f"{module.__name__}:{constant}" if constant in found else constant] = value
    if not found:
        raise _NoFormatError(
            f"{package} declares no format. Write one as a constant of a module, such as "
            f"FILES = CsvFormat(...) in {package}/source.py."
        )
    return found


def _modules(package: str) -> Iterator[ModuleType]:
    """Yield the module `source` of a package, or all of its modules if it has none."""
    folder = import_module(package).__path__
    names = [module.name for module in iter_modules(folder)]
    for name in ["source"] if "source" in names else names:
        yield import_module(f"{package}.{name}")


def _check(
    file: Path, formats: dict[str, Any], wanted: str | None, max_errors: int
) -> tuple[str, "FileCheck"]:
    """Return the name of a file's format, and what of the file would load."""
    from shared.sources.files.check import check_file

    names = [name for name in formats if wanted in (None, name)]
    if len(names) != 1:
        shown = " and ".join(formats)
        raise _NoFormatError(
            f"No format {wanted!r}; there are {shown}."
            if wanted
            else f"There are the formats {shown}: add --format with one of them."
        )
    return names[0], check_file(file, formats[names[0]], max_errors)


def _print(file: str, name: str, result: "FileCheck") -> None:
    """Print what of a file would load."""
    if not result.problems:
        lines: Sequence[str] = [f"{file}: all {result.rows:,} rows load."]
    elif not result.bad_rows:
        lines = [f"{file} does not load:", *_indented(file, result.problems)]
    else:
        hidden = result.bad_rows - len(result.problems)
        lines = [
            f"{file}: {result.rows:,} rows fit, {result.bad_rows:,} do not:",
            *_indented(file, result.problems),
            *([f"  … and {hidden:,} more: --all lists them."] if hidden else []),
            'A file with a bad row loads nothing; with on_bad_rows="quarantine" its other rows load.',
        ]
    if result.problems:
        lines = [*lines, f"Correct the file, or the format {name} of the location."]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _indented(file: str, problems: Sequence[str]) -> list[str]:
    """Return problems without the name of the file, which is above them."""
    return [f"  {problem.removeprefix(f'{Path(file).name}, ')}" for problem in problems]
