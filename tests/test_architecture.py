"""The structure of the code: imports run one way, and files, functions and names stay small and clear."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from shared.cli.locations import code_locations
from support.processes import PROGRAMS

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_DEFINITIONS_LINES = 12
VAGUE_NAMES = {"common", "helpers", "manager", "managers", "misc", "util", "utils"}
"""Names of modules that say nothing about what is in them."""

PRODUCTION = ("shared/src", "projects/*/src")
PACKAGES_FOR_PROJECTS = {"orchestration", "settings", "sources", "warehouse"}
"""The packages of `shared` that a project may import."""


def python_files(root: Path) -> Iterator[Path]:
    """Yield the production files, relative to the workspace."""
    for folder in PRODUCTION:
        for file in sorted(root.glob(f"{folder}/**/*.py")):
            yield file.relative_to(root)


def all_python_files(root: Path) -> list[Path]:
    """Return the files of production code, tests, benchmarks and deployment."""
    folders = ("shared", "projects", "tests", "benchmarks", "deploy", ".github")
    return [
        file.relative_to(root)
        for folder in folders
        for file in sorted((root / folder).rglob("*.py"))
        if ".venv" not in file.parts
    ]


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """The imports between `shared` and the projects."""
    return grimp.build_graph("shared", *code_locations(), cache_dir=None)


def test_imports_in_shared_run_one_way_and_in_no_circle(root: Path) -> None:
    linted = subprocess.run(
        [PROGRAMS / "lint-imports", "--no-cache", "pyproject.toml"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_shared_imports_no_project(imports: grimp.ImportGraph) -> None:
    projects = set(code_locations())
    for module in imports.find_descendants("shared") | {"shared"}:
        imported = imports.find_modules_directly_imported_by(module)
        assert not {name for name in imported if name.split(".")[0] in projects}, module


def test_a_project_imports_no_other_project_and_neither_cli_nor_testing(
    imports: grimp.ImportGraph,
) -> None:
    for project in code_locations():
        for module in imports.find_descendants(project) | {project}:
            for name in imports.find_modules_directly_imported_by(module):
                package, _, rest = name.partition(".")
                if package == "shared":
                    part = rest.split(".")[0]
                    assert part in PACKAGES_FOR_PROJECTS, f"{module} imports {name}"
                else:
                    assert package == project, f"{module} imports {name}"


def test_no_file_is_longer_than_400_lines(root: Path) -> None:
    lengths = {file: len((root / file).read_text().splitlines()) for file in python_files(root)}
    assert {str(file): n for file, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_60_lines(root: Path) -> None:
    too_long = {}
    for file in python_files(root):
        for node in ast.walk(ast.parse((root / file).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    too_long[f"{file}:{node.lineno} {node.name}"] = lines
    assert too_long == {}


def test_the_definitions_of_a_project_have_at_most_12_lines(root: Path) -> None:
    files = [file for file in python_files(root) if file.name == "definitions.py"]
    lengths = {
        str(file): len((root / file).read_text().splitlines())
        for file in files
        if file.parts[0] == "projects"
    }
    assert len(lengths) == len(code_locations())
    assert {file: n for file, n in lengths.items() if n > MAX_DEFINITIONS_LINES} == {}


def test_no_module_has_a_name_that_says_nothing(root: Path) -> None:
    vague = [file for file in all_python_files(root) if VAGUE_NAMES & {*file.parts, file.stem}]
    assert vague == []
