"""`etl new`: makes a pipeline, a project of its own that loads a sample at once."""

import keyword
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml

from shared import settings
from shared.cli.locations import code_locations
from shared.cli.terminal import console, stop

TEMPLATES = Path(__file__).parent / "templates"
"""What a project is made of: `common`, and a folder for what differs by where the rows come from."""

LONGEST_NAME = 40
"""Letters; tables, pipelines and files are named after it, and databases cut long names."""


class InvalidNameError(Exception):
    """A name that no new pipeline can have; the message says why."""


class ScaffoldError(Exception):
    """Something else stands in the way; the message says what, and what to do."""


def new(
    name: Annotated[
        str, typer.Argument(help="What it loads, such as orders: the dataset and the table.")
    ],
    source: Annotated[
        Literal["csv", "api", "list"],
        typer.Option(
            "--from", help="Where rows come from: files of a folder, a web API, a list in the code."
        ),
    ] = "list",
    style: Annotated[
        Literal["code", "component"],
        typer.Option(help="How the load is written: assets.py, or a Dagster component in YAML."),
    ] = "code",
) -> None:
    """Makes a pipeline: the project projects/NAME_etl, with a sample that it loads at once.

    It is put into workspace.yaml, dg.toml and CODEOWNERS, locked and installed; CI finds it by itself.
    Where anything fails, nothing has changed.
    """
    root = settings.workspace_root()
    name = name.removesuffix("_etl")
    package = f"{name}_etl"
    try:
        refuse(name, root)
        with tempfile.TemporaryDirectory() as folder:
            made = _made(Path(folder) / package, name, source, root, style)
            _put_in_place(made, root, _lists(name, root))
    except (InvalidNameError, ScaffoldError) as error:
        stop(str(error), 2 if isinstance(error, InvalidNameError) else 1)
    uv = "uv" if shutil.which("uv") else os.path.relpath(_uv(root))  # as `make` put it into .uv/
    console.print(
        f"projects/{package} is made, listed, locked and installed.\n\n"
        "Next:\n"
        f"  {uv} run etl run {package}\n"
        "      loads its sample\n"
        f"  {uv} run dagster dev -w workspace.yaml\n"
        "      shows it: localhost:3000\n"
        f"  cat projects/{package}/README.md\n"
        "      says how to make it yours",
        highlight=False,
        soft_wrap=True,
    )


def refuse(name: str, root: Path) -> None:
    """Refuses a name that a new pipeline of the workspace cannot have.

    Raises:
        InvalidNameError: with the reason.
    """
    import duckdb

    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST_NAME:
        raise InvalidNameError(
            f"{name!r} is no name for a pipeline: write up to {LONGEST_NAME} small letters and digits, "
            "words joined by one underscore, such as web_orders."
        )
    package = f"{name}_etl"
    kept = duckdb.execute(
        "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved' "
        "UNION SELECT database_name FROM duckdb_databases() UNION SELECT schema_name FROM duckdb_schemas()"
    ).fetchall()
    named = r"(?:(?:dataset|pipeline)_name\s*=\s*[\"']|^  (?:dataset|pipeline): )(\w+)"
    taken = {
        found.removesuffix("_staging")
        for file in root.glob("projects/*/src/**/*")
        if file.suffix in {".py", ".yaml"}
        for found in re.findall(named, file.read_text(), re.MULTILINE)
    }
    objections = {
        f"projects/{package} exists": (root / "projects" / package).exists(),
        f"workspace.yaml lists {package}": package in code_locations(),
        f"{name!r} is a word of Python": keyword.iskeyword(name),
        f"{name!r} is a module of Python's": name in sys.stdlib_module_names,
        f"{name!r} is an installed package": _is_installed(name) or _is_installed(package),
        f"{name!r} is a word of DuckDB's": (name,) in kept or name.startswith("pg_"),
        f"{name!r} is the warehouse's own name (WAREHOUSE_PATH)": (
            settings.get_path("WAREHOUSE_PATH").stem in {name, f"{name}_staging"}
        ),
        f"another pipeline loads into the dataset {name!r}, or is called so": not taken.isdisjoint(
            {name, name.removesuffix("_staging"), f"{name}_pipeline"}
        ),
    }
    for objection, holds in objections.items():
        if holds:
            raise InvalidNameError(f"{objection}: choose another name.")


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # else a mere folder


def _made(project: Path, name: str, source: str, root: Path, style: str) -> Path:
    """Makes the project in a folder, and returns that."""
    try:
        import copier
        from copier import SettingsModel
    except ModuleNotFoundError:
        raise ScaffoldError(
            "etl new needs copier, which is not installed here: uv sync brings it."
        ) from None
    instance = re.sub(r"\A(#.*\n)+", "", (root / "dagster.yaml").read_text())
    answers = {
        "name": name,
        "package": project.name,
        "title": name.replace("_", " "),
        "source": source,
        "style": style,
        "instance": instance.replace(".dagster/", "../../.dagster/").strip(),
    }
    for template in ("common", source):
        copier.run_copy(
            str(TEMPLATES / template),
            project,
            data=answers,
            settings=SettingsModel(),  # a user's own are for other templates
            quiet=True,
        )
    return project


def _lists(name: str, root: Path) -> dict[Path, str]:
    """Returns the files that list the workspace's projects, with one more.

    Raises:
        ScaffoldError: a file is not written as expected, so nothing can be added at its end.
    """
    package = f"{name}_etl"
    workspace, projects, owners = (
        root / "workspace.yaml",
        root / "dg.toml",
        root / ".github" / "CODEOWNERS",
    )
    listed = {path: path.read_text().rstrip("\n") + "\n" for path in (workspace, projects, owners)}
    before = yaml.safe_load(listed[workspace])
    indent = (re.search(r"^( *)- ", listed[workspace], re.MULTILINE) or "  ")[1]
    for line in (
        "- python_module:",
        f"    module_name: {package}.definitions",
        f"    location_name: {package}",
    ):
        listed[workspace] += f"{indent}{line}\n"
    listed[projects] += f'\n[[workspace.projects]]\npath = "projects/{package}"\n'
    aligned = re.search(r"^(\S+ +)(@[^\s/]+/)?\S*\Z", listed[owners].strip(), re.MULTILINE)
    width, team = (len(aligned[1]), aligned[2] or "@") if aligned else (0, "@")
    path = f"/projects/{package}/"
    listed[owners] += f"{path:<{width - 1}} {team}{name.replace('_', '-')}\n"
    added = {"python_module": {"module_name": f"{package}.definitions", "location_name": package}}
    try:
        understood = yaml.safe_load(listed[workspace])
        tomllib.loads(listed[projects])
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        understood = str(error)
    if understood != {**before, "load_from": [*before["load_from"], added]}:
        raise ScaffoldError(
            "workspace.yaml and dg.toml must end with their lists of locations, a block each, for one "
            "more to be added there."
        )
    return listed


def _put_in_place(made: Path, root: Path, lists: Mapping[Path, str]) -> None:
    """Moves a project into the workspace, lists it, locks and installs.

    Raises:
        ScaffoldError: a program failed.
    """
    project = root / "projects" / made.name
    with _unchanged_on_failure(project, *lists, root / "uv.lock"):
        shutil.move(made, project)
        for path, text in lists.items():
            path.write_text(text)
        # Where an import stands, and where a line breaks, depends on the name.
        for command in (["check", "--select=I", "--fix"], ["format"]):
            _call([sys.executable, "-m", "ruff", *command, "--no-cache", str(project)], root)
        _call([_uv(root), "lock", "--quiet"], root)
        _call([_uv(root), "sync", "--quiet", "--locked", "--inexact"], root)


@contextmanager
def _unchanged_on_failure(project: Path, *files: Path) -> Iterator[None]:
    """Puts back what files held, and removes a project, where its body fails or is interrupted."""
    before = {path: path.read_bytes() for path in files}
    for ends in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed
        signal.signal(ends, lambda *_: sys.exit(1))
    try:
        yield
    except BaseException:
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(again, signal.SIG_IGN)  # a second one must not leave half of it
        for path, content in before.items():
            path.write_bytes(content)
        shutil.rmtree(project, ignore_errors=True)
        raise


def _uv(root: Path) -> str:
    """Returns the program: the one that started this, one on the PATH, or that of `make`."""
    return os.environ.get("UV") or shutil.which("uv") or str(root / ".uv" / "bin" / "uv")


def _call(command: list[str], root: Path) -> None:
    try:
        subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError:
        raise ScaffoldError(f"{command[0]} is not there; nothing was changed.") from None
    except subprocess.CalledProcessError as error:
        told = " ".join((error.stderr or error.stdout or "no word").split())
        program = Path(command[0]).name
        raise ScaffoldError(f"{program} failed, so nothing was changed: {told}") from None
