"""`etl preview` finds what a branch touches, loads it into an environment of its own, and compares it."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from shared import environments
from shared.cli import app
from shared.cli.code_parts import SourceTree, parts_of_assets
from shared.cli.git_copy import copy_of, merge_base
from shared.cli.instance_home import only_user
from shared.cli.inventories import Inventory
from shared.cli.preview_report import PreviewReport
from shared.cli.preview_tables import StoredTable
from shared.cli.reports import AssetResult, CheckResult
from shared.cli.touched import TouchedAsset, find_touched
from shared.testing.postgres_server import PostgresServer
from support.processes import python, run_script

IDENTITY = {
    f"GIT_{role}_{name}": value
    for role in ("AUTHOR", "COMMITTER")
    for name, value in (("NAME", "test"), ("EMAIL", "test@example.com"))
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def etl(folder: Path, environment: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run `etl` with the code of a clone, and return the exit code, stdout and stderr."""
    sources = [folder / "shared/src", *folder.glob("projects/*/src")]
    done = subprocess.run(
        [python(), "-m", "shared.cli", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join(map(str, sources))},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# What of the code belongs to an asset.


def write(folder: Path, **modules: str) -> Path:
    """Write modules, and other files, of the package `shop`, and return the root."""
    package = folder / "projects/shop/src/shop"
    for name, text in {"__init__": "", **modules}.items():
        file = package / (name.replace("__dot__", ".") if "__dot__" in name else f"{name}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    common = folder / "shared/src/shared"
    common.mkdir(parents=True, exist_ok=True)
    (common / "__init__.py").touch()
    return folder


def changed_parts(tmp_path: Path, modules: list[str], **change: str) -> set[str]:
    """Return the parts of an asset that differ after some files of its package have changed."""
    shop = {
        "assets": "from shop.format import FORMAT\nfrom . import rules\nimport os",
        "format": "FORMAT = 1  # a comment",
        "rules": "def rule():\n    import shop.late",
        "late": "",
        "other": "X = 1",
        "query__dot__sql": "SELECT 1",
        "sql/sums__dot__sql": "SELECT 1",
        "defs/load__dot__yaml": "a: 1",
    }
    asset: dict[str, Any] = {"depends_on": [], "columns": {}, "checks": {}}
    item = Inventory(
        "shop",
        "shop",
        contract={"assets": {"shop/orders": asset}},
        code={
            "shop/orders": {"version": None, "modules": modules, "sql_file": None},
            "shop/sums": {"version": "1", "modules": [], "sql_file": "sums.sql"},
        },
    )
    before, after = write(tmp_path / "a", **shop), write(tmp_path / "b", **shop | change)
    one, other = (parts_of_assets(root, [item])["shop/orders"] for root in (before, after))
    return {part for part in one.keys() | other.keys() if one.get(part) != other.get(part)}


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ({"assets": "X = 1"}, {"shop.assets", "shop.format", "shop.rules", "shop.late"}),
        ({"format": "FORMAT = 2"}, {"shop.format"}),
        ({"late": "X = 1"}, {"shop.late"}),
        ({"query__dot__sql": "SELECT 2"}, {"shop/query.sql"}),
        ({"format": "# another comment\nFORMAT = (\n    1\n)"}, set()),
        ({"other": "X = 2"}, set()),
        ({"sql/sums__dot__sql": "SELECT 2"}, set()),  # that of another asset
        ({"defs/load__dot__yaml": "a: 2"}, set()),
    ],
)
def test_an_asset_consists_of_what_its_module_imports_and_of_the_files_of_its_package(
    tmp_path: Path, change: dict[str, str], touched: set[str]
) -> None:
    assert changed_parts(tmp_path, ["shop.assets"], **change) == touched


def test_an_asset_of_a_yaml_file_consists_of_its_complete_package(tmp_path: Path) -> None:
    assert changed_parts(tmp_path, [], other="X = 2") == {"shop.other"}
    yaml = {"defs/load__dot__yaml": "a: 2"}
    assert changed_parts(tmp_path, [], **yaml) == {"shop/defs/load.yaml"}


def test_relative_imports_and_packages_are_followed(tmp_path: Path) -> None:
    files = {
        "a/__init__": "from .b import c",
        "a/b": "from ..d import e",
        "d/e": "",
        "d/__init__": "",
    }
    write(tmp_path, **files)
    tree = SourceTree([tmp_path / "projects/shop/src"])
    assert tree.reached(["shop.a"]) == {"shop", "shop.a", "shop.a.b", "shop.d", "shop.d.e"}


# What is touched, and in which order it loads.


def located(**locations: dict[str, list[str]]) -> dict[str, Inventory]:
    """Return inventories of locations, each with its assets and what they depend on."""
    return {
        name: Inventory(
            name,
            name,
            contract={"assets": {key: {"depends_on": deps} for key, deps in assets.items()}},
            code={key: {} for key in assets},
        )
        for name, assets in locations.items()
    }


GRAPH = located(
    shop={"shop/orders": [], "shop/days": ["shop/orders"], "shop/back": ["mart/sales"]},
    mart={"mart/sales": ["shop/days", "elsewhere/x"], "mart/other": []},
)
SAME = {key: {"m": "1"} for item in GRAPH.values() for key in item.code}


def described(items: list[TouchedAsset]) -> list[tuple[str, str, int]]:
    return [(item.key, item.description, item.stage) for item in items]


def test_touched_are_the_changed_assets_and_what_depends_on_them_in_the_order_of_loads() -> None:
    head: dict[str, dict[str, str]] = {**SAME, "shop/days": {"m": "2"}}
    assert described(find_touched(SAME, head, GRAPH)) == [
        ("shop/days", "changed: m", 0),
        ("mart/sales", "downstream", 1),
        ("shop/back", "downstream", 2),
    ]
    assert find_touched(SAME, SAME, GRAPH) == []


def test_what_a_touched_asset_reads_is_loaded_if_it_has_no_table() -> None:
    head = {**SAME, "mart/sales": {"m": "2"}}
    assert described(find_touched(SAME, head, GRAPH, readable=lambda _: {"shop/days"})) == [
        ("mart/sales", "changed: m", 1),
        ("shop/back", "downstream", 2),
    ]
    found = described(find_touched(SAME, head, GRAPH, readable=lambda _: set()))
    assert found[:2] == [("shop/days", "upstream", 0), ("shop/orders", "upstream", 0)]


def test_new_removed_and_unknown_assets_are_touched() -> None:
    base = {key: parts for key, parts in SAME.items() if key != "mart/other"} | {"old/x": {}}
    found = described(find_touched(base, SAME, GRAPH, unknown={"shop"}))
    reason = "changed: the base of its location does not load"
    assert found[0] == ("mart/other", "new", 0)
    assert ("shop/orders", reason, 0) in found
    assert found[-1] == ("old/x", "removed", 0)


# The summary.


def report(**values: Any) -> PreviewReport:
    defaults: dict[str, Any] = {
        "base": "main",
        "commit": "a" * 40,
        "environment": "pr-1",
        "before_name": "production",
        "partitions": "those of the sample",
        "touched": [],
        "results": {},
        "before": {},
        "after": {},
        "contract": [],
        "declared": {},
        "notes": [],
    }
    return PreviewReport(**defaults | values)


def test_a_change_that_touches_nothing_says_so() -> None:
    text = report().markdown()
    assert "No asset is touched, so nothing was loaded." in text
    assert not report().has_failed


def test_a_failed_check_of_severity_error_fails_the_preview_and_a_warning_does_not() -> None:
    item = TouchedAsset("shop/orders", "shop", "changed", ("a", "b", "c", "d"))
    for severity in ("ERROR", "WARN"):
        check = CheckResult("unique", passed=False, severity=severity, description="id: 2\n|x|")
        result = AssetResult("shop", "shop/orders", "done", rows=3, checks=(check,))
        made = report(
            touched=[item],
            results={"shop/orders": result},
            before={"shop/orders": StoredTable(1200, {"id": "bigint", "old": "text"})},
            after={"shop/orders": StoredTable(3, {"id": "text", "new": "text"})},
            declared={"shop/orders": {"id": "text not null", "new": "text"}},
        )
        text = made.markdown()
        assert "| changed: a, b, c, 1 more | loaded | 1,200 | 3 | 0 passed, **1 failed** |" in text
        assert "- id bigint\n+ id text\n- old text\n+ new text\n" in text
        assert f"- `shop/orders`, unique ({severity}): id: 2 \\|x\\|" in text
        assert made.migrations == ["uv run etl migrate shop.orders --column id --type 'text'"]
        assert made.has_failed == (severity == "ERROR")


# The commit to compare with.


def test_the_base_is_the_commit_at_which_the_branch_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    (tmp_path / "a.txt").write_text("1")
    commit(tmp_path, "one")
    first = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "switch", "--quiet", "--create", "feature/ünï")
    (tmp_path / "a.txt").write_text("2")
    commit(tmp_path, "ours")
    git(tmp_path, "switch", "--quiet", "main")
    (tmp_path / "b.txt").write_text("theirs")
    commit(tmp_path, "theirs")
    git(tmp_path, "switch", "--quiet", "feature/ünï")
    assert merge_base(tmp_path, "main") == first
    with copy_of(tmp_path, first) as folder:
        assert [file.name for file in folder.iterdir()] == ["a.txt"]
        assert (folder / "a.txt").read_text() == "1"
    assert not folder.exists()
    with pytest.raises(typer.Exit) as ended:
        merge_base(tmp_path, "nowhere")
    assert ended.value.exit_code == 2
    git(tmp_path, "switch", "--quiet", "--orphan", "other")
    commit_empty = ("commit", "--quiet", "--allow-empty", "--message", "other")
    git(tmp_path, *commit_empty)
    with pytest.raises(typer.Exit):
        merge_base(tmp_path, "main")
    first_line, second_line = capsys.readouterr().err.splitlines()
    assert first_line.startswith("There is no commit 'nowhere' in ")
    assert "have no common commit" in second_line


@pytest.mark.parametrize("command", [["preview"], ["env", "drop", "pr-1"]])
def test_a_preview_that_runs_is_not_disturbed(
    command: list[str], tmp_path: Path, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: []")
    (tmp_path / ".gitignore").write_text(".dagster\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    commit(tmp_path, "main")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ETL_ENVIRONMENT", "pr-1")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("PWD", str(tmp_path))
    with only_user(environments.named("pr-1")):
        ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 1
    assert ended.stderr.startswith("A preview of pr-1 runs on this machine: wait for its end")
    assert ended.stderr.count("\n") == 1
    assert (tmp_path / ".dagster/environments/pr_1").is_dir()


# The command, in a copy of the repository.


@pytest.fixture
def repository(clone: Path) -> Path:
    """A clone with a branch main, whose workspace has one location."""
    entry = (
        "  - python_module:\n      module_name: csv_etl.definitions\n      location_name: csv_etl\n"
    )
    (clone / "workspace.yaml").write_text(f"load_from:\n{entry}")
    git(clone, "init", "--quiet", "--initial-branch", "main")
    commit(clone, "main")
    return clone


@pytest.fixture
def user(shell: dict[str, str], clone: Path) -> dict[str, str]:
    """The environment of a user without settings."""
    hidden = ("ETL_", "GITHUB_")
    return {
        **{name: value for name, value in shell.items() if not name.startswith(hidden)},
        "PWD": str(clone),
        "COLUMNS": "120",
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_changed_column_goes_over_a_preview_to_production(
    kind: str,
    root: Path,
    repository: Path,
    user: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    if kind == "postgres":
        server: PostgresServer = request.getfixturevalue("warehouse_server")
        user |= {
            "WAREHOUSE_TYPE": "postgres",
            "DESTINATION__WAREHOUSE__CREDENTIALS": server.warehouse(),
        }
    production, local = ({**user, "ETL_ENVIRONMENT": name} for name in ("production", "local"))
    summary = repository / "data" / "job.md"
    job = {**local, "GITHUB_STEP_SUMMARY": str(summary)}
    sources = os.pathsep.join(
        map(str, [repository / "shared/src", *repository.glob("projects/*/src")])
    )

    def shell(script: str) -> str:
        script = script.replace("uv run etl", f"{python()} -m shared.cli")
        script = script.replace("feature/opening-price", "feature/ünï")
        return run_script(script, repository, {**job, **IDENTITY, "PYTHONPATH": sources})

    def prices() -> Any:
        shown = etl(repository, production, "show", "csv_data.share_prices", "--json")
        table = json.loads(shown[1])
        types = {column["name"]: column["type"] for column in table["columns"]}
        return types["spend"], table["rows"]

    def load() -> tuple[int, str, str]:
        return etl(repository, production, "run", "csv_data/share_prices", "--yes")

    page = (root / "docs/preview.md").read_text()
    change, preview, accept, merge = re.findall(
        r"^```shell\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    assert load()[0] == 0
    assert prices() == ("decimal(18, 4)", 8)
    shell(change)
    shell(preview)
    assert summary.read_text() == (repository / "preview.md").read_text()
    assert (
        "| `csv_data/share_prices` | changed: csv_etl.format, its contract | loaded | 8 | 8 | 1 passed |"
        in page
    )
    assert "| loaded | 8 | 8 | 1 passed |" in summary.read_text()
    assert prices() == ("decimal(18, 4)", 8)  # production has not changed
    shell(accept)
    assert "preview.md" not in git(repository, "ls-files").splitlines()

    status, output, errors = etl(repository, local, "preview", "--json")
    assert status == 0, errors
    document = json.loads(output)
    assert document["environment"] == "feature/ünï"
    assets = {asset["asset"]: asset for asset in document["assets"]}
    prices_asset = assets["csv_data/share_prices"]
    (check,) = prices_asset.pop("checks")
    assert (check["name"], check["passed"]) == ("rows_are_unique", True)
    assert prices_asset == {
        "asset": "csv_data/share_prices",
        "location": "csv_etl",
        "change": "changed",
        "reasons": ["csv_etl.format", "its contract"],
        "status": "done",
        "error": "",
        "rows_before": 8,
        "rows_after": 8,
        "columns": [
            f"- spend {'decimal' if kind == 'duckdb' else 'numeric'}(18,4)",
            f"+ spend {'varchar' if kind == 'duckdb' else 'character varying'}",
        ],
    }
    assert {asset["status"] for asset in assets.values()} == {"done"}
    assert assets["csv_data/share_prices_daily"]["rows_before"] is None  # not in production
    table = "csv_data.share_prices"
    assert document["migrations"] == [f"uv run etl migrate {table} --column spend --type 'text'"]

    steps = merge.splitlines(keepends=True)
    shell("".join(steps[:2]))
    assert "etl migrate" in load()[1]  # production refuses what the summary names
    dropped = shell("".join(steps[2:]))
    assert "Dropped " in dropped
    assert prices() == ("text", 8)

    # A branch that changes only a comment touches nothing.
    shell(
        "git switch --create comment\necho '# a comment' >> projects/csv_etl/src/csv_etl/format.py"
    )
    assert "No asset is touched, so nothing was loaded." in shell(preview)


ASSETS = '''"""Assets."""

import dagster as dg


@dg.asset(key={key!r}, deps=[dg.AssetKey(key) for key in {deps!r}])
def asset() -> None:
    """Load nothing."""
    {body}
'''


def location(root: Path, name: str, key: str, deps: list[str], body: str) -> None:
    """Write a code location with one asset."""
    package = root / "projects" / name / "src" / name
    package.mkdir(parents=True, exist_ok=True)
    (root / "projects" / name / "pyproject.toml").touch()
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(
        f"import dagster as dg\nfrom {name} import assets\n"
        "defs = dg.load_definitions_from_modules([assets])\n"
    )
    keys = [dep.split("/") for dep in deps]
    (package / "assets.py").write_text(ASSETS.format(key=key.split("/"), deps=keys, body=body))


@pytest.mark.slow
def test_failures_of_a_preview_are_one_line_each(tmp_path: Path, user: dict[str, str]) -> None:
    root = tmp_path / "shop"
    location(root, "shop", "shop/orders", [], "x = 1")
    location(root, "mart", "mart/sales", ["shop/orders"], "x = (")  # main is broken
    (root / "workspace.yaml").write_text(
        "load_from:\n"
        "  - python_module: {module_name: shop.definitions, location_name: shop}\n"
        "  - python_module: {module_name: mart.definitions, location_name: mart}\n"
    )
    (root / ".gitignore").write_text("__pycache__\n.dagster\n")
    user = {**user, "PWD": str(root), "ETL_ENVIRONMENT": "local"}
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root, "main")
    on_main = etl(root, user, "preview")
    assert on_main[0] == 2
    assert on_main[2].count("\n") == 1
    assert "check out the branch to preview" in on_main[2]
    git(root, "switch", "--quiet", "--create", "fix")
    broken = etl(root, user, "preview")
    assert broken[0] == 1
    assert broken[2].splitlines()[-1].startswith("mart does not load: SyntaxError: ")

    location(root, "mart", "mart/sales", ["shop/orders"], "x = 2")
    location(root, "shop", "shop/orders", [], 'raise ValueError("no orders")')
    status, output, errors = etl(root, user, "preview", "--json")
    assert status == 1, errors
    document = json.loads(output)
    orders, sales = document["assets"]
    assert (orders["change"], orders["status"]) == ("changed", "failed")
    assert "no orders" in orders["error"]
    assert sales["status"] == "skipped"
    assert sales["error"] == "not run, because shop/orders failed"
    assert sales["reasons"] == ["the base of its location does not load"]
    (note,) = document["notes"]
    assert note.startswith(
        "mart does not load at main, so all of its assets count as changed: Syntax"
    )
    assert "## Failed loads" in (root / "preview.md").read_text()
