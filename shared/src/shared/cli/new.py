"""`etl new`: create a pipeline, a separate project that loads a sample at once."""

import keyword
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
import yaml

from shared import settings
from shared.cli.database_code import FromDatabase, is_url_of_database, propose_tables
from shared.cli.locations import WorkspaceError, code_locations
from shared.cli.proposals import FromFiles, ScaffoldError, is_url_of_file, propose, propose_url
from shared.cli.rest_code import FromApi, propose_api
from shared.cli.source_code import is_url
from shared.cli.terminal import console, fail, find_uv, print_next, user_path

TEMPLATES = ("copier.yml", "shared/src/shared/cli/templates")
"""What a project is rendered from, in the workspace: copier's configuration, and the files."""

MAX_NAME_LENGTH = 40
"""Tables, pipelines and files have this name, and databases truncate long names."""


Kind = Literal["list", "csv", "api", "dbt", "sql"]
_READS_LOADED_TABLES = ("dbt", "sql")


class InvalidNameError(Exception):
    """A name that a new pipeline cannot have; the message gives the reason."""


From = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="list|csv|api|dbt|sql|FILE|FOLDER|URL",
        help="Where rows come from: a list in the code, a CSV file for each day, a web API, models of dbt "
        "or SQL files that read loaded tables, or what the "
        "columns are proposed from: a file, the files of a folder (CSV, Parquet, JSON or Excel), the "
        "URL of a file or a JSON API, or the URL of a database: postgresql://, mysql://, mssql:// or "
        "sqlite:///.",
    ),
]


def new(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="What it loads, such as orders: the dataset and the table.")
    ],
    source: From = "list",
    *,
    style: Annotated[
        Literal["code", "component"],
        typer.Option(help="How the load is written: assets.py, or a Dagster component in YAML."),
    ] = "code",
    sample: Annotated[
        bool,
        typer.Option(
            "--sample/--no-sample",
            help="Whether the project gets the first rows of your files; without them, its tests make up a file.",
        ),
    ] = True,
    run: Annotated[
        bool,
        typer.Option(
            "--run/--no-run",
            help="Whether a proposed pipeline loads its sample, or its tables, and runs its tests at the end.",
        ),
    ] = True,
) -> None:
    """Create a pipeline: the project projects/NAME_etl, with a sample that it loads at once.

    The project is added to workspace.yaml, dg.toml, CODEOWNERS and uv.lock, and is installed. CI
    tests it automatically. If a step fails, nothing is changed. A proposed pipeline then loads its
    sample, or its tables, and runs its tests; if these fail, the project stays.
    """
    root = settings.workspace_root()
    name = name.removesuffix("_etl")
    package = f"{name}_etl"
    try:
        validate_name(name, root)
        lists = _registered(name, root)
        with tempfile.TemporaryDirectory() as folder:
            proposed = _proposed(context, source, style, Path(folder), sample=sample)
            answers = proposed.answers() if proposed else {"source": source}
            project = _render(Path(folder) / package, name, root, **answers, style=style)
            if proposed:
                proposed.write(project, name)
            _install(project, root, lists)
    except (InvalidNameError, ScaffoldError, WorkspaceError) as error:
        fail(str(error), 2 if isinstance(error, InvalidNameError) else 1)
    console.print(f"Created, registered and installed projects/{package}.", highlight=False)
    if proposed:
        console.print(proposed.summary(name), highlight=False, markup=False, soft_wrap=True)
    if proposed and run:
        _try_out(package, root, sample=sample)
    print_next(
        {
            **(proposed.commands(name) if proposed else _commands(source, package)),
            "uv run dagster dev -w workspace.yaml": "show it in the UI: localhost:3000",
            f"cat projects/{package}/README.md": "read how to load your own data",
        }
    )


def _commands(source: str, package: str) -> dict[str, str]:
    """Return what to run in a project from a template, with its purpose."""
    if source in _READS_LOADED_TABLES:
        return {f"uv run etl run api_etl {package}": "load what it reads, and make its table"}
    return {f"uv run etl run {package}": "load its sample"}


def _try_out(package: str, root: Path, *, sample: bool) -> None:
    """Load the sample of a new project and run its tests, and show what they print."""
    steps = [["shared.cli", "run", package]] if sample else []
    for step in [*steps, ["pytest", "-n", "0", f"projects/{package}"]]:
        if subprocess.run([sys.executable, "-m", *step], cwd=root, check=False).returncode:  # noqa: S603
            fail(
                f"{' '.join(step[:2])} failed: the project is created. Correct its source.py, and try "
                f"uv run etl run {package} and uv run pytest projects/{package}."
            )


def validate_name(name: str, root: Path) -> None:
    """Check that a new pipeline of the workspace can have a name.

    Raises:
        InvalidNameError: it cannot; the message gives the reason.
    """
    import duckdb

    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > MAX_NAME_LENGTH:
        raise InvalidNameError(
            f"{name!r} is not a valid pipeline name: use up to {MAX_NAME_LENGTH} lower-case letters "
            "and digits, and single underscores between words, such as web_orders."
        )
    package = f"{name}_etl"
    reserved = duckdb.execute(
        "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved' "
        "UNION SELECT database_name FROM duckdb_databases() UNION SELECT schema_name FROM duckdb_schemas()"
    ).fetchall()
    pattern = r"(?:(?:dataset|pipeline)_name\s*=\s*[\"']|^  (?:dataset|pipeline): )(\w+)"
    used = {
        match.removesuffix("_staging")
        for file in root.glob("projects/*/src/**/*")
        if file.suffix in {".py", ".yaml"}
        for match in re.findall(pattern, file.read_text(), re.MULTILINE)
    }
    warehouse = settings.get_path("WAREHOUSE_PATH").stem
    objections = {
        f"projects/{package} exists": (root / "projects" / package).exists(),
        f"workspace.yaml lists {package}": package in code_locations(),
        f"{name!r} is a Python keyword": keyword.iskeyword(name),
        f"{name!r} is a module of Python": name in sys.stdlib_module_names,
        f"{name!r} is an installed package": _is_installed(name) or _is_installed(package),
        f"{name!r} is reserved in DuckDB": (name,) in reserved or name.startswith("pg_"),
        f"{name!r} is the name of the warehouse (WAREHOUSE_PATH)": (
            warehouse in {name, f"{name}_staging"}
        ),
        f"another pipeline has the name or the dataset {name!r}": not used.isdisjoint(
            {name, name.removesuffix("_staging"), f"{name}_pipeline"}
        ),
    }
    for objection, applies in objections.items():
        if applies:
            raise InvalidNameError(f"{objection}: choose another name.")


def _proposed(
    context: typer.Context, source: str, style: str, folder: Path, *, sample: bool
) -> FromFiles | FromApi | FromDatabase | None:
    """Return the project that `--from` proposes; None for a kind of project that is a template only.

    Args:
        context: knows the folder of the command.
        source: a kind, a URL or a path.
        style: how the load is written.
        folder: gets the file of a URL.
        sample: whether the project gets rows of the files.

    Raises:
        ScaffoldError: nothing can be proposed, or an option does not fit.
    """
    is_api = is_url(source) and not is_url_of_file(source)
    is_database = is_url_of_database(source)
    if not sample and (source in get_args(Kind) or is_api or is_database):
        kind = "a database" if is_database else source
        raise ScaffoldError(
            f"--no-sample is for a pipeline from files, and --from is {kind}: leave it out."
        )
    if source in get_args(Kind) and not (source in _READS_LOADED_TABLES and style == "component"):
        return None
    if style != "code":
        what = (
            "SQL on loaded tables is"
            if source in _READS_LOADED_TABLES
            else "A proposed pipeline is"
        )
        raise ScaffoldError(f"{what} written as code: leave out --style.")
    if is_database:
        return propose_tables(source, context.obj)
    if is_url(source):
        return propose_api(source) if is_api else FromFiles(propose_url(source, folder), sample)
    path = user_path(context, source)
    if not path.is_file() and not path.is_dir():
        kinds = ", ".join(get_args(Kind))
        raise ScaffoldError(
            f"--from is {source!r}: it must be {kinds}, the path of a file or a folder, or a URL. "
            "Nothing was changed."
        )
    return FromFiles(propose(path), sample)


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # without an origin, it is only a folder


def _render(project: Path, name: str, root: Path, **answers: str | bool) -> Path:
    """Render the project into a folder, and return the folder."""
    try:
        import copier
    except ModuleNotFoundError:
        raise ScaffoldError(
            "etl new needs copier, which is not installed: uv sync installs it."
        ) from None
    # The commit that last changed the templates: copier records it for later updates.
    commit = ""
    if (root / ".git").exists():
        commit = _call(["git", "log", "-1", "--format=%H", "--", *TEMPLATES], root).strip()
    copier.run_copy(
        str(root),
        project,
        data={"name": name, **answers},
        vcs_ref=commit or "HEAD",
        settings=copier.Settings(),  # ignores the user's settings for other templates
        quiet=True,
    )
    return project


def _registered(name: str, root: Path) -> dict[Path, str]:
    """Return the files that list the workspace's projects, with the new project added.

    Raises:
        ScaffoldError: a file has an unexpected form, so nothing can be added at its end.
    """
    package = f"{name}_etl"
    workspace, dg, owners = (
        root / file for file in ("workspace.yaml", "dg.toml", ".github/CODEOWNERS")
    )
    if not dg.is_file():
        raise ScaffoldError(f"{dg} is missing; the list of projects in it gets the new one.")
    lists = [path for path in (workspace, dg, owners) if path.is_file()]
    texts = {path: path.read_text().rstrip("\n") + "\n" for path in lists}
    before = yaml.safe_load(texts[workspace])
    indent = (re.search(r"^( *)- ", texts[workspace], re.MULTILINE) or "  ")[1]
    block = "- python_module:\n    module_name: {0}.definitions\n    location_name: {0}\n"
    texts[workspace] += textwrap.indent(block.format(package), indent)
    texts[dg] += f'\n[[workspace.projects]]\npath = "projects/{package}"\n'
    if owners in texts:  # a repository that is not on GitHub has none
        texts[owners] += _owner_line(name, texts[owners])
    entry = {"python_module": {"module_name": f"{package}.definitions", "location_name": package}}
    try:
        after = yaml.safe_load(texts[workspace])
        tomllib.loads(texts[dg])
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        after = str(error)
    if after != {**before, "load_from": [*before["load_from"], entry]}:
        raise ScaffoldError(
            "workspace.yaml and dg.toml must end with their lists of locations, in block style, so "
            "that a location can be added at the end."
        )
    return texts


def _owner_line(name: str, owners: str) -> str:
    """Return the line of CODEOWNERS for a new project, aligned with the last one."""
    aligned = re.search(r"^(\S+ +)(@[^\s/]+/)?\S*\Z", owners.strip(), re.MULTILINE)
    width, team = (len(aligned[1]), aligned[2] or "@") if aligned else (0, "@")
    return f"{f'/projects/{name}_etl/':<{width - 1}} {team}{name.replace('_', '-')}\n"


def _install(rendered: Path, root: Path, texts: Mapping[Path, str]) -> None:
    """Move a project into the workspace, register it, lock and install it, and write its contract.

    Raises:
        ScaffoldError: a program failed.
    """
    project = root / "projects" / rendered.name
    with _rollback_on_failure(project, *texts, root / "uv.lock"):
        shutil.move(rendered, project)
        for path, text in texts.items():
            path.write_text(text)
        # The order of imports and the line breaks depend on the name.
        for command in (["check", "--select=I", "--fix"], ["format"]):
            _call([sys.executable, "-m", "ruff", *command, "--no-cache", str(project)], root)
        uv = find_uv() or "uv"
        _call([uv, "lock", "--quiet"], root)
        _call([uv, "sync", "--quiet", "--locked", "--inexact"], root)
        _call([uv, "run", "--no-sync", "etl", "contract", "--update", rendered.name], root)


@contextmanager
def _rollback_on_failure(project: Path, *files: Path) -> Iterator[None]:
    """Restore files, and remove a project, if the body fails or is interrupted."""
    before = {path: path.read_bytes() for path in files}
    for number in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal is closed
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        yield
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second signal must not stop the rollback
        for path, content in before.items():
            path.write_bytes(content)
        shutil.rmtree(project, ignore_errors=True)
        raise


def _call(command: list[str], root: Path) -> str:
    """Run a program in the workspace and return its output.

    Raises:
        ScaffoldError: it is missing, or it failed.
    """
    try:
        done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError:
        raise ScaffoldError(f"{command[0]} is not installed; nothing was changed.") from None
    except subprocess.CalledProcessError as error:
        output = " ".join((error.stderr or error.stdout or "no output").split())
        raise ScaffoldError(
            f"{Path(command[0]).name} failed, so nothing was changed: {output}"
        ) from None
    return done.stdout
