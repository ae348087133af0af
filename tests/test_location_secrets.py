"""A location reads the secrets of its own project, and no other location does."""

from pathlib import Path

import duckdb
import pytest
import yaml

from support.processes import etl, workspace
from support.servers import DagsterDev

ASSETS = """
from collections.abc import Iterator

import dagster as dg
import dlt
from dagster_dlt import dlt_assets

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator


@dlt.source(name="shop")
def shop(number: str = dlt.secrets.value, region: str = dlt.config.value, url: str = dlt.config.value):
    rows = [{"number": number, "region": region, "url": url, "own": dlt.secrets["sources.shop.own"]}]
    return dlt.resource(rows, name="orders", write_disposition="replace")


@dlt_assets(
    dlt_source=shop(),  # reads the secrets when the location loads
    dlt_pipeline=warehouse.pipeline("{name}_pipeline", dataset_name="{name}"),
    dagster_dlt_translator=WarehouseTranslator("team:{name}"),
    name="{name}",
)
def orders(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context, shop())
"""
DEFINITIONS = """
from {name} import assets
from shared.orchestration.definitions import build_definitions

defs = build_definitions("{name}", assets)
"""
LOCATIONS = ("one", "two")


@pytest.fixture
def environment(etl_environment: dict[str, str]) -> dict[str, str]:
    """The environment of a workspace with two locations whose sources have the same type."""
    root = workspace(etl_environment)
    (root / ".dlt").mkdir()
    (root / ".dlt" / "config.toml").write_text(
        '[sources.shop]\nurl = "https://shop.example"\nregion = "all"\n'
    )
    (root / ".dlt" / "secrets.toml").write_text('[sources.shop]\nnumber = "key-of-all"\n')
    for name in LOCATIONS:
        project = root / "projects" / name
        package = project / "src" / name
        (package / "defs").mkdir(parents=True)
        for file in (package / "__init__.py", package / "defs" / "__init__.py"):
            file.touch()
        (package / "assets.py").write_text(ASSETS.replace("{name}", name))
        (package / "definitions.py").write_text(DEFINITIONS.format(name=name))
        (project / ".dlt").mkdir()
        (project / ".dlt" / "secrets.toml").write_text(
            f'[sources.shop]\nnumber = "key-of-{name}"\nown = "own-of-{name}"\n'
        )
        (project / ".dlt" / "config.toml").write_text(f'[sources.shop]\nregion = "{name}"\n')
    listed = [
        {"python_module": {"module_name": f"{name}.definitions", "location_name": name}}
        for name in LOCATIONS
    ]
    (root / "workspace.yaml").write_text(yaml.safe_dump({"load_from": listed}))
    path = ":".join(str(root / "projects" / name / "src") for name in LOCATIONS)
    return {**etl_environment, "PYTHONPATH": path}


def loaded(environment: dict[str, str]) -> list[tuple[str, ...]]:
    with duckdb.connect(environment["WAREHOUSE_PATH"], read_only=True) as connection:
        return [
            row
            for name in LOCATIONS
            for row in connection.execute(
                f"SELECT number, own, region, url FROM {name}.orders"
            ).fetchall()
        ]


EXPECTED = [
    (f"key-of-{name}", f"own-of-{name}", name, "https://shop.example") for name in LOCATIONS
]
"""The project's files win over those of the workspace, which all locations share."""


def test_etl_run_gives_each_location_the_secrets_of_its_project(
    environment: dict[str, str],
) -> None:
    done = etl(environment, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert loaded(environment) == EXPECTED


@pytest.mark.slow
def test_dagster_dev_gives_each_location_and_its_runs_the_secrets_of_its_project(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with DagsterDev(workspace(environment), environment, tmp_path / "dev.log") as server:
        assert server.loaded_locations() == set(LOCATIONS)
        runs = [server.launch(name, [name, "orders"]) for name in LOCATIONS]
        assert [server.final_status(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    assert loaded(environment) == EXPECTED
