"""`etl new` creates a complete pipeline, or changes nothing; `copier update` updates it later."""

import json
import os
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import openpyxl
import psycopg2
import pytest
from typer.testing import CliRunner

from shared.cli import app
from shared.sources.recorded import replay_api
from shared.testing.postgres_server import PostgresServer
from support.processes import python, run_script

KINDS = ("list", "csv", "api", "file", "excel", "private", "url", "rest", "sqlite", "postgres")
"""The rows come from a list, CSV files, a template of an API, a CSV file, a workbook, a file without a sample, a
file on a web server, a JSON API, and databases."""
PACKAGES = [f"from_{kind}_etl" for kind in KINDS]
PROJECTS = [f"projects/{package}" for package in PACKAGES]
NOWHERE = "http://127.0.0.1:9"

WORKSPACE_TESTS = ["tests/test_workspace.py", "tests/test_workflows.py"]
NOT_OF_OTHERS = "not (_etl] and not from_api) and not raises_at_import"
"""Skips the tests of the other locations, and those that a new location does not change."""

ROWS_OF_A_DATABASE = """
CREATE TABLE {0} (id integer PRIMARY KEY, email text, updated_at timestamp);
INSERT INTO {0} VALUES (1, 'a', NULL), (2, 'b', NULL), (3, 'c', NULL), (4, 'd', NULL), (5, 'e', NULL);
"""

FAILING = """

def test_that_fails() -> None:
    raise AssertionError
"""


def content(folder: Path) -> dict[str, bytes | None]:
    """Return the files of a folder with their content, and its folders."""
    paths = {path: path.is_file() for path in folder.rglob("*") if "__pycache__" not in path.parts}
    return {str(path): path.read_bytes() if file else None for path, file in paths.items()}


def databases(folder: Path, server: PostgresServer) -> dict[str, list[str]]:
    """Create a database of each kind with one table, and return their URLs."""
    with closing(sqlite3.connect(folder / "shop.db")) as file:
        file.executescript(ROWS_OF_A_DATABASE.format("from_sqlite"))
    url = server.warehouse()
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(ROWS_OF_A_DATABASE.format("from_postgres"))
    return {"sqlite": [f"sqlite:///{folder}/shop.db"], "postgres": [url]}


def write_exports(exports: Path) -> Path:
    """Write the same rows as a CSV file, which is returned, and as a workbook."""
    export = exports / "orders.csv"
    export.write_text(
        "id,code,ordered\n" + "".join(f"{n},0{n},0{n}/12/2024\n" for n in range(1, 6))
    )
    workbook = openpyxl.Workbook()
    for row in (["id", "code"], *([n, f"0{n}"] for n in range(1, 6))):
        workbook.active.append(row)
    workbook.save(exports / "orders.xlsx")
    return export


@pytest.mark.slow
def test_a_pipeline_of_each_kind_is_complete(
    root: Path,
    clone: Path,
    shell: dict[str, str],
    tmp_path: Path,
    warehouse_server: PostgresServer,
    start_fast: Callable[[], None],
) -> None:
    def call(*command: str, folder: Path = clone) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env=shell,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    exports = tmp_path / "exports"
    exports.mkdir()
    export = write_exports(exports)
    shell["SOURCES__FROM_PRIVATE__FOLDER"] = str(exports)
    files = {
        "file": [str(export)],
        "excel": [str(exports / "orders.xlsx")],
        "private": [str(export), "--no-sample"],
        **databases(exports, warehouse_server),
    }
    lists = [clone / name for name in ("workspace.yaml", "dg.toml", ".github/CODEOWNERS")]
    before = [file.read_text() for file in lists]
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(export, site / "orders.csv.json")  # the server adds the suffix
    answer = {"data": [{"id": n, "tags": ["a"], "customer": {"id": n}} for n in range(1, 6)]}
    (site / "orders.json").write_text(json.dumps({**answer, "next": None}))
    for kind in KINDS:
        with replay_api(site) as server:
            files |= {"url": [f"{server}/orders.csv"], "rest": [f"{server}/orders"]}
            command = ["uv", "run", "etl", "new", f"from_{kind}", "--from"]
            # Loads and tests of all kinds together are below.
            stop = [] if kind == "file" else ["--no-run"]
            output = call(*command, *files.get(kind, [kind]), *stop, folder=clone / "docs")
            start_fast()
            if kind == "file":
                assert re.search(r"from_file/from_file +5 ", output), "its sample is loaded"
                assert "[100%]" in output, "its tests pass"
        assert f"uv run etl run from_{kind}_etl " in output.partition("Next:\n")[2]
    for file, text in zip(lists, before, strict=True):
        assert file.read_text().startswith(text), "the existing entries are unchanged"
    assert "/projects/from_csv_etl/  @example/from-csv\n" in lists[2].read_text()

    call(str(clone / ".venv" / "bin" / "python"), "-c", f"import {', '.join(PACKAGES)}")

    # From here on, use this environment, which has its bytecode. The proxy does not exist, so that
    # nothing outside this machine is reached.
    preloaded = (python(), "-m")
    shell["PYTHONPATH"] = os.pathsep.join(str(clone / project / "src") for project in PROJECTS)
    shell |= {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1"}
    output = call(*preloaded, "shared.cli", "run", *PACKAGES)
    loaded = {tuple(line.split()[:2]) for line in output.splitlines() if line.startswith(" from_")}
    assert loaded == {(f"from_{kind}/from_{kind}", "5") for kind in KINDS}

    call(*preloaded, "ruff", "check", *PROJECTS)
    call(*preloaded, "ruff", "format", "--check", *PROJECTS)
    parts = [f"{project}/{part}" for project in PROJECTS for part in ("src", "tests")]
    call(*preloaded, "mypy", "--cache-dir", str(root / ".mypy_cache"), *parts)

    affected = runpy.run_path(str(clone / ".github" / "changed_members.py"))["affected"]
    assert set(PROJECTS) <= {member["folder"] for member in affected(["uv.lock"])}
    broken = clone / PROJECTS[0] / "tests" / f"test_{PACKAGES[0]}.py"
    changed = str(broken.relative_to(clone))
    assert [member["folder"] for member in affected([changed])] == PROJECTS[:1]
    broken.write_text(broken.read_text() + FAILING)
    tested = subprocess.run(
        [*preloaded, "pytest", "-n", "0", *PROJECTS, *WORKSPACE_TESTS, "-k", NOT_OF_OTHERS],
        cwd=clone,
        env=shell,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [line for line in tested.stdout.splitlines() if line.startswith("FAILED")]
    assert [line.split()[1] for line in failed] == [f"{changed}::test_that_fails"], tested.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is not a valid pipeline name"),
        ("Orders", "is not a valid pipeline name"),
        ("web-orders", "is not a valid pipeline name"),
        ("2nd_orders", "is not a valid pipeline name"),
        ("web__orders", "is not a valid pipeline name"),
        ("_orders", "is not a valid pipeline name"),
        ("orders_", "is not a valid pipeline name"),
        ("../orders", "is not a valid pipeline name"),
        ("größe", "is not a valid pipeline name"),
        ("o" * 41, "is not a valid pipeline name"),
        ("class", "'class' is a Python keyword"),
        ("json", "'json' is a module of Python"),
        ("dagster", "'dagster' is an installed package"),
        ("shared_etl", "'shared' is an installed package"),
        ("order", "'order' is reserved in DuckDB"),
        ("temp", "'temp' is reserved in DuckDB"),
        ("warehouse", "'warehouse' is the name of the warehouse"),
        ("simple", "projects/simple_etl exists"),
        ("simple_etl", "projects/simple_etl exists"),
        ("nasa_neo", "another pipeline has the name or the dataset 'nasa_neo'"),
        ("csv_data_staging", "another pipeline has the name or the dataset 'csv_data_staging'"),
    ],
)
def test_an_invalid_name_is_one_clear_line_and_changes_nothing(
    clone: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    before = content(clone)
    monkeypatch.chdir(clone)
    monkeypatch.setenv("PWD", str(clone))
    monkeypatch.setenv("DAGSTER_HOME", str(clone))
    monkeypatch.setenv("WAREHOUSE_PATH", "data/warehouse.duckdb")
    done = CliRunner().invoke(app, ["new", name])
    assert done.exit_code == 2
    assert reason in done.output
    assert len(done.output.splitlines()) == 1
    assert content(clone) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--from", "gone.csv"],
            "gone.csv': it must be list, csv, api, dbt, sql, the path of a file or a folder, or a URL",
        ),
        (["--from", "csv", "--no-sample"], "--no-sample is for a pipeline from files"),
        (["--from", "values.txt"], "its name must end in .csv, .parquet, "),
        (["--from", "values.xlsx"], "values.xlsx: it cannot be read as Excel"),
        (["--from", "values.parquet.gz"], "values.parquet.gz: decompress it first"),
        (["--from", "workspace.yaml", "--style", "component"], "leave out --style"),
        (["--from", "values.csv"], "values.csv: x is twice in the header"),
        (["--from", "sqlite:///gone.db"], "There is no file "),
        (["--from", "sqlite:///gone.db", "--no-sample"], "--from is a database"),
        (
            ["--from", "oracle://reader:hunter22@host/shop"],
            "oracle:// is not the URL of a database",
        ),
        (["--from", "mysql://reader:hunter22@127.0.0.1:9/shop"], "Check the host and the port"),
    ],
)
def test_a_file_that_proposes_nothing_is_one_clear_line_and_changes_nothing(
    clone: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    for suffix in ("csv", "txt", "xlsx", "parquet.gz"):
        (clone / f"values.{suffix}").write_text("x,x\n3,4\n")
    before = content(clone)
    monkeypatch.chdir(clone)
    monkeypatch.setenv("WAREHOUSE_PATH", "data/warehouse.duckdb")
    done = CliRunner().invoke(app, ["new", "web_orders", *arguments])
    assert done.exit_code == 1
    assert message in done.output
    assert "hunter22" not in done.output
    assert len(done.output.splitlines()) == 1
    assert content(clone) == before, "the message says so, or gives the next step"


def test_a_path_starts_at_the_folder_of_the_command(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clone / "docs" / "values.csv").write_text("x,x\n3,4\n")
    monkeypatch.chdir(clone / "docs")
    monkeypatch.setenv("WAREHOUSE_PATH", "data/warehouse.duckdb")
    done = CliRunner().invoke(app, ["new", "web_orders", "--from", "values.csv"])
    assert "values.csv: x is twice in the header" in done.output


def test_a_key_of_an_api_is_not_shown(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setenv("WAREHOUSE_PATH", "data/warehouse.duckdb")
    url = f"{NOWHERE}/orders?api_key=hunter22-hunter22"
    done = CliRunner().invoke(app, ["new", "web_orders", "--from", url])
    assert done.exit_code == 1
    assert "/orders?api_key=*** cannot be read: " in done.output
    assert "hunter22" not in done.output
    assert "Nothing was changed" in done.output
    assert len(done.output.splitlines()) == 1


def new(clone: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python(), "-m", "shared.cli", "new", *arguments],
        cwd=clone,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # In background test runs SIGINT is ignored, and child processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_if_locking_fails_nothing_is_changed(clone: Path, tmp_path: Path) -> None:
    before = content(clone)
    process = new(clone, "web_orders", UV_OFFLINE="1", UV_CACHE_DIR=str(tmp_path / "empty"))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.startswith("uv failed, so nothing was changed: ")
    assert "network" in output
    assert len(output.splitlines()) == 1
    assert content(clone) == before


def test_a_repository_without_codeowners_gets_a_pipeline_too(clone: Path, tmp_path: Path) -> None:
    (clone / ".github" / "CODEOWNERS").unlink()
    before = content(clone)
    process = new(clone, "web_orders", UV_OFFLINE="1", UV_CACHE_DIR=str(tmp_path / "empty"))
    output, _ = process.communicate(timeout=120)
    assert output.startswith("uv failed, so nothing was changed: ")  # the last step
    assert content(clone) == before


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("workspace.yaml", "load_from: [\n", "workspace.yaml does not list code locations"),
        ("workspace.yaml", "load_from:\n", "workspace.yaml does not list code locations"),
        ("workspace.yaml", "", "workspace.yaml does not list code locations"),
        ("dg.toml", None, "dg.toml is missing"),
    ],
)
def test_a_broken_list_of_locations_is_one_clear_line_and_changes_nothing(
    clone: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str | None, message: str
) -> None:
    (clone / file).unlink() if text is None else (clone / file).write_text(text)
    before = content(clone)
    monkeypatch.chdir(clone)
    monkeypatch.setenv("WAREHOUSE_PATH", "data/warehouse.duckdb")
    done = CliRunner().invoke(app, ["new", "web_orders"])
    assert done.exit_code == 1
    assert message in done.output
    assert len(done.output.splitlines()) == 1
    assert content(clone) == before


def test_a_list_that_cannot_be_extended_is_named_and_nothing_is_changed(clone: Path) -> None:
    with (clone / "workspace.yaml").open("a") as workspace:
        workspace.write("telemetry: {}\n")
    before = content(clone)
    process = new(clone, "web_orders")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.startswith("workspace.yaml and dg.toml must end with their lists of locations")
    assert content(clone) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_command_changes_nothing(
    clone: Path, tmp_path: Path, number: signal.Signals
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    slow = tmp_path / "uv"
    slow.write_text(f"#!/bin/sh\necho > {started}\nexec sleep 600\n")
    slow.chmod(0o755)
    before = content(clone)
    process = new(clone, "web_orders", UV=str(slow))
    try:
        started.read_text()  # blocks until uv is started
        assert (clone / "projects" / "web_orders_etl").exists()
        assert content(clone) != before
        os.killpg(process.pid, number)
        process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert content(clone) == before


UPSTREAM = "https://github.com/example/embedded-etl.git"
ORIGIN = "https://github.com/our-company/our-etl.git"
"""The URLs in docs/adopt.md. The test replaces them by local repositories."""


def test_a_fork_takes_a_later_version_and_a_project_keeps_its_edits(
    root: Path, clone: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        shell |= {f"GIT_{role}_NAME": "test", f"GIT_{role}_EMAIL": "test@example.com"}
    etl, copier = f"{python()} -m shared.cli", f"{python()} -m copier"

    def run(script: str, folder: Path) -> str:
        script = script.replace(UPSTREAM, str(clone)).replace(ORIGIN, str(tmp_path / "origin"))
        script = script.replace("uv run etl", etl).replace("uv run copier", copier)
        return run_script(script, folder, shell)

    page = (root / "docs" / "adopt.md").read_text()
    fork, create, take, update = re.findall(r"^```shell\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    run("git init --quiet --initial-branch main && git add --all", clone)
    run("git commit --quiet --message 0.1.0 && git tag v0.1.0", clone)
    run("git init --quiet --bare origin", tmp_path)
    run(fork, tmp_path)
    ours = tmp_path / "our-etl"
    run(create, ours)
    project = ours / "projects" / "orders_etl"
    assert "_commit: v0.1.0" in (project / ".copier-answers.yml").read_text()

    readme, definitions = project / "README.md", project / "src" / "orders_etl" / "definitions.py"
    readme.write_text(readme.read_text() + "\nOur own note.\n")
    definitions.write_text(definitions.read_text() + "\nOUR_OWN_NAME = 1\n")
    run("git commit --quiet --all --message 'Our edits'", ours)

    templates = clone / "shared" / "src" / "shared" / "cli" / "templates" / "{{ common }}"
    (template,) = templates.glob("src/*/definitions.py.jinja")
    first_line, _, rest = template.read_text().partition("\n")
    template.write_text(f'"""The definitions of `{{{{ package }}}}`."""\n{rest}')
    assert first_line == '"""The code location `{{ package }}`."""'
    (templates / "NOTICE.jinja").write_text("{{ title }}\n")
    run("git add --all && git commit --quiet --message 0.2.0 && git tag v0.2.0", clone)

    run(take, ours)
    before = definitions.read_text()
    assert before.startswith(first_line.replace("{{ package }}", "orders_etl"))
    difference = run(update, ours)
    assert "-_commit: v0.1.0" in difference
    assert "+_commit: v0.2.0" in difference
    assert definitions.read_text() == before.replace(
        "The code location `orders_etl`.", "The definitions of `orders_etl`."
    )
    assert readme.read_text().endswith("\nOur own note.\n")
    assert (project / "NOTICE").read_text() == "orders\n"
    changed = run("git status --porcelain", ours).splitlines()
    assert sorted(line[3:] for line in changed) == [
        "projects/orders_etl/.copier-answers.yml",
        "projects/orders_etl/NOTICE",
        "projects/orders_etl/src/orders_etl/definitions.py",
    ]


def test_the_templates_are_part_of_the_package(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [os.environ["UV"], "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), "shared"],
        cwd=root,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    source = root / "shared" / "src"
    templates = source / "shared" / "cli" / "templates"
    files = {str(path.relative_to(source)) for path in templates.rglob("*") if path.is_file()}
    with ZipFile(wheel) as packed:
        assert files <= set(packed.namelist())
    assert len(files) > 15
