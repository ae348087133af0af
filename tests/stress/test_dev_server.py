"""Runs launched in the UI of `dagster dev` and queued by Dagster load exactly."""

import os
import shutil
from pathlib import Path

import pytest

from stress.harness import OBJECTS_SQL, Tally, Workspace, expected_objects, objects_of
from support.servers import DagsterDev

pytestmark = pytest.mark.slow  # queues many runs

ROOT = Path(__file__).parents[2]
RUNS = "{ runsOrError { ... on Runs { results { status } } } }"


def test_queued_partitions_load_exactly(workspace: Workspace, tally: Tally) -> None:
    """Partitions launched over GraphQL in `dagster dev`, and queued, load exactly."""
    days = [f"2025-04-{n:02}" for n in range(1, 1 + min(24, max(6, tally.requested)))]
    for day in days:
        workspace.neows.days[day] = objects_of(day, 5)
    folder = workspace.folder / "workspace"
    folder.mkdir()
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, folder)
    environment = {**os.environ, **workspace.environment}
    environment.pop("DAGSTER_HOME", None)
    with DagsterDev(folder, environment, workspace.folder / "dev.log") as server:
        assert "api_etl" in server.loaded_locations()
        for day in days:
            asset = ["nasa_neo", "near_earth_objects"]
            server.api.launch("api_etl", asset, tags={"dagster/partition": day})

        def finished() -> list[str]:
            runs = server.api.query(RUNS)["runsOrError"]["results"]
            ended = [run["status"] for run in runs if run["status"] in ("SUCCESS", "FAILURE")]
            return ended if len(ended) == len(days) else []

        for status in server.wait_for(finished, seconds=600):
            tally.trial(status == "SUCCESS", status)
    assert workspace.rows(OBJECTS_SQL) == expected_objects(workspace.neows, days)
