"""`etl` in environments: each has its own tables and history, and production is changed on purpose only."""

import json
import os
import pty
import subprocess
from pathlib import Path

import duckdb

from shared import environments
from support.processes import etl, python, workspace


def without_home(environment: dict[str, str], name: str) -> dict[str, str]:
    """Return the variables of a user in an environment, in a workspace with one location."""
    root = workspace(environment)
    module = {"module_name": "simple_etl.definitions", "location_name": "simple_etl"}
    (root / "workspace.yaml").write_text(json.dumps({"load_from": [{"python_module": module}]}))
    (root / environments.FILE).write_text("[production]\n[dev]\n")
    if not (root / "dagster.yaml").exists():
        (root / "dagster.yaml").write_text(
            "storage:\n  sqlite:\n    base_dir: .dagster/storage\ntelemetry:\n  enabled: false\n"
        )
    others = {key: value for key, value in environment.items() if key != "DAGSTER_HOME"}
    return others | {"ETL_ENVIRONMENT": name}


def test_an_environment_on_a_laptop_has_its_own_file_and_history_until_it_is_dropped(
    etl_environment: dict[str, str],
) -> None:
    preview = without_home(etl_environment, "pr-7")
    done = etl(preview, "run", "--json")
    assert done.returncode == 0, done.stderr
    (asset,) = json.loads(done.stdout)
    assert asset["table"] == "simple.load_dict"
    default = Path(etl_environment["WAREHOUSE_PATH"])
    file = default.with_stem(f"{default.stem}_pr_7")
    assert not default.exists()
    with duckdb.connect(file, read_only=True) as connection:
        assert connection.execute("FROM _etl_environment").fetchall() == [("pr-7",)]
    root = workspace(etl_environment)
    assert not (root / ".dagster" / "storage").exists()
    assert (root / ".dagster/environments/pr_7/.dagster/storage").exists()

    shown = json.loads(etl(preview, "env", "show", "--json").stdout)
    assert shown["file"] == str(file)
    assert shown["DAGSTER_HOME"] == str(root / ".dagster/environments/pr_7")
    listed = json.loads(etl(preview, "env", "list", "--json").stdout)
    assert {each["name"]: each["stored"] for each in listed} == {
        "production": [],
        "dev": [],
        "pr-7": [str(file)],
    }
    dropped = json.loads(etl(preview, "env", "drop", "pr-7", "--json").stdout)
    assert dropped == {"name": "pr-7", "dropped": [str(file)]}
    assert not file.exists()
    assert not (root / ".dagster/environments/pr_7").exists()
    assert "pr-7 has no tables" in etl(preview, "env", "drop", "pr-7").stderr


def test_production_is_loaded_after_a_confirmation_only(etl_environment: dict[str, str]) -> None:
    production = without_home(etl_environment, "production")
    refused = etl(production, "run")
    assert refused.returncode == 2
    assert "There is no terminal to confirm it; add --yes" in refused.stderr
    assert answered(production, "n")[0] == 1
    assert not Path(etl_environment["WAREHOUSE_PATH"]).exists()
    code, output = answered(production, "y")
    assert code == 0, output
    assert "the tables that others use" in output
    assert Path(etl_environment["WAREHOUSE_PATH"]).exists()
    assert etl(production, "env", "drop", "production", "--yes").returncode == 1
    assert etl(production, "run", "--yes").returncode == 0


def answered(environment: dict[str, str], answer: str) -> tuple[int, str]:
    """Run `etl run` in a terminal, answer its question, and return its exit code and output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [python(), "-m", "shared.cli", "run"],
        cwd=workspace(environment),
        env=environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        os.write(ours, f"{answer}\n".encode())
        output, _ = process.communicate()
    os.close(ours)
    os.close(theirs)
    return process.returncode, output


def test_a_wrong_environment_ends_every_command_with_one_line(
    etl_environment: dict[str, str],
) -> None:
    wrong = without_home(etl_environment, "produciton")
    for command in (["run"], ["show"], ["env", "list"], ["env", "show"]):
        done = etl(wrong, *command)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "did you mean production?" in done.stderr
    asked = etl(without_home(etl_environment, "local"), "env", "drop", "dev")
    assert asked.returncode == 2
    assert "dev is in environments.toml" in asked.stderr
