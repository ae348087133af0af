"""DuckLake: the settings that it refuses, and the tests in the environment with DuckDB's extensions."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shared import warehouse
from shared.sources.simple import simple_source

ADDRESS = "DESTINATION__WAREHOUSE__CREDENTIALS__"
CATALOG = {"CATALOG": "postgresql://etl:secret@127.0.0.1:9/lake"}
FILES = {
    "STORAGE__BUCKET_URL": "s3://lake/files",
    "STORAGE__CREDENTIALS__AWS_ACCESS_KEY_ID": "key",
    "STORAGE__CREDENTIALS__AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
}


MANY_TRIALS = 100
SHORT_SELECTION = (
    "a_rerun_leaves",
    "reloading_a_day",
    "became_empty",
    "fails_between_delete_and_insert",
    "rows_outside",
    "below_half",
)
"""The tests for few trials: those whose result depends on the warehouse."""


def load_run() -> warehouse.LoadRun:
    """Return a load of the simple source that has not begun."""
    spec = warehouse.pipeline("a_pipeline", "a_dataset")
    return warehouse.LoadRun(warehouse.plan_load(spec, simple_source()))


@pytest.mark.parametrize(
    ("settings", "variable", "reason"),
    [
        ({}, "CATALOG", "catalog is sqlite"),
        (FILES, "CATALOG", "catalog is sqlite"),
        ({**FILES, "CATALOG": "sqlite:///lake.sqlite"}, "CATALOG", "catalog is sqlite"),
        ({**FILES, "CATALOG": "duckdb:///lake.duckdb"}, "CATALOG", "catalog is duckdb"),
        ({**FILES, "CATALOG": "mysql://etl:secret@127.0.0.1/lake"}, "CATALOG", "catalog is mysql"),
        (CATALOG, "STORAGE__BUCKET_URL", "to the working directory"),
    ],
)
def test_a_lake_that_several_machines_cannot_share_is_refused_before_a_request(
    tmp_warehouse: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    variable: str,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_warehouse)
    monkeypatch.setenv("WAREHOUSE_TYPE", "ducklake")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    for name, value in settings.items():
        monkeypatch.setenv(f"{ADDRESS}{name}", value)
    with pytest.raises(warehouse.WarehouseConfigError) as error:
        load_run()
    assert reason in str(error.value)
    assert f"Set {ADDRESS}{variable} to " in str(error.value)
    assert "no request was sent and nothing was loaded" in str(error.value)
    with pytest.raises(warehouse.WarehouseConfigError, match=variable):
        warehouse.query("SELECT 1")
    assert [path.name for path in tmp_warehouse.iterdir()] == ["drop"]


def test_a_catalog_in_postgres_with_files_on_s3_is_accepted(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tmp_warehouse
    monkeypatch.setenv("WAREHOUSE_TYPE", "ducklake")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    for name, value in {**CATALOG, **FILES}.items():
        monkeypatch.setenv(f"{ADDRESS}{name}", value)
    opened = load_run()
    with pytest.raises(warehouse.WarehouseConnectionError, match="port 9"), opened.partition_lock():
        pytest.fail("nothing listens on port 9")


@pytest.mark.slow
def test_loads_into_a_lake_are_exact_with_many_writers_and_kills(
    root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    all_tests = int(request.config.getoption("--trials")) >= MANY_TRIALS
    candidates = (os.environ.get("UV"), shutil.which("uv"), str(root / ".uv" / "bin" / "uv"))
    uv = next((path for path in candidates if path and Path(path).exists()), None)
    if uv is None:
        pytest.skip("uv, which creates the environment, is not in UV, on the PATH or in .uv/bin")
    # Without this, uv would change the environment of this test run.
    ours = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTEST_", "PRELOADED_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [uv, "run", "--project", "tests/ducklake", "--locked", "pytest", "tests/ducklake"]
    done = subprocess.run(
        [
            *command,
            "shared/tests/test_resources.py",
            "--warehouses=ducklake",
            f"--basetemp={tmp_path / 'ducklake'}",
            *(() if all_tests else ("-k", f"test_lake or {' or '.join(SHORT_SELECTION)}")),
        ],
        cwd=root,
        env={**environment, "UV_COMPILE_BYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, f"{' '.join(command)} failed; see its output above"
