"""The part of `etl run` that imports Dagster: it plans what a location runs, and materializes it."""

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from filelock import FileLock

from shared import environments, warehouse
from shared.cli.locations import sample
from shared.cli.reports import AssetResult, CheckResult, Plan, RunSelection
from shared.orchestration.dagster_internals import (
    AssetGraph,
    asset_graph,
    asset_node,
    blocking_parents,
    build_global_job,
    external_parents,
    failure_message,
    materializable_keys,
    select_assets,
    step_seconds,
)
from shared.orchestration.translator import SAMPLE_PARTITIONS
from shared.redaction import redact


def run_location(
    location: str,
    module: str,
    selection: RunSelection,
    send: Callable[[Plan | AssetResult], None],
    started: threading.Event,
) -> None:
    """Send the plan, wait for `started`, and send the result of each asset."""
    with sample(module) as notice:
        defs: dg.Definitions = importlib.import_module(module).defs
        with FileLock(selection.logs / "instance.lock"):  # only one process may create its tables
            instance = dg.DagsterInstance.get()
        graph = asset_graph(defs)
        all_keys = materializable_keys(graph)
        keys, unknown = _selected(graph, all_keys, selection.selections)
        partitions = selection.partitions
        checked = [key for key in keys if needs_partition(graph, key, selection)]
        refusal = partition_error(graph, checked, partitions, instance) if partitions else ""
        upstream = _names(external_parents(graph, keys))
        send(Plan(location, _names(keys), _names(all_keys), unknown, refusal, notice, upstream))
        started.wait()
        nodes = {key: asset_node(graph, key) for key in keys}
        for result in _materialize(
            location, defs, nodes, selection, instance=instance, started=started
        ):
            send(result)


def needs_partition(graph: AssetGraph, key: dg.AssetKey, selection: RunSelection) -> bool:
    """Return whether an asset must have the partition of the command.

    One that is selected because it depends on another asset, such as a model of dbt, may have none.
    """
    if asset_node(graph, key).partitions_def is not None or selection.selections is None:
        return True
    return key.to_user_string() in {each.strip("+") for each in selection.selections}


def _names(keys: Sequence[dg.AssetKey]) -> tuple[str, ...]:
    return tuple(key.to_user_string() for key in keys)


def _selected(
    graph: AssetGraph, all_keys: Sequence[dg.AssetKey], selections: tuple[str, ...] | None
) -> tuple[Sequence[dg.AssetKey], tuple[str, ...]]:
    """Return the selected assets, upstream first, and the selections that match none.

    If a blocking check guards an asset, the checked asset is added, so that the check runs first.
    """
    if selections is None:
        return all_keys, ()
    own = set(all_keys)  # without those of other locations that these depend on
    matches = {selection: select_assets(graph, selection) & own for selection in selections}
    selected: set[dg.AssetKey] = set().union(*matches.values())
    added = selected
    while added:
        added = {parent for key in added for parent in blocking_parents(graph, key)} - selected
        selected = selected | added
    unknown = tuple(selection for selection, keys in matches.items() if not keys)
    return [key for key in all_keys if key in selected], unknown


def partition_error(
    graph: AssetGraph,
    keys: Sequence[dg.AssetKey],
    partitions: tuple[str, str],
    instance: dg.DagsterInstance,
) -> str:
    """Return why one run of some assets cannot cover a range of partitions; empty if it can."""
    for key in keys:
        node, name = asset_node(graph, key), key.to_user_string()
        if node.partitions_def is None:
            return f"{name} has no partitions; select assets that have the partition."
        existing = _partition_keys(node, instance)
        for partition in partitions:
            if partition not in existing:
                hint = f"it has {existing[0]} to {existing[-1]}" if existing else "it has none yet"
                return f"{name} has no partition {partition!r}; {hint}."
        first, last = partitions
        if existing.index(first) > existing.index(last):
            return f"{name} has {first} after {last}; --from names the earlier partition."
        policy = node.backfill_policy
        if first != last and not (policy and policy.max_partitions_per_run is None):
            return (
                f"{name} runs one partition per run, because it does not set "
                "backfill_policy=dg.BackfillPolicy.single_run(); use --partition."
            )
    return ""


def _partition_keys(node: Any, instance: dg.DagsterInstance) -> list[str]:
    """Return the partitions of an asset, with those of the sample that are not registered yet."""
    keys = list(node.partitions_def.get_partition_keys(dynamic_partitions_store=instance))
    if isinstance(node.partitions_def, dg.DynamicPartitionsDefinition):
        keys += sorted(set(node.metadata.get(SAMPLE_PARTITIONS, ())) - set(keys))
    return keys


def _materialize(
    location: str,
    defs: dg.Definitions,
    nodes: Mapping[dg.AssetKey, Any],
    selection: RunSelection,
    *,
    instance: dg.DagsterInstance,
    started: threading.Event,
) -> Iterator[AssetResult]:
    """Run assets, one run for all that share partitions, and yield the results."""
    groups: dict[dg.PartitionsDefinition[Any] | None, list[dg.AssetKey]] = {}
    for key, node in nodes.items():
        groups.setdefault(node.partitions_def, []).append(key)
        yield AssetResult(location, key.to_user_string(), "waiting")
    job = build_global_job(defs)
    for group in groups.values():
        for key in group:
            yield AssetResult(location, key.to_user_string(), "running")
        results = [
            job.execute_in_process(
                asset_selection=group,
                instance=instance,
                tags={**dict(selection.tags), **tags},
                raise_on_error=False,
            )
            for tags in _run_tags([nodes[key] for key in group], selection.partitions, instance)
            if started.is_set()
        ]
        if not started.is_set():
            return
        yield from _asset_results(location, group, results)


def _run_tags(
    nodes: Sequence[Any], partitions: tuple[str, str] | None, instance: dg.DagsterInstance
) -> list[dict[str, str]]:
    """Return the tags of the runs that cover the partitions, or else those of the environment.

    Assets without partitions have one run without tags.
    """
    partitions_def = nodes[0].partitions_def
    if partitions_def is None:
        return [{}]
    samples = sorted({key for node in nodes for key in node.metadata.get(SAMPLE_PARTITIONS, ())})
    if isinstance(partitions_def, dg.DynamicPartitionsDefinition) and partitions_def.name:
        keys = [key for key in samples if not partitions or key in partitions]
        instance.add_dynamic_partitions(partitions_def.name, keys)
    latest = environments.current().partitions
    if not partitions and latest != "sample":
        existing = _partition_keys(nodes[0], instance)[-latest:]
        partitions = (existing[0], existing[-1]) if existing else None
        samples = []
    # An entry of the sample is a partition, or a range `first...last`.
    split = [entry.partition("...") for entry in samples]
    ranges = [partitions] if partitions else [(first, last or first) for first, _, last in split]
    return [
        {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        for first, last in ranges
    ]


def _asset_results(
    location: str, keys: Sequence[dg.AssetKey], results: Sequence[dg.ExecuteInProcessResult]
) -> Iterator[AssetResult]:
    """Yield the result of each asset over one or more runs."""
    for key in keys:
        name, checks = key.to_user_string(), _checks(results, key)
        if not results:
            yield AssetResult(location, name, "skipped")
        elif error := next(filter(None, (_error(result, key) for result in results)), None):
            yield AssetResult(location, name, "failed", error=error, checks=checks)
        else:
            metadata = _events(results[-1], key)[-1].materialization.metadata
            rows, table = metadata.get("dagster/row_count"), metadata.get("dagster/table_name")
            yield AssetResult(
                location,
                name,
                "done",
                rows=int(str(rows.value)) if rows else None,
                seconds=sum(_seconds(result, key) for result in results),
                table=_declared_name(str(table.value)) if table else "",
                checks=checks,
            )


def _checks(
    results: Sequence[dg.ExecuteInProcessResult], key: dg.AssetKey
) -> tuple[CheckResult, ...]:
    """Return the result of each check of an asset over one or more runs; a failed one wins."""
    found: dict[str, CheckResult] = {}
    for result in results:
        for check in result.get_asset_check_evaluations():
            previous = found.get(check.check_name)
            if check.asset_key == key and (previous is None or previous.passed):
                found[check.check_name] = CheckResult(
                    check.check_name,
                    check.passed,
                    check.severity.value,
                    redact(check.description or ""),
                )
    return tuple(found.values())


def _declared_name(table: str) -> str:
    """Return dataset.table, as it is declared, of `database.dataset.table` in the warehouse."""
    return ".".join(table.rsplit(".", 2)[1:]).removeprefix(warehouse.dataset_prefix())


def _events(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> list[dg.DagsterEvent]:
    """Return the materializations of an asset in a run."""
    return [event for event in result.get_asset_materialization_events() if event.asset_key == key]


def _error(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> str | None:
    """Return why an asset did not materialize in a run: the innermost error, or a failed check."""
    for check in result.get_asset_check_evaluations():
        failed = not check.passed and check.severity.value == "ERROR"
        if check.asset_key == key and failed:
            return f"check {check.check_name}: {check.description}"
    if _events(result, key):
        return None
    for event in result.all_events:
        if event.is_step_failure:
            message = failure_message(event)
            if message is None:
                return "not run, because a check of an asset that it depends on failed"
            return f"{event.step_key} failed: {message}"
    return "the run ended before this asset"


def _seconds(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> float:
    """Return how long the step that materialized an asset took."""
    steps = {event.step_key for event in _events(result, key)}
    successes = (event for event in result.all_events if event.is_step_success)
    return sum(step_seconds(event) for event in successes if event.step_key in steps)
