"""dbt's models are assets of the workspace: they read what loads wrote, and never collide with a load."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dbt import DbtProject, dbt_assets

from shared import warehouse
from shared.orchestration.dbt import WarehouseDbtTranslator, build_models, dbt_project
from shared.orchestration.dbt.connection import connection_variables
from shared.orchestration.translator import WEEKLY_FRESHNESS
from shared.testing.dbt_project import write_dbt_project

SLOW_ON_SERVERS = True
MODEL = dg.AssetKey(["mart", "asteroids_per_week"])
SOURCE = dg.AssetKey(["nasa_neo", "near_earth_objects"])
ROWS = [
    {"close_approach_date": date(2025, 3, 10), "estimated_diameter_meters_max": 20.0},
    {"close_approach_date": date(2025, 3, 16), "estimated_diameter_meters_max": 30.0},
    {"close_approach_date": date(2025, 3, 17), "estimated_diameter_meters_max": 900.0},
]


def assets_of(project: DbtProject) -> dg.AssetsDefinition:
    """Return what a team's assets.py has."""

    @dbt_assets(
        manifest=project.manifest_path,
        project=project,
        dagster_dbt_translator=WarehouseDbtTranslator(owner="team:mart"),
        name="mart_models",
    )
    def mart_models(context: dg.AssetExecutionContext) -> Iterator[object]:
        yield from build_models(context, project)

    return mart_models


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> DbtProject:
    """The project that `etl new` creates."""
    return dbt_project(write_dbt_project(tmp_path_factory.mktemp("dbt")))


@pytest.fixture(scope="module")
def models(project: DbtProject) -> dg.AssetsDefinition:
    """Its assets."""
    return assets_of(project)


def load(rows: list[dict[str, Any]] = ROWS) -> None:
    """Load the table that the model reads."""

    @dlt.resource(name="near_earth_objects")
    def objects() -> Iterator[Any]:
        yield [{**row, "miss_distance_lunar": 1.5 * n} for n, row in enumerate(rows, 1)]

    @dlt.source(name="neo")
    def source() -> Any:
        return objects

    spec = warehouse.pipeline("neo", dataset_name="nasa_neo")
    warehouse.load(warehouse.plan_load(spec, source()))


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
    load()
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
    checks = result.get_asset_check_evaluations()
    assert len(checks) == 2
    assert all(check.passed and check.asset_key == MODEL for check in checks)
    load(ROWS[:1])  # nothing keeps the DuckDB file open
    assert warehouse.query("SELECT count(*) AS n FROM nasa_neo.near_earth_objects") == [{"n": 1}]


def test_a_model_is_an_asset_of_its_team_and_its_source_the_asset_that_a_load_has(
    models: dg.AssetsDefinition,
) -> None:
    (spec,) = models.specs
    assert spec.key == MODEL
    assert [dep.asset_key for dep in spec.deps] == [SOURCE]
    assert spec.owners == ["team:mart"]
    assert spec.group_name == "mart"
    assert spec.kinds == {"dbt", "duckdb"}
    assert spec.description == (
        "Near-earth asteroids by week and size, and how close the closest one came."
    )
    assert spec.freshness_policy == WEEKLY_FRESHNESS
    assert spec.metadata["dagster/table_name"] == "mart.asteroids_per_week"
    assert {check.asset_key for check in models.check_specs} == {MODEL}


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
