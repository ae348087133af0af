"""The part of `etl status` that runs in a location's process: the problems of its assets."""

import importlib
import json
import sys
from dataclasses import asdict

import dagster as dg

from shared.cli.instance import open_instance
from shared.orchestration import dagster_internals
from shared.orchestration.health import location_problems


def main(module: str) -> None:
    """Print what the location knows, as one line of JSON: its assets, sensors and problems."""
    try:
        defs: dg.Definitions = importlib.import_module(module).defs
        repository = defs.get_repository_def()
        graph = dagster_internals.repository_graph(repository)
        with open_instance() as instance:
            problems = location_problems(instance, repository)
        report = {
            "assets": [
                key.to_user_string() for key in dagster_internals.materializable_keys(graph)
            ],
            "instigators": [*(s.name for s in repository.schedule_defs)]
            + [sensor.name for sensor in repository.sensor_defs],
            "problems": [asdict(problem) for problem in problems],
        }
    except Exception as error:  # noqa: BLE001 - any error is this location's
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
    print("\n" + json.dumps(report))
