"""dbt's models are assets of the workspace: they read what loads wrote, and never collide with a load."""

import json
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
from shared.testing.dbt_project import write_dbt_project

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
    load()
    for _ in range(2):
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
    assert metadata["dagster/table_name"].value == "mart.asteroids_per_week"
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
