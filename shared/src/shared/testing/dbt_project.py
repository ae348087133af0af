"""The dbt project that `etl new` creates, its assets, and the table that its model reads, for tests."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import jinja2
import pytest
from dagster_dbt import DbtProject, dbt_assets
from filelock import FileLock

from shared import warehouse
from shared.orchestration.dbt import WarehouseDbtTranslator, build_models, dbt_project

NAMES = {"name": "mart", "package": "mart_etl", "title": "mart"}

MODEL = dg.AssetKey(["mart", "asteroids_per_week"])
SOURCE = dg.AssetKey(["nasa_neo", "near_earth_objects"])

OBJECTS = [
    {"close_approach_date": date(2025, 3, 10), "estimated_diameter_meters_max": 20.0},
    {"close_approach_date": date(2025, 3, 16), "estimated_diameter_meters_max": 30.0},
    {"close_approach_date": date(2025, 3, 17), "estimated_diameter_meters_max": 900.0},
]
"""Rows of the table that the sample model reads."""


def write_dbt_project(folder: Path, models: Mapping[str, str] | None = None) -> Path:
    """Write the files of the dbt project into a folder, and return the folder.

    Args:
        folder: the folder.
        models: more files of `models/`, by name.
    """
    templates = Path(str(files("shared.cli"))) / "templates" / "{{ dbt }}"
    source = templates / "src" / "{{ package }}" / "dbt"
    for file in source.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text(encoding="utf-8")
            if target.suffix == ".jinja":
                target = target.with_suffix("")
                text = jinja2.Template(text, keep_trailing_newline=True).render(NAMES)
            target.write_text(text, encoding="utf-8")
    for name, text in (models or {}).items():
        (folder / "models" / name).write_text(text, encoding="utf-8")
    return folder


def parsed_dbt_project(
    factory: pytest.TempPathFactory, name: str, models: Mapping[str, str] | None = None
) -> DbtProject:
    """Return the same project with its manifest, in a new folder.

    dbt parses it once for all workers of a test run, because that takes seconds.

    Args:
        factory: of the folders of the tests.
        name: a name for this content.
        models: as for `write_dbt_project`.
    """
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    parsed = common / f"parsed-{name}"
    with FileLock(common / f"parsed-{name}.lock"):
        if not parsed.exists():
            dbt_project(write_dbt_project(parsed, models))
    return dbt_project(shutil.copytree(parsed, factory.mktemp(name) / "dbt"))


def models_of(
    project: DbtProject, variables: Mapping[str, object] | None = None
) -> dg.AssetsDefinition:
    """Return the assets of a project, as a team's assets.py has them."""

    @dbt_assets(
        manifest=project.manifest_path,
        project=project,
        dagster_dbt_translator=WarehouseDbtTranslator(owner="team:mart"),
        name="mart_models",
    )
    def mart_models(context: dg.AssetExecutionContext) -> Iterator[object]:
        yield from build_models(context, project, variables=variables)

    return mart_models


def load_objects(rows: Sequence[Mapping[str, Any]] = OBJECTS) -> None:
    """Load the table that the sample model reads."""

    @dlt.resource(name="near_earth_objects")
    def objects() -> Iterator[Any]:
        yield [{**row, "miss_distance_lunar": 1.5 * n} for n, row in enumerate(rows, 1)]

    @dlt.source(name="neo")
    def source() -> Any:
        return objects

    spec = warehouse.pipeline("neo", dataset_name="nasa_neo")
    warehouse.load(warehouse.plan_load(spec, source()))
