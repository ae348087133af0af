"""dbt's models are assets of the workspace: they read what loads wrote, and never collide with a load."""

import json
import os
import subprocess
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_dbt import DbtProject

from shared import warehouse
from shared.orchestration.dataset_owners import table_owners
from shared.orchestration.dbt import dbt_project
from shared.orchestration.dbt.connection import connection_variables
from shared.orchestration.dbt.project import EXECUTABLE, QUIET
from shared.orchestration.translator import WEEKLY_FRESHNESS
from shared.testing.dbt_project import (
    MODEL,
    OBJECTS,
    SOURCE,
    load_objects,
    models_of,
    parsed_dbt_project,
    write_dbt_project,
)

SLOW_ON_SERVERS = True


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> DbtProject:
    """The project that `etl new` creates."""
    return parsed_dbt_project(tmp_path_factory, "dbt")


@pytest.fixture(scope="module")
def models(project: DbtProject) -> dg.AssetsDefinition:
    """Its assets."""
    return models_of(project)


def build(
    models: dg.AssetsDefinition, instance: dg.DagsterInstance, **tags: str
) -> dg.ExecuteInProcessResult:
    return dg.materialize([models], instance=instance, raise_on_error=False, tags=tags)


def message_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data: Any = event.event_specific_data
    return str(data.user_failure_data.description)


def test_a_model_reads_what_was_loaded_and_its_columns_lead_back_to_the_source(
    any_warehouse: str, models: dg.AssetsDefinition, instance: dg.DagsterInstance
) -> None:
    missing = build(models, instance)
    assert message_of(missing) == (
        "MissingTableError: asteroids_per_week reads nasa_neo.near_earth_objects, which the warehouse does "
        "not have yet; no model was built. Load it first: uv run etl run nasa_neo/near_earth_objects"
    )
    load_objects()
    result = build(models, instance)
    assert result.success, message_of(result)
    rows = warehouse.query("SELECT * FROM mart.asteroids_per_week ORDER BY week")
    assert [tuple(row.values()) for row in rows] == [
        (date(2025, 3, 10), "small", 2, 1.5),
        (date(2025, 3, 17), "large", 1, 4.5),
    ]
    (event,) = result.asset_materializations_for_node("mart_models")
    metadata = event.metadata
    assert metadata["dagster/row_count"].value == 2
    assert str(metadata["dagster/table_name"].value).endswith(".mart.asteroids_per_week")
    lineage: Any = metadata["dagster/column_lineage"].value
    assert {
        column: {(dep.asset_key, dep.column_name) for dep in deps}
        for column, deps in lineage.deps_by_column.items()
    } == {
        "week": {(SOURCE, "close_approach_date")},
        "size": {(SOURCE, "estimated_diameter_meters_max")},
        "asteroids": set(),
        "closest_lunar_distance": {(SOURCE, "miss_distance_lunar")},
    }
    listed = str(metadata["upstream_columns"].value)
    assert "- `closest_lunar_distance`: `nasa_neo/near_earth_objects.miss_distance_lunar`" in listed
    checks = result.get_asset_check_evaluations()
    assert len(checks) == 2
    assert all(check.passed and check.asset_key == MODEL for check in checks)
    load_objects(OBJECTS[:1])  # nothing keeps the DuckDB file open
    assert warehouse.query("SELECT count(*) AS n FROM nasa_neo.near_earth_objects") == [{"n": 1}]


def test_a_model_is_an_asset_of_its_team_and_its_source_the_asset_that_a_load_has(
    models: dg.AssetsDefinition,
) -> None:
    (spec,) = models.specs
    assert spec.key == MODEL
    assert [dep.asset_key for dep in spec.deps] == [SOURCE]
    assert spec.owners == ["team:mart"]
    assert spec.group_name == "mart"
    assert spec.kinds == {"dbt", warehouse.warehouse_type()}
    assert spec.description == (
        "Near-earth asteroids by week and size, and how close the closest one came."
    )
    assert spec.freshness_policy == WEEKLY_FRESHNESS
    assert spec.metadata["dagster/table_name"] == "mart.asteroids_per_week"
    assert {check.asset_key for check in models.check_specs} == {MODEL}
    (owner,) = table_owners("mart_etl", [models])  # so that no load writes into the same table
    assert (owner.dataset, owner.table) == ("mart", "asteroids_per_week")


def test_a_project_that_does_not_parse_is_one_line_with_the_file_and_the_next_command(
    project: DbtProject, tmp_path: Path
) -> None:
    folder = write_dbt_project(tmp_path / "broken")
    (folder / "models" / "asteroids_per_week.sql").write_text("select {{ from")
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        dbt_project(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "models/asteroids_per_week.sql" in message
    assert "uv run dagster definitions validate -w workspace.yaml" in message
    assert not (folder / "target" / "manifest.json").exists()


def test_a_manifest_is_parsed_once_for_the_same_files(project: DbtProject) -> None:
    before = project.manifest_path.stat().st_mtime_ns
    assert dbt_project(project.project_dir).manifest_path.stat().st_mtime_ns == before
    assert sorted(file.name for file in project.manifest_path.parent.iterdir()) == [
        "fingerprint",
        "manifest.json",
        "manifest.lock",
    ]


def test_no_secret_is_in_a_file_of_the_project(project: DbtProject) -> None:
    variables = {"DESTINATION__WAREHOUSE__CREDENTIALS", "DBT_ENV_SECRET_WAREHOUSE_PASSWORD"}
    profile = (project.project_dir / "profiles.yml").read_text()
    assert "password: \"{{ env_var('DBT_ENV_SECRET_WAREHOUSE_PASSWORD', '') }}\"" in profile
    manifest = project.manifest_path.read_text()
    assert not [name for name in variables if name in manifest]


@pytest.mark.parametrize("kind", ["ducklake", "filesystem"])
def test_a_warehouse_that_dbt_cannot_write_is_refused_with_its_type(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", kind)
    with pytest.raises(warehouse.WarehouseConfigError, match=f"WAREHOUSE_TYPE is {kind}, and "):
        connection_variables()


MODELS = {
    "broken.sql": "select no_such_column from {{ source('nasa_neo', 'near_earth_objects') }}",
    "wrong.sql": "select cast(null as integer) as id",
    "after_wrong.sql": "select id from {{ ref('wrong') }}",
    "untested.sql": "select id + 1 as id from {{ ref('one') }}",
    "one.sql": "select 1 as id",
    "more.yml": """
models:
  - name: wrong
    columns:
      - name: id
        data_tests: [not_null]
unit_tests:
  - name: one_and_one
    model: untested
    given:
      - input: ref('one')
        rows: [{id: 1}]
    expect:
      rows: [{id: 3}]
""",
}
PASSWORD = "a-password-of-the-warehouse"


@pytest.mark.slow
def test_what_dbt_cannot_build_is_named_and_the_rest_is_built(
    postgres_warehouse: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instance: dg.DagsterInstance,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with_password = postgres_warehouse.replace("@", f":{PASSWORD}@", 1)
    monkeypatch.setenv("DESTINATION__WAREHOUSE__CREDENTIALS", with_password)
    load_objects()
    project = dbt_project(write_dbt_project(tmp_path / "dbt", MODELS))
    result = build(models_of(project), instance)
    message = message_of(result)
    assert message.startswith("ModelError: model.mart_etl.broken: ")
    assert 'column "no_such_column" does not exist' in message
    assert "models/broken.sql" in message
    assert "; unit_test.mart_etl.untested.one_and_one: " in message
    built = {event.asset_key for event in result.get_asset_materialization_events()}
    assert built == {MODEL, dg.AssetKey(["mart", "wrong"]), dg.AssetKey(["mart", "one"])}
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [check.asset_key.path[-1] for check in failed] == ["wrong"]
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "dbt.log" for file in files), "the log of a failed run is kept"
    assert not [file for file in files if PASSWORD.encode() in file.read_bytes()]
    assert PASSWORD not in "".join(capfd.readouterr())
    assert not [
        event for event in instance.all_logs(result.run_id) if PASSWORD in dg.serialize_value(event)
    ]


@pytest.mark.slow
def test_a_preview_writes_its_own_tables_and_reads_those_of_production(
    any_warehouse: str,
    models: dg.AssetsDefinition,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    load_objects()
    monkeypatch.setenv("ETL_ENVIRONMENT", "pr-1")
    result = build(models, instance)
    assert result.success, message_of(result)
    (event,) = result.asset_materializations_for_node("mart_models")
    assert event.asset_key == MODEL
    lineage: Any = event.metadata["dagster/column_lineage"].value
    assert {dep.asset_key for deps in lineage.deps_by_column.values() for dep in deps} == {SOURCE}
    count = "SELECT count(*) AS n FROM mart.asteroids_per_week"
    assert warehouse.query(count) == [{"n": 2}]
    assert warehouse.find_tables([("mart", "asteroids_per_week")]) == {
        ("mart", "asteroids_per_week"): (
            "mart" if any_warehouse == "duckdb" else "pr_1__mart",
            "asteroids_per_week",
        )
    }
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    assert warehouse.find_tables([("mart", "asteroids_per_week")]) == {
        ("mart", "asteroids_per_week"): None
    }


@pytest.mark.slow
@pytest.mark.usefixtures("tmp_warehouse")
def test_a_source_is_as_old_as_its_last_load(project: DbtProject, tmp_path: Path) -> None:
    load_objects()
    folder = tmp_path / "freshness"
    subprocess.run(
        [EXECUTABLE, "source", "freshness"],
        cwd=project.project_dir,
        env={**os.environ, **QUIET, **connection_variables(), "DBT_TARGET_PATH": str(folder)},
        check=True,
    )
    (result,) = json.loads((folder / "sources.json").read_text())["results"]
    (load,) = warehouse.query("SELECT epoch(max(inserted_at)) AS at FROM nasa_neo._dlt_loads")
    loaded_at = datetime.fromisoformat(result["max_loaded_at"])
    assert result["status"] == "pass"
    assert abs(loaded_at.timestamp() - load["at"]) < 1
