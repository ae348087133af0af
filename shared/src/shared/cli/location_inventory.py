"""The part of `etl contract` and `etl preview` that imports Dagster: what a location defines.

It runs in the location's own process, see `inventories`, and loads nothing.
"""

import importlib
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from shared import warehouse
from shared.cli.locations import declarations
from shared.orchestration.checks import SEVERITY
from shared.orchestration.dagster_internals import (
    AssetGraph,
    asset_graph,
    asset_node,
    check_nodes,
    declared_loads,
    defined_keys,
    materializable_keys,
)
from shared.orchestration.metadata import SQL_FILE
from shared.redaction import redact


def main() -> None:
    """Write the inventory of the module `sys.argv[1]` to the file `sys.argv[2]`, as JSON.

    If the location does not load, the only key is `error`, with the reason in one line.
    """
    module, file = sys.argv[1:]
    try:
        document = inventory(module)
    except Exception as error:  # noqa: BLE001 - any error is this location's failure
        text = f"{type(error).__name__}: {error}"
        document = {"error": " ".join(redact(text).split())}
    Path(file).write_text(json.dumps(document))


def inventory(module: str) -> dict[str, Any]:
    """Return what a location defines.

    The keys are `project`, the folder of its pyproject.toml (None in a wheel); `contract`, see
    `contract`; and `code`, which has for each asset its `version`, its `modules`, see `_modules`, and its `sql_file`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dagster's preview features
        defs: dg.Definitions = importlib.import_module(module).defs
    graph = asset_graph(defs)
    keys = materializable_keys(graph)
    file, _ = declarations(module)
    modules = _modules(module.partition(".")[0])
    return {
        "project": str(file.parent) if file else None,
        "contract": contract(defs),
        "code": {
            key.to_user_string(): {
                "version": asset_node(graph, key).code_version,
                "modules": sorted(modules.get(key, ())),
                "sql_file": asset_node(graph, key).metadata.get(SQL_FILE),
            }
            for key in keys
        },
    }


def contract(defs: dg.Definitions) -> dict[str, Any]:
    """Return what others can depend on in a location; the same in every environment.

    The keys are `assets`, `jobs`, `schedules` and `sensors`. Statuses and code are left out: they do not
    change what a reader gets.
    """
    graph = asset_graph(defs)
    columns = _columns(defs, graph)
    repository = defs.get_repository_def()
    return {
        "assets": {
            key.to_user_string(): _asset(graph, key, columns.get(key, {}))
            for key in materializable_keys(graph)
        },
        "jobs": sorted(job.name for job in defs.jobs or ()),
        "schedules": {
            schedule.name: f"{schedule.job_name} at {schedule.cron_schedule}, "
            f"{schedule.execution_timezone or 'UTC'}"
            for schedule in repository.schedule_defs
        },
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    }


def _asset(graph: AssetGraph, key: dg.AssetKey, columns: Mapping[str, str]) -> dict[str, Any]:
    node = asset_node(graph, key)
    return {
        "owners": sorted(node.owners),
        "partitions": str(node.partitions_def) if node.partitions_def else None,
        "depends_on": sorted(parent.to_user_string() for parent in node.parent_keys),
        "columns": dict(columns),
        "checks": {
            name: " ".join(
                filter(None, [check.metadata.get(SEVERITY), "blocking" if check.blocking else ""])
            )
            for name, check in check_nodes(graph, key).items()
        },
    }


def _columns(defs: dg.Definitions, graph: AssetGraph) -> dict[dg.AssetKey, dict[str, str]]:
    """Return the declared columns of each asset with their types.

    A dlt asset has dlt's types, which are the same for each kind of warehouse.
    """
    found: dict[dg.AssetKey, dict[str, str]] = defaultdict(dict)
    for key in materializable_keys(graph):
        schema = asset_node(graph, key).metadata.get("dagster/column_schema")
        for column in schema.columns if schema else ():
            nullable = "" if column.constraints.nullable else " not null"
            found[key][column.name] = f"{column.type}{nullable}"
    for definition in defs.assets or ():
        for source, pipeline, _ in declared_loads(definition):
            for resource in source.selected_resources.values():
                key = dg.AssetKey([pipeline.dataset_name, warehouse.table_of(resource)])
                declared = warehouse.known_schema(resource).get("columns") or {}
                found[key] |= {name: _type(column) for name, column in declared.items()}
    return found


def _type(column: Mapping[str, Any]) -> str:
    """Return the type of a column in dlt's words, such as `decimal(18,4) not null`."""
    size = [str(column[name]) for name in ("precision", "scale") if column.get(name) is not None]
    text = column.get("data_type", "undeclared") + (f"({','.join(size)})" if size else "")
    return text if column.get("nullable", True) else f"{text} not null"


def _modules(package: str) -> Mapping[dg.AssetKey, set[str]]:
    """Return the modules of a package that have an asset, or a check of it, as a module-level name.

    An asset of a component is in none of them.
    """
    found: dict[dg.AssetKey, set[str]] = defaultdict(set)
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            for definition in _definitions(vars(module).values()):
                for key in defined_keys(definition):
                    found[key].add(name)
    return found


def _definitions(values: Iterable[Any]) -> Iterator[dg.AssetsDefinition]:
    """Yield the definitions among some values, and in lists of them, as Dagster finds them."""
    for value in list(values):
        if isinstance(value, dg.AssetsDefinition):
            yield value
        elif type(value) in (list, tuple):  # and not one of Dagster's records, which are tuples
            yield from (item for item in value if isinstance(item, dg.AssetsDefinition))
