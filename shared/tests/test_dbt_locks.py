"""dbt and loads wait for each other, also if one of them is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from dagster_dbt import DbtProject

from shared import warehouse
from shared.testing.dbt_project import OBJECTS, load_objects, models_of, parsed_dbt_project
from support.processes import python

SLOW = """
select 1 as id
{%- if var('slow', false) %} from
{%- if target.type == 'duckdb' %} range(1000000000000) as numbers(n) where n < 0
{%- else %} pg_sleep(5) {% endif %}
{%- endif %}
"""
"""A model that takes long while dbt has the variable `slow`."""

PROCESS = """
import sys
from pathlib import Path

import dagster as dg

from shared.orchestration.dbt import dbt_project
from shared.testing.dbt_project import load_objects, models_of

if sys.argv[1] == "load":
    for _ in range(3):
        load_objects()
else:
    models = models_of(dbt_project(Path(sys.argv[2])), {"slow": sys.argv[1] == "slow"})
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([models], instance=instance).success
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> DbtProject:
    """The project that `etl new` creates, with a slow model."""
    return parsed_dbt_project(tmp_path_factory, "slow", {"slow.sql": SLOW})


def start(what: str, project: DbtProject) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [python(), "-c", PROCESS, what, str(project.project_dir)],
        # A run of dbt takes a minute on a machine that is busy.
        env={**os.environ, "WAREHOUSE_WAIT_SECONDS": "600"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_one_writer_at_a_time_has_the_lock(
    any_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0")
    with warehouse.write_lock(["mart", "nasa_neo"]):
        with pytest.raises(warehouse.LockTimeoutError, match=f"pid {os.getpid()}"):
            load_objects()
        with pytest.raises(warehouse.LockTimeoutError), warehouse.write_lock(["mart"]):
            pass
    load_objects()
    with warehouse.write_lock(["mart"]):
        if any_warehouse == "postgres":
            load_objects()  # into another dataset
        assert warehouse.query("SELECT count(*) AS n FROM nasa_neo.near_earth_objects")


def test_the_lock_of_a_file_has_no_connection_and_waits_for_other_programs(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0")
    file = tmp_warehouse / "warehouse.duckdb"
    with warehouse.write_lock(["mart"]):
        script = f"import duckdb; duckdb.connect({str(file)!r}).execute('CREATE TABLE t (id INT)')"
        subprocess.run([sys.executable, "-c", script], check=True)
    script = (
        f"import duckdb, sys; c = duckdb.connect({str(file)!r}); print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        with (
            pytest.raises(warehouse.LockTimeoutError, match=f"PID {other.pid}"),
            warehouse.write_lock(["mart"]),
        ):
            pass
        other.communicate("end\n")
    with warehouse.write_lock(["mart"]), duckdb.connect(str(file)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_the_lock_of_a_preview_waits_for_loads_into_production_whose_tables_it_reads(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tmp_warehouse
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0")
    with warehouse.exclusive_connection():
        monkeypatch.setenv("ETL_ENVIRONMENT", "pr-1")
        with pytest.raises(warehouse.LockTimeoutError), warehouse.write_lock(["mart"]):
            pytest.fail("a load writes into production")
    with warehouse.write_lock(["mart"]):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("any_warehouse")
def test_models_and_loads_at_the_same_time_wait_for_each_other(project: DbtProject) -> None:
    load_objects()
    processes = [start(what, project) for what in ("build", "load", "build", "load")]
    for process in processes:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
    rows = warehouse.query("SELECT sum(asteroids) AS n FROM mart.asteroids_per_week")
    assert rows == [{"n": len(OBJECTS)}]


@pytest.mark.slow
@pytest.mark.usefixtures("any_warehouse")
def test_after_a_killed_run_the_lock_is_free_and_the_next_run_is_correct(
    project: DbtProject, instance: dg.DagsterInstance
) -> None:
    load_objects()
    killed = start("slow", project)
    assert killed.stdout
    for line in killed.stdout:
        if "START sql table model mart.slow" in line:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    load_objects(OBJECTS[:1])
    assert dg.materialize([models_of(project)], instance=instance).success
    rows = warehouse.query("SELECT sum(asteroids) AS n FROM mart.asteroids_per_week")
    assert rows == [{"n": 1}]
    assert warehouse.query("SELECT id FROM mart.slow") == [{"id": 1}]
